"""Applies a proposal's edits to its parent's source, and writes the change as a diff that git applies."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .diffs import BadDiff, parse_diff, unified_diff
from .edits import FILES, AnyEdit, SearchReplace, UnifiedDiff, WholeFile
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


def apply(proposal: Proposal, parent_sources: Mapping[str, str]) -> dict[str, str]:
    """File name -> text of the child: naive.py, and triton.py only where the proposal gives or edits it."""
    parent = {file: _with_line_ends(text) for file, text in parent_sources.items()}
    child: dict[str, str] = {}
    spans: dict[str, list[_Span]] = {}
    for number, edit in enumerate(proposal.edits, 1):
        if isinstance(edit, WholeFile):
            child[edit.file] = edit.text
        else:
            for file, span in _located(edit, number, parent):
                spans.setdefault(file, []).append(span)
    child |= {file: _replaced(parent[file], found, file) for file, found in spans.items()}
    child = {file: _with_line_ends(text) for file, text in ({"naive.py": parent["naive.py"]} | child).items()}
    if all(text == parent.get(file) for file, text in child.items()):
        raise PatchError("The edits leave the parent's source as it was: change what delta_rule computes.")
    return {file: child[file] for file in FILES if file in child}


def _with_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").rstrip("\n") + "\n"


def _located(edit: AnyEdit, number: int, parent: Mapping[str, str]) -> Iterable[tuple[str, _Span]]:
    if isinstance(edit, SearchReplace):
        what = f"SEARCH block {number}"
        yield edit.file, _search(_source(parent, edit.file), edit, what)
    elif isinstance(edit, UnifiedDiff):
        try:
            hunks = parse_diff(edit.text)
        except BadDiff as error:
            raise PatchError(str(error)) from error
        for index, hunk in enumerate(hunks, 1):
            what = f"Hunk {index} of the diff"
            source = _source(parent, hunk.file)
            yield hunk.file, _lines_span(source, hunk.old, hunk.new, what, hunk.file, hunk.line)


def _source(parent: Mapping[str, str], file: str) -> str:
    if file not in parent:
        raise PatchError(f"The parent has no {file} to edit: give the whole file in a fence headed {file}.")
    return parent[file]


def _search(source: str, edit: SearchReplace, what: str) -> _Span:
    """Whole lines first; where there are none, a part of one line."""
    old, new = edit.search.split("\n")[:-1], edit.replace.split("\n")[:-1]
    part = edit.search.rstrip("\n")
    if len(old) == 1 and not _places(source.split("\n"), old) and part.strip() and source.count(part):
        if source.count(part) > 1:
            raise PatchError(_ambiguous(what, edit.file, source.count(part), old))
        start = source.index(part)
        return _Span(start, start + len(part), edit.replace.rstrip("\n"), what)
    return _lines_span(source, old, new, what, edit.file, None)


def _lines_span(
    source: str, old: Sequence[str], new: Sequence[str], what: str, file: str, line: int | None
) -> _Span:
    """Where the lines `old` stand in `source`: at `line` (from 1) if they do, else at the only place."""
    lines = source.split("\n")
    places = _places(lines, old)
    if line is not None and line - 1 in places:
        places = [line - 1]
    if not places:
        raise PatchError(_missing(what, file, lines, old))
    if len(places) > 1:
        raise PatchError(_ambiguous(what, file, len(places), old))
    start = sum(len(x) + 1 for x in lines[: places[0]])
    end = start + sum(len(x) + 1 for x in lines[places[0] : places[0] + len(old)])
    return _Span(start, end, "".join(x + "\n" for x in new), what)


def _places(lines: Sequence[str], old: Sequence[str]) -> list[int]:
    """Every index where `old` stands in `lines`; blanks at the end of a line do not count."""
    have, want = [line.rstrip() for line in lines], [line.rstrip() for line in old]
    first = [i for i, line in enumerate(have) if line == want[0]] if want else []
    return [i for i in first if have[i : i + len(want)] == want]


def _ambiguous(what: str, file: str, count: int, old: Sequence[str]) -> str:
    return (
        f"{what}, which begins {_shown(old)}, occurs {count} times in the parent's {file}: "
        "add lines before or after it until it occurs once."
    )


def _missing(what: str, file: str, lines: Sequence[str], old: Sequence[str]) -> str:
    have = {line.rstrip() for line in lines}
    lost = next((line for line in old if line.strip() and line.rstrip() not in have), None)
    if lost is None:
        return f"{what} does not occur in the parent's {file}: its lines stand there, but not in this order."
    near = difflib.get_close_matches(lost.strip()[:200], [line.strip()[:200] for line in lines], 1, 0.5)
    hint = f"the nearest is {near[0]!r}" if near else "nothing there is like it"
    return (
        f"{what} does not occur in the parent's {file}: there is no line {lost.strip()[:120]!r}, and {hint}; "
        "copy the lines exactly, indentation included."
    )


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
