"""A model's server before and between its answers: a look at it, its redirects, and every wait, which is told."""

import time
from collections.abc import Iterator

import pytest
from pytest_httpserver import HTTPServer
from test_llm import KEY, MESSAGES, PATH, completion
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from agent.exchange import LLMError
from agent.server import llm
from agent.server.llm import OpenAIModel, Prices

MODELS = "/v1/models"


class AsItIs(Response):
    """Sends the headers it is given: werkzeug would not send an address that is none."""

    def get_wsgi_headers(self, environ: object) -> Headers:
        return self.headers


@pytest.fixture
def other() -> Iterator[HTTPServer]:
    with HTTPServer() as server:
        yield server


@pytest.fixture
def said() -> list[str]:
    return []


def model(url: str, said: list[str], *, deadline: float = 10, retries: int = 0) -> OpenAIModel:
    prices = Prices(None, None)
    return OpenAIModel("m", key=KEY, base_url=url, deadline=deadline, retries=retries, prices=prices, say=said.append)


def place(server: HTTPServer) -> str:
    return server.url_for("").rstrip("/")


# --- a look before anything is trained ------------------------------------------------------------


def test_a_server_that_is_not_there_is_seen(said: list[str]) -> None:
    with pytest.raises(LLMError, match=r"^the server at http://127\.0\.0\.1:1 cannot be reached: Connection refused$"):
        model("http://127.0.0.1:1/v1", said).look()


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, '{"data": [{"id": "m"}]}'), (200, "[]"), (200, '{"data": [3]}'), (200, ""), (404, "no"), (429, ""), (500, ""), (301, "")],
)
def test_what_a_server_says_of_its_models_refuses_nobody(httpserver: HTTPServer, said: list[str], status: int, body: str) -> None:
    httpserver.expect_request(MODELS).respond_with_data(body, status=status, headers={"Location": "http://127.0.0.1:1/"} if status == 301 else {})
    model(httpserver.url_for("/v1"), said, retries=3).look()
    assert said == []
    assert len(httpserver.log) == 1


def test_a_server_that_says_nothing_of_its_models_is_not_waited_for(httpserver: HTTPServer, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "_LOOK", 0.2)
    httpserver.expect_request(MODELS).respond_with_handler(lambda _: time.sleep(1))  # type: ignore[arg-type,return-value]
    model(httpserver.url_for("/v1"), said).look()


def test_a_model_that_is_not_listed_is_told(httpserver: HTTPServer, said: list[str]) -> None:
    httpserver.expect_request(MODELS).respond_with_json({"data": [{"id": f"x{n}"} for n in range(7)]})
    model(httpserver.url_for("/v1"), said).look()
    (sentence,) = said
    assert sentence.endswith("does not list the model 'm' and is asked for it all the same; it lists x0, x1, x2, x3, x4 and 2 more")


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_may_not_list_models_is_good_where_it_is_good_for_questions(httpserver: HTTPServer, said: list[str], status: int) -> None:
    httpserver.expect_request(MODELS).respond_with_json({"error": "Missing scopes: api.model.read"}, status=status)
    httpserver.expect_oneshot_request(PATH).respond_with_json(completion("yes"))
    model(httpserver.url_for("/v1"), said).look()
    httpserver.expect_request(PATH).respond_with_json({"error": {"message": f"bad key {KEY}"}}, status=status)
    with pytest.raises(LLMError, match=rf"answered with status {status} for model 'm': bad key \[key removed\]$"):
        model(httpserver.url_for("/v1"), said).look()


# --- redirects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_another_server_that_fails_is_named_and_told_no_key(
    httpserver: HTTPServer, other: HTTPServer, said: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Key: {KEY}")
    httpserver.expect_request(PATH).respond_with_data("", status=status, headers={"Location": other.url_for("/away")})
    named = f"^the server at {place(other)}, to which {place(httpserver)} redirects, "
    asking = model(httpserver.url_for("/v1"), said)
    for answer, text in ((503, "busy"), (401, "who?"), (200, "<html>")):
        other.clear()
        other.expect_request("/away").respond_with_data(text, status=answer)
        wanted = {401: "answered with status 401 .*not told the key", 200: "sent a web page", 503: "answered with status 503 for model 'm': busy"}
        with pytest.raises(LLMError, match=named + wanted[answer]):
            asking(MESSAGES)
        (request, _) = other.log[0]
        assert KEY not in str(request.headers)
    assert httpserver.log[0][0].headers["X-Key"] == KEY


def test_a_redirect_that_keeps_the_question_is_followed(httpserver: HTTPServer, other: HTTPServer, said: list[str]) -> None:
    httpserver.expect_request(PATH).respond_with_data("", status=307, headers={"Location": other.url_for("/away")})
    other.expect_request("/away", method="POST", json={"messages": MESSAGES, "model": "m"}).respond_with_json(completion())
    assert model(httpserver.url_for("/v1"), said)(MESSAGES).text == "# Title"


