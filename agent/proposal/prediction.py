"""The prediction of a reply: by how much each column is expected to move, as models write it; what is not clear is left out and told."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..records import COLUMN_OF, COLUMNS
from ..text import bare, one_line, some

_SPELLINGS = {"Compress": ("compression",), "Memorize": ("memorise", "memorization", "memorisation"), "Selective Copy": ("selective copying",)}
_KEY = re.compile(r"[\s_-]+")
_COLUMN_OF = {
    _KEY.sub("", spelling.casefold()): column
    for task, column in COLUMN_OF.items()
    for spelling in (task, column, *_SPELLINGS.get(column, ()))
}
_OTHERS = {"others", "allothers", "theothers", "rest", "therest", "othercolumns", "allothercolumns"}
_NOTHING = {"", "none", "unknown", "n/a", "-"}
_MOST_TOLD = 6

_APART = re.compile(r"(?<![0-9]),|,(?![0-9])|[;|&\n]|\band\b|\.(?=\s|$)")  # "+0,01" is left whole, and unread
_IN_BRACKETS = re.compile(r"\([^()]*\)")
_ABOUT = re.compile(r"[~\u2248\u223c]|\b(?:approximately|approx|about|around|roughly)(?=\s)", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z][A-Za-z _-]{0,40}")
_NUMBER = r"([+-]?)[ ]?([0-9]{1,6}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})(e[+-]?[0-9]{1,2})?(?![0-9.,])"
_UNIT = r"\s*(%-?\s?points?|%|pp\b|per ?cent(?:age points?)?\b|percentage points?\b)?"
_PART = re.compile(r"([A-Za-z][A-Za-z _-]{0,40}?)[\s:=]*(?:[\u2013\u2014]\s*(?=[+-])|\bby\s+)?" + _NUMBER + _UNIT, re.IGNORECASE)
_TO = re.compile(r"\s*(?:to|\.{2,3}|[\u2013\u2014])\s*" + _NUMBER + _UNIT, re.IGNORECASE)
_REST = re.compile(r"\s*(?:$|\(|\u00b1|[\u2013\u2014:-]\s+[A-Za-z]|(?:because|since|as|due|thanks|if|while|when|where|with)\b)", re.IGNORECASE)
_BRACKETED = re.compile(r"([A-Za-z _-]{1,42}[:=]?\s*)\(([^()]*)\)")


@dataclass(frozen=True)
class Prediction:
    """Column -> expected difference, and the parts that could not be read as one."""

    expected: dict[str, float]
    unread: tuple[str, ...]


def read(lines: Sequence[str]) -> Prediction:
    """What `Compress +0.01, Memorize +0.05` says; a column with two numbers has none."""
    found: dict[str, list[tuple[float, str]]] = {}
    others: float | None = None
    unread: list[str] = []
    for part in (part for line in lines for part in _parts(line)):
        column, value = _expected(part)
        if column is None or value is None:
            unread.append(part)
        elif column in _OTHERS:
            others = value
        else:
            found.setdefault(column, []).append((value, part))
    expected = {column: told[0][0] for column, told in found.items() if len({value for value, _ in told}) == 1}
    unread += [part for column, told in found.items() if column not in expected for _, part in told]
    if others is not None and not unread:  # a column that could not be read is none of the others
        expected |= {column: others for column in COLUMNS if column not in found}
    elif others is not None:
        unread.append("others")
    return Prediction(expected, tuple(dict.fromkeys(one_line(part, 60) for part in unread)))


def begins_with_column(text: str) -> bool:
    """Whether a line speaks of a column first, as a line of a prediction does."""
    match = _NAME.match(bare(text))
    words = _KEY.split(match[0].casefold().strip(" _-")) if match else []
    return any("".join(words[:count]) in _COLUMN_OF.keys() | _OTHERS for count in range(1, 6))


def left_out(unread: Sequence[str]) -> str:
    """What was left out, quoted; "" where all was read."""
    return some([ascii(statement) for statement in unread], _MOST_TOLD)


def _parts(line: str) -> Iterator[str]:
    """The statements of a line, one for each column; what stands in brackets belongs to the one before."""
    line = re.sub(r"\b(?:approx|ca)\.", "~", line.replace("\u2212", "-").replace("*", "").replace("`", ""))
    line = _IN_BRACKETS.sub(lambda match: _APART.sub(" ", match[0]), line)
    for part in _APART.split(line):
        if part.strip(" .\"'\t").casefold() not in _NOTHING:
            yield part.strip(" .\"'\t")


def _expected(part: str) -> tuple[str | None, float | None]:
    """A column and its difference. A range that has a sign at both ends is read as its middle."""
    plain = re.sub(r"\u00b1\s?(?=0+(?:\.0*)?(?![0-9.]))", "", _ABOUT.sub(" ", part))
    plain = re.sub(r"(?<=[\s(:=])\u2013(?=[0-9.])", "-", plain)  # an en dash in place of a minus sign
    if bracketed := _BRACKETED.fullmatch(plain.strip()):
        plain = bracketed[1] + bracketed[2]
    match = _PART.match(plain.strip())
    if match is None or "relative" in plain.casefold():
        return None, None
    key = _KEY.sub("", match[1].casefold())
    column = key if key in _OTHERS else _COLUMN_OF.get(key)
    value, rest = _number(match[2], match[3], match[4], match[5]), plain.strip()[match.end() :]
    end = _TO.match(rest)
    if end and match[2] and end[1] and (end[4] or not match[5]):
        value = (_number(match[2], match[3], match[4], match[5] or end[4]) + _number(end[1], end[2], end[3], end[4])) / 2
        rest = rest[end.end() :]
    return column, value if abs(value) <= 1 and _REST.match(rest) else None


def _number(sign: str, digits: str, exponent: str | None, unit: str | None) -> float:
    return float(f"{sign}{digits}{exponent or ''}") / (100 if unit else 1)
