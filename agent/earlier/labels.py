"""Name and success of an old record: two labels with a value each, which close it.

Insights may say the words, and did. A label counts where nothing but the other one stands between its value and the end, or
beside the other one; a name of one word also where label and value have lines of their own, and one in the very first line.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..text import bare, one_line
from .by_task import SERIES
from .cells import is_rule

_FLAG = re.compile(r"(?:(true|yes|1|successful|succeeded|passed)|false|no|0|failed|failure|not successful|unsuccessful)(\s*[(\u2013\u2014-].*|[^\w/,:?]*)", re.IGNORECASE)
_TAKEN_BACK = {  # by a remark behind the flag
    True: re.compile(r"\?|->|\b(?:false|no|not|in(?:valid|correct)\w*|fail(?:s|ed|ure)?|crash(?:es|ed)?|retracted|wrong|leak(?:s|ed)?|rerun)\b", re.IGNORECASE),
    False: re.compile(r"\?|->|\b(?:true|yes|succe\w+|passe[sd])\b", re.IGNORECASE),
}
_NO_NAME = re.compile(r"\(?(?:none|n/?a|null|nan|unknown|unnamed|-+|\.\.\.)\)?|<.*>", re.IGNORECASE)
_LABEL = re.compile(
    r"[ \t]*(?:[-*][ \t]+)?(?:#+[ \t]*|\*\*|-{2,}[ \t]*)?((?:proposed |experiment |variant )?name|experiment|variant|system|architecture|success)(?:\*\*|[ \t]*-{2,})?[ \t]*(?:[:=](?:\*\*)?[ \t]*(.*?))?[ \t]*", re.IGNORECASE
)


@dataclass(frozen=True)
class Label:
    """One line that may be a label, and the value beside or below it."""

    word: str  # name or success
    start: int  # the line it stands on
    stop: int  # the line after its value
    value: str
    apart: bool  # label and value have lines of their own

    @property
    def flag(self) -> bool | None:
        found = _FLAG.fullmatch(self.value) if self.word == "success" else None
        if found is None:
            return None
        flag = found[1] is not None
        return None if _TAKEN_BACK[flag].search(found[2]) else flag


@dataclass(frozen=True)
class Labels:
    """What the labels of a text say, and the text without them."""

    name: str | None
    success: bool | None
    before: str
    names: int  # how many different ones


def read(text: str, in_front: Sequence[str], oddities: list[str], *, opens: bool) -> Labels:
    """Takes the labels from a text; what is missing, doubled or odd is told. Those of lines in front count where it has none.

    Where the text `opens` the record, a name in its first line counts.
    """
    lines = text.split("\n")
    counting = _counting(lines, opens)
    taken = [[label for label in counting if label.word == word] for word in ("name", "success")]
    names, flags = (found or [x for x in _labels(in_front) if x.word == word] for word, found in zip(("name", "success"), taken, strict=True))
    name, success = names[-1] if names else None, flags[-1] if flags else None
    if name and success and success.stop <= name.start and len({label.value for label in names}) > 1 and not _blank(lines, success.stop, name.start):
        oddities.append(f"the success flag {one_line(success.value, 40)!r} stands with another name: it is not taken")
        success, taken[1] = None, []
    _tell(name, success, oddities)
    for word, found in (("names", names), ("success flags", flags)):
        if len({label.value for label in found}) > 1:
            told = ", ".join(one_line(label.value, 40) for label in found[-3:])
            oddities.append(f"there are {len(found)} {word}, of which the last counts: {told}")
    last = [found[-1] for found in taken if found]
    of_labels = {at for label in last for at in range(label.start, label.stop)}
    begin = next((at for at, line in enumerate(lines) if line.strip() and at not in of_labels), 0)  # those before it close nothing
    first = min((label.start for label in last if label.start >= begin), default=len(lines))
    rest = [line for at, line in enumerate(lines) if at > first and at not in of_labels and line.strip()]
    if rest:
        oddities.append(f"what stands behind the name or the success flag stays in record.txt alone: {one_line(rest[0], 80)!r}")
    return Labels(name.value if name and name.value else None, success.flag if success else None, "\n".join(lines[begin:first]), len({label.value for label in names}))


def split_off(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines without those of labels and values, and the latter."""
    taken = {at for label in _labels(lines) if label.value for at in range(label.start, label.stop)}
    return [line for at, line in enumerate(lines) if at not in taken], [lines[at] for at in sorted(taken)]


