"""A model's reply as a proposal: title, name, mechanism, prediction, prose and edits; or why it is none."""

import math
import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from ..names import BadName, check_name
from ..records import COLUMNS
from ..text import bare, one_line, printable
from .edits import AnyEdit, ReplyError
from .scan import FENCE, find_edits
from .thoughts import WRAPPERS, is_unfinished, without_thoughts

__all__ = ["MOST_BYTES", "Proposal", "ReplyError", "parse"]

MOST_BYTES = 200_000

_TASKS = (
    "compression",
    "in-context-recall",
    "fuzzy-in-context-recall",
    "memorization",
    "noisy-in-context-recall",
    "selective-copying",
)
_COLUMN_OF = {
    alias.casefold(): column
    for column, task in zip(COLUMNS, _TASKS, strict=True)
    for alias in (column, task, column.replace(" ", ""), column.replace(" ", "_"))
}
_EXPECTED = re.compile(
    r"([A-Za-z][A-Za-z _-]{0,40}?)[\s:=]*([+-]?(?:[0-9]{1,6}(?:\.[0-9]{0,12})?|\.[0-9]{1,12}))"
)
_HEADING = re.compile(r"(#{1,6})\s+(\S.*)")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]*")
_NOTHING = ("none", "unknown", "n/a", "-")
_FORMAT = "begin with '# Title', then 'Name: slug', 'Mechanism: class', 'Prediction: Compress +0.01, ...'"


