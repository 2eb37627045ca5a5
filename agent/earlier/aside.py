"""Lines of an old record that are none of its own: code, what is commented out or quoted, and the changes of a file."""

import re
from collections.abc import Iterator, Sequence

MARK = "\x00"
"""Begins each such line while the record is read: nothing else holds it, and no table, label or title is read from there."""
_FENCE = re.compile(r"\s*(```+|~~~+)\s*([\w+-]*)")
_PRINTED = ("", "text", "txt", "console", "output", "csv", "tsv", "markdown", "md", "json", "log")  # fences around what was printed
_OPENS = re.compile(r"(\s*)(?:(?:async )?def \w+\(.*|class \w+\s*(?:\(.*\))?:|import [\w.]+(?: as \w+)?|from [\w.]+ import .+|@[A-Za-z][\w.]*(?:\(.*\))?|if __name__ ?==.*:)\s*(?:#.*)?")
_HUNK = re.compile(r"@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@")
_QUOTED = re.compile(r"> ?\S")


def marked(text: str) -> str:
    """The text with a mark before each line that is none of the record's own."""
    lines = text.split("\n")
    aside = {at for find in (_fenced, _of_code, _commented, _quoted, _changed) for at in find(lines)}
    return "\n".join(MARK + line if at in aside else line for at, line in enumerate(lines))


def unmarked(text: str) -> str:
    return text.replace(MARK, "")


def is_aside(line: str) -> bool:
    return line.startswith(MARK)


def is_fence(line: str) -> bool:
    """Whether a line opens or closes a block of what was printed."""
    return _FENCE.match(line) is not None


def _fenced(lines: Sequence[str]) -> Iterator[int]:
    begin, fence, printed = 0, "", False
    for at, line in enumerate(lines):
        found = _FENCE.match(line)
        if not fence and found:
            begin, fence, printed = at, found[1], found[2].lower() in _PRINTED
        elif fence and line.strip() == fence:
            if not printed or any(_OPENS.fullmatch(inner) for inner in lines[begin + 1 : at]):
                yield from range(begin, at + 1)
            fence = ""


def _of_code(lines: Sequence[str]) -> Iterator[int]:
    """What stands, indented, under a line that opens a function or a class, and that line."""
    depth: int | None = None
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if depth is not None and indent > depth:
            yield at
            continue
        opens = _OPENS.fullmatch(line)
        depth = indent if opens else None
        if opens:
            yield at


def _commented(lines: Sequence[str]) -> Iterator[int]:
    begin: int | None = None
    for at, line in enumerate(lines):
        if begin is None and line.lstrip().startswith("<!--"):
            begin = at
        if begin is not None and "-->" in line:
            yield from range(begin, at + 1)
            begin = None


def _quoted(lines: Sequence[str]) -> Iterator[int]:
    told = [at for at, line in enumerate(lines) if line.strip()]
    quoted = [at for at in told if _QUOTED.match(lines[at])]
    if len(quoted) < len(told):
        yield from quoted


def _changed(lines: Sequence[str]) -> Iterator[int]:
    inside = False
    for at, line in enumerate(lines):
        inside = _HUNK.match(line) is not None or (inside and line[:1] in ("+", "-", " "))
        if inside:
            yield at
