"""Several attempts at once: none repeats another, each is recorded as if it were alone, and one end is the end of all."""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import BASELINE, PROJECT, MakeJob, git, reply, store
from rich.console import Console
from test_kill import evaluators

from agent import history, loop, policy
from agent.desk import Desk
from agent.errors import EnvironmentFault
from agent.exchange import Answer, LLMError, Message
from agent.job import Job
from agent.progress import Reporter
from agent.proposers import Catalogue, Prompted
from agent.server.llm import OpenAIModel, Prices
from agent.slots import shares

Model = Callable[[Sequence[Message]], Answer]


def at_once(job: Job, number: int) -> Job:
    return replace(job, shares=({},) * number)


def asking(root: Path, model: Model) -> Prompted:
    return Prompted(root, "openai", "scripted", model)


def is_reflection(messages: Sequence[Message]) -> bool:
    return "Write the insight" in messages[-1]["content"]


def settled(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within a minute."""
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def real_baseline(root: Path) -> None:
    """In which the catalogue finds its places."""
    source = Path("variants", "delta_net", "naive.py")
    (root / source).write_text((PROJECT / source).read_text())


def test_three_at_once_leave_what_one_after_the_other_would(checkout: Path, make_job: MakeJob) -> None:
    real_baseline(checkout)
    git(checkout, "commit", "--quiet", "--all", "--message", "the real baseline")
    done = list(loop.run(at_once(make_job(Catalogue(), commit=True), 3), 6))
    assert [entry.status for entry in done] == ["scored"] * 7
    assert sorted(entry.id for entry in done) == [f"{number:04d}" for number in range(7)]
    assert len({entry.name for entry in done}) == 7
    titles = git(checkout, "log", "--format=%s").splitlines()[:-2]
    assert sorted(titles) == sorted(f"attempt {entry.id}: {entry.name}, scored" for entry in done)
    for entry in done[1:]:
        commit = git(checkout, "log", "--format=%H", f"--grep=attempt {entry.id}").strip()
        changed = {name.rsplit("/", 1)[0] for name in git(checkout, "show", "--name-only", "--format=", commit).split()}
        assert changed == {f"history/{entry.id}", f"variants/{entry.name}"}
    assert git(checkout, "status", "--porcelain") == ""


def test_the_catalogue_gives_no_two_attempts_the_same(root: Path, make_job: MakeJob, tmp_path: Path) -> None:
    real_baseline(root)
    job = make_job()
    list(loop.run(job, 0))
    brief = policy.brief(root, history.read(root), job.protocol, 0, 1, Desk())
    names = [Catalogue().propose(brief, [], 3, tmp_path / entry).split("Name: ")[1].split()[0] for entry in ("1", "2", "1")]
    assert names[0] != names[1]  # though brief and seed are the same
    assert names[0] == names[2]  # what one holds itself is no hindrance


class Together:
    """A model's server, real on loopback, that answers only once so many requests wait for it."""

    def __init__(self, number: int) -> None:
        self._meeting, self._left = threading.Barrier(number, timeout=30), iter(range(100))

    def answer(self, asked: str) -> str:
        if "Write the insight" in asked:
            return "A lesson.\n"
        self._meeting.wait()
        return reply(f"child_{next(self._left)}")


@pytest.fixture
def server() -> Iterator[tuple[str, list[Together]]]:
    """Its address, and where to put what answers."""
    said: list[Together] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
            body = json.dumps({"choices": [{"message": {"content": said[0].answer(asked)}, "finish_reason": "stop"}]})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}/v1", said
        http.shutdown()


def test_what_a_slow_server_is_asked_overlaps(root: Path, make_job: MakeJob, server: tuple[str, list[Together]]) -> None:
    url, said = server
    said.append(Together(3))
    model = OpenAIModel("m", key=None, base_url=url, deadline=60, retries=0, prices=Prices(None, None))
    done = list(loop.run(at_once(make_job(asking(root, model)), 3), 3))
    assert [entry.status for entry in done] == ["scored"] * 4
    assert {entry.name for entry in done[1:]} == {"child_0", "child_1", "child_2"}


