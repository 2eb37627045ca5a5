"""Ctrl-C at any moment: status 130, at most one sentence, no traceback, and nothing of ours lives on."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest
from conftest import PROJECT, git
from test_kill import evaluators
from test_parallel import settled

from agent import process

TORTURE = int(os.environ.get("AGENT_TORTURE", "4"))
TOLD = "agent: stopped; the next run takes up what was under way, where its reply had come\n"
MODULE, _, FUNCTION = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]["agent"].partition(":")
INSTALLED = f"import sys; from {MODULE} import {FUNCTION}; print('begun', flush=True); sys.exit({FUNCTION}())"


def begun(root: Path, *arguments: str) -> "subprocess.Popen[str]":
    """The command as it is installed, from the moment at which its code begins."""
    command = [sys.executable, "-c", INSTALLED, *arguments, "--root", str(root)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout
    assert child.stdout.readline() == "begun\n"
    return child


@pytest.mark.parametrize("delay", [number / TORTURE for number in range(TORTURE)])
def test_a_command_is_stopped_in_its_imports_and_after(root: Path, delay: float) -> None:
    (root / "hang").touch()
    child = begun(root, "run", "--no-commit")
    time.sleep(0.01 + delay)
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=30)
    assert child.returncode == 130
    assert told in (TOLD, "agent: stopped\n", "")
    assert settled(lambda: evaluators(root) == [])


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("stage", ["hang", "hang-gates"])
def test_an_impatient_user_leaves_nothing_behind(root: Path, stage: str, times: int) -> None:
    (root / stage).touch()
    child = begun(root, "run", "--no-commit")
    assert settled(lambda: any(("check" if "gates" in stage else "score") in line for line in evaluators(root)))
    for _ in range(times):
        child.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert (child.communicate(timeout=30)[1], child.returncode) == (TOLD, 130)
    assert settled(lambda: evaluators(root) == [])


def test_a_slow_look_up_of_a_name_is_not_waited_for(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, socket, time\n"
        f"socket.getaddrinfo = lambda *_, **__: (pathlib.Path({str(tmp_path / 'asked')!r}).touch(), time.sleep(60))\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")
    child = begun(root, "run", "--base-url", "http://slow.example/v1", "--no-commit")
    assert settled((tmp_path / "asked").exists)
    child.send_signal(signal.SIGINT)
    assert (child.communicate(timeout=20)[1], child.returncode) == (TOLD, 130)


def test_git_finishes_what_it_began(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, real = tmp_path / "bin" / "git", shutil.which("git")
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\ncase "$*" in *" commit "*) touch {tmp_path}/asked; sleep 1;; esac\nexec {real} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}{os.pathsep}{os.environ['PATH']}")
    child = begun(checkout, "score", "delta_net")
    assert settled((tmp_path / "asked").exists)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=20)
    assert child.returncode == 130
    assert settled(lambda: "attempt 0000: delta_net, scored" in git(checkout, "log", "-1", "--format=%s"))
    assert git(checkout, "status", "--porcelain") == ""


def test_no_command_is_forked_where_ctrl_c_could_be_lost() -> None:
    seen: list[bool] = []
    os.register_at_fork(before=lambda: seen.append(threading.current_thread() is threading.main_thread()))
    process.run(["true"], os.environ, process.Bounds(total=20, silence=20))
    assert seen == [False]
