"""Text records of an earlier project: a printed score table, a time stamp, insights, a name, a success flag.

What is there is taken as it stands; what is missing, doubled or odd is told and never made up.
"""

import csv
import math
import re
from dataclasses import dataclass
from datetime import datetime

from .records import COLUMNS
from .text import one_line

_STAMP = re.compile(r"^[ \t]*(\d{8})_(\d{6})[ \t]*$", re.MULTILINE)
_INSIGHTS = re.compile(r"^[ \t]*-{2,}[ \t]*Insights?[ \t]*-{2,}[ \t]*$", re.MULTILINE | re.IGNORECASE)
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_ABSENT = ("...", "None", "-")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_ENCODINGS = ("utf-8", "gb2312", "latin-1")


@dataclass(frozen=True)
class Line:
    """One row of the printed table; a value is its text as printed, absent where it is missing or NaN."""

    name: str
    values: dict[str, str]


@dataclass(frozen=True)
class OldRecord:
    """What one file holds, and a sentence for everything that is not as it should be."""

    lines: tuple[Line, ...]
    stamp: datetime | None
    insights: str | None
    name: str | None
    success: bool | None
    oddities: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.lines or self.insights or self.name)


def decode(data: bytes) -> tuple[str, str | None]:
    """The text, and what had to be assumed to read it."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace"), "it is UTF-16"
    for encoding in _ENCODINGS:
        try:
            text = data.decode(encoding).removeprefix("\ufeff")
        except UnicodeDecodeError:
            continue
        return text, None if encoding == "utf-8" else f"it is not UTF-8: read as {encoding}"
    raise AssertionError("latin-1 reads every byte")


def parse(data: bytes) -> OldRecord:
    """Read one record."""
    text, assumed = decode(data)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    oddities = [assumed] if assumed else []
    mark = _INSIGHTS.search(text)
    head, tail = (text[: mark.start()], text[mark.end() :]) if mark else (text, "")
    labels_in = tail if mark else head
    name, success, cut = _labels(labels_in, oddities)
    if not mark:
        head, tail = _without_mark(head[:cut], oddities)
    lines = _table(head.split("\n"), oddities)
    insights = tail[:cut].strip("\n")
    return OldRecord(tuple(lines), _stamp(head, oddities), insights or None, name, success, tuple(oddities))


def _without_mark(text: str, oddities: list[str]) -> tuple[str, str]:
    """Head and insights where nothing marks the insights: they begin after the time stamp, if at all."""
    stamp = _STAMP.search(text)
    rest = text[stamp.end() :] if stamp else ""
    taken = ": what follows the time stamp is taken for the insights" if rest.strip() else ""
    oddities.append(f"there is no line '--- Insights ---'{taken}")
    return (text[: stamp.end()], rest) if stamp else (text, "")


def _stamp(text: str, oddities: list[str]) -> datetime | None:
    match = _STAMP.search(text)
    if match is None:
        oddities.append("there is no time stamp")
        return None
    try:
        return datetime.strptime("".join(match.groups()), "%Y%m%d%H%M%S")
    except ValueError:
        oddities.append(f"the time stamp {match[0].strip()} is no time")
        return None


def _labels(text: str, oddities: list[str]) -> tuple[str | None, bool | None, int]:
    """Name, success, where the text before them ends. The last of each counts: insights may say the words."""
    name_at, success_at = _last_label("Name", text), _last_label("Success", text)
    name = _value(text, name_at) if name_at else None
    said = _value(text, success_at) if success_at else None
    if not name:
        oddities.append("there is no name" if name_at is None else "the name is empty")
    success = _WORDS.get((said or "").lower())
    if success is None:
        oddities.append(
            f"success is {one_line(said, 40)!r}, neither true nor false"
            if said
            else "there is no success flag"
            if success_at is None
            else "the success flag is empty"
        )
    starts = [match.start() for match in (name_at, success_at) if match]
    return name or None, success, min(starts, default=len(text))


def _last_label(word: str, text: str) -> re.Match[str] | None:
    found = list(
        re.finditer(
            rf"^[ \t]*(?:#+[ \t]*|\*\*)?{word}(?:\*\*)?[ \t]*(?::(?:\*\*)?[ \t]*([^\n]*))?$", text, re.MULTILINE
        )
    )
    return found[-1] if found else None


def _value(text: str, label: re.Match[str]) -> str | None:
    """What stands on the label's line, or on the next line that is not empty and no label itself."""
    if label[1] and label[1].strip():
        return str(label[1]).strip()
    following = next((line.strip() for line in text[label.end() :].split("\n") if line.strip()), None)
    return None if following in ("Name", "Success", "Name:", "Success:") else following