def test_the_later_of_two_replies_with_one_name_is_told_so(root: Path, make_job: MakeJob) -> None:
    meeting = threading.Barrier(2, timeout=30)

    def model(messages: Sequence[Message]) -> Answer:
        if is_reflection(messages):
            return Answer("A lesson.\n", None, None, None)
        if len(messages) > 2:
            assert "The name same is taken: choose another." in messages[-1]["content"]
            return Answer(reply("other"), None, None, None)
        meeting.wait()
        return Answer(reply("same", mark="slow=0.1"), None, None, None)

    done = list(loop.run(at_once(make_job(asking(root, model)), 2), 2))
    assert [entry.status for entry in done] == ["scored"] * 3
    assert {entry.name for entry in done[1:]} == {"same", "other"}


def test_a_proposer_is_shown_what_is_being_tried(root: Path, make_job: MakeJob) -> None:
    asked: list[str] = []

    def model(messages: Sequence[Message]) -> Answer:
        if is_reflection(messages):
            return Answer("A lesson.\n", None, None, None)
        asked.append(messages[-1]["content"])
        number = len(asked)
        return Answer(reply(f"child_{number}", mark="none" if number == 2 else "slow=0.25"), None, None, None)

    list(loop.run(at_once(make_job(asking(root, model)), 2), 3))
    assert "What is being tried right now" not in asked[0]
    assert '- child_1: "A change (scaling)"' in asked[2]
    assert "child_1" in asked[2].rpartition("not among these:")[2]


def test_children_under_way_count_as_children(root: Path, make_job: MakeJob) -> None:
    job = make_job()
    for name in ("one", "two"):
        store(root, name, BASELINE + "# stub: score=0.5\n")
        loop.score_stored(job, name)

    def chosen() -> int:
        past = history.read(root)
        candidates = policy.parents(root, past, job.protocol)
        return [policy.choose(candidates, past, random.Random(seed)).name for seed in range(200)].count("one")

    before = chosen()
    start = history.read(root).entries[0].attempt
    assert start is not None
    known = history.Start.model_validate(start.model_dump() | {"name": None, "parent": "one"})
    with history.begin(root, known), history.begin(root, known):
        assert chosen() < before
    assert chosen() == before


