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
_APART = re.compile(r"[,;]\s|[,;]$")


class ByTask(NamedTuple):
    """The scores of each system, named where a line over them says how, and the lines up to the last task."""

    rows: list[tuple[str, dict[str, str]]]
    end: int


def by_task(lines: Sequence[str]) -> ByTask | None:
    """None where fewer than two tasks have a line or a part of one; of a task that stands there twice the first counts."""
    found: dict[str, list[str]] = {}
    above, names, end = "", list[str](), 0
    for at, line in enumerate(lines):
        told = _in_a_line(line) or _row(line)
        if told and not found:
            names = _names(above, len(next(iter(told.values()))))
        for column, cells in told.items():
            found.setdefault(column, cells)
        end = at + 1 if told else end
        above = above if is_rule(line) else line
    width = max(map(len, found.values()), default=0)
    if len(found) < 2 or any(len(cells) != width for cells in found.values()):
        return None
    scores = [at for at, name in enumerate(names) if letters_of(name) in _VALUE]
    kept = scores[:1] or range(width)  # beside it may stand a spread or a rank
    rows = [("" if scores or not names else names[at], {column: cells[at] for column, cells in found.items()}) for at in kept]
    return ByTask(rows, end)


def begin_of_all_six(lines: Sequence[str]) -> int | None:
    """Where lines begin that follow one another and tell of a task each, of all six; None where there are none."""
    seen = dict[str, int]()
    for at, line in enumerate(lines):
        told = _in_a_line(line) or _row(line)
        seen = {**seen, **dict.fromkeys(told, at)} if told else {}
        if len(seen) == len(COLUMNS):
            return min(seen.values())
    return None


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
