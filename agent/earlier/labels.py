"""Name and success of an old record: two labels with a value each, which close it.

Insights may say the words, and did. A label counts where nothing but the other one stands between its value and the end, or
beside the other one; a name of one word also where label and value have lines of their own, and one in the very first line.
A name and a flag beside each other are a pair: a pair is surer than a label alone, and pairs that differ are no answer.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..text import bare, one_line
from .aside import is_fence
from .by_task import SERIES
from .cells import ABSENT, is_rule

_FLAG = re.compile(r"(?:(true|yes|1|success(?:ful)?|succeeded|passed)|false|no|0|fail(?:ed|ure)?|not successful|unsuccessful)(\s*[(\u2013\u2014-].*|[^\w/,:?]*)", re.IGNORECASE)
_TAKEN_BACK = {  # by a remark behind the flag
    True: re.compile(r"\?|->|\b(?:false|no|not|in(?:valid|correct)\w*|fail(?:s|ed|ure)?|crash(?:es|ed)?|retracted|wrong|leak(?:s|ed)?|rerun)\b", re.IGNORECASE),
    False: re.compile(r"\?|->|\b(?:true|yes|succe\w+|passe[sd])\b", re.IGNORECASE),
}
_TAKEN_BACK_BELOW = re.compile(r"\bretract|\b(?:flag|success)\b.{0,20}\b(?:is|be|was)\b.{0,20}\b(?:true|false|wrong)\b", re.IGNORECASE)
_NO_NAME = (*ABSENT, "unknown", "unnamed", "tbd", "todo", "to be decided", "see above", "see below", "as above", "same as above", "same", "pending", "---")
FLAGS = "success|status|outcome"
"""What a line that holds the success flag is called, as a pattern."""
_STRUCK = re.compile(r"~~.*?~~|<(?:s|del)>.*?</(?:s|del)>")
_LINK = re.compile(r"!?\[([^\[\]]+)\](?:\([^()]*\)|\[[^\[\]]*\])")
_TAG = re.compile(r"</?(?:a|b|i|u|em|strong|code|tt|span|sub|sup|br|p|name)\b[^<>]*>", re.IGNORECASE)
_LABEL = re.compile(
    r"[ \t]*(?:[-*][ \t]+)?(?:#+[ \t]*|\*\*|-{2,}[ \t]*)?((?:proposed |experiment |variant )?name|experiment|variant|system|architecture|" + FLAGS + r")(?:\*\*|[ \t]*-{2,})?[ \t]*(?:(?:[:=\uff1a]|(?<=success)\?)(?:\*\*)?[ \t]*(.*?))?[ \t]*", re.IGNORECASE
)


@dataclass(frozen=True)
class Label:
    """One line that may be a label, and the value beside or below it."""

    word: str  # name or success
    start: int  # the line it stands on
    stop: int  # the line after its value
    value: str
    apart: bool  # label and value have lines of their own
    written: str = ""  # the value as it stands

    @property
    def flag(self) -> bool | None:
        found = _FLAG.fullmatch(self.value) if self.word == "success" else None
        if found is None:
            return None
        flag = found[1] is not None
        return None if _TAKEN_BACK[flag].search(found[2]) else flag


Pair = tuple[Label, Label]
"""A name and the flag beside it."""


@dataclass(frozen=True)
class Labels:
    """What the labels of a text say, and the text without them."""

    name: str | None
    success: bool | None
    before: str
    names: tuple[str, ...]  # different ones


def read(text: str, in_front: Sequence[str], oddities: list[str], *, opens: bool) -> Labels:
    """Takes the labels from a text; what is missing, doubled or odd is told. Those of lines in front count where it has none.

    Where the text `opens` the record, a name in its first line counts.
    """
    lines = text.split("\n")
    counting = _counting(lines, opens)
    found, fore = _labels(lines), _labels(in_front)
    places = {label.start for label in counting}
    pairs = [pair for pair in _pairs(found, lines) if all(label.start in places for label in pair)]
    names, flags = ([label for label in [*fore, *counting] if label.word == word] for word in ("name", "success"))
    name, success = _surest(names, flags, [*_pairs(fore, in_front), *pairs], oddities, last=pairs[-1][0] if pairs else None)
    _tell(name, success, oddities, differ=(_differ(names), _differ(flags)))
    last = [label for label in (name, success) if label and label in counting] or [label for label in (*names[-1:], *flags[-1:]) if label in counting]
    of_labels = {at for label in last for at in range(label.start, label.stop)}
    begin = next((at for at, line in enumerate(lines) if line.strip() and at not in of_labels), 0)  # those before it close nothing
    first = min((label.start for label in last if label.start >= begin), default=len(lines))
    rest = [line for at, line in enumerate(lines) if at > first and at not in of_labels and line.strip()]
    if rest:
        oddities.append(f"what stands behind the name or the success flag stays in record.txt alone: {one_line(rest[0], 80)!r}")
    flag = success.flag if success else None
    if flag is not None and any(map(_TAKEN_BACK_BELOW.search, rest)):
        oddities.append(f"what stands behind the success flag takes it back: {flag} is not taken")
        flag = None
    return Labels(name.value if name and name.value else None, flag, "\n".join(lines[begin:first]), tuple(dict.fromkeys(label.value for label in names)))


def _differ(labels: Iterable[Label]) -> bool:
    return len({label.flag if label.word == "success" else label.value for label in labels}) > 1


def _surest(names: Sequence[Label], flags: Sequence[Label], pairs: Sequence[Pair], oddities: list[str], last: Label | None) -> tuple[Label | None, Label | None]:
    """The name and the flag that count: of the only pair, or the last; none where pairs, or flags, differ.

    A name below the `last` pair of a text and written as that is, on a line of its own, closes the record: the pair is of another.
    """
    told = {label.value for label, _ in pairs}
    name, success = names[-1] if names else None, flags[-1] if flags else None
    closes = bool(name and last and name.apart and last.apart and name.start > last.stop)
    if len(told) == 1 and not closes:
        name = pairs[-1][0]
    which = "of which none is taken" if len(told) > 1 else "of which the one beside the success flag counts" if name and pairs and name == pairs[-1][0] else "of which the last counts"
    if _differ(names):
        oddities.append(f"there are {len(names)} names, {which}: {', '.join(one_line(label.value, 40) for label in names[-3:])}")
    if len(told) > 1:
        name = None
    ours = {flag.flag for of, flag in pairs if name and of.value == name.value}
    if success and name and pairs and not ours:
        oddities.append(f"the success flag {one_line(success.value, 40)!r} stands with another name: it is not taken")
        return name, None
    if _differ(flags):
        oddities.append(f"there are {len(flags)} success flags, of which none is taken: {', '.join(one_line(label.value, 40) for label in flags[-3:])}")
        return name, None
    return name, success


def split_off(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines without those of labels and values, and the latter."""
    taken = {at for label in _labels(lines) if label.value for at in range(label.start, label.stop)}
    return [line for at, line in enumerate(lines) if at not in taken], [lines[at] for at in sorted(taken)]


