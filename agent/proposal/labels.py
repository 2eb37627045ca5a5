"""What stands beside the change in a reply: a title, labelled lines, and prose."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..text import bare, one_line
from .edits import ReplyError
from .prediction import begins_with_column, read

FORMAT = "begin with '# Title', then 'Name: slug', 'Mechanism: class', 'Prediction: Compress +0.01, ...'"

_WORDS = {"name": "name", "mechanism": "mechanism", "prediction": "prediction", "predictions": "prediction"}
_LONGEST = 2000
_HEADING = re.compile(r"(#{1,6})\s+(\S.*)")
_BOLD = re.compile(r"\*\*[^*]+\*\*|__[^_]+__")
_BULLET = re.compile(r"\s*(?:[-*+\u2022]|[0-9]{1,2}[.)])\s+(\S.*)")


@dataclass(frozen=True)
class Labelled:
    """`values` has a list for each label that is there; the prediction's is of all its lines."""

    title: str
    values: Mapping[str, list[str]]
    prose: list[str]


def labelled(lines: Sequence[str]) -> Labelled:
    """The parts of the lines around a change. Raises `ReplyError` where there is no name, or no title above it."""
    name_at = next((i for i, line in enumerate(lines) if label(line)[0] == "name"), None)
    if name_at is None:
        raise ReplyError(f"The reply has no line 'Name: slug' outside of its fences: {FORMAT}.")
    at = _title_at(lines, name_at) + 1
    title = _title(lines[at - 1])
    values: dict[str, list[str]] = {}
    prose: list[str] = []
    while at < len(lines):
        word, value = label(lines[at])
        section = ":" not in lines[at]  # what is below such a heading is all of it
        at += 1
        if not word:
            prose.append(lines[at - 1])
        elif word == "prediction":
            more, at = _predicted(lines, at, value, section=section)
            values.setdefault(word, []).extend([value, *more])
        else:
            if not value:
                value, at = _below(lines, at, near=word != "name" and not section)
            values.setdefault(word, []).append(value)
    return Labelled(title, values, prose)


def label(line: str) -> tuple[str, str]:
    """`**Name:** x` -> ("name", "x"), `## Name` -> ("name", ""); ("", "") for a line without one of the labels."""
    if len(line) > _LONGEST:
        return "", ""
    head, colon, value = line.partition(":")
    word = head.strip(" \t*_`>+-#").lower()
    word = word.partition("(")[0].rstrip(" *_") if word.endswith(")") else word
    alone = _HEADING.match(line.strip()) or _BOLD.fullmatch(line.strip())
    known = word in _WORDS and (colon or alone)
    return (_WORDS[word], value.strip() if bare(value) else "") if known else ("", "")


def _title_at(lines: Sequence[str], name_at: int) -> int:
    """The last heading above the name, of level one if any is; else the last line that is bold or labelled as a title."""
    above = [(i, lines[i].strip()) for i in range(name_at) if len(lines[i]) <= _LONGEST or lines[i].lstrip().startswith("#")]
    headings = [(i, match) for i, line in above if (match := _HEADING.match(line)) and not label(lines[i])[0]]
    found = [i for i, match in headings if match[1] == "#"] or [i for i, _ in headings]
    found = found or [i for i, line in above if not label(line)[0] and (_BOLD.fullmatch(line) or _of_title(line) is not None)]
    if not found:
        raise ReplyError(f"The reply has no title above its name: {FORMAT}.")
    return found[-1]


def _title(line: str) -> str:
    match = _HEADING.match(line.strip())
    title = one_line(bare(match[2].rstrip(" #") if match else line), 200)
    rest = _of_title(title)
    title = title if rest is None else rest
    if not title:
        raise ReplyError("The title is empty: write what is tried after '# ', in some words.")
    return title


def _of_title(line: str) -> str | None:
    """`Title: x` -> "x"; None for a line without that label."""
    head, colon, rest = line.partition(":")
    return bare(rest) if colon and head.strip(" *_`").lower() in {"title", "proposal"} else None


def _below(lines: Sequence[str], at: int, *, near: bool) -> tuple[str, int]:
    """The next line that has text, as the value of a label that is alone on its line, and where to go on."""
    below = next((i for i in range(at, len(lines)) if lines[i].strip()), None)
    if below is None or (near and below > at) or label(lines[below])[0] or _HEADING.match(lines[below].strip()):
        return "", at
    return lines[below].strip(), below + 1


def _predicted(lines: Sequence[str], at: int, value: str, *, section: bool) -> tuple[list[str], int]:
    """The lines of a prediction below its label, and where to go on: a list, a table, or a line that goes on there."""
    found: list[str] = []
    while True:
        begin = next((i for i in range(at, len(lines)) if lines[i].strip()), len(lines))
        first = not (value or found)
        gap = begin > at and not (first and section)
        run = [] if value and gap else _run(_paragraph(lines, begin), first, gap)
        if not run:
            return found, at
        found, at = [*found, *run], begin + len(run)


def _paragraph(lines: Sequence[str], at: int) -> list[str]:
    found = []
    for line in lines[at:]:
        if not line.strip() or len(line) > _LONGEST or label(line)[0] or _HEADING.match(line.strip()):
            break
        found.append(line)
    return found


def _run(paragraph: Sequence[str], first: bool, gap: bool) -> list[str]:
    """The lines at its begin that are of the prediction; those that are the `first` to say anything need not be clear."""
    texts = [(match[1] if (match := _BULLET.fullmatch(line)) else _row(line.strip()), line) for line in paragraph]
    if not any(begins_with_column(text) for text, _ in texts):
        return [text for text, _ in texts[:1]] if first and not gap else []
    found: list[str] = []
    for text, line in texts:
        listed = text != line.strip() and (first or not gap)
        clear = begins_with_column(text) and not read([text]).unread
        if not (clear or listed or (first and (not found or begins_with_column(text)))):
            break
        found.append(text)
    return found


def _row(line: str) -> str:
    """`| Compress | +0.01 | why |` -> "Compress +0.01"; "" for the head of a table and its rule."""
    if not line.startswith("|"):
        return line
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    return " ".join(cells[:2]) if begins_with_column(cells[0]) else ""