def test_a_fatal_error_ends_all_and_the_next_run_goes_on_with_them(root: Path, make_job: MakeJob) -> None:
    training = threading.Barrier(3, timeout=60)

    def model(messages: Sequence[Message]) -> Answer:
        if is_reflection(messages):
            return Answer("A lesson.\n", None, None, None)
        if training.wait() == 0:
            log = "history/*/train.log"
            assert settled(lambda: sum(path.stat().st_size > 0 for path in root.glob(log)) == 3)
            raise LLMError("status 401", fatal=True)
        return Answer(reply(f"child_{threading.get_ident()}", mark="slow=1"), None, None, None)

    with pytest.raises(EnvironmentFault, match="status 401"):
        list(loop.run(at_once(make_job(asking(root, model)), 3), 9))
    assert evaluators(root) == []
    left = ["interrupted", "interrupted", "reply-failed", "scored"]  # a thread lets go of its entry after its command has ended
    assert settled(lambda: sorted(entry.status for entry in history.read(root).entries) == left)
    (root / "mended").touch()
    done = list(loop.run(at_once(make_job(), 2), 0))
    assert [entry.status for entry in done] == ["scored"] * 2
    assert len(history.read(root).entries) == 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_one_end_is_the_end_of_all_and_the_next_run_goes_on_with_all(
    checkout: Path, make_job: MakeJob, said: Callable[[], str], number: signal.Signals
) -> None:
    real_baseline(checkout)
    list(loop.run(make_job(), 0))
    (checkout / "hang").touch()
    command = [sys.executable, "-m", "agent", "run", "--iterations", "9", "--parallel", "3", "--root", str(checkout)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    logs = [checkout / "history" / f"{entry:04d}" / "train.log" for entry in (1, 2, 3)]
    assert settled(lambda: all(log.exists() and log.stat().st_size for log in logs))
    child.send_signal(number)
    output, _ = child.communicate(timeout=60)
    assert "Traceback" not in output
    assert child.returncode == (130 if number == signal.SIGINT else -number)
    assert settled(lambda: evaluators(checkout) == [])
    assert [entry.status for entry in history.read(checkout).entries] == ["scored", *["interrupted"] * 3]
    if number != signal.SIGKILL:
        return  # what they leave is the same
    (checkout / "hang").unlink()
    done = list(loop.run(make_job(Catalogue(), commit=True), 1))
    assert [(entry.id, entry.status) for entry in done] == [(f"{entry:04d}", "scored") for entry in (1, 2, 3, 4)]
    assert len({entry.name for entry in done}) == 4
    assert all(f"000{entry} was interrupted after its gates: going on with it" in said() for entry in (1, 2, 3))
    assert len(git(checkout, "log", "--format=%s").splitlines()) == 6
    assert git(checkout, "status", "--porcelain", "history") == ""


def test_each_evaluation_has_a_gpu_and_a_part_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(parallel: int, device: str = "auto") -> list[tuple[str | None, str | None]]:
        return [(one.get("CUDA_VISIBLE_DEVICES"), one.get("OMP_NUM_THREADS")) for one in shares(parallel, device)]

    driver = tmp_path / "nvidia-smi"
    driver.write_text('#!/bin/sh\necho "GPU 0: NVIDIA H200 (UUID: GPU-a)"\necho "GPU 1: NVIDIA H200 (UUID: GPU-b)"\n')
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert shares(1, "auto") == ({},)
    assert given(3) == [("0", "2"), ("1", "2"), ("0", "2")]
    assert given(3, "cpu") == [(None, "2")] * 3
    assert given(16, "cpu") == [(None, "1")] * 16
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5, GPU-c,-1,7")
    assert [gpu for gpu, _ in given(4)] == ["3", "5", "GPU-c", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert given(2) == [(None, "3")] * 2
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    driver.unlink()
    assert given(2) == [(None, "3")] * 2


def test_the_evaluator_is_given_its_share(root: Path, make_job: MakeJob) -> None:
    meeting, left = threading.Barrier(2, timeout=30), iter(["one", "two"])

    def model(messages: Sequence[Message]) -> Answer:
        if is_reflection(messages):
            return Answer("A lesson.\n", None, None, None)
        meeting.wait()
        return Answer(reply(next(left), mark="environ"), None, None, None)

    job = replace(make_job(asking(root, model)), shares=({"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "5"}))
    done = list(loop.run(job, 2))
    given = {json.loads(entry.prose("environ.json") or "")["CUDA_VISIBLE_DEVICES"] for entry in done[1:]}
    assert given == {"3", "5"}


@pytest.mark.parametrize("terminal", [False, True])
def test_a_line_is_whole_and_says_whose_it_is(terminal: bool) -> None:
    shown = io.StringIO()
    with Reporter(Console(file=shown, width=60, force_terminal=terminal, color_system=None)) as reporter:
        voices = [reporter.another() for _ in range(4)]

        def speak(number: int) -> None:
            voices[number].stage(f"000{number} {'a_long_name_' * 5}: gates")
            for line in range(50):
                voices[number].say(f"000{number}: {line} {'x' * 30}")

        threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(0.2 * terminal)  # a look at the live lines
        for voice in voices:
            voice.rest()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\r", shown.getvalue())
    assert {f"000{number}: {line} {'x' * 30}" for number in range(4) for line in range(50)} <= set(re.split("[\r\n]", text))
    live = set(re.findall(r"(?:. |  )(000\d) a_long\w*\.\.\.\w*: gates[\r\n]", text))
    assert live == ({"0000", "0001", "0002", "0003"} if terminal else set())


def test_nothing_is_said_once_the_command_has_ended() -> None:
    shown = io.StringIO()
    with Reporter(Console(file=shown)) as reporter:
        late = reporter.another()
    late.say("too late")
    assert shown.getvalue() == ""
