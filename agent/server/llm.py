"""Any server that speaks OpenAI's chat.completions, held to a deadline, a size and a form.

Passing failures (429, 5xx, lost connections, half an answer) are tried again within the deadline, and each wait is told.
"""

import asyncio
import itertools
import json
import os
import re
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.request import getproxies, proxy_bypass

import httpx2
import openai
from openai.types.chat import ChatCompletionMessageParam

from ..events import span
from ..exchange import Answer, LLMError, Message, NoText
from ..text import one_line, scrub, some
from .completion import Passing, Said, Usage, passes, read, reason
from .route import Route

_CONNECT = 10.0  # seconds for a connection
_LOOK = 15.0  # seconds for the list of models
_FIRST_WORD = 30.0  # seconds without an answer until that is told, and then again at twice the time
_MOST_REDIRECTS = 5
_LONGEST_PAUSE = 8.0  # seconds between two tries, where the server does not ask for more
_RESTART = 7  # more tries where nothing listens, or nothing behind a proxy: about a minute, in which a server is there again
_DOWN = (502, 503, 504)  # what a proxy says whose server is away, and a server that is overloaded or still loads its model
_UNREACHABLE = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)
_IN_VAIN = (httpx2.TooManyRedirects, httpx2.UnsupportedProtocol)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # what the name of a header may be


@dataclass(frozen=True)
class Prices:
    """Per million tokens; None where the user gave none, for they change."""

    input: float | None
    output: float | None

    def cost(self, usage: Usage) -> float | None:
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
        base_url: str,
        deadline: float,
        retries: int,
        prices: Prices,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._name, self._deadline, self._prices, self._tell = name, deadline, prices, say
        self._key, self._retries = key, retries
        self._waits_for_restarts = True  # not again after a minute in vain, until there was an answer
        self._url = httpx2.URL(base_url)
        self._secrets = tuple(secret for secret in (key, self._url.password) if secret)
        self._require_headers()

    def __call__(self, messages: Sequence[Message]) -> Answer:
        route = Route(self._url)
        try:
            said = asyncio.run(self._fetch(messages, route))
        except LLMError as error:
            raise type(error)(scrub(str(error), self._secrets), fatal=error.fatal) from None
        usage = said.usage
        answer = Answer(scrub(said.text, self._secrets), usage.prompt_tokens, usage.completion_tokens, self._prices.cost(usage))
        if said.useless:
            raise NoText(scrub(said.useless, self._secrets), answer)
        return answer

    def look(self) -> None:
        """Before anything is trained: raises LLMError where it is certain that no question will be answered.

        Certain is that no connection is made. A server need not list its models, and may forbid that to a key which
        is good for questions: one that forbids it is asked something.
        """
        route = Route(self._url)
        try:
            listed, forbidden = asyncio.run(self._list(route))
        except LLMError as error:
            raise LLMError(scrub(str(error), self._secrets), fatal=True) from None
        if forbidden:
            try:
                self([{"role": "user", "content": "Answer with one word: are you there?"}])
            except LLMError as error:
                if error.fatal:
                    raise
        elif listed and self._name not in listed:
            names = some([one_line(name, 60) for name in listed], 5)
            self._say(f"{route.server} does not list the model {self._name!r} and is asked for it all the same; it lists {names}")

    def _say(self, sentence: str) -> None:
        self._tell(scrub(sentence, self._secrets))

    def _cleaned(self, body: bytes) -> bytes:
        """Before a part of it is quoted, which may hold a part of the key."""
        for secret in self._secrets:
            if len(secret) >= 6:
                body = body.replace(secret.encode(), b"[key removed]")
        return body

    def _client(self, route: Route) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self._url,
            timeout=httpx2.Timeout(None, connect=_CONNECT),
            max_retries=0,
            default_headers={"Accept-Encoding": "identity"},
            http_client=openai.DefaultAsyncHttpxClient(event_hooks=route.hooks, max_redirects=_MOST_REDIRECTS),
        )

    def _require_headers(self) -> None:
        """The client takes some from the environment, as it does proxies and certificates: a ValueError tells what is none."""
        for name, value in self._client(Route(self._url)).default_headers.items():
            if isinstance(value, str) and not (_TOKEN.fullmatch(name) and value.isascii() and value.isprintable()):
                raise ValueError(f"the header {one_line(ascii(name), 60)} cannot be sent as it is")

    async def _fetch(self, messages: Sequence[Message], route: Route) -> Said:
        """An answer, within the deadline.

        On an event loop of its own, whichever thread asks; one that is given up has its connection closed.
        """
        asked: list[ChatCompletionMessageParam] = [_param(message) for message in messages]
        loop = asyncio.get_running_loop()
        end = loop.time() + self._deadline
        try:
            async with asyncio.timeout_at(end), self._client(route) as client:
                for again in itertools.count(1):
                    route.begin()
                    waiting = asyncio.create_task(self._tell_of_waiting(route))
                    try:
                        response = await client.chat.completions.with_raw_response.create(model=self._name, messages=asked)
                        answer = read(self._cleaned(response.content), route.server)
                        self._waits_for_restarts = True
                        break
                    except (openai.OpenAIError, Passing) as error:
                        pause = self._pause(error, route, again, end - loop.time())
                    finally:
                        waiting.cancel()
                    await asyncio.sleep(pause)
        except TimeoutError as error:
            raise LLMError(f"{route.server} had not answered after {self._deadline:g} s{_so_far(route)}") from error
        except LLMError:
            raise
        except Exception as error:  # what the HTTP client lets through as it is, such as a port that is none
            raise LLMError(f"{route.server} cannot be asked: {one_line(_why(error), 200)}") from error
        return answer

    async def _tell_of_waiting(self, route: Route) -> None:
        waited, longer = 0.0, _FIRST_WORD
        while True:
            await asyncio.sleep(longer)
            longer = waited = waited + longer
            self._say(f"{route.server} has not answered after {waited:g} s{_so_far(route)}; it is given {self._deadline:g} s in all")

    def _pause(self, error: openai.OpenAIError | Passing, route: Route, again: int, left: float) -> float:
        """Seconds until the next try, which is told; raises the failure where no other try could help."""
        failure = error if isinstance(error, Passing) else self._failure(error, route)
        seconds = _seconds_until(error, again)
        restarts = self._waits_for_restarts and self._retries > 0 and _is_down(error)
        most = self._retries + (_RESTART if restarts else 0)
        if seconds is None or again > most:
            self._waits_for_restarts &= not restarts
            raise failure from error
        if seconds > left:
            raise LLMError(
                f"{failure}; the next try, in {span(seconds)}, would come after the {self._deadline:g} s that an answer may take",
                fatal=seconds > self._deadline,
            ) from error
        shown = f"{seconds:.2g} s" if seconds < 10 else span(seconds)
        self._say(f"{failure}; trying again in {shown} ({again} of {most})")
        return seconds

    async def _list(self, route: Route) -> tuple[list[str], bool]:
        """The models that the server lists, and whether it forbids to ask for them."""
        try:
            async with asyncio.timeout(_LOOK), self._client(route) as client:
                response = await client.models.with_raw_response.list()
                return _ids(response.content), False
        except openai.APIStatusError as error:
            return [], error.status_code in (401, 403)
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, _UNREACHABLE) and not route.leads_away:
                raise self._failure(error, route) from error
        except Exception:
            pass  # an odd answer to this says nothing of others
        return [], False

    def _through(self) -> str:
        """The proxy that the environment puts in between, without what it may hold of a password."""
        proxies = getproxies()
        proxy = proxies.get(self._url.scheme) or proxies.get("all")
        if not proxy or proxy_bypass(self._url.host):
            return ""
        return f" through the proxy of the environment, {one_line(proxy.rpartition('@')[2].rpartition('//')[2], 80)}"

    def _failure(self, error: openai.OpenAIError, route: Route) -> LLMError:
        """What went wrong. 401, 403, 404: a wrong key, no access, an unknown model: the next attempt would fare no better."""
        if isinstance(error, openai.APIStatusError):
            said = reason(self._cleaned(error.response.content))
            sentence = f"{route.server} answered with status {error.status_code} for model {self._name!r}: {said}"
            unknown = " (another server is not told the key)" if route.leads_away and error.status_code in (401, 403) else ""
            return LLMError(sentence + unknown, fatal=error.status_code in (401, 403, 404))
        if not isinstance(error, openai.APIConnectionError):
            return LLMError(f"{route.server} {one_line(str(error))}")
        match error.__cause__:
            case httpx2.TooManyRedirects():
                return LLMError(f"{route.server} redirects on and on: {_MOST_REDIRECTS} redirects were followed", fatal=True)
            case httpx2.ConnectTimeout():
                return LLMError(f"{route.server} cannot be reached: no connection after {_CONNECT:g} s")
            case cause:
                what = f"cannot be reached{self._through()}" if isinstance(cause, _UNREACHABLE) else "broke off"
                return LLMError(f"{route.server} {what}: {one_line(_why(cause or error), 200)}")


