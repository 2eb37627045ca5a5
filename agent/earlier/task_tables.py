"""Tables with a row for each task: a column for each system, or one for the scores and others that say of what they are."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .aside import is_aside
from .cells import ABSENT, MARKS, cells_of, is_cell, is_plain, is_rule, letters_of, plain
from .header import column_of, names_systems
from .task_lines import Score
from .titles import disqualifies, holds_no_scores, in_percent, is_figure, is_own

_MEAN = ("mean", "average", "avg")
_VALUE = ("testaccuracy", "testacc", "accuracy", "acc", "score", "scores", "bestaccuracy", "value", "result")  # over scores, the surest first


class TaskTable(NamedTuple):
    """Each score with the name of its system, '' where none is told; the lines it stands in; heads of columns of no score."""

    scores: list[tuple[str, str, Score]]  # name, task, score
    begin: int
    end: int
    beside: list[str]
    unsure: list[str]  # heads of numbers, where which of them are the scores can't be told


def tables_in(lines: Sequence[str]) -> Iterator[TaskTable]:
    """Each table with at least two rows for tasks, under a line that names its columns."""
    at = 0
    while at < len(lines):
        table = None if is_rule(lines[at]) or is_aside(lines[at]) else _table_at(lines, at)
        if table:
            yield table
        at = table.end if table else at + 1


def _table_at(lines: Sequence[str], begin: int) -> TaskTable | None:
    for mark in ("|",) if lines[begin].lstrip().startswith("|") else MARKS:
        heads = cells_of(lines[begin], mark) if mark in lines[begin] else []
        if not heads or any(is_cell(head) and head for head in heads):  # numbers name nothing
            continue
        near, _ = _rows(lines[begin + 1 : begin + 8], mark, len(heads))
        if not near or len(near[0]) < 2 or not any(column_of(cell) for row in near for cell in row):
            continue
        rows, count = _rows(lines[begin + 1 :], mark, len(heads))
        width = len(rows[0])
        task = next((at for at in range(width) if sum(column_of(row[at].strip("*` ")) is not None for row in rows) > 1), None)
        if task is not None:
            return _read([""] * (width - len(heads)) + heads, rows, task, begin, begin + 1 + count)
    return None


def _rows(lines: Sequence[str], mark: str, heads: int) -> tuple[list[list[str]], int]:
    """The cells of the first lines, as many in each as there are heads, or one more; and how many lines these are."""
    rows, end = list[list[str]](), 0
    for at, line in enumerate(lines):
        if is_rule(line):
            if rows and not line.strip():
                break
            continue
        cells = cells_of(line, mark)
        width = len(rows[0]) if rows else (heads + 1 if len(cells) == heads + 1 else heads)
        if is_aside(line) or len(cells) != width:
            break
        rows.append(cells)
        end = at + 1
    return rows, end


def _read(heads: list[str], rows: list[list[str]], task: int, begin: int, end: int) -> TaskTable:
    told = [(column, row) for row in rows if (column := column_of(row[task].strip("*` ")))]
    others = [at for at in range(len(heads)) if at != task]
    numbers = [at for at in others if any(is_plain(plain(row[at])) for _, row in told) and not any(_is_signed(row[at]) for _, row in told)]
    name = next((at for at in others if at not in numbers and names_systems(heads[at])), None)
    kept = _kept(heads, numbers)
    scores = list[tuple[str, str, Score]]()
    for column, row in told:
        doubt = next((row[at] for at in others if at not in kept and disqualifies(heads[at], row[at])), "")
        for at in kept:
            percent = "%" if (in_percent(heads[task]) or in_percent(heads[at])) and is_plain(row[at]) else ""
            called = row[name] if name is not None else "" if is_own(heads[at]) or letters_of(heads[at]) in _MEAN else heads[at]
            scores.append((called.strip("*` "), column, Score(row[at] + percent, f"{row[task]}: {doubt}" if doubt else "")))
    unsure = [heads[at] for at in numbers] if not kept else []
    return TaskTable(scores, begin, end, [] if unsure else [heads[at] for at in others if at not in kept and at != name], unsure)


def _kept(heads: Sequence[str], numbers: Sequence[int]) -> list[int]:
    """The columns of scores: the one that is called so, else those of systems; none where several are called so alike."""
    letters = {at: letters_of(heads[at]) for at in numbers}
    for word in _VALUE:
        if called := [at for at in numbers if letters[at] == word]:
            return called if len(called) == 1 else []
    sound = [at for at in numbers if not heads[at] or not holds_no_scores(heads[at], first=True)]
    own = [at for at in sound if is_own(heads[at])]
    named = [at for at in sound if at in own or not is_figure(heads[at])]
    mean = [at for at in sound if letters_of(heads[at]) in _MEAN]
    return named if len(own) < 2 and named else mean if len(mean) == 1 else []


def _is_signed(cell: str) -> bool:
    return cell[:1] in ("+", "-", "\u2212") and cell.lower() not in ABSENT
