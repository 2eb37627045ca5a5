"""Unified diffs: reading one that a model wrote, strictly, and writing one that `git apply` takes."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .edits import File, named_by

_HUNK = re.compile(r"@@(?: -([0-9]{1,7})(?:,([0-9]{1,7}))? \+[0-9]{1,7}(?:,([0-9]{1,7}))? @@)?")
_LINE = re.compile(r"[ +\-@\\]|diff |index |(?:old|new|deleted) |rename |copy |(?:dis)?similarity |GIT ")
_PROSE = re.compile(r"[+-] \S|-{3,}\s*$")  # a bullet or a rule; code is indented by more than one blank, or by none
_REFUSED = ("old mode", "new mode", "new file", "deleted file", "rename", "copy", "similarity",
            "dissimilarity", "GIT binary", "Binary files")  # fmt: skip


class BadDiff(Exception):
    """Why a diff cannot be read; one sentence for the one who wrote it."""


@dataclass(frozen=True)
class Hunk:
    """Lines `old` of `file`, said to begin at `line`, become `new`; a diff without headers names no file."""

    file: File | None
    line: int | None
    old: tuple[str, ...]
    new: tuple[str, ...]


def starts_diff(lines: Sequence[str], at: int) -> bool:
    """Whether a diff begins there: with git's line, a pair of headers, or a hunk without any."""
    line, below = lines[at], lines[at + 1] if at + 1 < len(lines) else ""
    return (
        (line.startswith("diff --git ") and at + 1 < len(lines))
        or (line.startswith("--- ") and below.startswith("+++ "))
        or line.startswith(("@@ -", "@@ @@"))
        or (line.rstrip() == "@@" and _LINE.match(below) is not None)
    )


def end_of_diff(lines: Sequence[str], at: int) -> int:
    """Where a diff ends that no fence closes: bullets behind a hunk that has all the lines that it counts are prose."""
    old = new = -1  # lines that the hunk still has to have; below 0 where it does not count them, or not well
    while at < len(lines) and (not lines[at] or _LINE.match(lines[at])):
        line = lines[at]
        if match := _HUNK.match(line):
            old, new = (int(match[2] or 1), int(match[3] or 1)) if match[1] else (-1, -1)
        elif old == new == 0:
            if _PROSE.match(line):
                return at
            old = new = 0 if not line or line[0] == "\\" else -1
        else:
            old -= not line or line[0] in " -"
            new -= not line or line[0] in " +"
        at += 1
    return at


def parse_diff(text: str, what: str = "the diff", variants: Collection[str] = ()) -> list[Hunk]:
    """The hunks of a diff that touches only naive.py and triton.py, bare or in the folder of one of the `variants`.

    `@@` may stand without numbers. Raises `BadDiff`, where `what` is how the diff is called.
    """
    the = what[0].upper() + what[1:]
    lines = text.split("\n")
    hunks: list[Hunk] = []
    file: File | None = None
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.startswith("--- ") and at < len(lines) and lines[at].startswith("+++ "):
            file = _file(line[4:], lines[at][4:], the, variants)
            at += 1
        elif match := _HUNK.match(line):
            end = _end_of_hunk(lines, at)
            number = int(match[1]) if match[1] else None
            hunks.append(_hunk(file, number, lines[at:end], f"Hunk {len(hunks) + 1} of {what}"))
            at = end
        elif line.startswith("diff --git "):
            old, new = [*line[11:].split(" "), ""][:2]
            _file(old, new, the, variants)
        elif line.startswith(_REFUSED):
            raise BadDiff(f"{the} has a line {line[:60]!r}: it may only change lines of naive.py and triton.py.")
        elif line.strip() and not line.startswith("index "):
            raise BadDiff(f"{the} has a line {line[:60]!r} outside of its hunks: give only headers and hunks.")
    if not hunks:
        raise BadDiff(f"{the} has no hunk: give SEARCH/REPLACE blocks instead.")
    return hunks


def _end_of_hunk(lines: Sequence[str], at: int) -> int:
    while at < len(lines):
        header = lines[at].startswith("--- ") and at + 1 < len(lines) and lines[at + 1].startswith("+++ ")
        if header or lines[at].startswith(("@@", "diff --git ")):
            return at
        at += 1
    return at


def _file(old: str, new: str, the: str, variants: Collection[str]) -> File:
    """The one file that a pair of paths names."""
    found = []
    for path in (path.split("\t")[0].strip(' "') for path in (old, new)):
        named = named_by(path)
        if named is None or (named.variant and named.variant not in variants):
            raise BadDiff(
                f"{the} names {path[:80]!a}, but only naive.py and triton.py may change: "
                "write --- a/naive.py and +++ b/naive.py."
            )
        found.append(named.file)
    if found[0] != found[1]:
        raise BadDiff(f"{the} renames a file: keep the same name in its --- and +++ lines.")
    return found[0]


def _hunk(file: File | None, line: int | None, body: Sequence[str], what: str) -> Hunk:
    while body and not body[-1]:
        body = body[:-1]
    odd = next((x for x in body if x and x[0] not in " +-\\"), None)
    if odd is not None:
        raise BadDiff(f"{what} has a line {odd[:60]!r}: begin each with a blank, + or -.")
    old = tuple(x[1:] for x in body if not x or x[0] in " -")
    new = tuple(x[1:] for x in body if not x or x[0] in " +")
    if not any(x.strip() for x in old):
        raise BadDiff(f"{what} has no line of the parent: add some before and after the change.")
    return Hunk(file, line, old, new)


def unified_diff(parent_name: str | None, old: Mapping[str, str], name: str, new: Mapping[str, str]) -> str:
    """The child's files as a change of the parent's, which `git apply` takes on a tree that holds the parent.

    Each file is written as a copy with hunks; one that the parent does not have is a new file.
    """
    parts = []
    for file, text in new.items():
        target = f"variants/{name}/{file}"
        if parent_name is not None and file in old:
            parts.append(_copied(f"variants/{parent_name}/{file}", old[file], target, text))
        else:
            parts.append(_created(target, text))
    return "".join(parts)


def _copied(source: str, old: str, target: str, new: str) -> str:
    before, after = _lines(old), _lines(new)
    head = [
        f"diff --git a/{source} b/{target}",
        f"similarity index {_similarity(before, after)}%",
        f"copy from {source}",
        f"copy to {target}",
    ]
    return "\n".join(head) + "\n" + "".join(_hunks(before, after, f"a/{source}", f"b/{target}"))


def _created(target: str, text: str) -> str:
    head = f"diff --git a/{target} b/{target}\nnew file mode 100644\n"
    return head + "".join(_hunks([], _lines(text), "/dev/null", f"b/{target}"))


def _hunks(before: Sequence[str], after: Sequence[str], source: str, target: str) -> Iterator[str]:
    for line in difflib.unified_diff(before, after, source, target):
        yield line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"


def _lines(text: str) -> list[str]:
    """Lines with their ends, split at LF only, as git does."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _similarity(before: Sequence[str], after: Sequence[str]) -> int:
    """Per cent of the larger file's characters that stand in both; 100 only for equal files."""
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    shared = sum(len(line) for block in blocks for line in before[block.a : block.a + block.size])
    longest = max(sum(map(len, before)), sum(map(len, after)))
    return 100 if before == after else min(99, 100 * shared // max(1, longest))
