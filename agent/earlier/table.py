"""The score table of an old record: printed in columns, also wrapped into blocks of them, comma-separated, or in Markdown."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ..records import COLUMNS
from ..text import one_line
from .by_task import by_task
from .cells import ABSENT, MARKS, cells_of, is_cell, is_plain, is_rule, letters_of, number_in, plain
from .header import Header, goes_on, header_of, is_header
from .titles import holds_no_scores, in_percent, of_baseline

STAMP = re.compile(
    r"^[ \t]*(?:(?:time[ _]?stamp|time|date)[ \t]*[:=][ \t]*)?['\"]?(\d{4})-?(\d\d)-?(\d\d)[_T ](\d\d)[:-]?(\d\d)[:-]?(\d\d)"
    r"(?:[.,]\d+)?[ \t]*(Z|UTC|[+-]\d\d:?\d\d)?['\"]?[ \t]*$", re.MULTILINE | re.IGNORECASE
)  # fmt: skip
_FIGURES = (
    "mean", "average", "avg", "median", "std", "sd", "stderr", "se", "ci", "min", "max", "count", "diff", "difference", "delta", "gain", "improvement",
    "rank", "pvalue", "chance", "random", "loss", "time", "hours", "seconds", "params", "parameters", "paramsm",
)  # fmt: skip
_SPREAD = re.compile(r"[(\[](?:std|sd|stderr|se|ci|\u00b1|rank|loss|time|hours|delta|diff)\b.*[)\]]$", re.IGNORECASE)
_WRITTEN = "scores are written otherwise than as plain numbers"


@dataclass(frozen=True)
class Line:
    """One row of the table; a value is its text as printed, made a plain number, absent where it is missing or NaN."""

    name: str
    values: dict[str, str]


Key = tuple[str, int]
"""Of a row the number or name in front of it, and how many rows before it have the same."""


@dataclass
class Table:
    """What of a table was read, and a sentence for everything that is not as it should be."""

    oddities: list[str]
    rows: dict[Key, dict[str, str]] = field(default_factory=dict)
    names: dict[Key, str] = field(default_factory=dict)
    times: Counter[tuple[str, str]] = field(default_factory=Counter)  # that a number or name stood in front of a column
    header: Header | None = None
    naming: Header | None = None  # the first under which names stood
    printed: int = 0  # rows that the table says it has
    dots: bool = False  # a line of them stands for rows
    percent: bool = False  # so the words over it say
    whose: str | None = None  # of a baseline, in words over it
    lack: str | None = None  # what is wrong with a table of which no row can be read
    end: int = 0  # the lines up to the last of the table

    def read(self, lines: Sequence[str]) -> list[Line]:
        """Each row with its values joined."""
        above, caption, wrapped, hidden = "", "", False, False
        for at, line in enumerate(lines):
            if is_rule(line) or STAMP.match(line):
                above = ""
                continue
            if header := header_of(line, of_a_block=wrapped and not above):
                hidden = hidden and wrapped
                if holds_no_scores(caption, first=not self.rows):
                    self._tell_otherwise(caption)
                    hidden = True
                if not wrapped:
                    self.percent, self.whose = in_percent(caption), of_baseline(caption)
                self.header, wrapped = None if hidden else header, goes_on(line)
                if not hidden:
                    self._tell_columns(header)
                    self.end = at + 1
            elif self.header is not None and (self._is_of_the_printer(line, self.header, above) or self._take(line, self.header)):
                self.end = at + 1
            elif self.header is not None:
                self.lack = self.lack or f"a score table with no row that can be read ({one_line(line, 80)!r})"
                self.oddities.append(f"this line of the table is not understood: {one_line(line, 80)!r}")
            caption = "" if self.end == at + 1 else line
            above = line
        named = [(self.names.get(key, ""), values) for key, values in self.rows.items()]
        turned = None if self.rows else by_task(lines)
        for title in turned.otherwise if turned else ():
            self._tell_otherwise(title)
        if turned and turned.rows:
            self.lack, named, self.end = None, turned.rows, turned.end
            self.oddities.append("the scores stand a task a line")
            if turned.beside:
                self.oddities.append(f"columns beside the scores stay in record.txt alone: {one_line(', '.join(turned.beside), 80)}")
        elif not self.rows:
            self._tell_lack(lines)
        if not (turned and turned.rows):
            self._tell_what_stands_above(lines)
        figures = [name for name, _ in named if _is_figure(name)]
        if figures:
            self.oddities.append(f"rows of what is worked out of others stay in record.txt alone: {one_line(', '.join(figures), 80)}")
            named = [row for row in named if not _is_figure(row[0])]
        self._tell_what_is_left_out([name for name, _ in named])
        return _distinct([Line(name, _known(name, values, self.oddities)) for name, values in named], self.oddities)

    def end_in(self, text: str) -> int:
        """Where it ended in the text that was read: at the first empty line after its last row."""
        lines = text.split("\n")
        end = next((at for at in range(self.end, len(lines)) if not lines[at].strip()), len(lines))
        return len("\n".join(lines[:end]))

    def _tell_otherwise(self, title: str) -> None:
        self.oddities.append(f"the table under {one_line(title, 60)!r} holds no scores: it stays in record.txt alone")

    def _tell_what_stands_above(self, lines: Sequence[str]) -> None:
        """Of what comes before the first header, but for its title."""
        begin = next((at for at, line in enumerate(lines) if is_header(line)), None)
        before = [line for line in lines[:begin] if not is_rule(line) and not STAMP.match(line)]
        before, where = (before, "in place of") if begin is None else (before[:-1], "above")
        if before:
            self.oddities.append(f"what stands {where} the table stays in record.txt alone: {one_line(before[0], 80)!r}")

    def _tell_lack(self, lines: Sequence[str]) -> None:
        if self.header is not None:
            self.lack = self.lack or "a score table without rows"
        elif above := _other_table(lines):
            self.lack = f"a table without any of the six columns ({one_line(above, 80)!r})"
        self.oddities.append(f"there is {self.lack or 'no score table'}")

    def _is_of_the_printer(self, line: str, header: Header, above: str) -> bool:
        """Whether it is no row, but a printer's: dots for rows, the size of the table, the name of its index."""
        size = re.fullmatch(r"\s*\[(\d+) rows x \d+ columns\]\s*", line)
        dots = not line.strip(" .|\u2026")
        self.printed, self.dots = int(size[1]) if size else self.printed, self.dots or dots
        names_index = header.mark == "" and header.name_at is None and is_header(above) and len(cells_of(line, "")) == 1
        return bool(size) or dots or names_index

    def _tell_what_is_left_out(self, names: Sequence[str]) -> None:
        self.oddities += [f"row {front} of the table has no name" for front, at in self.rows if (front, at) not in self.names]
        if cut := [name for name in names if name.endswith(("...", "\u2026"))]:
            self.oddities.append(f"{len(cut)} of the names are cut off by the table's printer, as {one_line(cut[0], 100)!r}")
        if self.printed > len(self.rows):
            self.oddities.append(f"{self.printed - len(self.rows)} of the table's {self.printed} rows are not in this record")
        elif self.dots:
            self.oddities.append("the table has a line of dots: rows of it are not in this record")

    def _tell_columns(self, header: Header) -> None:
        columns = list(zip(header.cells, header.columns, strict=True))
        other = [cell for at, (cell, column) in enumerate(columns) if column is None and at != header.name_at and cell]
        if other:
            names = ", ".join(one_line(name, 40) for name in other)
            self.oddities.append(f"columns that are none of the six stay in record.txt alone: {names}")
        spelled = [f"{one_line(cell, 40)} as {column}" for cell, column in columns if column and cell != column]
        if spelled:
            self.oddities.append(f"columns that are spelled otherwise: {', '.join(spelled)}")
        twice = [column for column in COLUMNS if header.columns.count(column) > 1]
        if twice:
            self.oddities.append(f"columns that stand there twice, of which the last is kept: {', '.join(twice)}")

    def _take(self, line: str, header: Header) -> bool:
        """Whether the line is a row; the number in front of it, else its name, joins blocks."""
        placed = _placed(line, header, self.percent) or (_from_the_right(line, header, self.percent) if header.mark == "" else None)
        if placed is None:
            return False
        number, name, values = placed
        if not number and not name and header.mark == "" and (line.split()[0], 0) in self.rows:
            return False  # the number of a row, and a cell less than there are columns
        front, first = number or name or f"line {len(self.rows)}", next(iter(values), header.cells[0])
        if self.naming not in (None, header) and not header.is_told:
            name = ""  # of a later block of a wrapped table, with another column
        name = name or self.whose or ""
        at = self.times[front, first]  # the same number or name once more is another row
        while name and self.names.get((front, at), name) != name:  # so is the same number with another name
            at += 1
        key, self.times[front, first] = (front, at), at + 1
        if name:
            self.names[key], self.naming = name, self.naming or header
        self.rows.setdefault(key, {}).update(values)
        return True


