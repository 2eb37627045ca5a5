"""Who proposes: a model behind a function, a person with an editor, or the built-in catalogue."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from . import catalogue, prompts
from .compare import Comparison
from .exchange import Answer, LLMError, Message, Model, NoText, ask
from .files import read_bounded, write_whole
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
_THOUGHTS_ALONE = "the model sent its reasoning alone"
_SETTLED = 1.0  # seconds that an answer's file must rest before it is read: editors write in steps
_LONGEST_ANSWER = 4 << 20
_Stamp = tuple[int, int]


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
        said = without_thoughts(ask(self.ask_model, messages, folder / "llm.jsonl"))
        if not said.strip():
            raise NoText(_THOUGHTS_ALONE)
        return said

    def reflect(self, comparison: Comparison, proposal: str, folder: Path) -> str:
        messages = prompts.reflect(self.root, comparison, proposal)
        said = unwrapped(without_thoughts(ask(self.ask_model, messages, folder / "llm.jsonl")))
        if not said.strip() or is_unfinished(said):
            raise NoText(_THOUGHTS_ALONE)
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
    _known: dict[Path, _Stamp | None] = field(default_factory=dict, init=False)  # answers to other prompts, as they were when last looked at

    def propose(self, brief: Brief, setbacks: Sequence[Setback], tries_left: int, folder: Path) -> str:
        messages = _conversation(self.root, brief, setbacks, tries_left)
        numbers = ("", *(f"-{number}" for number in range(2, 100)))  # those that are taken were of an earlier try
        number = next(number for number in numbers if not (folder / f"prompt{number}.md").exists())
        prompt, answer = folder / f"prompt{number}.md", folder / f"answer{number}.md"
        write_whole(prompt, prompts.as_text(messages))
        self.say(f"The prompt is in {prompt}\nWaiting for the answer in {answer} (Ctrl-C gives up) ...")
        text = ask(lambda _: Answer(self._await(answer), None, None, None), messages, folder / "llm.jsonl")
        self._known[answer] = _seen(answer)  # what is written there from now on comes too late
        return text

    def reflect(self, comparison: Comparison, proposal: str, folder: Path) -> str:
        return measured_insight(comparison)

    def _await(self, path: Path) -> str:
        """The text of `path` once it is there, is not empty, and has not changed for a moment; what is no text is told, once."""
        asked = [folder for folder in path.parent.parent.iterdir() if (folder / "prompt.md").exists()]
        last, since, told = _seen(path), time.monotonic(), False
        while True:
            self._tell_of_late_ones(asked, path)
            time.sleep(0.25)
            now = _seen(path)
            if now != last:  # by its own clock, which need not be ours
                last, since, told = now, time.monotonic(), False
            elif now and not told and time.monotonic() - since >= _SETTLED:
                try:
                    text = read_bounded(path, _LONGEST_ANSWER).decode("utf-8", "replace")
                except OSError as error:
                    self.say(f"{path} cannot be read: {error.strerror}: the answer is awaited as a file of text")
                    told = True
                    continue
                if text.strip():
                    return text

    def _tell_of_late_ones(self, asked: Sequence[Path], awaited: Path) -> None:
        """A text that was written, or changed, when its prompt was no longer the one that waits."""
        for folder in asked:
            if folder != awaited.parent and not (folder / "attempt.json").exists():
                continue  # in flight beside this attempt
            for path in sorted(folder.glob("answer*.md")):
                if path == awaited or not path.with_name(path.name.replace("answer", "prompt", 1)).exists():
                    continue
                now, was_read = _seen(path), (folder / "proposal.md").exists()
                if now and now[1] and now != self._known.setdefault(path, now if was_read else None):
                    self._known[path] = now
                    self.say(f"{path} was not read: nobody waits for it any more; copy it to {awaited} if that is what you mean")


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


def _seen(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:  # reading it tells
        return 0, error.errno or 0
    return found.st_mtime_ns, found.st_size