def test_a_redirect_within_a_server_keeps_the_key(httpserver: HTTPServer, said: list[str]) -> None:
    httpserver.expect_request(PATH).respond_with_data("", status=307, headers={"Location": "/there"})
    httpserver.expect_request("/there").respond_with_data("no", status=400)
    with pytest.raises(LLMError, match=rf"^the server at {place(httpserver)}, which redirects to /there, answered with status 400"):
        model(httpserver.url_for("/v1"), said)(MESSAGES)
    assert KEY in httpserver.log[1][0].headers["Authorization"]


@pytest.mark.parametrize(("location", "why"), [("http://127.0.0.1:99999/x", "port must be 0-65535"), ("http://[::1/x", "Invalid port")])
def test_a_redirect_to_no_address_is_a_sentence(httpserver: HTTPServer, said: list[str], location: str, why: str) -> None:
    for path in (PATH, MODELS):
        httpserver.expect_request(path).respond_with_response(AsItIs(status=307, headers={"Location": location}))
    asking = model(httpserver.url_for("/v1"), said)
    asking.look()
    with pytest.raises(LLMError, match=why):
        asking(MESSAGES)


def test_redirects_without_an_end_are_a_sentence(httpserver: HTTPServer, other: HTTPServer, said: list[str]) -> None:
    httpserver.expect_request(PATH).respond_with_data("", status=302, headers={"Location": other.url_for("/back")})
    other.expect_request("/back").respond_with_data("", status=307, headers={"Location": httpserver.url_for(PATH)})
    with pytest.raises(LLMError, match="redirects on and on: 5 redirects were followed") as caught:
        model(httpserver.url_for("/v1"), said, retries=3)(MESSAGES)
    assert caught.value.fatal
    assert len(httpserver.log) + len(other.log) == 6


# --- waits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", ["0.05", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", "nan", "-1"])
def test_each_wait_is_told(httpserver: HTTPServer, said: list[str], again: str) -> None:
    httpserver.expect_oneshot_request(PATH).respond_with_data("busy", status=503, headers={"Retry-After": again})
    httpserver.expect_request(PATH).respond_with_json(completion())
    model(httpserver.url_for("/v1"), said, retries=3)(MESSAGES)
    seconds = "0.05" if again == "0.05" else "0.5"
    assert said == [f"the server at {place(httpserver)} answered with status 503 for model 'm': busy; trying again in {seconds} s (1 of 10)"]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_restarts_behind_its_proxy_is_waited_for_once(
    httpserver: HTTPServer, said: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm, "_LONGEST_PAUSE", 0.01)
    for _ in range(9):
        httpserver.expect_ordered_request(PATH).respond_with_data("away", status=status)
    httpserver.expect_ordered_request(PATH).respond_with_json(completion("back"))
    asked = model(httpserver.url_for("/v1"), said, retries=3)
    assert asked(MESSAGES).text == "back"
    assert said[-1].endswith("(9 of 10)")
    httpserver.clear()
    httpserver.expect_request(PATH).respond_with_data("away", status=status)
    for tries in (11, 4):  # the minute is not given again to a server that let one go by
        del httpserver.log[:]
        with pytest.raises(LLMError, match=f"status {status}"):
            asked(MESSAGES)
        assert len(httpserver.log) == tries


@pytest.mark.parametrize("again", ["3600", "inf", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_wait_that_is_too_long_is_told_and_not_slept_through(httpserver: HTTPServer, said: list[str], again: str) -> None:
    httpserver.expect_request(PATH).respond_with_data("slow", status=429, headers={"Retry-After": again})
    with pytest.raises(LLMError, match=r"status 429 for model 'm': slow; the next try, in .* would come after the 10 s that") as caught:
        model(httpserver.url_for("/v1"), said, retries=3)(MESSAGES)
    assert (caught.value.fatal, said, len(httpserver.log)) == (True, [], 1)


def test_a_server_may_say_whether_it_wants_to_be_asked_again(httpserver: HTTPServer, said: list[str]) -> None:
    httpserver.expect_request(PATH).respond_with_data("no", status=429, headers={"X-Should-Retry": "false"})
    with pytest.raises(LLMError, match="status 429"):
        model(httpserver.url_for("/v1"), said, retries=3)(MESSAGES)
    assert len(httpserver.log) == 1


def test_a_server_that_is_silent_is_told_while_it_is(httpserver: HTTPServer, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "_FIRST_WORD", 0.1)
    httpserver.expect_request(PATH).respond_with_handler(lambda _: time.sleep(1))  # type: ignore[arg-type,return-value]
    with pytest.raises(LLMError, match=r"had not answered after 0\.6 s$"):
        model(httpserver.url_for("/v1"), said, deadline=0.6)(MESSAGES)
    assert said == [f"the server at {place(httpserver)} has not answered after {waited} s; it is given 0.6 s in all" for waited in ("0.1", "0.2", "0.4")]
