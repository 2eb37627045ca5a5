"""Text records of an earlier project: a printed score table, a time stamp, insights, a name, a success flag.

What is there is taken as it stands; what is missing, doubled or odd is told and never made up.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from ..text import one_line
from .table import STAMP, Line, Table, is_header

_INSIGHTS = re.compile(r"^[ \t]*-{2,}[ \t]*Insights?[ \t]*-{2,}[ \t]*$", re.MULTILINE | re.IGNORECASE)
_LABELS = ("Name", "Success")
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_ENCODINGS = ("utf-8", "gb2312", "latin-1")


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
            continue
        return text, None if encoding == "utf-8" else f"it is not UTF-8: read as {encoding}"
    raise AssertionError("latin-1 reads every byte")


def parse(data: bytes) -> OldRecord:
    """Read one record."""
    text, assumed = decode(data)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    oddities = [assumed] if assumed else []
    text, in_front = _without_what_stands_in_front(text)
    mark = _INSIGHTS.search(text)
    head, tail = (text[: mark.start()], text[mark.end() :]) if mark else (text, "")
    labels_in = tail if mark else head
    cut = min((match.start() for word in _LABELS if (match := _last_label(word, labels_in))), default=len(labels_in))
    name, success = _labels(in_front + labels_in, oddities)
    if not mark:
        head, tail = _without_mark(head[:cut], oddities)
    table = Table(oddities)
    lines = table.read(head.split("\n"))
    insights = tail[:cut].strip("\n")
    return OldRecord(tuple(lines), _stamp(head, oddities), insights or None, name, success, tuple(oddities), table.lack)


def _without_mark(text: str, oddities: list[str]) -> tuple[str, str]:
    """Head and insights where nothing marks the insights: they begin after the time stamp, if at all."""
    stamp = STAMP.search(text)
    rest = text[stamp.end() :] if stamp else ""
    taken = ": what follows the time stamp is taken for the insights" if rest.strip() else ""
    oddities.append(f"there is no line '--- Insights ---'{taken}")
    return (text[: stamp.end()], rest) if stamp else (text, "")


def _stamp(text: str, oddities: list[str]) -> datetime | None:
    match = STAMP.search(text)
    if match is None:
        oddities.append("there is no time stamp")
        return None
    try:
        return datetime.strptime("".join(match.groups()), "%Y%m%d%H%M%S")
    except ValueError:
        oddities.append(f"the time stamp {match[0].strip()} is no time")
        return None


def _without_what_stands_in_front(text: str) -> tuple[str, str]:
    """The text from its table or time stamp on, and the labels above that, which are no part of either."""
    lines = text.split("\n")
    begins = next((at for at, line in enumerate(lines) if is_header(line) or STAMP.match(line) or _INSIGHTS.match(line)), 0)
    above = [at for at in range(begins) for word in _LABELS if (label := _last_label(word, lines[at])) and _value(lines[at], label)]
    kept = [line for at, line in enumerate(lines) if at not in above]
    return "\n".join(kept), "".join(f"{lines[at]}\n" for at in above)


def _labels(text: str, oddities: list[str]) -> tuple[str | None, bool | None]:
    """Name and success. The last of each counts: insights may say the words."""
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
    return name or None, success


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
