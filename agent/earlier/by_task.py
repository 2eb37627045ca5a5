"""Scores that stand a task a line: one system, or a column for each."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..records import COLUMNS
from .cells import ABSENT, MARKS, cells_of, is_cell, is_plain, is_rule, letters_of, plain
from .header import column_of

_VALUE = ("score", "scores", "accuracy", "acc", "value", "result", "testaccuracy", "bestaccuracy")  # over the numbers of a system
_BULLET = re.compile(r"^\s*[-*+]\s+")
_PAIR = re.compile(r"\s*[\"'`*]*([A-Za-z][A-Za-z _-]{2,40}?)[\"'`*]*(?:\s*[:=]\s*|\s+)[\"'`*]*([0-9.,].*?)[\"'`*]*\s*")
_LABEL = re.compile(r"^[\s#*-]*(?:model|name|variant|system|method|operator|architecture|candidate)[ \t*]*[:=]", re.IGNORECASE)
SERIES = re.compile(r"Name: (.+), dtype: \w+")  # what pandas prints below one
_APART = re.compile(r"[,;]\s|[,;]$")


class ByTask(NamedTuple):
    """The scores of each system, named where a line over them says how, and the lines up to the last task."""

    rows: list[tuple[str, dict[str, str]]]
    end: int


class _Block(NamedTuple):
    """The line above the tasks of a system, or of several beside each other, each task's cells, and what names it below."""

    above: str
    cells: dict[str, list[str]]
    below: str = ""


def by_task(lines: Sequence[str]) -> ByTask | None:
    """None where fewer than two tasks have a line or a part of one; a task that comes again, beside another, is of a next system."""
    blocks, above, end = list[_Block](), "", 0
    for at, line in enumerate(lines):
        named = SERIES.fullmatch(line.strip())
        told = {} if named else _scores(line)
        if told and (not blocks or not blocks[-1].cells.keys().isdisjoint(told)):
            blocks.append(_Block(above, {}))
        if told:
            blocks[-1].cells.update(told)
            end = at + 1
        elif blocks and named:
            blocks[-1], end = blocks[-1]._replace(below=named[1]), at + 1
        above = above if is_rule(line) else "" if named else line
    sound = [block for block in blocks if len(block.cells) > 1 and len({len(cells) for cells in block.cells.values()}) == 1]
    if not sound:
        return None
    return ByTask([row for block in sound for row in _rows(block, one_of_many=len(sound) > 1)], end)


def _rows(block: _Block, *, one_of_many: bool) -> list[tuple[str, dict[str, str]]]:
    """Of one of many the line above names the system, where that is one word."""
    width = len(next(iter(block.cells.values())))
    names = _names(block.above, width)
    scores = [at for at, name in enumerate(names) if letters_of(name) in _VALUE]
    kept = scores[:1] or range(width)  # beside it may stand a spread or a rank
    title = _LABEL.sub("", block.above).strip(" \t#*_:=-`'\"[]")
    title = block.below or (title if one_of_many and width == 1 and len(title.split()) == 1 else "")
    return [(title if scores or not names else names[at], {column: cells[at] for column, cells in block.cells.items()}) for at in kept]


def begin_of_all_six(lines: Sequence[str]) -> int | None:
    """Where lines begin that follow one another and tell of a task each, of all six; None where there are none."""
    seen = dict[str, int]()
    for at, line in enumerate(lines):
        told = _scores(line)
        seen = {**seen, **dict.fromkeys(told, at)} if told else {}
        if len(seen) == len(COLUMNS):
            return min(seen.values())
    return None


def _scores(line: str) -> dict[str, list[str]]:
    """The tasks that a line tells of, and their cells."""
    return _in_a_line(line) or _row(line)


def _in_a_line(line: str) -> dict[str, list[str]]:
    """Of `Compress: 0.3, Memorize: 0.4`, also in braces: each task and its score, where nothing else stands there."""
    parts = [part for part in _APART.split(_BULLET.sub("", line).strip().strip("{}")) if part.strip()]
    pairs = [(column_of(match[1]), match[2]) for match in map(_PAIR.fullmatch, parts) if match]
    scores = {column: [text] for column, text in pairs if column and is_plain(plain(text))}
    return scores if len(scores) == len(parts) else {}


def _row(line: str) -> dict[str, list[str]]:
    """The task in front of a line of a table, and its numbers."""
    for mark in MARKS:
        first, *cells = cells_of(line, mark) if mark == "" or mark in line else [""]
        column = column_of(first.strip("*` "))
        numbers = [cell for cell in cells if cell.lower() not in ABSENT]
        if column and numbers and all(map(is_cell, numbers)) and not any(cell[0] in "+-" for cell in numbers):  # those are differences
            return {column: cells}
    return {}


def _names(above: str, width: int) -> list[str]:
    """What the line over the first task calls its columns; nothing where it is no such line."""
    for mark in MARKS:
        cells = cells_of(above, mark) if mark == "" or mark in above else []
        if len(cells) not in (width, width + 1) or len(cells) < 2 or any(map(is_cell, cells[-width:])):  # numbers name nothing
            continue
        return cells[-width:]
    return []
