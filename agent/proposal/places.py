"""Where lines that a model copied stand in its parent: as they are, or but for blank lines, or indented otherwise as a whole."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Lines `start` to `end` (from 0) of a source become `new`."""

    start: int
    end: int
    new: tuple[str, ...]


def places(lines: Sequence[str], old: Sequence[str], new: Sequence[str], indent: int = 0) -> list[Place]:
    """Every place of `old` in `lines`, of the most exact kind that there is; blanks at the end of a line never count.

    `indent` is how far the marks of a block are indented, and perhaps its lines with them.
    """
    return _exact(lines, old, new) or _loose(lines, old, new, indent)


def _exact(lines: Sequence[str], old: Sequence[str], new: Sequence[str]) -> list[Place]:
    have, want = [line.rstrip() for line in lines], [line.rstrip() for line in old]
    first = [i for i, line in enumerate(have) if line == want[0]] if want else []
    return [Place(i, i + len(want), tuple(new)) for i in first if have[i : i + len(want)] == want]


def _loose(lines: Sequence[str], old: Sequence[str], new: Sequence[str], indent: int) -> list[Place]:
    """The places that differ by blank lines alone; else by the indentation of the marks; else by another, the same for all lines."""
    have, want = _with_text(lines), _with_text(old)
    there, copied = [lines[i].strip() for i in have], [old[i].strip() for i in want]
    by_shift: dict[int, list[Place]] = {}
    for at in [i for i, text in enumerate(there) if text == copied[0]] if copied else []:
        if there[at : at + len(copied)] != copied:
            continue
        found = have[at : at + len(copied)]
        shifts = {_indent(lines[i]) - _indent(old[j]) for i, j in zip(found, want, strict=True)}
        shifted = _shifted(new, min(shifts)) if len(shifts) == 1 else None
        if shifted is not None:
            begin, end = found[0], found[-1] + 1
            place = Place(begin, end, _with_gaps(lines[begin:end], old, shifted))
            by_shift.setdefault(min(shifts), []).append(place)
    for shift in (0, -indent):
        if shift in by_shift:
            return by_shift[shift]
    # One line alone may stand at another depth for another reason: two agree about it.
    return [place for found in by_shift.values() for place in found] if len(copied) > 1 else []


def _with_text(lines: Sequence[str]) -> list[int]:
    return [i for i, line in enumerate(lines) if line.strip()]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _shifted(lines: Sequence[str], shift: int) -> list[str] | None:
    """The lines indented by `shift` more; None where that would cut into one."""
    if any(line.strip() and _indent(line) + shift < 0 for line in lines):
        return None
    return [" " * shift + line if shift > 0 and line.strip() else line[max(0, -shift) :] for line in lines]


def _with_gaps(parent: Sequence[str], old: Sequence[str], new: Sequence[str]) -> tuple[str, ...]:
    """`new`, where the blank lines that it has as `old` has them are those of `parent`: only what was to change changes."""
    before, after = _gaps(old), _gaps(new)
    kept = [gap for gap, _ in _gaps(parent)]
    origin: dict[int, int] = {}  # of a line of `new`: the one of `old` in whose place it stands
    texts = [text.strip() for _, text in before[:-1]], [text.strip() for _, text in after[:-1]]
    for tag, a, b, c, d in difflib.SequenceMatcher(None, *texts).get_opcodes():
        if tag == "equal":
            origin |= dict(zip(range(c, d), range(a, b), strict=True))
        elif tag == "replace":
            origin[c] = a
    lines: list[str] = []
    for i, (gap, text) in enumerate(after):
        j = origin.get(i, 0)
        if i in (0, len(after) - 1):  # around the place nothing of the parent's is touched
            gap = max(0, gap - before[0 if i == 0 < len(after) - 1 else -1][0])
        elif j and gap == before[j][0]:
            gap = kept[j]
        lines += [*[""] * gap, text]
    return tuple(lines[:-1])


def _gaps(lines: Sequence[str]) -> list[tuple[int, str]]:
    """Each line that has text, behind the number of blank ones before it; the end is such a line too."""
    found, last = [], -1
    for i in [*_with_text(lines), len(lines)]:
        found.append((i - last - 1, lines[i] if i < len(lines) else ""))
        last = i
    return found