Placed = tuple[str, str, dict[str, str]]
"""Of a row the number in front of it, its name and its values."""


def _placed(line: str, header: Header, percent: bool) -> Placed | None:
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
    return number, _told(name), values


def _from_the_right(line: str, header: Header, percent: bool) -> Placed | None:
    """By counting from the right, as a name may hold anything, two blanks too."""
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
    return front[0] if numbered else "", _told(name), values


def _values(heads: Sequence[str], columns: Sequence[str | None], cells: Sequence[str], percent: bool) -> dict[str, str]:
    """Those of the six; what stands under `(%)` is a percentage."""
    marks = ["%" if (percent or in_percent(head)) and is_plain(cell) else "" for head, cell in zip(heads, cells, strict=True)]
    return {column: cell + mark for column, cell, mark in zip(columns, cells, marks, strict=True) if column}


def _is_figure(name: str) -> bool:
    """Whether a row is the mean, the spread or the difference of others, or no score at all."""
    return letters_of(name) in _FIGURES or name.startswith("\u0394") or _SPREAD.search(name) is not None


def _told(name: str) -> str:
    name = name.strip("*` ")
    return "" if name.lower() in ("nan", "none") else name


def _other_table(lines: Sequence[str]) -> str | None:
    """The first line that looks like the header of a table of something else."""
    told = [line for line in lines if not is_rule(line)]
    return next((above for above, below in pairwise(told) for mark in MARKS if _heads(cells_of(above, mark), cells_of(below, mark))), None)


