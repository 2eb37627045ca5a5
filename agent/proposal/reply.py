"""A model's reply as a proposal: title, name, mechanism, prediction, prose and edits; or why it is none."""

import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from ..names import BadName, check_name
from ..text import bare, one_line, printable
from . import prediction
from .edits import AnyEdit, ReplyError
from .labels import FORMAT, label, labelled
from .scan import FENCE, find_edits
from .thoughts import WRAPPERS, is_unfinished, without_thoughts

__all__ = ["MOST_BYTES", "Proposal", "ReplyError", "parse"]

MOST_BYTES = 200_000

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]*")


class Proposal(BaseModel):
    """What is to be tried, and its edits to the parent's source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    name: str
    mechanism: str  # "" where the reply gave none
    prediction: Mapping[str, float]  # column -> expected difference from the parent; {} where none was given
    prose: str
    edits: tuple[AnyEdit, ...]
    variants: tuple[str, ...] = ()  # those in whose folders it says that its files are
    unread: tuple[str, ...] = ()  # what of its prediction was not clear, and is left out


def parse(text: str) -> Proposal:
    """Read a reply. Raises `ReplyError`, one sentence for the model."""
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise ReplyError(
            f"The reply is longer than {MOST_BYTES:,} bytes: give only the lines that change, as blocks."
        )
    body = _unwrapped(_answer(_clean_line_ends(text)))
    if not body.strip():
        raise ReplyError(f"The reply is empty: {FORMAT}, prose and the change.")
    change = find_edits(body)
    found = labelled(change.prose)
    predicted = prediction.read(found.values.get("prediction", []))
    return Proposal(
        title=found.title,
        name=_name(found.values["name"]),
        mechanism=one_line(bare(found.values.get("mechanism", [""])[0]), 200),
        prediction=predicted.expected,
        prose=re.sub(r"\n{3,}", "\n\n", printable("\n".join(found.prose))).strip(),
        edits=change.edits,
        variants=change.variants,
        unread=predicted.unread,
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
    named = not any(label(line)[0] == "name" for line in lines[:first]) and any(label(line)[0] == "name" for line in within)
    wrapped = opens[2].strip().lower() in WRAPPERS and closes[1].startswith(opens[1]) and not closes[2]
    return "\n".join(lines[first + 1 : last]) if wrapped and named else text


def _name(values: list[str]) -> str:
    """The name as a slug: what differs from one in case, blanks and hyphens alone is no reason for another try."""
    names = list(dict.fromkeys(_lowered(bare(bare(value).rstrip("."))) for value in values))
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
