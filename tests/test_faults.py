"""A server at its worst: each fault is recovered from or recorded, and the loop goes on with the next answer.

AGENT_TORTURE=300 goes through all hundred faults, and cuts the reply at every byte.
"""

import itertools
import json
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from conftest import MakeJob, reply

from agent import history, loop
from agent.exchange import LLMError
from agent.proposers import Prompted
from agent.server.llm import OpenAIModel, Prices

TORTURE = int(os.environ.get("AGENT_TORTURE", "8"))
DEADLINE = 1.5
Fault = Callable[[socket.socket], None]


def body(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()


def response(content: bytes, status: str = "200 OK", kind: str = "application/json", length: int | None = None) -> bytes:
    size = len(content) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n".encode() + content


WHOLE = response(body("# Title\nName: whole\n"))


def sent(data: bytes) -> Fault:
    return lambda peer: peer.sendall(data)


def reset(data: bytes) -> Fault:
    def fault(peer: socket.socket) -> None:
        peer.sendall(data)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return fault


def dripped(data: bytes) -> Fault:
    def fault(peer: socket.socket) -> None:
        for byte in data:
            peer.sendall(bytes([byte]))
            time.sleep(0.1)

    return fault


def faults() -> dict[str, Fault]:
    """One hundred of them: statuses, kinds of content, bodies, resets, drips, broken heads."""
    statuses = [400, 402, 405, 406, 408, 409, 410, 411, 413, 415, 418, 422, 423, 424, 425, 429, 431, 451, 500, 501, 502, 503, 504, 505, 507, 508, 511, 520, 529, 599]
    kinds = ["text/html", "text/plain", "application/octet-stream", "text/event-stream", "image/png", "application/json; charset=utf-16", "", "x" * 500]
    bodies = [b"", b"null", b"[]", b"{}", b'"text"', b"0", b"<html></html>", b"[" * 50_000, b"{" * 50_000, b'{"choices": 3}', b'{"choices": [{}]}',
              b'{"choices": [null]}', b'{"error": {"message": "no"}}', b"\xff\xfe", b"\x00" * 100, body("")[:-2], body(" \n"), body("x").replace(b"stop", b"length"),
              b'{"choices": [{"message": {"content": 1e999}}]}', b"9" * 5000, b"data: {}\n\ndata: [DONE]\n\n"]  # fmt: skip
    cuts = [len(WHOLE) * part // 14 for part in range(14)]
    heads = [b"\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"HTTP/1.1 two hundred\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000,
             WHOLE.replace(b"Content-Length: ", b"Content-Length: -"), WHOLE.replace(b"Content-Length: ", b"Content-Length: x"),
             b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
             b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"]  # fmt: skip
    found: dict[str, Fault] = {f"status {status}": sent(response(b'{"error": "no"}', f"{status} No")) for status in statuses}
    found |= {f"content type {kind[:40]!r}": sent(response(b"<p>hello</p>", kind=kind)) for kind in kinds}
    found |= {f"body {content[:40]!r}": sent(response(content)) for content in bodies}
    found |= {f"reset after {cut}": reset(WHOLE[:cut]) for cut in cuts}
    found |= {f"closed after {cut}": sent(WHOLE[:cut]) for cut in cuts}
    found |= {f"head {head[:40]!r}": sent(head) for head in heads}
    found |= {f"drip from {cut}": dripped(WHOLE[cut:]) for cut in (0, 20, 60)}
    found["silence"] = lambda peer: time.sleep(DEADLINE + 0.5)
    return found


@pytest.fixture
def server() -> Iterator[tuple[str, Callable[[Fault | None], None]]]:
    """Its address, and how to tell it the fault of the next answer; insights are always answered."""
    waiting: list[Fault | None] = [None]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve, args=(listening, waiting), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1", lambda fault: waiting.__setitem__(0, fault)


def _serve(listening: socket.socket, waiting: list[Fault | None]) -> None:
    numbers = itertools.count()
    while True:
        try:
            peer, _ = listening.accept()
        except OSError:
            return
        with peer:
            try:
                asked = _request(peer)
                if b"Write the insight" in asked:
                    peer.sendall(response(body("A lesson.\n")))
                elif waiting[0] is None:
                    peer.sendall(response(body(reply(f"child_{next(numbers)}"))))
                else:
                    waiting[0](peer)
            except OSError:
                continue


def _request(peer: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += peer.recv(65536) or b"\r\n\r\n"
    head, _, rest = data.partition(b"\r\n\r\n")
    size = next((int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")), 0)
    while len(rest) < size:
        rest += peer.recv(65536) or b" " * size
    return rest


def asking(url: str) -> OpenAIModel:
    return OpenAIModel("m", key="sk-very-secret", base_url=url, deadline=DEADLINE, retries=0, prices=Prices(None, None))


def test_there_are_a_hundred_faults() -> None:
    assert len(faults()) == 100


def test_a_fault_is_recorded_and_the_next_attempt_goes_on(server, root, make_job: MakeJob, said) -> None:
    url, tell = server
    job = make_job(Prompted(root, "openai", "m", asking(url)))
    chosen = list(faults().items()) if TORTURE >= 300 else random.Random().sample(list(faults().items()), 8)
    list(loop.run(job, 0))
    for name, fault in chosen:
        tell(fault)
        passing = loop.run(job, 2)
        failed = next(passing)
        tell(None)
        after = next(passing)
        passing.close()
        assert (failed.status, after.status) == ("reply-failed", "scored"), name
        assert failed.attempt is not None
        assert failed.attempt.error, name
        assert failed.attempt.error.isprintable(), name
    past = history.read(root)
    assert past.problems == ()
    assert len(past.entries) == 1 + 2 * len(chosen)
    assert all(c.isprintable() or c == "\n" for c in said())


def test_a_reply_cut_at_any_byte_is_a_sentence(server) -> None:
    url, tell = server
    model = asking(url)
    for end in range(0, len(WHOLE), 1 if TORTURE >= 300 else 17):
        tell(sent(WHOLE[:end]))
        with pytest.raises(LLMError) as caught:
            model([{"role": "user", "content": "hello"}])
        assert str(caught.value).isprintable()
    tell(sent(WHOLE))
    assert model([{"role": "user", "content": "hello"}]).text == "# Title\nName: whole\n"
