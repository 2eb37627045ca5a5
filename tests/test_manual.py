"""`--proposer manual`: a file that is no answer, and an answer that comes too late, are told; nothing waits in silence."""

import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeJob, reply

from agent import loop
from agent.proposers import Manual


class Told(list[str]):
    def says(self, words: str) -> bool:
        end = time.monotonic() + 20
        while not any(words in line for line in self) and time.monotonic() < end:
            time.sleep(0.05)
        return any(words in line for line in self)


@pytest.fixture
def told(root: Path, make_job: MakeJob) -> Told:
    """What a run said that asks a person; its baseline is there already, and it ends with the test."""
    list(loop.run(make_job(), 0))
    return Told()


def start(told: Told, root: Path, make_job: MakeJob) -> threading.Thread:
    run = threading.Thread(target=lambda: list(loop.run(make_job(Manual(root, told.append)), 1)), daemon=True)
    run.start()
    return run


def end(run: threading.Thread, answer: Path, text: str) -> None:
    answer.write_text(text)
    run.join(60)
    assert not run.is_alive()


def test_what_is_no_file_is_told_once_and_the_answer_still_awaited(root: Path, make_job: MakeJob, told: Told) -> None:
    run, answer = start(told, root, make_job), root / "history" / "0001" / "answer.md"
    assert told.says(f"Waiting for the answer in {answer}")
    makes: list[tuple[Callable[[], None], str]] = [
        (answer.mkdir, "Is a directory"),
        (lambda: os.mkfifo(answer), "Not a regular file"),
        (lambda: os.mknod(answer, stat.S_IFSOCK), "Not a regular file"),
        (lambda: answer.symlink_to("answer.md"), "Too many levels of symbolic links"),
    ]
    for make, why in makes:
        told.clear()
        make()
        assert told.says(f"{answer} cannot be read: {why}: the answer is awaited as a file of text")
        answer.rmdir() if answer.is_dir() else answer.unlink()
    assert len(told) == 1
    end(run, answer, reply("mine"))
    assert (root / "variants" / "mine").is_dir()


def test_an_answer_that_is_mended_too_late_is_told(root: Path, make_job: MakeJob, told: Told) -> None:
    run, answer = start(told, root, make_job), root / "history" / "0001" / "answer.md"
    assert told.says("Waiting for")
    answer.write_text("no change in it")
    second = answer.with_name("answer-2.md")
    assert told.says(f"Waiting for the answer in {second}")
    assert not any("was not read" in line for line in told)
    answer.write_text(reply("mended"))
    assert told.says(f"{answer} was not read: nobody waits for it any more; copy it to {second} if that is what you mean")
    end(run, second, reply("mended"))
    assert (root / "variants" / "mended").is_dir()


def test_an_answer_to_an_attempt_that_has_ended_is_told_once(root: Path, make_job: MakeJob, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Manual, "_await", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            list(loop.run(make_job(Manual(root, print)), 1))
    list(loop.run(make_job(), 0))  # seals it
    late = root / "history" / "0001" / "answer.md"
    late.write_text(reply("late"))
    run, answer = start(told, root, make_job), root / "history" / "0002" / "answer.md"
    assert told.says(f"{late} was not read: nobody waits for it any more; copy it to {answer}")
    time.sleep(0.6)
    assert sum("was not read" in line for line in told) == 1
    end(run, answer, reply("mine"))
