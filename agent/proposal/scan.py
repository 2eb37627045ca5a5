"""Finds the change in a reply, in one walk over its lines: blocks, fences and diffs here, prose there."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .diffs import end_of_diff, starts_diff
from .edits import (
    FILES,
    AnyEdit,
    File,
    Named,
    ReplyError,
    SearchReplace,
    UnifiedDiff,
    WholeFile,
    consistent,
    named_file,
)

MOST_BLOCKS = 100

FENCE = re.compile(r"(`{3,}(?!.*`)|~{3,})(.*)")
_SEARCH = re.compile(r"(<{5,9})\s*SEARCH\b\s*(.*)", re.IGNORECASE)
_MARKER = re.compile(r"<{7}(?!<)")
_REPLACE = re.compile(r"(>{5,9})\s*REPLACE\b", re.IGNORECASE)
_DIFF_LANGUAGES = {"diff", "patch", "udiff"}
_SHELLS = {"bash", "sh", "shell", "zsh", "console", "shell-session"}


@dataclass(frozen=True)
class Found:
    """The edits of a reply, the lines around them, and the variants in whose folders it says that its files are."""

    edits: tuple[AnyEdit, ...]
    prose: list[str]
    variants: tuple[str, ...]


def find_edits(text: str) -> Found:
    """What a reply changes; raises `ReplyError`. `text` has LF line ends."""
    scan = _Scan(text.split("\n"))
    scan.read()
    scan.refuse_strays()
    return Found(consistent(scan.edits), scan.prose, tuple(sorted(scan.variants)))


@dataclass(frozen=True)
class _Fence:
    language: str
    named: Named | None  # by its info string
    lines: list[str]
    first: int  # index of its first content line


class _Scan:
    """One walk over the lines; `at` is the next line, `file` the last one that was named."""

    def __init__(self, lines: list[str]) -> None:
        self.lines, self.at = lines, 0
        self.file: File = "naive.py"
        self.edits: list[AnyEdit] = []
        self.prose: list[str] = []
        self.variants: set[str] = set()
        self.strays: list[tuple[Named, str]] = []  # fences that a file's name is above, and why they are not that file

    def read(self) -> None:
        while self.at < len(self.lines):
            line = self.lines[self.at].strip()
            if search := _search(line):
                self._name_from_prose()
                self._block(self.lines, search, 0)
            elif fence := FENCE.match(line):
                self._fence(fence)
            elif starts_diff(self.lines, self.at):
                self._raw_diff()
            else:
                if _REPLACE.match(line):
                    raise ReplyError(
                        f"Line {self.at + 1} ends a block that was never begun: "
                        "write <<<<<<< SEARCH, =======, >>>>>>> REPLACE in this order."
                    )
                self.prose.append(self.lines[self.at])
                self.at += 1

    def refuse_strays(self) -> None:
        """A fence that lacks what its file must have is prose beside a change, unless it is headed as a file that stays untouched."""
        forms = {type(edit) for edit in self.edits}
        for named, reason in self.strays:
            touched = UnifiedDiff in forms or any(named.file == edit.file for edit in self.edits)
            if not touched and (named.alone or SearchReplace not in forms):
                raise ReplyError(reason)

    def _noted(self, named: Named | None) -> Named | None:
        """What was named, its variant noted where it heads a change."""
        if named and named.variant and named.alone:
            self.variants.add(named.variant)
        return named

    def _name(self, named: Named | None) -> Named | None:
        """Keep what was named for the blocks that follow."""
        self.file = named.file if named else self.file
        return self._noted(named)

    def _name_from_prose(self) -> Named | None:
        """The file that the last line of prose names."""
        return self._name(named_file(next((line for line in reversed(self.prose[-3:]) if line.strip()), "")))

    def _block(self, lines: list[str], opening: re.Match[str], shift: int) -> None:
        """Read the SEARCH/REPLACE block at `at`; the reply has `shift` lines before `lines`."""
        where = f"The block on line {self.at + shift + 1}"
        indent = len(lines[self.at]) - len(lines[self.at].lstrip(" "))
        width = len(opening[1])
        self._name(named_file(opening[2]))
        search = self._until(lines, "=" * width, where)
        replace = self._until(lines, ">" * width + "REPLACE", where)
        self.at += 1
        if not search.strip():
            raise ReplyError(
                f"{where} has an empty SEARCH part: copy the lines of the parent that are to change, "
                "or give the whole file in one fence."
            )
        if search == replace:
            raise ReplyError(f"{where} replaces its lines by themselves: write what changes.")
        self.edits.append(SearchReplace(file=self.file, search=search, replace=replace, indent=indent))
        if len(self.edits) > MOST_BLOCKS:
            raise ReplyError(
                f"The reply holds more than {MOST_BLOCKS} blocks: give the whole file in one fence."
            )

    def _until(self, lines: list[str], mark: str, where: str) -> str:
        """The lines after `at` and before the next line that is `mark`, where `at` is left."""
        begin = self.at + 1
        for i in range(begin, len(lines)):
            line = lines[i].strip()
            if line.replace(" ", "").upper() == mark:
                self.at = i
                return _lines_text(_without_fence(lines[begin:i]))
            second_rule = line.startswith("=") and line == "=" * mark.count(">")
            if _search(line) or _REPLACE.match(line) or second_rule:
                raise ReplyError(
                    f"{where} has {line[:24]!r} where {mark!r} is due: write <<<<<<< SEARCH, =======, "
                    ">>>>>>> REPLACE in this order, each alone on its line."
                )
        raise ReplyError(f"{where} is never closed by {mark!r}: send the whole block again.")

    def _fence(self, opening: re.Match[str]) -> None:
        fence = self._fence_lines(opening)
        where = f"The fence on line {fence.first}"
        if any(_search(line.strip()) for line in fence.lines):
            if not self._name(fence.named):
                self._name_from_prose()
            return self._blocks_in(fence)
        first = next((i for i, line in enumerate(fence.lines) if line.strip()), 0)
        headed = bool(fence.lines) and starts_diff(fence.lines, first)
        if fence.language in _DIFF_LANGUAGES or headed:
            self._diff(fence.lines, fence.named)
            return None
        named = self._noted(fence.named) or self._name_from_prose() or _comment_file(fence.lines)
        defines = any(line.startswith("def delta_rule") for line in fence.lines)
        if not defines:
            self.prose += self.lines[fence.first - 1 : self.at]
            if named and fence.language not in _SHELLS:
                reason = f"is headed {named.file} and has no line 'def delta_rule(...)': give the whole file there, or SEARCH/REPLACE blocks."
                self.strays.append((named, f"{where} {reason}"))
            return None
        if named is None and any(line.startswith(("import triton", "from triton")) for line in fence.lines):
            raise ReplyError(
                f"{where} imports triton and names no file: write triton.py on the line before it."
            )
        self.edits.append(WholeFile(file=named.file if named else "naive.py", text=_lines_text(fence.lines).lstrip("\n")))
        return None

    def _diff(self, lines: Sequence[str], named: Named | None) -> None:
        """Keep a diff; of one without headers also which file is named above it."""
        text = _lines_text(lines).rstrip("\n") + "\n"
        if not any(line.startswith("--- ") for line in lines):
            named = self._noted(named) or self._name_from_prose()
        self.edits.append(UnifiedDiff(text=text, file=named.file if named else None))

    def _fence_lines(self, opening: re.Match[str]) -> _Fence:
        """Read a whole fence; its closing line does not count inside a SEARCH block."""
        mark, info = opening.groups()
        indent = len(self.lines[self.at]) - len(self.lines[self.at].lstrip(" "))
        first = self.at + 1
        language, named = _info(info)
        in_block = False
        for i in range(first, len(self.lines)):
            line = self.lines[i].strip()
            if not in_block and line.startswith(mark) and not line.strip(mark[0]):
                self.at = i + 1
                return _Fence(language, named, [_dedented(x, indent) for x in self.lines[first:i]], first)
            in_block = (in_block or _search(line) is not None) and not _REPLACE.match(line)
        self.at = len(self.lines)
        if any(line.strip() for line in self.lines[first:]):
            raise ReplyError(
                f"The fence on line {first} is never closed, so the reply seems to be cut off: "
                "send it whole, with the closing fence, and shorter if it did not fit."
            )
        return _Fence(language, None, [], first)

    def _blocks_in(self, fence: _Fence) -> None:
        """Read the blocks of a fence that holds nothing else."""
        after, self.at = self.at, 0
        while self.at < len(fence.lines):
            line = fence.lines[self.at].strip()
            if search := _search(line):
                self._block(fence.lines, search, fence.first)
                continue
            named = named_file(line)
            if line and named is None and not line.startswith(("#", "...")):
                raise ReplyError(
                    f"The fence on line {fence.first} holds {line[:40]!r} beside its SEARCH/REPLACE "
                    "blocks: put only blocks there, or the whole file in a fence of its own."
                )
            self._name(named)
            self.at += 1
        self.at = after

    def _raw_diff(self) -> None:
        begin, self.at = self.at, end_of_diff(self.lines, self.at)
        self._diff(self.lines[begin : self.at], None)


def _info(info: str) -> tuple[str, Named | None]:
    """Language and file of a fence's info string, as in `python naive.py` or `python title="naive.py"`."""
    words = re.split(r"[\s:{}=,\"']+", info[:200].strip(" \t.{"))
    found = [named for word in words if (named := named_file(word))]
    return words[0].lower(), found[0] if found else None


def _comment_file(lines: Sequence[str]) -> Named | None:
    """The file that the first line names, as in `# naive.py`."""
    first = next((line.strip() for line in lines if line.strip()), "")
    bare = first.lstrip("# ").rstrip() if first.startswith("#") else ""
    return next((Named(file) for file in FILES if bare == file or bare.endswith("/" + file)), None)


def _search(line: str) -> re.Match[str] | None:
    match = _SEARCH.match(line)
    if match is None and _MARKER.match(line):
        raise ReplyError(f"A line reads {line[:40]!r}: a block begins with <<<<<<< SEARCH.")
    return match


def _without_fence(lines: list[str]) -> list[str]:
    """Without a fence that wraps one half of a block."""
    if len(lines) >= 2 and FENCE.match(lines[0].strip()) and lines[-1].strip() in {"```", "~~~", "````"}:
        return lines[1:-1]
    return lines


def _dedented(line: str, indent: int) -> str:
    return line[min(indent, len(line) - len(line.lstrip(" "))) :] if indent else line


def _lines_text(lines: Sequence[str]) -> str:
    return "".join(line + "\n" for line in lines)
