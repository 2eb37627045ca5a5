"""The rows under a header: of each the number in front of it, its name and its values."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from .cells import ABSENT, cells_of, is_cell, is_plain, number_in
from .header import Header
from .titles import disqualifies, in_percent


class Placed(NamedTuple):
    """Of a row the number in front of it, its name, its values, and what in it says that these are no scores."""

    number: str
    name: str
    values: dict[str, str]
    doubt: str = ""


def placed(line: str, header: Header, percent: bool) -> Placed | None:
    """By the place of each cell; a row may have one more in front, its number or, where no column is for names, its name."""
    cells, number, name = cells_of(line, header.mark), "", ""
    if len(cells) == len(header.cells) + 1 and (cells[0].isdigit() or header.name_at is None):
        number, name, cells = (cells[0], "", cells[1:]) if cells[0].isdigit() else ("", cells[0], cells[1:])
    if len(cells) != len(header.cells):
        return None
    if header.name_at is not None:
        name = cells[header.name_at]
    if header.counts and name.isdigit() and not number and (others := [cells[at] for at in header.in_front if not is_cell(cells[at])]):
        number, name = name, others[0]
    if header.mark == "" and name.isdigit() and not number:  # what is printed in columns has nothing where it has no name
        number, name = name, ""
    if not header.is_told and number_in(name) is not None:
        name = ""
    values = _values(header.cells, header.columns, cells, percent)
    least = 1 if header.mark else len(values) - len(values) // 3 if name else len(values)  # without a name a cell may be missing before
    if sum(map(is_cell, values.values())) < least:
        return None
    beside = [at for at, column in enumerate(header.columns) if column is None and at != header.name_at]
    doubt = name if name.startswith("~~") else next((cells[at] for at in beside if disqualifies(header.cells[at], cells[at])), "")
    return Placed(number, _told(name), values, doubt)


def from_the_right(line: str, header: Header, percent: bool) -> Placed | None:
    """By counting from the right, as a name may hold anything, two blanks too; a blank may stand before each percent sign."""
    return _counted(line, header, percent) or _counted(re.sub(r"(?<=\d) %(?!\S)", "%", line), header, percent)


def _counted(line: str, header: Header, percent: bool) -> Placed | None:
    columns = header.columns[header.columns[0] is None :]
    parts = line.split()
    front, cells = parts[: len(parts) - len(columns)], parts[len(parts) - len(columns) :]
    if len(parts) < len(columns) or not all(map(is_cell, cells)):
        return None
    if not front and cells[0].isdigit() and any("." in cell for cell in cells):
        return None  # the number of a row, and a cell less than there are columns
    numbered = bool(front) and front[0].isdigit()
    text = line.rsplit(None, len(columns))[0] if front else ""
    name = re.sub(r"^\s*\d+\s?", "", text).strip() if numbered else text.strip()
    *before, last = re.split(r"\s{2,}", name)
    if before and is_cell(last):
        return None  # more values than columns
    if before and all(map(str.isdigit, before)):
        name = last  # behind one more number
    values = _values(header.cells[len(header.cells) - len(columns) :], columns, cells, percent)
    return Placed(front[0] if numbered else "", _told(name), values)


def _values(heads: Sequence[str], columns: Sequence[str | None], cells: Sequence[str], percent: bool) -> dict[str, str]:
    """Those of the six; what stands under `(%)` is a percentage."""
    marks = ["%" if (percent or in_percent(head)) and is_plain(cell) else "" for head, cell in zip(heads, cells, strict=True)]
    return {column: cell + mark for column, cell, mark in zip(columns, cells, marks, strict=True) if column}


def _told(name: str) -> str:
    name = name.strip("*` ")
    return "" if name.lower() in ABSENT else name
