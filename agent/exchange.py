"""What passes between the loop and a model: messages, an answer or a failure, and the record of both."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypedDict

from .files import append_line, read_text
from .records import now

_LONGEST = 256 << 20  # bytes of a record that are counted


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Answer:
    """A model's text, and what it cost where that is known (cost in the currency of the prices given)."""

    text: str
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None


class LLMError(Exception):
    """No usable text came back; one sentence. `fatal`: the next request would fail in the same way."""

    def __init__(self, sentence: str, *, fatal: bool = False) -> None:
        super().__init__(sentence)
        self.fatal = fatal


class NoText(LLMError):
    """The server answered and its model said nothing to use: it refused, called a tool, or ran out of tokens.

    What it said and cost all the same is `answer`, where that is known.
    """

    def __init__(self, sentence: str, answer: Answer | None = None) -> None:
        super().__init__(sentence)
        self.answer = answer


Model = Callable[[Sequence[Message]], Answer]
"""All that the loop knows of a model: a function from messages to text."""


def ask(model: Model, messages: Sequence[Message], record: Path) -> str:
    """The model's text; the exchange, failed or not, is appended to `record` (llm.jsonl)."""
    begun = time.monotonic()
    try:
        answer = model(messages)
    except LLMError as error:
        _append(record, messages, error.answer if isinstance(error, NoText) else None, str(error), begun)
        raise
    _append(record, messages, answer, None, begun)
    return answer.text


def _append(
    record: Path, messages: Sequence[Message], answer: Answer | None, error: str | None, begun: float
) -> None:
    got = asdict(answer) if answer else dict.fromkeys(("text", "input_tokens", "output_tokens", "cost"))
    line = {
        "time": now().isoformat(),
        "messages": list(messages),
        **got,
        "error": error,
        "seconds": round(time.monotonic() - begun, 3),
    }
    append_line(record, json.dumps(line))


def totals(record: Path) -> dict[str, float]:
    """Exchanges, tokens and cost in an llm.jsonl; a line that a kill tore is left out."""
    sums = {"exchanges": 0.0, "input_tokens": 0.0, "output_tokens": 0.0, "cost": 0.0}
    for line in (read_text(record, _LONGEST) or "").split("\n"):
        try:
            exchange = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(exchange, dict):
            sums["exchanges"] += 1
            for key in ("input_tokens", "output_tokens", "cost"):
                value = exchange.get(key)
                sums[key] += value if isinstance(value, (int, float)) else 0
    return sums
