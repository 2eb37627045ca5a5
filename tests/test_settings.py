"""What can be seen to be wrong in a setting is told in one sentence, before anything is trained."""

import os
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from typer.testing import CliRunner, Result

from agent.cli import app
from agent.errors import BadInput
from agent.settings import Settings, load

KEY = "sk-not-to-be-seen-42"


def agent(root: Path, *arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--root", str(root)], env=environ, catch_exceptions=False)


def refusal(root: Path, *arguments: str, status: int = 2, **environ: str) -> str:
    """The one sentence, and nothing was made."""
    done = agent(root, "run", *arguments, **environ)
    assert (done.exit_code, done.stderr.count("\n")) == (status, 1), done.output
    assert not (root / "history").exists()
    return done.stderr.removeprefix("agent: ").rstrip("\n")


EMPTY = "it must be a text that is not empty"
START = "an address begins with http:// or https:// and a host"


@pytest.mark.parametrize(
    ("flag", "value", "sentence"),
    [
        ("model", "", f"--model '': {EMPTY}"),
        ("model", " \t", f"--model '': {EMPTY}"),
        ("model", "m" * 501, f"--model {'m' * 57}...: it must be at most 500 characters long"),
        ("model", "a\nb", "the setting 'model' holds 'a\\nb': write plain text"),
        ("model", "a\u202eb", "the setting 'model' holds 'a\\u202eb': write plain text"),
        ("base_url", "", f"--base-url '': {EMPTY}"),
        ("base_url", "localhost:8000", f"--base-url localhost:8000: {START}"),
        ("base_url", "ftp://h/v1", f"--base-url ftp://h/v1: {START}"),
        ("base_url", "http://", f"--base-url http://: {START}"),
        ("base_url", "http://h:0/v1", "--base-url http://h:0/v1: no server has port 0"),
        ("base_url", "http://h:65536", "--base-url http://h:65536: it is no address: Port out of range 0-65535"),
        ("base_url", "http://h/v 1", "--base-url http://h/v 1: an address has no spaces, no control characters and at most 500 characters"),
        ("base_url", "http://h/v1?a=b", "--base-url http://h/v1?a=b: an address ends before any ? or #"),
        ("base_url", "http://h/v1/chat/completions", "--base-url http://h/v1/chat/completions: leave /chat/completions away, which is added to it"),
        ("ray", " ", f"--ray '': {EMPTY}"),
        ("iterations", 10**30, f"--iterations 1{'0' * 30}: it must be at most 1000000"),
        ("tries", 0, "--tries 0: it must be at least 1"),
        ("tries", 21, "--tries 21: it must be at most 20"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_flag_that_is_wrong(tmp_path: Path, flag: str, value: object, sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        load(tmp_path, {flag: value})
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('model = ""', f"model = '': {EMPTY}"),
        ("model = 5", "model = 5: it must be text"),
        ("model = ['a']", "model = ['a']: it must be text"),
        ("model = true", "model = true: it is no switch"),
        ('base_url = ""', f"base_url = '': {EMPTY}"),
        ("iterations = true", "iterations = true: it is no switch"),
        ("price_input = false", "price_input = false: it is no switch"),
        ("price_input = -1", "price_input = -1: it must be at least 0"),
        ("price_output = 1e308", "price_output = 1e+308: it must be at most 1000000"),
        ("answer_seconds = 0.5", "answer_seconds = 0.5: it must be at least 1"),
        ("evaluation_hours = 1e300", "evaluation_hours = 1e+300: it must be at most 10000"),
        ("silence_minutes = nan", "silence_minutes = nan: it must be a finite number"),
        ("retries = '1.5'", "retries = 1.5: it must be a whole number"),
        ("commit = 7", "commit = 7: it must be true or false"),
    ],
)
def test_a_line_of_agent_toml_that_is_wrong(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "agent.toml").write_text(line)
    with pytest.raises(BadInput) as caught:
        load(tmp_path, {})
    assert str(caught.value) == f"agent.toml, {sentence}"


@pytest.mark.parametrize("text", ["seed = 1" + "0" * 5000, "a = " + "[" * 5000], ids=["digits", "nested"])
def test_an_agent_toml_that_cannot_be_read_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "agent.toml").write_text(text)
    with pytest.raises(BadInput, match=r"agent\.toml is no TOML: "):
        load(tmp_path, {})


def test_an_agent_toml_is_read_whole_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("#" + "x" * (1 << 20) + "\nseed = 7\n")
    with pytest.raises(BadInput, match=r"agent\.toml cannot be read: it is larger than 1 MiB$"):
        load(tmp_path, {})
    file.write_bytes(file.read_bytes()[-(1 << 20) :].replace(b"xx", b"#x", 1))
    assert load(tmp_path, {}).seed == 7


def test_a_value_of_no_setting_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(f'key = "{KEY}\\n"')
    with pytest.raises(BadInput, match="there is no setting 'key'") as caught:
        load(tmp_path, {})
    assert KEY not in str(caught.value)


def test_an_empty_variable_is_no_setting(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"AGENT_{name.upper()}", " ")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, " ")
    settings = load(root, {})
    assert (settings, settings.key, settings.server, settings.chosen_proposer) == (Settings(), None, None, "catalogue")
    assert load(root, {"model": " m ", "base_url": "http://h/v1 "}) == Settings(model="m", base_url="http://h/v1")


def test_blanks_around_a_value_mean_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"PROTOCOL": "fast", "DEVICE": "cpu", "SANDBOX": "off", "PROPOSER": "manual", "SEED": "5", "COMMIT": "false", "PRICE_INPUT": "1.5"}
    others = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://h/v1", "OPENAI_ORG_ID": "o", "http_proxy": "http://p", "HTTPS_PROXY": "http://p",
              "SSL_CERT_FILE": "/f", "OMP_NUM_THREADS": "2"}  # fmt: skip
    for name, value in ({f"AGENT_{name}": value for name, value in given.items()} | others).items():
        monkeypatch.setenv(name, f"\t {value} \r\n")
    settings = load(root, {})
    assert settings == Settings(protocol="fast", device="cpu", sandbox="off", proposer="manual", seed=5, commit=False, price_input=1.5)
    assert (settings.key, settings.server) == (KEY, "http://h/v1")
    assert {name: os.environ[name] for name in others} == others
    monkeypatch.setenv("OPENAI_PROJECT_ID", " ")
    (root / "agent.toml").write_text("ray = ' auto '\nprotocol = ' smoke\t'")
    monkeypatch.delenv("AGENT_PROTOCOL")
    assert (load(root, {}).ray, load(root, {}).protocol, "OPENAI_PROJECT_ID" in os.environ) == ("auto", "smoke", False)