def is_label(line: str) -> bool:
    """Whether a line may be a label."""
    return _LABEL.fullmatch(line) is not None


def _tell(name: Label | None, success: Label | None, oddities: list[str]) -> None:
    if name is None or not name.value:
        oddities.append("there is no name" if name is None else "the name is empty")
    if success is None:
        oddities.append("there is no success flag")
    elif not success.value:
        oddities.append("the success flag is empty")
    elif success.flag is None:
        oddities.append(f"success is {one_line(success.value, 40)!r}, neither true nor false")


def _labels(lines: Sequence[str]) -> list[Label]:
    return [_label(at, match, lines) for at, line in enumerate(lines) if (match := _LABEL.fullmatch(line)) and not SERIES.fullmatch(line.strip())]


def _label(at: int, match: re.Match[str], lines: Sequence[str]) -> Label:
    """With its value from its own line, or from the next one that is not empty and no label itself."""
    word = "success" if match[1].lower() == "success" else "name"
    if match[2]:
        return Label(word, at, at + 1, _value(match[2]), apart=False)
    underlined = at + 1 < len(lines) and is_rule(lines[at + 1])
    below = next((n for n in range(at + 1 + underlined, len(lines)) if lines[n].strip()), None)
    if below is None or _LABEL.fullmatch(lines[below]):
        return Label(word, at, at + 1, "", apart=True)
    return Label(word, at, below + 1, _value(lines[below]), apart=True)


def _value(value: str) -> str:
    """Without marks around it; of `a` (b) or *a* (b) the part between the marks."""
    part = re.fullmatch(r"\s*([`*\"']+)([^`*\"']+)\1\s*\(.*\)\s*", value)
    found = part[2] if part else bare(value.removeprefix("- "))
    return "" if _NO_NAME.fullmatch(found) else found


def _blank(lines: Sequence[str], start: int, stop: int) -> bool:
    return not any(line.strip() for line in lines[start:stop])


def _counting(lines: Sequence[str], opens: bool) -> list[Label]:
    found = _labels(lines)
    closing, end = set[int](), len(lines)
    for label in reversed(found):
        if _blank(lines, label.stop, end):
            closing.add(label.start)
            end = label.start
    pairs = [(a, b) for a, b in pairwise(found) if a.word != b.word and _blank(lines, a.stop, b.start)]
    together = {label.start for pair in pairs for label in pair}
    flags = [x for x in found if x.word == "success" and (x.start in closing or (x.flag is not None and x.start in together))]
    flagged = {flag.start for flag in flags}
    in_place = closing | {label.start for pair in pairs if not flagged.isdisjoint({x.start for x in pair}) for label in pair}
    if opens and (first := next((at for at, line in enumerate(lines) if line.strip()), None)) is not None:
        in_place |= {label.start for label in found if label.start == first and label.value and not label.apart}
    names = [x for x in found if x.word == "name" and (x.start in in_place or _stands_alone(x, lines))]
    sure = [x for x in flags if x.flag is not None]
    return sorted([*names, *(sure or flags)], key=lambda label: label.start)


def _stands_alone(label: Label, lines: Sequence[str]) -> bool:
    """Whether label and value, of one word, have lines of their own, and an empty one below."""
    return label.apart and len(label.value.split()) == 1 and not "".join(lines[label.stop : label.stop + 1]).strip()
