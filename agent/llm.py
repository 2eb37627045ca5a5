"""Any server that speaks OpenAI's chat.completions, held to a deadline, a size and a form.

The client retries by itself (429, 5xx, lost connections); nothing here does so a second time.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import httpx2
import openai
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel, BeforeValidator, ValidationError

from .exchange import Answer, LLMError, Message
from .text import one_line, scrub

MOST_BYTES = 2 << 20


class _Broken(openai.OpenAIError):
    """Of OpenAI's family, because that is what its client lets through without another try."""


def _count(value: object) -> int | None:
    """A number of tokens, None for whatever else a server writes there: an answer is not lost over its bill."""
    whole = value if isinstance(value, int) and not isinstance(value, bool) else None
    return whole if whole is not None and 0 <= whole < 10**12 else None


_Count = Annotated[int | None, BeforeValidator(_count)]


class _Usage(BaseModel):
    prompt_tokens: _Count = None
    completion_tokens: _Count = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    choices: list[_Choice] | None = None
    usage: Annotated[_Usage | None, BeforeValidator(lambda value: value if isinstance(value, dict) else None)] = None
    error: object = None


@dataclass(frozen=True)
class Prices:
    """Per million tokens; None where the user gave none, for they change."""

    input: float | None
    output: float | None

    def cost(self, usage: _Usage) -> float | None:
        amounts = (usage.prompt_tokens, usage.completion_tokens)
        if None in (self.input, self.output, *amounts):
            return None
        return sum((n or 0) * (p or 0) for n, p in zip(amounts, (self.input, self.output), strict=True)) / 1e6


class OpenAIModel:
    """A `Model`: call it with messages. Raises LLMError with one sentence for whatever goes wrong."""

    def __init__(
        self,
        name: str,
        *,
        key: str | None,
        base_url: str | None,
        deadline: float,
        retries: int,
        prices: Prices,
    ) -> None:
        self._name, self._deadline, self._prices = name, deadline, prices
        self._key, self._base_url, self._retries = key, base_url, retries
        self._secrets = (key,) if key else ()
        url = self._client().base_url
        self._server = f"the server at {url.scheme}://{url.host}{f':{url.port}' if url.port else ''}"

    def __call__(self, messages: Sequence[Message]) -> Answer:
        try:
            return self._read(asyncio.run(self._fetch(messages)))
        except LLMError as error:
            raise LLMError(scrub(str(error), self._secrets), fatal=error.fatal) from None

    def _client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self._base_url,
            timeout=httpx2.Timeout(self._deadline, connect=20.0),
            max_retries=self._retries,
            default_headers={"Accept-Encoding": "identity"},
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [_guard]}),
        )

    async def _fetch(self, messages: Sequence[Message]) -> bytes:
        """The body of an answer. A time-out of the client's counts for each read alone, ours for the whole exchange.

        On an event loop of its own, whichever thread asks; one that is given up has its connection closed.
        """
        asked: list[ChatCompletionMessageParam] = [_param(message) for message in messages]
        try:
            async with asyncio.timeout(self._deadline), self._client() as client:
                response = await client.chat.completions.with_raw_response.create(
                    model=self._name, messages=asked
                )
        except TimeoutError as error:
            raise LLMError(f"{self._server} had not answered after {self._deadline:g} s") from error
        except openai.APIStatusError as error:
            raise self._refused(error) from error
        except openai.APITimeoutError as error:
            raise LLMError(f"{self._server} did not answer within {self._deadline:g} s") from error
        except openai.APIConnectionError as error:
            why = one_line(str(error.__cause__ or error), 200)
            raise LLMError(f"{self._server} cannot be reached, or broke off: {why}") from error
        except openai.OpenAIError as error:
            raise LLMError(f"{self._server} {one_line(str(error))}") from error
        return response.content

    def _refused(self, error: openai.APIStatusError) -> LLMError:
        """401, 403, 404: a wrong key, no access, an unknown model: the next attempt would fare no better."""
        said = one_line(str(error.message), 300)
        sentence = f"{self._server} answered with status {error.status_code} for model {self._name!r}: {said}"
        return LLMError(sentence, fatal=error.status_code in (401, 403, 404))

    def _read(self, body: bytes) -> Answer:
        completion = self._completion(body)
        if completion.error:
            raise LLMError(f"{self._server} sent an error as its answer: {one_line(str(completion.error))}")
        if not completion.choices:
            raise LLMError(f"{self._server} sent an answer without choices")
        text = self._text(completion.choices[0])
        usage = completion.usage or _Usage()
        return Answer(
            scrub(text, self._secrets), usage.prompt_tokens, usage.completion_tokens, self._prices.cost(usage)
        )

    def _completion(self, body: bytes) -> _Completion:
        start = body[:200].decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
        if start.startswith("<"):
            raise LLMError(f"{self._server} sent a web page, not an answer: is the base URL right (.../v1)?")
        try:
            return _Completion.model_validate(json.loads(body))
        except (ValueError, RecursionError) as error:
            what = "of another form" if isinstance(error, ValidationError) else "that is cut off or broken"
            raise LLMError(f"{self._server} sent JSON {what}: {one_line(start, 80)!r}") from error

    def _text(self, choice: _Choice) -> str:
        message = choice.message
        if message.refusal:
            raise LLMError(f"the model refused: {one_line(message.refusal)}")
        if choice.finish_reason == "length":
            raise LLMError("the answer was cut off at the model's limit of tokens")
        if choice.finish_reason == "content_filter":
            raise LLMError("the answer was stopped by the server's content filter")
        if not (message.content or "").strip():
            raise LLMError(
                f"the model sent no text (finish reason: {one_line(str(choice.finish_reason), 40)})"
            )
        # JSON may spell half of a surrogate pair, which no file and no later request can hold.
        return (message.content or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


async def _guard(response: httpx2.Response) -> None:
    """Before a body is read: refuse compression (4 MB may unpack to 4 GB), count the rest."""
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", ""):
        raise _Broken(f"sent a body compressed with {one_line(encoding, 20)}, though asked for none")
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(stream)


class _Bounded(httpx2.AsyncByteStream):
    """A response body that ends in an error where it is too long."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        async for chunk in self._stream:
            total += len(chunk)
            if total > MOST_BYTES:
                raise _Broken(f"sent more than {MOST_BYTES:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _param(message: Message) -> ChatCompletionMessageParam:
    content = message["content"]
    match message["role"]:
        case "system":
            return {"role": "system", "content": content}
        case "user":
            return {"role": "user", "content": content}
        case "assistant":
            return {"role": "assistant", "content": content}
