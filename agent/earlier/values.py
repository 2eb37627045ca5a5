"""The values of a score table's rows: plain numbers, or told; and rows that stand there more than once."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ..records import COLUMNS
from ..text import one_line
from .cells import ABSENT, is_plain, number_in, plain

_WRITTEN = "scores are written otherwise than as plain numbers"


@dataclass(frozen=True)
class Line:
    """One row of the table; a value is its text as printed, made a plain number, absent where it is missing or NaN."""

    name: str
    values: dict[str, str]


def is_difference(texts: Iterable[str]) -> bool:
    """Whether all numbers of a row have a sign, one of them a plus, or more than one a minus."""
    told = [text for text in texts if text.lower() not in ABSENT]
    signed = [text for text in told if text[0] in "+-\u2212"]
    return bool(signed) and len(signed) == len(told) and (len(signed) > 1 or signed[0][0] == "+")


def known(name: str, values: dict[str, str], oddities: list[str]) -> dict[str, str]:
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
    if text[0] == "+":
        oddities.append(f"{where}, which has the sign of a difference: it stays in record.txt alone")
        return False
    if not 0 <= value <= 1:
        oddities.append(f"{where}, which is outside of 0 to 1: kept as it stands")
    return True


def distinct(lines: list[Line], oddities: list[str]) -> list[Line]:
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