def _seconds_until(error: openai.OpenAIError | Passing, again: int) -> float | None:
    """Until the next try, as the server asks or else twice as long each time; None where it would be in vain."""
    seconds: float = min(0.25 * 2**again, _LONGEST_PAUSE)
    if isinstance(error, Passing):
        return seconds
    if isinstance(error, openai.APIConnectionError):
        return None if isinstance(error.__cause__, _IN_VAIN) else seconds
    if not isinstance(error, openai.APIStatusError):
        return None
    asked = error.response.headers
    if {"true": True, "false": False}.get(asked.get("x-should-retry", ""), passes(error.status_code)):
        return _retry_after(asked) or seconds
    return None


def _is_down(error: Exception) -> bool:
    """Whether nothing was there to answer."""
    return isinstance(error.__cause__, httpx2.ConnectError) or getattr(error, "status_code", None) in _DOWN


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Milliseconds, seconds or a date; None for what is neither, or past."""
    said = headers.get("retry-after", "")
    try:
        seconds = float(headers["retry-after-ms"]) / 1000 if "retry-after-ms" in headers else float(said)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, OverflowError, OSError):
            return None
    return min(seconds, 1e12) if seconds > 0 else None


def _so_far(route: Route) -> str:
    return f" (it has sent {route.received:,} bytes)" if route.received else ""


def _ids(body: bytes) -> list[str]:
    try:
        return [str(model["id"]) for model in json.loads(body)["data"]]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []


def _why(error: BaseException) -> str:
    """What the system said, where it did: what is wrapped around that says only that no connection came about."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    inner: BaseException | None = error
    while inner:
        if isinstance(inner, OSError) and not isinstance(inner, ssl.SSLError) and inner.errno:
            return os.strerror(inner.errno) if inner.errno > 0 else str(inner.strerror)
        inner = inner.exceptions[0] if isinstance(inner, BaseExceptionGroup) else inner.__cause__ or inner.__context__
    return (str(error) or type(error).__name__).rstrip(".")


def _param(message: Message) -> ChatCompletionMessageParam:
    content = message["content"]
    match message["role"]:
        case "system":
            return {"role": "system", "content": content}
        case "user":
            return {"role": "user", "content": content}
        case "assistant":
            return {"role": "assistant", "content": content}
