"""Scores that stand a task a line: one system, or a column for each."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..records import COLUMNS
from .cells import ABSENT, MARKS, cells_of, is_cell, is_plain, is_rule, letters_of, plain
from .header import column_of
from .titles import holds_no_scores, in_percent, of_baseline

_VALUE = ("score", "scores", "accuracy", "acc", "value", "result", "testaccuracy", "bestaccuracy")  # over the numbers of a system
_OWN = (*_VALUE, "values", "results", "ours", "measured", "metrics", "metric")  # names nobody: what the record is of
_BULLET = re.compile(r"^\s*[-*+]\s+")
_PAIR = re.compile(r"\s*[\"'`*]*([A-Za-z][A-Za-z _-]{2,40}?)[\"'`*]*(?:\s*[:=]\s*|\s+)[\"'`*]*([0-9.,].*?)[\"'`*]*\s*")
_LABEL = re.compile(r"^[\s#*-]*(?:model|name|variant|system|method|operator|architecture|candidate)[ \t*]*[:=]", re.IGNORECASE)
SERIES = re.compile(r"Name: (.+), dtype: \w+")  # what pandas prints below one
_MARKS_OF_TITLES = " \t#*_:=-`'\"[]"
_APART = re.compile(r"[,;]\s|[,;]$")
_NONE = re.compile(r"\s*[\"'`*]*([A-Za-z][A-Za-z _-]{2,40}?)[\"'`*]*\s*[:=]\s*[\"'`*]*(\.?nan|null|none|n/?a|-+|oom|failed|crashed|diverged|inf)[\"'`*]*\s*", re.IGNORECASE)
_REMARK = re.compile(r"\s*\([^()]*[A-Za-z][^()]*\)\s*$")  # behind a score: `(baseline 0.487)`


class ByTask(NamedTuple):
    """The scores of each system, named where a line over them says how, and the lines up to the last task."""

    rows: list[tuple[str, dict[str, str]]]
    end: int
    otherwise: list[str]  # titles of what is no score
    beside: list[str]  # columns of what is none


class _Block(NamedTuple):
    """The line above the tasks of a system, or of several beside each other, each task's cells, and what names it below."""

    above: str
    cells: dict[str, list[str]]
    below: str = ""


def by_task(lines: Sequence[str]) -> ByTask | None:
    """None where fewer than two tasks have a line or a part of one; a title, or a task that comes again, begins the next system."""
    blocks, above, end, title = list[_Block](), "", 0, False
    for at, line in enumerate(lines):
        named = SERIES.fullmatch(line.strip())
        told = {} if named else _scores(line)
        if told and (not blocks or title or not blocks[-1].cells.keys().isdisjoint(told)):
            blocks.append(_Block(above, {}))
        if told:
            blocks[-1].cells.update(told)
            end, title = at + 1, False
        elif blocks and named:
            blocks[-1], end = blocks[-1]._replace(below=named[1]), at + 1
        elif not is_rule(line):
            title = _is_title(line)
        above = above if is_rule(line) else "" if named else line
    sound = [block for block in blocks if len(block.cells) > 1 and len({len(cells) for cells in block.cells.values()}) == 1]
    otherwise = [block.above for block in sound if _is_otherwise(block)]
    sound = [block for block in sound if not _is_otherwise(block) and _any_number(block)]
    if not sound and not otherwise:
        return None
    rows, beside = list[tuple[str, dict[str, str]]](), list[str]()
    for block in sound:
        found, left = _rows(block, one_of_many=len(sound) > 1)
        rows, beside = rows + found, beside + left
    return ByTask(rows, end if rows else 0, otherwise, beside)


def _is_title(line: str) -> bool:
    """Whether a line over tasks begins another system: by a label or one name, or by what it says of its figures."""
    name = line.strip(_MARKS_OF_TITLES)
    alone = len(name.split()) == 1 and ("_" in name or line.rstrip().endswith(":") or line.startswith("#"))
    return alone or _LABEL.match(line) is not None or holds_no_scores(line, first=True) or of_baseline(line) is not None


def _width(block: _Block) -> int:
    return len(next(iter(block.cells.values())))


def _is_otherwise(block: _Block) -> bool:
    """Whether a title says that these are no scores; names of columns say so of each column."""
    return not _names(block.above, _width(block)) and holds_no_scores(block.above, first=True)