def split_closing(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines without those of labels and values that close them, each behind an empty line or another, and the latter."""
    end = len(lines)
    for label in reversed(_labels(lines)):
        if label.value and _blank(lines, label.stop, end):
            end = label.start
    behind = end == 0 or not lines[end - 1].strip()
    return (list(lines[:end]), list(lines[end:])) if behind else (list(lines), [])


def is_label(line: str) -> bool:
    """Whether a line may be a label."""
    return _LABEL.fullmatch(line) is not None


def _tell(name: Label | None, success: Label | None, oddities: list[str], *, differ: tuple[bool, bool]) -> None:
    if (name is None and not differ[0]) or (name is not None and not name.value):
        empty = f"the name is none: {one_line(name.written, 60)!r}" if name and name.written.strip() else "the name is empty"
        oddities.append("there is no name" if name is None else empty)
    if success is None and differ[1]:
        return
    if success is None:
        oddities.append("there is no success flag")
    elif not success.value:
        oddities.append("the success flag is empty")
    elif success.flag is None:
        oddities.append(f"success is {one_line(success.value, 40)!r}, neither true nor false")


def _labels(lines: Sequence[str]) -> list[Label]:
    """Those at the left of the page: what is indented is of something else, or of code."""
    return [
        _label(at, match, lines)
        for at, line in enumerate(lines)
        if (match := _LABEL.fullmatch(line)) and not SERIES.fullmatch(line.strip()) and not _is_nested(lines, at)
    ]


def _is_nested(lines: Sequence[str], at: int) -> bool:
    depth = len(lines[at]) - len(lines[at].lstrip())
    if not 0 < depth < 3:
        return depth > 0
    over = next((line for line in reversed(lines[max(0, at - 50) : at]) if line.strip() and len(line) - len(line.lstrip()) < depth), "")
    return over.rstrip().endswith(":") or over.startswith("- ")


def _label(at: int, match: re.Match[str], lines: Sequence[str]) -> Label:
    """With its value from its own line, or from the next one that is not empty and no label itself."""
    kind = match[1].lower()
    word = "success" if kind in FLAGS.split("|") else "name"
    if match[2]:
        return Label(word, at, at + 1, _value(match[2], word, kind), apart=False, written=match[2])
    underlined = at + 1 < len(lines) and is_rule(lines[at + 1])
    below = next((n for n in range(at + 1 + underlined, len(lines)) if lines[n].strip() and not is_fence(lines[n]) and not (word == "name" and is_rule(lines[n]))), None)
    if below is None or _LABEL.fullmatch(lines[below]):
        return Label(word, at, at + 1, "", apart=True)
    stop = below + 1 + (below + 1 < len(lines) and is_fence(lines[below + 1]) and below > 0 and is_fence(lines[below - 1]))
    return Label(word, at, stop, _value(lines[below], word, kind), apart=True, written=lines[below])


def _value(value: str, word: str, kind: str) -> str:
    """Without marks around it; of `a` (b) or *a* (b) the part between the marks; of a name nothing where it is none, or a sentence."""
    part = re.fullmatch(r"\s*([`*\"']+)([^`*\"']+)\1\s*\(.*\)\s*", value)
    if part or word != "name":
        flag = part[2] if part else bare(value.removeprefix("- "))
        return f"{kind} {flag}" if kind != "success" and flag.isdigit() else flag  # an exit status of 0 says success
    found = bare(re.sub(r"^(?:[-*]|\d+[.)])\s+", "", _TAG.sub("", _LINK.sub(r"\1", _STRUCK.sub("", value))).strip()))
    found = re.sub(r"^(\w+_\w+)(?:[.,;]| [-\u2013\u2014] .*)$", r"\1", found)  # what follows says what it is
    is_sentence = len(found.split()) > 3 and found.endswith((".", "!", "?"))
    return "" if is_sentence or found.strip("()[]?. ").lower() in _NO_NAME or re.fullmatch(r"<.*>", found) else found


def _blank(lines: Sequence[str], start: int, stop: int) -> bool:
    return not any(line.strip() for line in lines[start:stop])


def _pairs(found: Sequence[Label], lines: Sequence[str]) -> list[Pair]:
    """Each name and flag that stand beside each other, and say something."""
    beside = [(a, b) for a, b in pairwise(found) if a.word != b.word and _blank(lines, a.stop, b.start)]
    ordered = [(a, b) if a.word == "name" else (b, a) for a, b in beside]
    return [(name, flag) for name, flag in ordered if name.value and flag.flag is not None]


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