class Proposal(BaseModel):
    """What is to be tried, and its edits to the parent's source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    name: str
    mechanism: str  # "" where the reply gave none
    prediction: Mapping[str, float]  # column -> expected difference from the parent; {} where none was given
    prose: str
    edits: tuple[AnyEdit, ...]


def parse(text: str) -> Proposal:
    """Read a reply. Raises `ReplyError`, one sentence for the model."""
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise ReplyError(
            f"The reply is longer than {MOST_BYTES:,} bytes: give only the lines that change, as blocks."
        )
    body = _unwrapped(_answer(_clean_line_ends(text)))
    if not body.strip():
        raise ReplyError(f"The reply is empty: {_FORMAT}, prose and the change.")
    edits, lines = find_edits(body)
    title_at, name_at = _header(lines)
    labels = _labels(lines, title_at)
    return Proposal(
        title=_title(lines[title_at]),
        name=_name(labels["name"]),
        mechanism=one_line(bare(labels.get("mechanism", [""])[0]), 200),
        prediction=_prediction(labels.get("prediction", [])),
        prose=_prose(lines, title_at, name_at),
        edits=edits,
    )


def parsed(text: str | None) -> Proposal | None:
    """The proposal of a reply, None where there is none that can be read."""
    try:
        return parse(text or "")
    except ReplyError:
        return None


def _clean_line_ends(text: str) -> str:
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if "\x00" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise ReplyError(
            "The reply holds NUL characters or halves of surrogate pairs: write plain UTF-8 text."
        )
    return text


def _answer(text: str) -> str:
    """Without the thinking that some models put before their answer."""
    answer = without_thoughts(text)
    if is_unfinished(answer):
        raise ReplyError(
            "The reply ends inside its thinking, so no answer arrived: think less and answer in full."
        )
    return answer


def _unwrapped(text: str) -> str:
    """Without a fence around the whole proposal, and what is said around that: the name stands in it, outside of other fences."""
    lines = text.split("\n")
    fences = [(at, match) for at, line in enumerate(lines) if (match := FENCE.fullmatch(line.strip()))]
    if len(fences) < 2 or len(fences) % 2:
        return text
    (first, opens), (last, closes) = fences[0], fences[-1]
    within = lines[first + 1 : fences[1][0]]
    named = not any(_label(line)[0] == "name" for line in lines[:first]) and any(_label(line)[0] == "name" for line in within)
    wrapped = opens[2].strip().lower() in WRAPPERS and closes[1].startswith(opens[1]) and not closes[2]
    return "\n".join(lines[first + 1 : last]) if wrapped and named else text


def _header(lines: list[str]) -> tuple[int, int]:
    """Where title and name stand: the title is the last heading above the name, of level one if any is."""
    name_at = next((i for i, line in enumerate(lines) if _label(line)[0] == "name"), None)
    if name_at is None:
        raise ReplyError(f"The reply has no line 'Name: slug' outside of its fences: {_FORMAT}.")
    headings = [(i, match) for i in range(name_at) if (match := _HEADING.match(lines[i].strip()))]
    top = [i for i, match in headings if match[1] == "#"] or [i for i, _ in headings]
    if not top:
        raise ReplyError(f"The reply has no title above its name: {_FORMAT}.")
    return top[-1], name_at


def _label(line: str) -> tuple[str, str]:
    """`**Name:** x` -> ("name", "x"); ("", "") for a line without one of the labels."""
    if len(line) > 2000:
        return "", ""
    label, colon, value = line.partition(":")
    word = label.strip(" \t*_`>+-#").lower()
    known = colon and word in {"name", "mechanism", "prediction", "predictions"}
    return (word.removesuffix("s"), value.strip()) if known else ("", "")


def _labels(lines: list[str], title_at: int) -> dict[str, list[str]]:
    labels: dict[str, list[str]] = {}
    for line in lines[title_at + 1 :]:
        word, value = _label(line)
        if word:
            labels.setdefault(word, []).append(value)
    return labels


def _title(line: str) -> str:
    match = _HEADING.match(line.strip())
    title = one_line(bare(match[2].rstrip(" #")) if match else "", 200)
    label, _, rest = title.partition(":")
    title = rest.strip(" *`") if label.lower() in {"title", "proposal"} else title
    if not title:
        raise ReplyError("The title is empty: write what is tried after '# ', in some words.")
    return title


def _name(values: list[str]) -> str:
    """The name as a slug: what differs from one in case, blanks and hyphens alone is no reason for another try."""
    names = list(dict.fromkeys(_lowered(bare(value)) for value in values))
    if len(names) > 1:
        raise ReplyError(
            f"The reply gives two names, {names[0][:60]!a} and {names[1][:60]!a}: give one."
        )
    try:
        return check_name(names[0])
    except BadName as error:
        slug = re.sub(r"[^a-z0-9]+", "_", names[0][:200].lower()).strip("_")[:96]
        hint = f" For example: {slug}." if _is_name(slug) else ""
        raise ReplyError(f"{error}{hint}") from error


def _lowered(name: str) -> str:
    return re.sub(r"[ -]+", "_", name.lower()) if _PLAIN_NAME.fullmatch(name) else name


def _is_name(text: str) -> bool:
    try:
        return bool(check_name(text))
    except BadName:
        return False


def _prediction(values: list[str]) -> dict[str, float]:
    """`Compress +0.01, Memorize +0.05` -> {column: difference}."""
    lines = list(dict.fromkeys(bare(value) for value in values if value))
    if len(lines) > 1:
        raise ReplyError("The reply gives two predictions: give one line 'Prediction: Compress +0.01, ...'.")
    expected: dict[str, float] = {}
    for part in re.split(r"[,;|]", lines[0]) if lines and lines[0].strip(" .*`").casefold() not in _NOTHING else []:
        if part.strip(" .*`"):
            column, value = _expected(
                part.replace("\u2212", "-").replace("\u00b1", "").replace("*", "").strip(" .`")
            )
            if expected.setdefault(column, value) != value:
                raise ReplyError(f"The prediction names {column} twice: give one number for each column.")
    return expected


def _expected(part: str) -> tuple[str, float]:
    match = _EXPECTED.match(part)
    rest = part[match.end() :].strip(" *`") if match else ""
    column = _COLUMN_OF.get(match[1].strip().casefold()) if match else None
    value = float(match[2]) if match else math.nan
    if rest.startswith("%"):
        value, rest = value / 100, rest[1:].strip(" *`")
    if match is None or column is None or (rest and not rest.startswith("(")) or abs(value) > 1:
        raise ReplyError(
            f"The prediction {part[:60]!a} is not a column and a difference between -1 and 1: write "
            f"e.g. 'Compress +0.01', with the columns {', '.join(COLUMNS)}."
        )
    return column, value


def _prose(lines: list[str], title_at: int, name_at: int) -> str:
    """What is said beside title and labels; what stands before the title is no part of the proposal."""
    kept = [line for line in lines[title_at + 1 :] if not _label(line)[0]]
    return re.sub(r"\n{3,}", "\n\n", printable("\n".join(kept))).strip()