def _any_number(block: _Block) -> bool:
    return any(is_plain(plain(cell)) for cells in block.cells.values() for cell in cells)


def _rows(block: _Block, *, one_of_many: bool) -> tuple[list[tuple[str, dict[str, str]]], list[str]]:
    """The systems of a block by name, and its columns of no score."""
    width = _width(block)
    names = _names(block.above, width)
    scores = [at for at, name in enumerate(names) if letters_of(name) in _VALUE]
    sound = [at for at in range(width) if not any(_is_difference(cells[at]) for cells in block.cells.values())]
    kept = scores[:1] or [at for at in sound if not names or not holds_no_scores(names[at], first=True)]  # beside it may stand a spread or a rank
    mark = "%" if in_percent(block.above) else ""
    figures = [{column: cells[at] + mark * is_plain(cells[at]) for column, cells in block.cells.items()} for at in kept]
    called = ["" if letters_of(name) in _OWN else name for name in names]
    title = _title(block, width, one_of_many=one_of_many)
    rows = [(title if scores or not names else called[at], values) for at, values in zip(kept, figures, strict=True)]
    return rows, [name for at, name in enumerate(names) if at not in kept]


def _title(block: _Block, width: int, *, one_of_many: bool) -> str:
    """What the line above a single system calls it: a baseline; or what stands below; or, of one of many, one word."""
    if width == 1 and (baseline := of_baseline(block.above)):
        return baseline
    word = _LABEL.sub("", block.above).strip(_MARKS_OF_TITLES)
    names_it = one_of_many and width == 1 and len(word.split()) == 1 and letters_of(word) not in _OWN
    return block.below or (word if names_it else "")


def begin_of_all_six(lines: Sequence[str]) -> int | None:
    """Where lines begin that follow one another and tell of a task each, of all six; None where there are none."""
    seen = dict[str, int]()
    for at, line in enumerate(lines):
        told = _scores(line)
        seen = {**seen, **dict.fromkeys(told, at)} if told else {}
        if len(seen) == len(COLUMNS):
            begin = min(seen.values())
            title = next((above for above in reversed(lines[:begin]) if not is_rule(above)), "")
            return None if holds_no_scores(title, first=True) else begin
    return None


def _scores(line: str) -> dict[str, list[str]]:
    """The tasks that a line tells of, and their cells."""
    return _in_a_line(line) or _row(line)


def _in_a_line(line: str) -> dict[str, list[str]]:
    """Of `Compress: 0.3, Memorize: 0.4`, also in braces: each task and its score, where nothing else stands there but a remark behind one."""
    text = _REMARK.sub("", _BULLET.sub("", line).strip().strip("{}"))
    if (none := _NONE.fullmatch(text)) and (column := column_of(none[1])):
        return {column: ["nan"]}
    parts = [part for part in _APART.split(text) if part.strip()]
    pairs = [(column_of(match[1]), match[2]) for match in map(_PAIR.fullmatch, parts) if match]
    scores = {column: [text] for column, text in pairs if column and is_plain(plain(text))}
    of_the_first = len(scores) == 1 and pairs[0][0] in scores and re.match(r"[^:=]{3,45}[:=]", parts[0])  # `Compress: 0.51, up from 0.48`
    return scores if len(scores) == len(parts) or of_the_first else {}


def _row(line: str) -> dict[str, list[str]]:
    """The task in front of a line of a table, and its numbers."""
    for mark in MARKS:
        first, *cells = cells_of(line, mark) if mark == "" or mark in line else [""]
        column = column_of(first.strip("*` "))
        numbers = [cell for cell in cells if cell.lower() not in ABSENT]
        if column and not all(map(_is_difference, numbers)) and all(map(is_cell, numbers)):
            return {column: cells}
    return {}


def _is_difference(cell: str) -> bool:
    return cell[:1] in ("+", "-", "\u2212") and cell.lower() not in ABSENT


def _names(above: str, width: int) -> list[str]:
    """What the line over the first task calls its columns; nothing where it is no such line."""
    for mark in MARKS:
        cells = cells_of(above, mark) if mark == "" or mark in above else []
        if len(cells) not in (width, width + 1) or len(cells) < 2 or any(map(is_cell, cells[-width:])):  # numbers name nothing
            continue
        return cells[-width:]
    return []
