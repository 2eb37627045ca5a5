"""Scores that stand a task a line: of one system, or of each under its own title.

Nothing over a column says there what the numbers are: what stands over the lines must, or be nothing at all.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..records import COLUMNS
from ..text import one_line
from .aside import is_aside, is_fence
from .cells import is_plain, is_rule, plain
from .task_lines import Score, scores_in
from .task_tables import TaskTable, tables_in
from .titles import holds_no_scores, in_percent, is_corrected, of_baseline, one_word, owner

SERIES = re.compile(r"Name: (.+), dtype: \w+")  # what pandas prints below one
_BESIDE = re.compile(r"\s*[-*+]?\s*[\w .%()/\"'*-]+?\s*[:=]\s*[-+]?\d[\d.,eE+-]*\s*%?,?\s*")  # another number among those of tasks
_FLAG = re.compile(r"[\s#*-]*success[*]*\s*[:=]", re.IGNORECASE)  # no title, whatever it says
_BRACKETS = " \t{}[](),;"


class ByTask(NamedTuple):
    """The scores of each system, the lines up to the last of them, and a sentence for all that was not taken."""

    rows: list[tuple[str, dict[str, str]]]
    begin: int
    end: int
    oddities: list[str]


class _Block(NamedTuple):
    """Tasks under one title, or under one head of a column, and the last of their lines."""

    title: str
    scores: list[tuple[str, Score]]
    begin: int
    end: int
    below: str = ""  # what names it there
    head: str | None = None  # of a table

    @property
    def is_of_scores(self) -> bool:
        return len({task for task, _ in self.scores}) > 1 and any(is_plain(plain(score.text)) for _, score in self.scores)


def by_task(lines: Sequence[str]) -> ByTask | None:
    """None where there are no two tasks with a score each, nor a list that is told to be of something else."""
    tables = list(tables_in(lines))
    blocks = [*_of_tables(lines, tables), *_of_lines(lines, {at for table in tables for at in range(table.begin, table.end)})]
    oddities = [f"columns beside the scores stay in record.txt alone: {one_line(', '.join(filter(None, table.beside)), 80)}" for table in tables if any(table.beside)]
    oddities += [f"which of the columns {one_line(', '.join(table.unsure), 80)} holds the scores can't be told" for table in tables if table.unsure]
    names = _named(sorted(blocks, key=lambda block: block.end))
    own = list[tuple[str, _Block]]()
    for block, name in names:
        if name is not None:
            own.append((name, block))
        elif block.is_of_scores:
            oddities.append(_otherwise(block.title))
    of_each = {name: [block for of, block in own if of == name] for name in dict.fromkeys(name for name, _ in own)}
    told = {name: blocks for name, blocks in of_each.items() if len({task for block in blocks for task, _ in block.scores}) > 1}
    rows = [(name, _joined(name, blocks, oddities)) for name, blocks in told.items()]
    rows = [(name, values) for name, values in rows if any(map(is_plain, map(plain, values.values())))]
    if not rows and not oddities:
        return None
    begin, end = min((block.begin for _, block in own), default=0), max((block.end for _, block in own), default=0)
    return ByTask(rows, begin, end if rows else 0, oddities)


def begin_of_all_six(lines: Sequence[str]) -> int | None:
    """Where lines begin that follow one another and tell of a task each, of all six; None where there are none."""
    seen = dict[str, int]()
    for at, line in enumerate(lines):
        told = {} if is_aside(line) else scores_in(line)
        seen = {**seen, **dict.fromkeys(told, at)} if told else {}
        if len(seen) == len(COLUMNS):
            begin = min(seen.values())
            return None if owner(_title_over(lines[:begin])) is None else begin
    return None


def _title_over(lines: Sequence[str]) -> str:
    return next((line for line in reversed(lines) if not _says_nothing(line) and not _BESIDE.fullmatch(line)), "")


def _says_nothing(line: str) -> bool:
    return is_rule(line) or is_aside(line) or is_fence(line) or not line.strip(_BRACKETS) or _FLAG.match(line) is not None


def _otherwise(title: str) -> str:
    if holds_no_scores(title, first=True):
        return f"the table under {one_line(title, 60)!r} holds no scores: it stays in record.txt alone"
    return f"whether the numbers under {one_line(title, 60)!r} are scores of this record can't be told: they stay in record.txt alone"


def _of_tables(lines: Sequence[str], tables: Sequence[TaskTable]) -> Iterator[_Block]:
    for before, table in zip([None, *tables], tables, strict=False):
        title = _title_over(lines[before.end if before else 0 : table.begin])
        mark = "%" if in_percent(title) else ""
        for name in dict.fromkeys(name for name, _, _ in table.scores):
            scores = [(task, score._replace(text=score.text + mark * is_plain(score.text))) for called, task, score in table.scores if called == name]
            yield _Block(title, scores, table.begin, table.end, head=name)


def _of_lines(lines: Sequence[str], taken: set[int]) -> list[_Block]:
    """Tasks a line each; a title, or a task that comes again behind an empty line, begins the next."""
    blocks, title, opens, gap = list[_Block](), "", True, False
    for at, line in enumerate(lines):
        if at in taken:
            title, opens = "", True
        elif _says_nothing(line):
            gap = gap or not line.strip()
        elif named := SERIES.fullmatch(line.strip()):
            if blocks:
                blocks[-1] = blocks[-1]._replace(below=named[1], end=at + 1)
            title, opens = "", True
        elif told := scores_in(line):
            again = blocks and gap and any(task in told for task, _ in blocks[-1].scores)
            if opens or again:
                blocks.append(_Block(title if opens else "", [], at, at))
            mark = "%" if in_percent(blocks[-1].title) else ""
            scores = [(task, score._replace(text=score.text + mark * is_plain(score.text))) for task, score in told.items()]
            blocks[-1] = blocks[-1]._replace(scores=blocks[-1].scores + scores, end=at + 1)
            opens, gap = False, False
        elif not _BESIDE.fullmatch(line) and (gap or not blocks or _is_title(line)):
            title, opens, gap = line, True, False
    return blocks


def _is_title(line: str) -> bool:
    """Whether a line between tasks is one: by how it is written, or by what it says of the figures below."""
    return line.rstrip().endswith((":", "{")) or line.startswith("#") or (owner(line) or one_word(line)) is not None or holds_no_scores(line, first=True)


def _named(blocks: Sequence[_Block]) -> list[tuple[_Block, str | None]]:
    """Each with the name of its system, '' for that of the record; None where it is none, or can't be told."""
    owners = [owner(block.title) for block in blocks]
    words = [one_word(block.title) for block in blocks]
    lists = [at for at, block in enumerate(blocks) if not block.head and not block.below and block.is_of_scores]
    of_one_word = len(lists) > 1 and all(words[at] or of_baseline(blocks[at].title) for at in lists)
    return [(block, _name(block, whose, word if of_one_word else None)) for block, whose, word in zip(blocks, owners, words, strict=True)]


