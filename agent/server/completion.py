"""What a server sent, read as a chat completion: its text and its tokens, or one sentence on what is wrong with it."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ValidationError

from ..exchange import LLMError
from ..text import one_line


def _count(value: object) -> int | None:
    """A number of tokens, None for whatever else a server writes there: an answer is not lost over its bill."""
    whole = value if isinstance(value, int) and not isinstance(value, bool) else None
    return whole if whole is not None and 0 <= whole < 10**12 else None


def _joined(content: object) -> object:
    """Some servers send the text in parts, `{"type": "text", "text": ...}`, and their model's thoughts in others."""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return content
    texts = [part.get("text") for part in content if part.get("type", "text") in ("text", "output_text")]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else content


class Passing(LLMError):
    """No answer this time: it came in half, or with an error inside that the next try may not meet."""


_Count = Annotated[int | None, BeforeValidator(_count)]
_Word = Annotated[str | None, BeforeValidator(lambda value: value if isinstance(value, str) else None)]


class Usage(BaseModel):
    prompt_tokens: _Count = None
    completion_tokens: _Count = None


class _Message(BaseModel):
    content: Annotated[str | None, BeforeValidator(_joined)] = None
    refusal: _Word = None
    reasoning_content: object = None
    reasoning: object = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: _Word = None


class _Completion(BaseModel):
    choices: list[_Choice] | None = None
    usage: Annotated[Usage | None, BeforeValidator(lambda value: value if isinstance(value, dict) else None)] = None
    error: object = None


@dataclass(frozen=True)
class Said:
    """The text and the tokens of an answer, and why the text is none to use, where it is not."""

    text: str
    usage: Usage
    useless: str | None


def read(body: bytes, server: str) -> Said:
    """What `server` sent; raises LLMError where it is no answer."""
    completion = _completion(body, server)
    if completion.error:
        kind = Passing if passes(_code(completion.error)) else LLMError
        raise kind(f"{server} sent an error as its answer: {_said(completion.error)}")
    if not completion.choices:
        raise LLMError(f"{server} sent an answer without choices: {one_line(body[:200].decode('utf-8', 'replace'), 80)!r}")
    choice = completion.choices[0]
    # JSON may spell half of a surrogate pair, which no file and no later request can hold.
    text = (choice.message.content or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Said(text, completion.usage or Usage(), _useless(choice))


def _completion(body: bytes, server: str) -> _Completion:
    start = body[:200].decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if not start:
        raise Passing(f"{server} sent an empty answer")
    if start.startswith("<"):
        raise LLMError(f"{server} sent a web page, not an answer: is the base URL right (.../v1)?")
    try:
        return _Completion.model_validate(json.loads(body))
    except ValidationError as error:
        raise LLMError(f"{server} sent JSON of another form: {_mismatch(error)}") from error
    except UnicodeDecodeError as error:
        raise LLMError(f"{server} sent JSON that is not in UTF-8 (at byte {error.start:,})") from error
    except (ValueError, RecursionError) as error:
        raise Passing(f"{server} sent JSON that is cut off or broken{_break(error)}") from error


def _break(error: Exception) -> str:
    """Where, and what stands around it: the beginning is often sound."""
    if not isinstance(error, json.JSONDecodeError):
        return ""
    around = one_line(error.doc[max(0, error.pos - 40) : error.pos + 40], 80)
    return f" at character {error.pos:,} of {len(error.doc):,}: {around!r}"


_WANTED = {"string_type": "text", "list_type": "a list", "model_type": "an object", "model_attributes_type": "an object"}
_KINDS = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}


def _mismatch(error: ValidationError) -> str:
    """`choices.0.message.content: a number, not text`."""
    first: Any = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or "the answer"
    if first["type"] == "missing":
        return f"{place}: missing"
    return f"{place}: {_KINDS.get(type(first['input']), 'null')}, not {_WANTED.get(first['type'], first['type'])}"


def reason(body: bytes) -> str:
    """What the body of a refusal says: its error, or as it stands."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = body[:4000].decode("utf-8", "replace")
    return _said(found.get("error") or found if isinstance(found, dict) else found) or "it sent no reason"


def passes(status: int) -> bool:
    """Whether a failure of that status may be over at the next try."""
    return status in (408, 409, 429) or status >= 500


def _code(error: object) -> int:
    """The status that an error in an answer of status 200 would have had, 500 where it does not say."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 100 <= code < 600 else 500


def _said(error: object) -> str:
    """An error is a text, or an object with a message."""
    message = error.get("message") if isinstance(error, dict) else None
    return one_line(message if isinstance(message, str) and message.strip() else str(error))


def _useless(choice: _Choice) -> str | None:
    """Why there is nothing to use in it."""
    message = choice.message
    if message.refusal:
        return f"the model refused: {one_line(message.refusal)}"
    if choice.finish_reason == "length":
        return "the answer was cut off at the model's limit of tokens"
    if choice.finish_reason == "content_filter":
        return "the answer was stopped by the server's content filter"
    if not (message.content or "").strip():
        only = ", only its reasoning" if message.reasoning_content or message.reasoning else ""
        return f"the model sent no text{only} (finish reason: {one_line(str(choice.finish_reason), 40)})"
    return None
