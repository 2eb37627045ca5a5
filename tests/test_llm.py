"""A model's server, real on loopback: whatever it sends, one sentence comes of it, and no key leaves the client."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from agent.exchange import Answer, LLMError, NoText, ask, totals
from agent.server.llm import OpenAIModel, Prices
from agent.server.route import MOST_BYTES

KEY = "sk-very-secret-0123456789"
MESSAGES = [{"role": "user", "content": "hello"}]
PATH = "/v1/chat/completions"


def completion(content: object = "# Title", **choice: object) -> dict[str, object]:
    return {
        "id": "x", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}} | choice],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200},
    }  # fmt: skip


def model(server: HTTPServer | str, *, deadline: float = 10, retries: int = 0, prices: Prices | None = None) -> OpenAIModel:
    url = server if isinstance(server, str) else server.url_for("/v1")
    return OpenAIModel("m", key=KEY, base_url=url, deadline=deadline, retries=retries, prices=prices or Prices(None, None))


def failure(server: HTTPServer | str, **options: float) -> str:
    with pytest.raises(LLMError) as caught:
        model(server, **options)(MESSAGES)  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert KEY not in sentence
    assert "\n" not in sentence
    assert len(sentence) < 800
    return sentence


def test_an_answer_with_tokens_and_cost(httpserver: HTTPServer) -> None:
    httpserver.expect_request(PATH, method="POST").respond_with_json(completion("# Title"))
    answer = model(httpserver, prices=Prices(2.0, 10.0))(MESSAGES)
    assert answer == Answer("# Title", 1000, 200, pytest.approx(0.004))
    (request, _) = httpserver.log[0]
    assert request.get_json() == {"messages": MESSAGES, "model": "m"}
    assert request.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "usage", ["[1]", '"none"', '{"prompt_tokens": "many"}', '{"prompt_tokens": 1.5}', '{"prompt_tokens": -5}',
              '{"prompt_tokens": 1' + "0" * 30 + "}", '{"prompt_tokens": true}'])  # fmt: skip
def test_an_answer_is_not_lost_over_its_usage(httpserver: HTTPServer, usage: str) -> None:
    body = json.dumps({"choices": [{"message": {"content": "text"}}]})[:-1] + f', "usage": {usage}}}'
    httpserver.expect_request(PATH).respond_with_data(body, content_type="application/json")
    answer = model(httpserver)(MESSAGES)
    assert (answer.text, answer.input_tokens, answer.cost) == ("text", None, None)


def test_no_price_no_cost(httpserver: HTTPServer) -> None:
    httpserver.expect_request(PATH).respond_with_json(completion())
    assert model(httpserver)(MESSAGES).cost is None


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("<!DOCTYPE html><html>Welcome</html>", "a web page, not an answer"),
        ("", "an empty answer"),
        (" \n", "an empty answer"),
        ("[" * 100_000, "JSON that is cut off or broken"),
        ("[]", "JSON of another form: the answer: a list, not an object"),
        ("7", "JSON of another form: the answer: a number, not an object"),
        ('{"choices": [{"mess', "JSON that is cut off or broken at character 14 of 19: '"),
        ('data: {"choices": []}', "JSON that is cut off or broken at character 0 of 21: 'data: {"),
        (b'{"choices": "h\xe9"}', "JSON that is not in UTF-8 (at byte 14)"),
        (json.dumps({"error": {"message": "overloaded"}}), "an error as its answer: overloaded"),
        (json.dumps({"error": "overloaded"}), "an error as its answer: overloaded"),
        (json.dumps({"error": {"code": 7}}), "an error as its answer: {'code': 7}"),
        (json.dumps({"detail": "not here"}), "without choices: '{\"detail\": \"not here\"}'"),
        (json.dumps({"choices": {}}), "another form: choices: an object, not a list"),
        (json.dumps({"choices": "none"}), "another form: choices: text, not a list"),
        (json.dumps({"choices": [None]}), "another form: choices.0: null, not an object"),
        (json.dumps({"choices": [{"text": "# Title"}]}), "another form: choices.0.message: missing"),
        (json.dumps({"choices": [{"message": "# Title"}]}), "another form: choices.0.message: text, not an object"),
        (json.dumps({}), "without choices"),
        (json.dumps({"choices": []}), "without choices"),
        (json.dumps(completion(None)), "no text"),
        (json.dumps(completion("  \n")), "no text"),
        (json.dumps(completion(3.5)), "another form: choices.0.message.content: a number, not text"),
        (json.dumps(completion(True)), "another form: choices.0.message.content: true or false, not text"),
        (json.dumps(completion({"text": "#"})), "another form: choices.0.message.content: an object, not text"),
        (json.dumps(completion(["a", "b"])), "another form: choices.0.message.content: a list, not text"),
        (json.dumps(completion([{"type": "text", "text": 1}])), "another form: choices.0.message.content: a list, not text"),
        (json.dumps(completion([])), "no text"),
        (json.dumps(completion(message={"content": None, "reasoning_content": "Hm."})), "no text, only its reasoning (finish"),
        (json.dumps(completion("# Cut", finish_reason="length")), "cut off at the model's limit"),
        (json.dumps(completion("#", finish_reason="content_filter")), "content filter"),
        (json.dumps(completion(message={"content": None, "refusal": "I \x1b[31mcannot"})), "the model refused: I cannot"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_body_that_is_no_answer(httpserver: HTTPServer, body: str | bytes, sentence: str) -> None:
    httpserver.expect_request(PATH).respond_with_data(body, content_type="application/json")
    assert sentence in failure(httpserver)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (completion(message={"content": None, "refusal": "No"}), NoText),
        (completion(message={"content": None, "tool_calls": [{"id": "1"}]}), NoText),
        (completion("# Cut", finish_reason="length"), NoText),
        ({"error": {"code": 400, "message": "too long"}}, LLMError),
    ],
)
def test_a_model_that_says_nothing_is_told_from_a_server_that_fails(httpserver: HTTPServer, body: dict[str, object], kind: type[LLMError]) -> None:
    httpserver.expect_request(PATH).respond_with_json(body)
    with pytest.raises(LLMError) as caught:
        model(httpserver)(MESSAGES)
    assert type(caught.value) is kind


def test_what_a_useless_answer_said_and_cost_is_kept(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(PATH).respond_with_json(completion("# Cut", finish_reason="length"))
    record = tmp_path / "llm.jsonl"
    for _ in range(3):
        with pytest.raises(NoText, match="cut off"):
            ask(model(httpserver), [{"role": "user", "content": "x" * 600_000}], record)
    assert json.loads(record.read_text().splitlines()[0])["text"] == "# Cut"
    assert totals(record) == {"exchanges": 3, "input_tokens": 3000, "output_tokens": 600, "cost": 0}


@pytest.mark.parametrize(
    "body",
    [
        completion([{"type": "text", "text": "# Ti"}, {"type": "text", "text": "tle"}]),
        completion([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"text": "# Title"}]),
        completion(message={"content": "# Title", "refusal": False, "reasoning_content": {}}),
        completion("# Title", finish_reason=0, index="x"),
        completion("# Title") | {"error": None, "choices": [{"message": {"content": "# Title"}}, {"message": {}}]},
        completion("# Title") | {"error": "", "usage": None},
    ],
)
def test_an_answer_is_not_lost_over_its_form(httpserver: HTTPServer, body: dict[str, object]) -> None:
    httpserver.expect_request(PATH).respond_with_data(b"\xef\xbb\xbf" + json.dumps(body).encode())
    assert model(httpserver)(MESSAGES).text == "# Title"


@pytest.mark.parametrize("half", ["\\ud800", "\\udc00 \\ud800"])
def test_half_of_a_surrogate_pair_becomes_a_replacement_character(httpserver: HTTPServer, half: str) -> None:
    body = json.dumps(completion("# Title HALF \U0001f600")).replace("HALF", half)
    httpserver.expect_request(PATH).respond_with_data(body, content_type="application/json")
    text = model(httpserver)(MESSAGES).text
    assert text.startswith("# Title \ufffd")
    assert text.endswith(" \U0001f600")
    assert text.encode()


def test_a_body_cut_at_any_byte_is_an_answer_or_a_sentence(httpserver: HTTPServer) -> None:
    body = json.dumps(completion("short"))
    asked = model(httpserver)
    for end in range(0, len(body), 7):
        httpserver.clear()
        httpserver.expect_request(PATH).respond_with_data(body[:end], content_type="application/json")
        with pytest.raises(LLMError):
            asked(MESSAGES)


@pytest.mark.parametrize(("status", "fatal"), [(400, False), (401, True), (403, True), (404, True), (422, False)])
def test_a_refusal_by_status_is_not_retried(httpserver: HTTPServer, status: int, fatal: bool) -> None:
    httpserver.expect_request(PATH).respond_with_json({"error": {"message": f"bad key {KEY}"}}, status=status)
    with pytest.raises(LLMError, match=f"status {status} for model 'm'") as caught:
        model(httpserver, retries=2)(MESSAGES)
    assert caught.value.fatal == fatal
    assert KEY not in str(caught.value)
    assert len(httpserver.log) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_retried_by_the_client(httpserver: HTTPServer, status: int) -> None:
    headers = {"Retry-After": "0.01"}
    httpserver.expect_oneshot_request(PATH).respond_with_data("busy", status=status, headers=headers)
    httpserver.expect_request(PATH).respond_with_json(completion("at last"))
    assert model(httpserver, retries=2)(MESSAGES).text == "at last"
    assert len(httpserver.log) == 2


@pytest.mark.parametrize("body", ['{"choices": [{"mess', "", '{"error": "overloaded"}', '{"error": {"code": 429, "message": "busy"}}'])
def test_half_an_answer_or_an_error_inside_one_is_asked_again(httpserver: HTTPServer, body: str) -> None:
    httpserver.expect_oneshot_request(PATH).respond_with_data(body, content_type="application/json")
    httpserver.expect_request(PATH).respond_with_json(completion("whole"))
    assert model(httpserver, retries=1)(MESSAGES).text == "whole"


def test_a_lasting_failure_is_a_sentence(httpserver: HTTPServer) -> None:
    httpserver.expect_request(PATH).respond_with_data("<html>bad gateway</html>" * 1000, status=500)
    assert "status 500" in failure(httpserver, retries=1)
    assert len(httpserver.log) == 2


@pytest.mark.parametrize("status", [200, 500])
def test_fifty_megabytes_are_not_read(httpserver: HTTPServer, status: int) -> None:
    def flood(request: Request) -> Response:
        def chunks() -> Iterator[bytes]:
            for _ in range(800):
                yield b" " * 65536

        return Response(chunks(), status=status)

    httpserver.expect_request(PATH).respond_with_handler(flood)
    assert f"more than {MOST_BYTES:,} bytes" in failure(httpserver, retries=2)
    assert len(httpserver.log) == 1


def test_a_compressed_body_is_refused_unread(httpserver: HTTPServer) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    httpserver.expect_request(PATH).respond_with_data(bomb, headers={"Content-Encoding": "gzip"})
    assert "compressed with gzip" in failure(httpserver)


def test_a_server_that_is_not_there(free_port: int) -> None:
    assert f"the server at http://127.0.0.1:{free_port} cannot be reached" in failure(f"http://127.0.0.1:{free_port}/v1")


@pytest.mark.parametrize("status", [200, 400])
def test_no_part_of_the_key_is_quoted(httpserver: HTTPServer, status: int) -> None:
    for at in (30, 70, 290):
        httpserver.clear()
        body = json.dumps({"x" * at: KEY, "message": "y" * at + KEY}) if status == 400 else " " * at + KEY
        httpserver.expect_request(PATH).respond_with_data(body, status=status)
        assert KEY[:8] not in failure(httpserver)


def test_the_key_is_in_no_answer_and_no_record(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(PATH).respond_with_json(completion(f"your key is {KEY}"))
    record = tmp_path / "llm.jsonl"
    assert ask(model(httpserver), MESSAGES, record) == "your key is [key removed]"  # type: ignore[arg-type]
    assert KEY not in record.read_text()
    record.write_text(record.read_text() + '{"torn')
    assert totals(record) == {"exchanges": 1, "input_tokens": 1000, "output_tokens": 200, "cost": 0}


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("first", "drip"),
    [(b"", b""), (HEAD, b"X: y\r\n"), (HEAD + b"Content-Length: 100000\r\n\r\n", b" ")],
    ids=["silence", "dripping head", "dripping body"],
)
def test_the_deadline_holds_for_the_whole_exchange(first: bytes, drip: bytes) -> None:
    """A time-out of the client counts for each read alone; a server that drips would hold it for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_drip, args=(server, first, drip), daemon=True).start()
        begun = time.monotonic()
        sentence = failure(f"http://127.0.0.1:{server.getsockname()[1]}/v1", deadline=0.8, retries=5)
        assert "0.8 s" in sentence
        assert time.monotonic() - begun < 20


def _drip(server: socket.socket, first: bytes, drip: bytes) -> None:
    try:
        peer, _ = server.accept()
        with peer:
            peer.sendall(first)
            while True:
                time.sleep(0.1)
                peer.sendall(drip)
    except OSError:
        return


def test_a_connection_that_is_reset_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_reset, args=(server,), daemon=True).start()
        assert "broke off" in failure(f"http://127.0.0.1:{server.getsockname()[1]}/v1", retries=1)


def _reset(server: socket.socket) -> None:
    while True:
        try:
            peer, _ = server.accept()
        except OSError:
            return
        with peer:
            peer.recv(100)
            peer.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
