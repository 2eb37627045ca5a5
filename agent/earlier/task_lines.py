"""One line that tells of a task, or of several: `Compress: 0.51 (baseline 0.48)`, `{Compress: 0.3, Memorize: 0.4}`."""

import re
from typing import NamedTuple

from .cells import ABSENT, MARKS, cells_of, is_cell, is_plain, plain
from .header import column_of
from .titles import disqualifies, is_corrected, takes_back

_BULLET = re.compile(r"^\s*[-*+]\s+")
_PAIR = re.compile(r"\s*[\"'`*]*([A-Za-z][A-Za-z _-]{2,40}?)[\"'`*]*(?:\s*[:=]\s*[\"'`*]*(?=\S)|\s+[\"'`*]*(?=[-+~<>0-9.,]))(.*?)[\"'`*]*\s*")
_APART = re.compile(r"[,;]\s|[,;]$")
_FIRST = re.compile(r"([-+~<>\u2264\u2265\u2248]?[0-9.,]*[0-9](?:[eE][-+]?\d+)?)\s*(%?)(.*)")  # the number in front of a value, and what is behind
_REMARK = re.compile(r"\s*(?:[(\[#!,;.*\u2020\u2021]|//|<-).*|\s*")  # may stand there; an arrow, a slash or a unit make another thing of it
_FACTOR = re.compile(r"\s*\*\s*[\d.]")  # no mark of a footnote
_AGAIN = re.compile(r"\b(?:acc(?:uracy)?|scores?|results?)\b\W*([\d.,]*\d%?)", re.IGNORECASE)
_SECOND = re.compile(r"\s*[,;]?\s*[0-9.]+%?(?:\s*[,;(].*)?\s*")


class Score(NamedTuple):
    """What was printed for a task, and why it is none where it can't be kept."""

    text: str
    doubt: str = ""  # the line or the cell that says so
    corrected: bool = False  # in place of another


def scores_in(line: str) -> dict[str, Score]:
    """The tasks that a line tells of, each with its score; nothing for any other line."""
    text = _BULLET.sub("", line).strip().strip("{}")
    parts = [part for part in _APART.split(text) if part.strip()]
    pairs = [(column_of(match[1]), match[2]) for match in map(_PAIR.fullmatch, parts) if match]
    if len(pairs) == len(parts) > 1 and all(column and is_plain(plain(value)) for column, value in pairs):
        return {column: Score(value) for column, value in pairs if column}
    first = _PAIR.fullmatch(text) or _in_cells(text)
    column = column_of(first[1]) if first else None
    score = _score(first[2], line) if first and column else None
    return {column: score} if column and score else {}


def _in_cells(text: str) -> tuple[str, str, str] | None:
    """Of two cells as of a table, the whole, the task and the value."""
    rows = [cells_of(text, mark) for mark in MARKS if mark and mark in text]
    return next(((text, row[0], row[1]) for row in rows if len(row) == 2 and is_cell(row[1])), None)


def _score(value: str, line: str) -> Score | None:
    """None where no number is told, and no word for none."""
    if value.lower() in ABSENT or is_plain(plain(value)):
        return Score(value, line if value[:1] in ("+", "-", "\u2212") and is_plain(plain(value)) else "")
    found = _FIRST.fullmatch(value)
    if found is None:
        return Score("nan", line) if disqualifies("status", value.strip("()")) and len(value.split()) < 4 else None
    number, percent, behind = found.groups()
    spread = re.match(r"\s*(?:\u00b1|\+/?-)\s*[\d.,]+\s*%?|\s*[(\[][\d.,%\s\u00b1+/-]+[)\]]", behind)
    rest = behind[spread.end() :] if spread else behind
    unsure = not is_plain(plain(number)) or number[:1] in ("+", "-") or not _REMARK.fullmatch(rest) or _SECOND.fullmatch(rest.strip() or "x")
    twice = _FACTOR.match(rest) or any(plain(other) != plain(number + percent) for other in _AGAIN.findall(rest))
    text = number + percent + (spread[0] if spread else "")
    return Score(text if is_plain(plain(text)) else number + percent, line if unsure or twice or takes_back(rest) else "", is_corrected(rest))