def test_a_run_ends_before_anything_is_made(root: Path) -> None:
    assert refusal(root, "--base-url", "http://127.0.0.1:1/v1", "--model", "") == f"--model '': {EMPTY}"
    assert refusal(root, OPENAI_BASE_URL="localhost:8000") == f"OPENAI_BASE_URL=localhost:8000: {START}"
    assert refusal(root, "--base-url", "http://127.0.0.1:1/v1", status=3) == "the server at http://127.0.0.1:1 cannot be reached: Connection refused"
    for key in (f"{KEY}\n{KEY}", f"{KEY}é", f"{KEY}\x1b[0m", KEY * 1000):
        assert refusal(root, OPENAI_API_KEY=key) == "OPENAI_API_KEY is no key: one is at most 8192 characters of plain ASCII on one line"


@pytest.mark.parametrize("content", [b"{% if %}", b"{{ brief", b"\xff"])
def test_a_prompt_that_cannot_be_read_is_told_before_anything_is_made(root: Path, content: bytes) -> None:
    (root / "prompts" / "reflect.md.j2").write_bytes(content)
    assert refusal(root, "--proposer", "manual").startswith(f"{root}/prompts/reflect.md.j2: ")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HTTP_PROXY", "ftp://h"), ("SSL_CERT_FILE", "/nowhere"), ("OPENAI_ORG_ID", "ü"), ("OPENAI_CUSTOM_HEADERS", "a b: c")],
)
def test_what_the_environment_adds_to_a_question_is_looked_at(root: Path, variable: str, value: str) -> None:
    told = refusal(root, "--base-url", "http://127.0.0.1:1/v1", status=3, **{variable: value})
    assert told.startswith("what the environment says of proxies, certificates or headers cannot be used: ")


def test_a_key_that_is_refused_is_told_before_anything_is_made(root: Path, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/models").respond_with_data("", status=401)
    httpserver.expect_request("/v1/chat/completions").respond_with_json({"error": {"message": f"no {KEY}"}}, status=401)
    told = refusal(root, "--base-url", httpserver.url_for("/v1"), status=3, OPENAI_API_KEY=KEY)
    assert told.endswith("answered with status 401 for model 'gpt-5': no [key removed]")


def test_a_server_is_not_looked_at_where_no_question_is_put(root: Path) -> None:
    done = agent(root, "run", "--iterations", "0", "--base-url", "http://127.0.0.1:1/v1")
    assert done.exit_code == 0, done.stderr
    assert os.listdir(root / "history")
