"""Text records of an earlier project: a printed score table, a time stamp, insights, a name, a success flag.

What is there is taken as it stands; what is missing, doubled or odd is told and never made up.
"""

import json
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ..errors import BadInput
from ..text import one_line
from . import labels
from .aside import marked, unmarked
from .by_task import begin_of_all_six, by_task
from .dress import other_form, undressed
from .header import is_header
from .table import STAMP, Table
from .values import Line

_HEADING = re.compile(r"^[ \t]*(?:#+[ \t]*|\*\*)?Insights?[ \t]*(?:\*\*)?[ \t]*(?::(?:\*\*)?|$)", re.MULTILINE | re.IGNORECASE)
_UNDERLINE = re.compile(r"\s*?(?:[-=~]{3,}|[|>]-?)[ \t]*\n")  # of a heading, or the mark of a text in YAML
_INSIGHTS = re.compile(r"^[ \t]*-{2,}[ \t]*Insights?[ \t]*-{2,}[ \t]*$", re.MULTILINE | re.IGNORECASE)
_BARS = str.maketrans("\u2502\u2503\u2551", "|||")
_RULE = re.compile(r"^[ \t]*[\u2500-\u257f]{2}[ \u2500-\u257f]*$", re.MULTILINE)
_TOGETHER = re.compile(r"^([ \t]*(?:\*\*)?Name(?:\*\*)?[ \t]*[:=][^\n,;|(]*)[,;|(][ \t]*((?:\*\*)?(?:" + labels.FLAGS + r")(?:\*\*)?[ \t]*[:=])", re.MULTILINE | re.IGNORECASE)
_BLANKS = re.compile(r"([^\S\n]{300})[^\S\n]+")  # what is read takes time that grows with the square of such a run
_IN_CELLS = re.compile(r"^\|[ \t]*Name[ \t]*\|([^|\n]*)\|[ \t]*\n\|[ \t]*(" + labels.FLAGS + r")[ \t]*\|([^|\n]*)\|[ \t]*$", re.MULTILINE | re.IGNORECASE)
_CUT = re.compile(r"(\d\.)\Z")  # at the end of a file: what followed the point is lost
_ALONE = "a file for each can be imported"
_ENCODINGS = ("utf-8", "gb2312", "cp1252", "latin-1")


@dataclass(frozen=True)
class OldRecord:
    """What one file holds, and a sentence for everything that is not as it should be."""

    lines: tuple[Line, ...]
    stamp: datetime | None
    insights: str | None
    name: str | None
    success: bool | None
    oddities: tuple[str, ...]
    lack: str | None  # what is wrong with a table of which no row can be read

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
            if encoding == "utf-8" and (told := _bad_bytes(data)):
                return data.decode(errors="replace").removeprefix("\ufeff"), told
            continue
        return text, None if encoding == "utf-8" else f"it is not UTF-8: read as {encoding}"
    raise AssertionError("latin-1 reads every byte")


def _bad_bytes(data: bytes) -> str | None:
    """A sentence on bytes that are no UTF-8 where most of what is beyond ASCII is."""
    text = data.decode(errors="replace")
    bad = text.count("\ufffd") - data.count("\ufffd".encode())
    if 4 * bad > sum(letter > "\x7f" for letter in text) - bad:
        return None
    where = one_line(text[max(0, text.index("\ufffd") - 20) :][:40], 60)
    return f"it is UTF-8 but for {bad} of its bytes, each of which stands as \ufffd: {where!r}"


def parse(data: bytes) -> OldRecord:
    """Read one record. Raises BadInput where there are several, which would be mixed, or no text."""
    if form := other_form(data):
        raise BadInput(f"it is {form}, not a printed record")
    text, assumed = decode(data)
    oddities = [assumed] if assumed else []
    text, logged = undressed(text.replace("\r\n", "\n").replace("\r", "\n"), oddities)
    text = _CUT.sub("\\1\ufffd", text)
    text = _IN_CELLS.sub(r"Name: \1\n\2: \3", text)
    text = _BLANKS.sub(r"\1", _TOGETHER.sub(r"\1\n\2", _RULE.sub("", text.translate(_BARS))))
    if (count := min(len(STAMP.findall(text)), len(_INSIGHTS.findall(text)))) > 1:
        raise BadInput(f"it holds {count} records, each with its time stamp and insights: {_ALONE}")
    if _is_json(text):
        raise BadInput("it is JSON, not a printed table")
    text = _with_its_table_first(marked(text), oddities)
    text, in_front = _without_what_stands_in_front(text)
    mark = _INSIGHTS.search(text) or _heading(text)
    head, tail = (text[: mark.start()], text[mark.end() :].lstrip(" \t")) if mark else (text, "")
    if mark and (stamp := STAMP.search(head)):  # labels may stand between the two
        kept, more = labels.split_off(head[stamp.end() :].split("\n"))
        head, in_front = head[: stamp.end()] + "\n".join(kept), in_front + more
    elif mark:
        kept, more = labels.split_closing(head.split("\n"))
        head, in_front = "\n".join(kept), in_front + more
    said = labels.read(tail if mark else head, in_front, oddities, opens=not mark)
    if len(said.names) > 1 < len(_HEADING.findall(text)) + len(_INSIGHTS.findall(text)):
        raise BadInput(f"it holds several records, each with its name and insights (the last is {one_line(said.names[-1], 60)!r}): {_ALONE}")
    if not mark:
        head, insights = _without_mark(said.before, oddities, named=bool(said.name))
    else:
        insights = said.before[match.end() :] if (match := _UNDERLINE.match(said.before)) else said.before
    table = Table(oddities)
    lines = table.read(head.split("\n"))
    nameless = [line for line in lines if not line.name]
    if len(nameless) == 1 and said.name and all(line.name != said.name for line in lines):
        lines = [replace(line, name=line.name or said.name) for line in lines]
        only = "only row of the table" if len(lines) == 1 else "one row of the table without a name"
        oddities.append(f"the {only} has no name but that of the record")
    last = text.rpartition("\n")[2].rstrip(" |").split()[-1:]
    if text[-1:].isdigit() and lines and last and last[0] in lines[-1].values.values():
        oddities.append(f"it ends in the table, and without a line end: {last[0]} may be cut off")
    insights = unmarked(insights).strip("\n")
    if mark and not insights.strip():
        oddities.append("the insights are empty")
    when = _stamp(head, logged, oddities)
    return OldRecord(tuple(lines), when, insights or None, said.name, said.success, tuple(dict.fromkeys(map(unmarked, oddities))), table.lack and unmarked(table.lack))


