"""The way of one question: which server was asked last, what it may be told, how much of its answer is read."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx2
import openai

from ..text import one_line

MOST_BYTES = 2 << 20
_FOR_ANYONE = {"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent"}


class Unsound(openai.OpenAIError):
    """Of OpenAI's family, because that is what its client lets through as it is."""


class Route:
    """Follows one question over its redirects and tries."""

    def __init__(self, url: httpx2.URL) -> None:
        self._first = url
        self.begin()
        self.hooks: Mapping[str, list[Callable[..., Any]]] = {"request": [self._leaves], "response": [self._arrives]}

    def begin(self) -> None:
        """Another try."""
        self._last, self._redirects = self._first, 0
        self.received = 0  # bytes of the answer that is coming in

    @property
    def leads_away(self) -> bool:
        """To another server than the one that was asked first."""
        return self._last.origin != self._first.origin

    @property
    def server(self) -> str:
        """Who was asked last, in words."""
        name = f"the server at {_place(self._last)}"
        if self.leads_away:
            return f"{name}, to which {_place(self._first)} redirects,"
        return f"{name}, which redirects to {one_line(self._last.path, 100)}," if self._redirects else name

    async def _leaves(self, request: httpx2.Request) -> None:
        self._last, self.received = request.url, 0
        if "authorization" not in request.headers:  # the client leaves it away for another server: so goes what else may be a key
            for name in set(request.headers) - _FOR_ANYONE:
                if not name.startswith("x-stainless-"):  # the client's own, which it looks for in the answer
                    del request.headers[name]

    async def _arrives(self, response: httpx2.Response) -> None:
        """Before a body is read: refuse compression (4 MB may unpack to 4 GB), count the rest."""
        self._redirects += response.has_redirect_location
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", ""):
            raise Unsound(f"sent a body compressed with {one_line(encoding, 20)}, though asked for none")
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(stream, self)


class _Bounded(httpx2.AsyncByteStream):
    """A response body that ends in an error where it is too long."""

    def __init__(self, stream: httpx2.AsyncByteStream, route: Route) -> None:
        self._stream, self._route = stream, route

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._route.received += len(chunk)
            if self._route.received > MOST_BYTES:
                raise Unsound(f"sent more than {MOST_BYTES:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _place(url: httpx2.URL) -> str:
    return one_line(f"{url.scheme}://{url.netloc.decode()}", 120)
