"""The score table of an old record: printed in columns, also wrapped into blocks of them, comma-separated, or in Markdown."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ..records import COLUMNS
from ..text import one_line
from .aside import is_aside, is_fence
from .by_task import by_task
from .cells import MARKS, cells_of, is_plain, is_rule, letters_of, number_in
from .header import Header, goes_on, header_of, is_header
from .rows import from_the_right, placed
from .titles import all_in_percent, denies, in_percent, is_figure, is_of_others, is_own, of_baseline, owner
from .values import Line, distinct, is_difference, known

STAMP = re.compile(
    r"^[ \t]*(?:(?:time[ _]?stamp|time|date)[ \t]*[:=][ \t]*)?['\"]?(\d{4})-?(\d\d)-?(\d\d)[_T ](\d\d)[:-]?(\d\d)[:-]?(\d\d)"
    r"(?:[.,]\d+)?[ \t]*(Z|UTC|[+-]\d\d:?\d\d)?['\"]?[ \t]*$", re.MULTILINE | re.IGNORECASE
)  # fmt: skip
_BELOW = re.compile(r"\s*(?:Table|Tab\.) *\d+[.:] *(.+?)\.?\s*$", re.IGNORECASE)  # a title that stands there
_SPREAD = re.compile(r" *[(\[](?:\u00b1|\+/?-)[^()\[\]]*[)\]]$")


Key = tuple[str, int]
"""Of a row the number or name in front of it, and how many rows before it have the same."""
Rows = list[tuple[str, dict[str, str]]]
"""Each with its name."""


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
    below: bool = False  # so the words below it say
    whose: str | None = None  # of a baseline, in words over it
    refused: list[str] = field(default_factory=list)  # sentences on what may be no scores
    lack: str | None = None  # what is wrong with a table of which no row can be read
    end: int = 0  # the lines up to the last of the table

    def read(self, lines: Sequence[str]) -> list[Line]:
        """Each row with its values joined."""
        above, caption, before, wrapped, hidden = "", "", "", False, False
        for at, line in enumerate(lines):
            if is_rule(line) or is_aside(line) or STAMP.match(line):
                above = ""
                continue
            if header := header_of(line, of_a_block=wrapped and not above):
                hidden = hidden and wrapped
                denial = next(filter(denies, (caption, before)), "")
                if denial or is_of_others(caption, first=not self.rows):
                    self._tell_otherwise(denial or caption)
                    hidden = True
                if not wrapped:
                    self.percent, self.whose = in_percent(caption), of_baseline(caption)
                self.header, wrapped = None if hidden else header, goes_on(line)
                if not hidden:
                    self._tell_columns(header)
                    self.end = at + 1
            elif self.header is not None and (self._is_of_the_printer(line, self.header, above) or self._take(line, self.header)):
                self.end = at + 1
            elif self.header is not None and self.rows and all_in_percent(line):
                self.below, self.end = True, at + 1
            elif self.header is not None and self.rows and _is_of_others_below(line) and not any(map(is_header, lines[at:])):
                self._tell_otherwise(line)
                self.rows, self.header = {}, None
            elif self.header is not None:
                self.lack = self.lack or f"a score table with no row that can be read ({one_line(line, 80)!r})"
                self.oddities.append(f"this line of the table is not understood: {one_line(line, 80)!r}")
            caption, before = ("", "") if self.end == at + 1 else (line, caption)
            above = line
        named = [(self.names.get(key, ""), self._in_percent(values)) for key, values in self.rows.items()]
        turned = None if self.rows else by_task([" " if STAMP.match(line) else line for line in lines])
        self.oddities += turned.oddities if turned else ()
        self.refused += turned.oddities if turned and not turned.rows else ()
        if turned and turned.rows:
            self.lack, named, self.end = None, turned.rows, turned.end
            self.oddities.append("the scores stand a task a line")
        elif not self.rows:
            self._tell_lack(lines)
        self._tell_what_stands_above(lines, turned.begin if turned and turned.rows else None)
        named = self._of_systems([("" if is_own(name) and letters_of(name) != "ours" else name, values) for name, values in named])
        self._tell_what_is_left_out([name for name, _ in named])
        return distinct([Line(name, known(name, values, self.oddities)) for name, values in self._on_one_scale(named)], self.oddities)

    def _in_percent(self, values: dict[str, str]) -> dict[str, str]:
        """As words below the table say of all of it."""
        return {column: text + "%" * (self.below and is_plain(text)) for column, text in values.items()}

    def _of_systems(self, named: Rows) -> Rows:
        """Without rows of figures that are worked out of others, of differences among them."""
        there = {name for name, _ in named}
        figures = [name for name, values in named if is_figure(name) or _is_of_a_row(name, values, there)]
        signed = [name for name, values in named if name not in figures and is_difference(values.values())]
        for what, names in (("of what is worked out of others", figures), ("of differences, each with a sign,", signed)):
            if names:
                self.refused.append(f"rows {what} stay in record.txt alone: {one_line(', '.join(names), 80)}")
                self.oddities.append(self.refused[-1])
        return [(name, values) for name, values in named if name not in figures and name not in signed]

    def _on_one_scale(self, named: Rows) -> Rows:
        """Without the values up to 1 of a table of numbers above 1: whether they are percentages, too, can't be told."""
        numbers = [number for _, values in named for text in values.values() if is_plain(text) and (number := number_in(text)) is not None]
        if 2 * sum(1 < number <= 100 for number in numbers) <= len(numbers):
            return named
        doubtful = [text for _, values in named for text in values.values() if is_plain(text) and 0 < float(text) <= 1]
        if doubtful:
            self.oddities.append(f"most numbers are above 1, so {one_line(', '.join(doubtful), 60)} may be percentages: not taken")
        return [(name, {column: text for column, text in values.items() if text not in doubtful}) for name, values in named]

    def end_in(self, text: str) -> int:
        """Where it ended in the text that was read: at the first empty line after its last row."""
        lines = text.split("\n")
        end = next((at for at in range(self.end, len(lines)) if not lines[at].strip()), len(lines))
        return len("\n".join(lines[:end]))

    def _tell_otherwise(self, title: str) -> None:
        self.refused.append(f"the table under {one_line(title, 60)!r} holds no scores: it stays in record.txt alone")
        self.oddities.append(self.refused[-1])

    def _tell_what_stands_above(self, lines: Sequence[str], begin: int | None) -> None:
        """Of what comes before the table, each paragraph, but for a title that is understood."""
        begin = next((at for at, line in enumerate(lines) if is_header(line)), None) if begin is None else begin
        before = ["" if STAMP.match(line) else line for line in lines[:begin]]
        told = [line for above, line in pairwise(["", *before]) if not is_rule(line) and is_rule(above) and not is_fence(line)]
        last = next((line for line in reversed(before) if not is_rule(line) and not is_fence(line)), "")
        if begin is not None and told and (owner(last) is not None or (last == told[-1] and any(repr(one_line(last, 60)) in oddity for oddity in self.oddities))):
            told = [line for line in told if line != last]
        if told:
            where = "in place of" if begin is None else "above"
            shown = ", ".join(repr(one_line(line, 80)) for line in [*told[:2], *told[2:][-1:]])
            self.oddities.append(f"what stands {where} the table stays in record.txt alone: {shown}")

    def _tell_lack(self, lines: Sequence[str]) -> None:
        if self.header is not None:
            self.lack = self.lack or "a score table without rows"
        elif self.refused:
            self.lack = None
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
        row = placed(line, header, self.percent) or (from_the_right(line, header, self.percent) if header.mark == "" else None)
        if row is None:
            return False
        number, name, values, doubt = row
        if doubt:
            self.oddities.append(f"the row {one_line(name, 60)!r} is not taken, for it says {one_line(doubt, 60)!r}")
            return True
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


def _is_of_others_below(line: str) -> bool:
    what = _BELOW.match(line)
    return denies(line) or (what is not None and is_of_others(what[1], first=True))


def _is_of_a_row(name: str, values: Mapping[str, str], names: Collection[str]) -> bool:
    """Whether it is the spread of another row, or the ratio of two."""
    spread = _SPREAD.search(name)
    if spread and name[: spread.start()] in names:
        return not any("\u00b1" in text or "+-" in text for text in values.values())
    return "/" in name and {part.strip() for part in name.split("/")} <= set(names)


def _other_table(lines: Sequence[str]) -> str | None:
    """The first line that looks like the header of a table of something else."""
    told = [line for line in lines if not is_rule(line)]
    return next((above for above, below in pairwise(told) for mark in MARKS if _heads(cells_of(above, mark), cells_of(below, mark))), None)


def _heads(above: Sequence[str], below: Sequence[str]) -> bool:
    return len(above) > 1 and len(below) - len(above) in (0, 1) and number_in(below[-1]) is not None and number_in(above[-1]) is None


