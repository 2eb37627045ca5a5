"""Numbers of entries: `r0007` ships with the project, `0007` was made here."""

import re
from collections.abc import Iterable
from itertools import pairwise

ID = re.compile(r"r?[0-9]{4,9}")


def meant(text: str) -> str | None:
    """The ID that is meant by `0007`, `7`, `R7` or `history/0007/`; None where none is."""
    found = re.fullmatch(r"(?:.*/)?history/(r?[0-9]{4,9})/*|([rR]?)([0-9]{1,9})", text)
    if found is None:
        return None
    return found[1] or f"{found[2].lower()}{found[3]:0>4}"


def order(entry_id: str) -> tuple[bool, int]:
    """Entries that ship with the project come first."""
    return not entry_id.startswith("r"), int(entry_id.removeprefix("r"))


def missing(there: Iterable[str]) -> list[str]:
    """What stands between two of those IDs and is not there, as `0003` or `0003 to 0007`: none is given away twice, and none is removed."""
    gaps = []
    for before, after in pairwise(sorted(there, key=order)):
        (own, last), (other, next_) = order(before), order(after)
        if own == other and next_ > last + 1:
            prefix = "" if own else "r"
            first, end = f"{prefix}{last + 1:04d}", f"{prefix}{next_ - 1:04d}"
            gaps.append(first if first == end else f"{first} to {end}")
    return gaps
