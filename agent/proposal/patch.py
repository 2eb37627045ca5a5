"""Applies a proposal's edits to its parent's source, and writes the change as a diff that git applies."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from .diffs import BadDiff, Hunk, parse_diff, unified_diff
from .edits import FILES, SearchReplace, UnifiedDiff, WholeFile
from .places import Place, places
from .reply import Proposal

__all__ = ["PatchError", "apply", "unified_diff"]


class PatchError(Exception):
    """Why the edits do not fit the parent, in one sentence that tells the model what to do differently."""


@dataclass(frozen=True)
class _Span:
    """Characters `start` to `end` of a file become `text`."""

    start: int
    end: int
    text: str
    what: str  # how to call it in an error


def apply(proposal: Proposal, parent_sources: Mapping[str, str], parent_name: str | None = None) -> dict[str, str]:
    """File name -> text of the child: naive.py, and triton.py only where the proposal gives or edits it.

    Raises `PatchError`. Paths may lie in the folders of the parent and of the child, which are meant alike.
    """
    variants = {proposal.name, parent_name or proposal.name}
    if other := next((name for name in proposal.variants if name not in variants), None):
        raise PatchError(
            f"The reply changes a file of {other}, but only the parent's naive.py and triton.py may change: "
            "name one of these two, without a folder."
        )
    parent = {file: _with_line_ends(text) for file, text in parent_sources.items()}
    child: dict[str, str] = {edit.file: edit.text for edit in proposal.edits if isinstance(edit, WholeFile)}
    blocks = [edit for edit in proposal.edits if isinstance(edit, SearchReplace)]
    diffs = [edit for edit in proposal.edits if isinstance(edit, UnifiedDiff)]
    spans: dict[str, list[_Span]] = {}
    for number, block in enumerate(blocks, 1):
        span = _search(_source(parent, block.file), block, f"SEARCH block {number}")
        spans.setdefault(block.file, []).append(span)
    for number, diff in enumerate(diffs, 1):
        what = "the diff" if len(diffs) == 1 else f"diff {number}"
        for file, span in _of_diff(diff, what, parent, variants):
            spans.setdefault(file, []).append(span)
    child |= {file: _replaced(parent[file], found, file) for file, found in spans.items()}
    child = {file: _with_line_ends(text) for file, text in ({"naive.py": parent["naive.py"]} | child).items()}
    if all(text == parent.get(file) for file, text in child.items()):
        raise PatchError("The edits leave the parent's source as it was: change what delta_rule computes.")
    return {file: child[file] for file in FILES if file in child}


def _with_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").rstrip("\n") + "\n"


def _of_diff(diff: UnifiedDiff, what: str, parent: Mapping[str, str], variants: Collection[str]) -> list[tuple[str, _Span]]:
    try:
        hunks = parse_diff(diff.text, what, variants)
    except BadDiff as error:
        raise PatchError(str(error)) from error
    files = [diff.file] if diff.file else [file for file in FILES if file in parent]
    if len(files) == 1 or all(hunk.file for hunk in hunks):
        return _spans(hunks, files[0], what, parent)
    fits, misses = [], []
    for file in files:
        try:
            fits.append(_spans(hunks, file, what, parent))
        except PatchError as error:
            misses.append(error)
    if not fits:
        raise misses[0]
    if len(fits) > 1:
        raise PatchError(
            f"{what[0].upper()}{what[1:]} names no file and fits {' and '.join(files)}: "
            "add the lines --- a/naive.py and +++ b/naive.py."
        )
    return fits[0]


def _spans(hunks: Sequence[Hunk], file: str, what: str, parent: Mapping[str, str]) -> list[tuple[str, _Span]]:
    """Where the hunks belong; `file` is that of those that name none."""
    placed = [(hunk, hunk.file or file, f"Hunk {number} of {what}") for number, hunk in enumerate(hunks, 1)]
    return [(name, _hunk(_source(parent, name), hunk, called, name)) for hunk, name, called in placed]


def _source(parent: Mapping[str, str], file: str) -> str:
    if file not in parent:
        raise PatchError(f"The parent has no {file} to edit: give the whole file in a fence headed {file}.")
    return parent[file]


def _search(source: str, edit: SearchReplace, what: str) -> _Span:
    """Whole lines first; where there are none, a part of one line."""
    old, new = edit.search.split("\n")[:-1], edit.replace.split("\n")[:-1]
    lines = source.split("\n")
    found = places(lines, old, new, edit.indent)
    texts = [line for line in old if line.strip()]
    if found or len(texts) != 1 or not (count := source.count(texts[0])):
        return _span(lines, found, old, what, edit.file)
    if count > 1:
        raise PatchError(_ambiguous(what, edit.file, count, old))
    start = source.index(texts[0])
    text = edit.replace.strip("\n") if len(old) > 1 else edit.replace.rstrip("\n")
    return _Span(start, start + len(texts[0]), _below(source, start, text), what)


def _below(source: str, start: int, text: str) -> str:
    """The text that begins at `start`, its later lines indented as that place is, where they were written as if it were not."""
    blanks = source[source.rfind("\n", 0, start) + 1 : start]
    first, *later = text.split("\n")
    least = blanks + first[: len(first) - len(first.lstrip())]  # what lines begin with that were written for there
    body = least + " " if first.rstrip().endswith(":") else least
    texts = [line for line in later if line.strip()]
    written_so = not texts or (texts[0].startswith(body) and all(line.startswith(least) for line in texts))
    if blanks.strip() or written_so or any(line.startswith(("def ", "@")) for line in texts):  # a function after the one that ends there
        return text
    return "\n".join([first, *(blanks + line if line.strip() else line for line in later)])


def _hunk(source: str, hunk: Hunk, what: str, file: str) -> _Span:
    """At the line that it says if it stands there, else at the only place."""
    lines = source.split("\n")
    found = places(lines, hunk.old, hunk.new)
    blank = next((i for i, line in enumerate(hunk.old) if line.strip()), 0)
    said = [place for place in found if hunk.line is not None and place.start - hunk.line + 1 in (0, blank)]
    return _span(lines, said if len(said) == 1 else found, hunk.old, what, file)


def _span(lines: Sequence[str], found: Sequence[Place], old: Sequence[str], what: str, file: str) -> _Span:
    """The only place that was found."""
    if not found:
        raise PatchError(_missing(what, file, lines, old))
    if len(found) > 1:
        raise PatchError(_ambiguous(what, file, len(found), old))
    place = found[0]
    start = sum(len(line) + 1 for line in lines[: place.start])
    end = start + sum(len(line) + 1 for line in lines[place.start : place.end])
    return _Span(start, end, "".join(line + "\n" for line in place.new), what)


def _ambiguous(what: str, file: str, count: int, old: Sequence[str]) -> str:
    return (
        f"{what}, which begins {_shown(old)}, occurs {count} times in the parent's {file}: "
        "add lines before or after it until it occurs once."
    )


def _missing(what: str, file: str, lines: Sequence[str], old: Sequence[str]) -> str:
    have = {line.rstrip() for line in lines}
    lost = next((line for line in old if line.strip() and line.rstrip() not in have), None)
    if lost is None:
        return (
            f"{what} does not occur in the parent's {file}: its lines stand there, but not one after another in this order; "
            "copy all the lines from the first to the last."
        )
    told = "copy the lines exactly, indentation included."
    if other := next((line for line in lines if line.strip() == lost.strip()), None):
        return (
            f"{what} does not occur in the parent's {file}: it has {lost.rstrip()[:120]!r}, and the line there is "
            f"{other.rstrip()[:120]!r}; {told}"
        )
    near = difflib.get_close_matches(lost.strip()[:200], [line.strip()[:200] for line in lines], 1, 0.5)
    hint = f"the nearest is {near[0]!r}" if near else "nothing there is like it"
    return f"{what} does not occur in the parent's {file}: there is no line {lost.strip()[:120]!r}, and {hint}; {told}"


def _shown(old: Sequence[str]) -> str:
    return repr(next((line.strip() for line in old if line.strip()), "")[:80])


def _replaced(source: str, spans: Sequence[_Span], file: str) -> str:
    """`source` with all spans replaced at once."""
    ordered = sorted(spans, key=lambda span: (span.start, span.end))
    parts, at = [], 0
    for before, span in zip([None, *ordered], ordered, strict=False):
        if before is not None and span.start < before.end:
            raise PatchError(f"{before.what} and {span.what} overlap in {file}: make one edit of them.")
        parts += [source[at : span.start], span.text]
        at = span.end
    return "".join([*parts, source[at:]])