def _table(lines: list[str], oddities: list[str]) -> list[Line]:
    """The printed table, also where it was wrapped into blocks of columns, and each row's values joined."""
    rows: dict[str, dict[str, str]] = {}
    names: dict[str, str] = {}
    columns: list[str] = []
    commas = False
    for line in lines:
        commas = commas or (line.count(",") > 2 and _header(_spaced(line)) is not None)
        if line.lstrip().startswith("|"):
            line = _unpiped(line)
        elif commas:
            line = _spaced(line)
        header = _header(line)
        if header is not None:
            columns = header
            _name_strangers(columns, oddities)
        elif columns and line.strip():
            _take_row(line, columns, rows, names, oddities)
    if not rows:
        oddities.append("there is no score table")
    named = [(names.get(key, ""), values) for key, values in rows.items()]
    return _distinct([Line(name, _known(name, values, oddities)) for name, values in named], oddities)


def _spaced(line: str) -> str:
    """A line of comma-separated values as one of the printed form."""
    try:
        first, *others = next(csv.reader([line]), []) or [line]
    except csv.Error:  # a cell without end is none of a table
        return line
    return "  ".join([first, *(cell or "NaN" for cell in others)])


def _unpiped(line: str) -> str:
    """A line of a Markdown table as one of the printed form; the rule under its header as an empty one."""
    if not line.strip(" \t|:-"):
        return ""
    first, *others = (cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|"))
    return "  ".join([first, *(cell or "NaN" for cell in others)])


def _name_strangers(columns: list[str], oddities: list[str]) -> None:
    strangers = [column for column in columns[1:] if column not in COLUMNS]
    if strangers:
        names = ", ".join(one_line(name, 40) for name in strangers)
        oddities.append(f"columns that are none of the six stay in record.txt alone: {names}")
    twice = [column for column in COLUMNS if columns.count(column) > 1]
    if twice:
        oddities.append(f"columns that stand there twice, of which the last is kept: {', '.join(twice)}")


def _header(line: str) -> list[str] | None:
    """The column names of a header line, None for any other line."""
    cells = [cell for cell in re.split(r"\s{2,}|\t", line.strip().removesuffix("\\").strip()) if cell]
    return cells if any(cell in COLUMNS for cell in cells) else None


def _take_row(
    line: str, columns: list[str], rows: dict[str, dict[str, str]], names: dict[str, str], oddities: list[str]
) -> None:
    """Values are counted from the right, as a name may hold anything; the number in front joins blocks."""
    values = columns[columns[0] not in COLUMNS :]
    parts = line.split()
    if len(parts) < len(values) or not all(_is_value(part) for part in parts[len(parts) - len(values) :]):
        if not _STAMP.match(line):
            oddities.append(f"this line of the table is not understood: {one_line(line, 80)!r}")
        return
    front, cells = parts[: len(parts) - len(values)], parts[len(parts) - len(values) :]
    numbered = bool(front) and front[0].isdigit()
    name = _name_in(line, numbered, len(values)) if front else ""
    key = front[0] if numbered else name or f"line {len(rows)}"
    while key in rows and values[0] in rows[key]:
        key += "'"  # the same number or name once more is another row
    if name:
        names[key] = name
    elif key not in rows:
        oddities.append(f"row {key} of the table has no name")
    rows.setdefault(key, {}).update(zip(values, cells, strict=True))


def _name_in(line: str, numbered: bool, values: int) -> str:
    """What stands between the row's number and its values, letter for letter."""
    text = line.rsplit(None, values)[0]
    name = re.sub(r"^\s*\d+\s?", "", text).strip() if numbered else text.strip()
    return "" if name.lower() in ("nan", "none") else name


def _is_value(text: str) -> bool:
    """Whether a cell holds a number or a word for none, also one written as no printer of tables writes it."""
    try:
        float(text)
    except ValueError:
        return text in _ABSENT
    return True


def _known(name: str, values: dict[str, str], oddities: list[str]) -> dict[str, str]:
    """The numbers among the values, each as printed; one that can't be a score stays and is told."""
    known = {}
    for column, text in values.items():
        if column not in COLUMNS or text in _ABSENT or math.isnan(float(text)):
            continue
        where = f"the row {one_line(name, 100)!r} has {one_line(text, 40)!r} as {column}"
        if math.isinf(float(text)):
            oddities.append(f"{where}, which is no finite number: it stays in record.txt alone")
            continue
        if not _NUMBER.fullmatch(text):
            oddities.append(f"{where}, which is no plain number: it stays in record.txt alone")
            continue
        if not 0 <= float(text) <= 1:
            oddities.append(f"{where}, which is outside of 0 to 1: kept as it stands")
        known[column] = text
    return known


def _distinct(lines: list[Line], oddities: list[str]) -> list[Line]:
    """Equal rows once; rows of one name with other values all, and told; so is what is missing."""
    kept: list[Line] = []
    seen: dict[str, list[Line]] = {}
    for line in lines:
        if line in seen.get(line.name, ()):
            oddities.append(f"the row {one_line(line.name, 100)!r} stands there twice, with the same values")
            continue
        if line.name in seen:
            oddities.append(
                f"the name {one_line(line.name, 100)!r} stands there with different values: both are kept"
            )
        missing = [column for column in COLUMNS if column not in line.values]
        if missing:
            oddities.append(f"the row {one_line(line.name, 100)!r} has no {', '.join(missing)}")
        kept.append(line)
        seen.setdefault(line.name, []).append(line)
    return kept
