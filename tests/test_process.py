"""A command in a group of its own: bounded in time and size, and nothing of it left behind."""

import os
import sys
import time
from pathlib import Path

import pytest

from agent.errors import EnvironmentFault
from agent.evaluate import EvaluationFailed, Evaluator, environment
from agent.process import Bounds, Ended, run

QUIET = Bounds(total=20, silence=20)


def python(code: str, bounds: Bounds = QUIET, log: Path | None = None) -> Ended:
    return run([sys.executable, "-c", code], os.environ, bounds, log=log)


def gone(process: int) -> bool:
    """Whether it has ended, a moment after it was killed; a zombie that nobody waits for has."""
    for _ in range(40):
        try:
            if Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_status_output_and_the_end_of_stderr() -> None:
    ended = python("import sys; print('out'); print('why', file=sys.stderr); sys.exit(3)")
    assert (ended.status, ended.output, ended.complaint, ended.timed_out) == (3, "out\n", "why\n", None)


def test_lines_are_handed_over_as_they_come() -> None:
    lines: list[str] = []
    run([sys.executable, "-c", "print('a'); print('b'); print('c' * 10)"], os.environ, QUIET, on_line=lines.append)
    assert lines == ["a", "b", "c" * 10]


@pytest.mark.parametrize(
    ("bounds", "words"),
    [(Bounds(total=0.5, silence=20), "stopped after 0 s"), (Bounds(total=20, silence=0.5), "without a sign of life")],
)
def test_a_hang_is_stopped_at_its_bound(bounds: Bounds, words: str) -> None:
    begun = time.monotonic()
    ended = python("import time; time.sleep(60)", bounds)
    assert words in (ended.timed_out or "")
    assert ended.status == -15
    assert time.monotonic() - begun < 30


def test_a_group_that_will_not_end_is_ended() -> None:
    code = "import signal, subprocess, sys, time; signal.signal(15, signal.SIG_IGN); " \
        "child = subprocess.Popen(['sleep', '61.7']); print(child.pid, flush=True); time.sleep(60)"  # fmt: skip
    ended = python(code, Bounds(total=20, silence=0.7))
    assert ended.status == -9
    assert gone(int(ended.output))


def test_an_orphan_that_holds_the_pipes_does_not_hold_us() -> None:
    begun = time.monotonic()
    ended = python("import subprocess; print(subprocess.Popen(['sleep', '62.7']).pid)")
    assert ended.status == 0
    assert time.monotonic() - begun < 30
    assert gone(int(ended.output))


def test_a_flood_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import sys\nfor _ in range(640): sys.stderr.write('x' * 65536); sys.stdout.write('y' * 65536)"
    ended = python(code, log=log)
    assert ended.status == 0
    assert log.stat().st_size == 8 << 20
    assert len(ended.output) == 16 << 20


def test_the_evaluator_is_given_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "TORCH_HUB_TOKEN", "CUDA_PASSWORD", "SSH_AUTH_SOCK")
    for name in (*secrets, "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    given = environment()
    assert not set(secrets) & set(given)
    assert {"PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"} <= set(given)


@pytest.mark.parametrize("asked", ["protocol", "score"])
def test_an_evaluator_that_is_killed_is_called_once_more(tmp_path: Path, asked: str) -> None:
    code = "import os, pathlib, sys; m = pathlib.Path('{}'); m.touch() if not m.exists() else sys.exit(3); os.kill(os.getpid(), 9)"

    def ask(code: str) -> None:
        evaluator = Evaluator(command=(sys.executable, "-c", code))
        if asked == "protocol":
            evaluator.protocol("smoke")
        else:
            evaluator.score(tmp_path, protocol="smoke", seeds=(0,), out=tmp_path, on_event=lambda event: None)

    with pytest.raises(EnvironmentFault, match="exit status 3"):  # what the second one says
        ask(code.format(tmp_path / "mark"))
    with pytest.raises(EvaluationFailed, match=r"killed by signal 9 \(out of memory\?\), twice"):
        ask("import os; os.kill(os.getpid(), 9)")
