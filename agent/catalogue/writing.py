"""Writes a child of the catalogue as a reply: what a model would send, in SEARCH/REPLACE blocks."""

import difflib
import textwrap
from collections.abc import Sequence

from ..proposal.patch import apply
from ..proposal.reply import parse
from ..records import COLUMNS
from .mechanism import Choice
from .places import PLACES
from .source import with_docstring


def reply(name: str, parent: str, source: str, child: str, wanted: Sequence[Choice]) -> str:
    """The reply that turns `source` into `child`, read back by the parser that reads a model's."""
    title = "; ".join(choice.title for choice in wanted)
    new = with_docstring(child, _docstring(title, parent, wanted))
    head = "\n".join([
        f"# {title}",
        "",
        f"Name: {name}",
        f"Mechanism: {' + '.join(dict.fromkeys(choice.mechanism.kind for choice in wanted))}",
        f"Prediction: {_prediction(wanted)}",
        "",
        *(paragraph for choice in wanted for paragraph in _prose(choice)),
        f"The parent is {parent}. Proposed by the built-in catalogue, without a model (proposer=catalogue).",
        "",
    ])  # fmt: skip
    written = f"{head}\n{blocks(source, new)}"
    if apply(parse(written), {"naive.py": source}) != {"naive.py": new.rstrip("\n") + "\n"}:
        return f"{head}\n```python naive.py\n{new}```\n"
    return written


def _prose(choice: Choice) -> list[str]:
    mechanism = choice.mechanism
    places = "; ".join(PLACES[place] for place in mechanism.code)
    lines = [
        f"Rationale: {mechanism.rationale}",
        f"Hypothesis: {mechanism.hypothesis}",
        f"Literature: {mechanism.reference}.",
        f"What is edited ({mechanism.slug}): {places}.",
    ]
    return [line for text in lines for line in (*textwrap.wrap(text, 110), "")]


def _prediction(wanted: Sequence[Choice]) -> str:
    """One number for each column; what mechanisms foresee adds up."""
    total = {
        column: sum(choice.mechanism.prediction.get(column, 0.0) for choice in wanted) for column in COLUMNS
    }
    return ", ".join(f"{column} {value:+g}" if value else f"{column} 0" for column, value in total.items())


def _docstring(title: str, parent: str, wanted: Sequence[Choice]) -> str:
    sources = "; ".join(dict.fromkeys(choice.mechanism.reference for choice in wanted))
    parts = [*(choice.mechanism.rationale for choice in wanted)]
    parts.append(
        f"Source: {sources}. Parent: {parent}, in whose source this is one more edit "
        f"({', '.join(choice.slug for choice in wanted)}). Recurrent form: not written out."
    )
    body = "\n\n".join(textwrap.fill(part, 108) for part in parts)
    return f"{textwrap.shorten(title, 104)}.\n\n{body}\n"


def blocks(old_text: str, new_text: str) -> str:
    """SEARCH/REPLACE blocks from one text to another; each SEARCH is long enough to stand once in it."""
    old, new = old_text.rstrip("\n").split("\n"), new_text.rstrip("\n").split("\n")
    changes = _changes(old, new)
    return "\n".join(
        "\n".join(["<<<<<<< SEARCH", *old[a:b], "=======", *new[c:d], ">>>>>>> REPLACE", ""])
        for a, b, c, d in changes
    )


def _changes(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Ranges (old from, old to, new from, new to) that differ, grown until the old lines stand only once."""
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    left = [(a, b, c, d) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal"]
    found: list[tuple[int, int, int, int]] = []
    while left:
        a, b, c, d = left.pop(0)
        while left and left[0][0] - b <= 1:  # one line between two changes is no reason for two blocks
            _, b, _, d = left.pop(0)
        while not _stands_once(old, a, b) and (a > 0 or b < len(old)):
            if a > 0:
                a, c = a - 1, c - 1
                if found and a < found[-1][1]:
                    a, _, c, _ = found.pop()
            else:
                b, d = b + 1, d + 1
                if left and b > left[0][0]:
                    _, b, _, d = left.pop(0)
        found.append((a, b, c, d))
    return found


def _stands_once(lines: Sequence[str], a: int, b: int) -> bool:
    piece = [line.rstrip() for line in lines[a:b]]
    stripped = [line.rstrip() for line in lines]
    places = [i for i in range(len(lines) - len(piece) + 1) if stripped[i : i + len(piece)] == piece]
    return any(piece) and len(places) == 1