def _heads(above: Sequence[str], below: Sequence[str]) -> bool:
    return len(above) > 1 and len(below) - len(above) in (0, 1) and number_in(below[-1]) is not None and number_in(above[-1]) is None


def _known(name: str, values: dict[str, str], oddities: list[str]) -> dict[str, str]:
    """The numbers among the values, as plain ones; one that can't be a score stays and is told."""
    numbers = {column: plain(text) for column, text in values.items()}
    other = next((column for column, text in values.items() if numbers[column] != text), None)
    if other and not any(oddity.startswith(_WRITTEN) for oddity in oddities):
        oddities.append(f"{_WRITTEN}: {one_line(values[other], 40)!r} as {numbers[other]}")
    return {column: text for column, text in numbers.items() if _is_known(f"the row {one_line(name, 100)!r}", column, text, oddities)}


def _is_known(row: str, column: str, text: str, oddities: list[str]) -> bool:
    value, where = number_in(text), f"{row} has {one_line(text, 40)!r} as {column}"
    if text.lower() in ABSENT or (value is not None and math.isnan(value)):
        return False
    if value is not None and math.isinf(value):
        oddities.append(f"{where}, which is no finite number: it stays in record.txt alone")
        return False
    if value is None or not is_plain(text):
        oddities.append(f"{where}, which is no plain number: it stays in record.txt alone")
        return False
    if not 0 <= value <= 1:
        oddities.append(f"{where}, which is outside of 0 to 1: kept as it stands")
    return True


def _distinct(lines: list[Line], oddities: list[str]) -> list[Line]:
    """Equal rows once; rows of one name with other values all, and told; so is what is missing."""
    kept: list[Line] = []
    keys = [(line.name, frozenset(line.values.items())) for line in lines]
    left = set(keys)
    ways, seen = Counter(name for name, _ in left), Counter[str]()
    for line, key in zip(lines, keys, strict=True):
        if key not in left:
            oddities.append(f"the row {one_line(line.name, 100)!r} stands there twice, with the same values")
            continue
        left.remove(key)
        seen[line.name] += 1
        if seen[line.name] == 2:
            all_ = "both" if ways[line.name] == 2 else f"all {ways[line.name]}"
            oddities.append(f"the name {one_line(line.name, 100)!r} stands there with different values: {all_} are kept")
        missing = [column for column in COLUMNS if column not in line.values]
        if missing:
            oddities.append(f"the row {one_line(line.name, 100)!r} has no {', '.join(missing)}")
        kept.append(line)
    return kept