def _name(block: _Block, whose: str | None, word: str | None) -> str | None:
    if block.head is not None and holds_no_scores(block.title, first=True):
        return None
    return block.below or block.head or (whose if whose is not None else word if word or block.head is None else "")


def _joined(name: str, blocks: Sequence[_Block], oddities: list[str]) -> dict[str, str]:
    """One value for each task; where a line says that it is none, or several differ and none is marked as the right one, none is kept, and that is told."""
    values = dict[str, str]()
    doubts = {score.doubt: task for block in blocks for task, score in block.scores if score.doubt}
    if doubts:
        shown = ", ".join(repr(one_line(doubt, 80)) for doubt in list(doubts)[:3])
        oddities.append(f"no score of {', '.join(dict.fromkeys(doubts.values()))} is taken from {shown}" + ", ..." * (len(doubts) > 3))
    for task in dict.fromkeys(task for block in blocks for task, _ in block.scores):
        told = [(score, is_corrected(block.title)) for block in blocks for of, score in block.scores if of == task]
        sound = [score for score, _ in told if not score.doubt]
        right = [score for score, by_title in told if not score.doubt and (score.corrected or by_title)]
        different = dict.fromkeys(plain(score.text) for score in right or sound)
        if len(different) > 1:
            whose = f" of {one_line(name, 60)!r}" if name else ""
            oddities.append(f"there are {len(different)} scores{whose} for {task}, of which none is taken: {one_line(', '.join(different), 80)}")
        elif different:
            values[task] = (right or sound)[-1].text
        if right and len(told) > 1:
            oddities.append(f"of {len(told)} scores for {task} the corrected one is taken: {one_line(right[-1].text, 40)}")
    return values