def _is_json(text: str) -> bool:
    """Whether all of it is a document, or its first line is one of many."""
    for part in (text, text.lstrip().partition("\n")[0]):
        with suppress(ValueError, RecursionError):
            return isinstance(json.loads(part), dict | list)
    return False


def _heading(text: str) -> re.Match[str] | None:
    """A heading in other words, where the table is before it and no prose that would be cut in two."""
    found, stamp = _HEADING.search(text), STAMP.search(text)
    if found is None:
        return None
    if _has_header(text[found.end() :]) and not _has_header(text[: found.start()]):
        return None
    between = text[stamp.end() : found.start()] if stamp else ""
    begun = stamp is not None and (stamp.start() > found.start() or bool(between.strip() and not _holds_table(between)))
    return None if begun else found


def _with_its_table_first(text: str, oddities: list[str]) -> str:
    """The text with the score table, and a time stamp below it, moved up from under the mark of the insights where none is above."""
    lines, mark = text.split("\n"), _INSIGHTS.search(text) or _HEADING.search(text)
    above = text[: mark.start()].count("\n") if mark else len(lines)
    if _holds_table("\n".join(lines[:above])):
        return text
    below = lines[above:]
    begin = next((at for at, line in enumerate(below) if is_header(line)), None)
    begin = begin_of_all_six(below) if begin is None else begin
    if begin is None:
        return text
    stop = next((at for at in range(begin, len(below)) if labels.is_label(below[at])), len(below))
    table = Table([])
    if not table.read(below[begin:stop]):
        return text
    begin, end = above + begin, above + begin + table.end
    if not STAMP.search("\n".join(lines[:begin])):
        near = next((at for at in range(end, len(lines)) if lines[at].strip()), end)
        end = near + 1 if near < len(lines) and STAMP.match(lines[near]) else end
    oddities.append("the score table stands below the mark of the insights")
    return "\n".join([*lines[:above], *lines[begin:end], "", *lines[above:begin], *lines[end:]])


def _has_header(text: str) -> bool:
    return any(map(is_header, text.split("\n")))


def _holds_table(text: str) -> bool:
    turned = by_task(text.split("\n"))
    return _has_header(text) or (turned is not None and bool(turned.rows))


def _without_mark(text: str, oddities: list[str], *, named: bool) -> tuple[str, str]:
    """Head and insights where nothing marks the insights: what follows the time stamp or the table, else all that stands with a name."""
    stamp, table = STAMP.search(text), Table([])
    if stamp and not _holds_table(text[stamp.end() :]):
        end, after = stamp.end(), "what follows the time stamp"
    elif table.read(text.split("\n")):
        end, after = table.end_in(text), "what follows the table"
    else:
        end, after = (0 if named and not table.lack else len(text)), "what else it says"
    oddities += table.refused
    taken = f": {after} is taken for the insights" if text[end:].strip() else ""
    oddities.append(f"there is no line '--- Insights ---'{taken}")
    return text[:end], text[end:]


def _stamp(text: str, logged: str | None, oddities: list[str]) -> datetime | None:
    """In UTC where it has a zone; that of a log counts where there is no other."""
    match = STAMP.search(text) or STAMP.search(logged or "")
    if match is None:
        oddities.append("there is no time stamp")
        return None
    *digits, zone = match.groups()
    try:
        found = datetime.strptime("".join(digits) + (zone or "Z").upper().replace("UTC", "Z"), "%Y%m%d%H%M%S%z")
        return found.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        oddities.append(f"the time stamp {match[0].strip()} is no time")
        return None


def _without_what_stands_in_front(text: str) -> tuple[str, list[str]]:
    """The text from its table or time stamp on, and the lines of labels above that, which are no part of either."""
    lines = text.split("\n")
    begins = next((at for at, line in enumerate(lines) if is_header(line) or STAMP.match(line) or _INSIGHTS.match(line) or _HEADING.match(line)), 0)
    kept, in_front = labels.split_off(lines[:begins])
    return "\n".join([*kept, *lines[begins:]]), in_front
