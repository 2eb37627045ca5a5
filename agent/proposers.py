"""Who proposes: a model behind a function, a person with an editor, or the built-in catalogue."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from . import catalogue, prompts
from .compare import Comparison
from .exchange import Answer, LLMError, Message, Model, NoText, ask
from .files import read_text, write_whole
from .insight import measured_insight
from .policy import Brief, seed_of
from .proposal.reply import ReplyError, parse
from .proposal.thoughts import is_unfinished, unwrapped, without_thoughts
from .text import one_line

_REFUSAL = re.compile(
    r"(?:i['\u2019]m sorry|i am sorry|sorry|i apologi[sz]e|unfortunately|as an ai|i can(?:no|['\u2019])t|i['\u2019]m (?:not able|unable)"
    r"|i am (?:not able|unable)|i won['\u2019]t|i will not)\b",
    re.IGNORECASE,
)
_SETTLED = 1.0  # seconds that an answer's file must rest before it is read: editors write in steps


@dataclass(frozen=True)
class Setback:
    """A reply that would not do, and the exact reason."""

    reply: str
    reason: str


class Proposer(Protocol):
    """Writes a reply for a brief, and the insight once it is measured; leaves its own traces in `folder`.

    Raises LLMError where no text came back, ReplyError where it has nothing to propose.
    """

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str | None: ...

    def propose(self, brief: Brief, setbacks: Sequence[Setback], tries_left: int, folder: Path) -> str: ...

    def reflect(self, comparison: Comparison, proposal: str, folder: Path) -> str: ...


@dataclass(frozen=True)
class Prompted:
    """A model: it reads prompts/ filled in, and every exchange is kept in llm.jsonl."""

    root: Path
    name: str
    model: str | None
    ask_model: Model

    def propose(self, brief: Brief, setbacks: Sequence[Setback], tries_left: int, folder: Path) -> str:
        messages = _conversation(self.root, brief, setbacks, tries_left)
        return without_thoughts(ask(self.ask_model, messages, folder / "llm.jsonl"))

    def reflect(self, comparison: Comparison, proposal: str, folder: Path) -> str:
        messages = prompts.reflect(self.root, comparison, proposal)
        said = unwrapped(without_thoughts(ask(self.ask_model, messages, folder / "llm.jsonl")))
        if not said.strip() or is_unfinished(said):
            raise NoText("the model sent its reasoning alone")
        try:
            name = parse(said).name
        except ReplyError:
            if _is_refusal(said):  # it would be a lesson to all that come after
                raise LLMError(f"the model refused: {one_line(said, 80)}") from None
            return said
        raise LLMError(f"asked for one, the model sent another proposal, {name}")


@dataclass(frozen=True)
class Manual:
    """A person: the prompt goes to a file, the answer comes from another; any chat window will do."""

    root: Path
    say: Callable[[str], None]
    name: str = "manual"
    model: str | None = None

    def propose(self, brief: Brief, setbacks: Sequence[Setback], tries_left: int, folder: Path) -> str:
        messages = _conversation(self.root, brief, setbacks, tries_left)
        numbers = ("", *(f"-{number}" for number in range(2, 100)))  # those that are taken were of an earlier try
        number = next(number for number in numbers if not (folder / f"prompt{number}.md").exists())
        prompt, answer = folder / f"prompt{number}.md", folder / f"answer{number}.md"
        write_whole(prompt, prompts.as_text(messages))
        self.say(f"The prompt is in {prompt}\nWaiting for the answer in {answer} (Ctrl-C gives up) ...")
        return ask(lambda _: Answer(_await(answer), None, None, None), messages, folder / "llm.jsonl")

    def reflect(self, comparison: Comparison, proposal: str, folder: Path) -> str:
        return measured_insight(comparison)


@dataclass(frozen=True)
class Catalogue:
    """No model at all: published mechanisms as source edits, drawn by seed."""

    name: str = "catalogue"
    model: str | None = None

    def propose(self, brief: Brief, setbacks: Sequence[Setback], tries_left: int, folder: Path) -> str:
        seed, known = seed_of(brief.seed, len(setbacks)), brief.tried | brief.taken
        with brief.desk:  # so that no attempt beside this one is given the same
            known |= brief.desk.names_beside(folder.name)
            try:
                reply = catalogue.propose(brief.parent, brief.sources, known, seed)
            except catalogue.NothingLeft as error:
                raise ReplyError(str(error)) from error
            brief.desk.take(folder.name, parse(reply))
            return reply

    def reflect(self, comparison: Comparison, proposal: str, folder: Path) -> str:
        return measured_insight(comparison)


def _conversation(root: Path, brief: Brief, setbacks: Sequence[Setback], tries_left: int) -> list[Message]:
    messages = prompts.propose(root, brief)
    for number, setback in enumerate(setbacks):
        left = tries_left + len(setbacks) - 1 - number
        messages += prompts.retry(root, setback.reply, setback.reason, left)
    return messages


def _is_refusal(said: str) -> bool:
    """Whether a short text without any number begins as refusals do."""
    return len(said) < 500 and not any(map(str.isdigit, said)) and bool(_REFUSAL.match(said.strip()))


def _await(path: Path) -> str:
    """The text of `path` once it is there, is not empty, and has not changed for a moment."""
    last, since = _seen(path), time.monotonic()
    while True:
        time.sleep(0.25)
        now = _seen(path)
        if now != last:  # by its own clock, which need not be ours
            last, since = now, time.monotonic()
        elif now and time.monotonic() - since >= _SETTLED:
            text = read_text(path)
            if text and text.strip():
                return text


def _seen(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
