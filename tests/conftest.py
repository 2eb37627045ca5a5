"""A root to work in, a stand-in evaluator that trains nothing, and a model that says what it is told to say."""

import csv
import json
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: tests run side by side, and threads that spin take minutes

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agent.evaluate import Evaluator
from agent.exchange import Answer, Message
from agent.job import Job
from agent.progress import Reporter
from agent.proposers import Prompted, Proposer
from agent.records import COLUMN_OF, mean
from agent.repo import open_repo

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job has it so, and so would what tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)

PROJECT = Path(__file__).parent.parent
STUB = PROJECT / "tests" / "stub"
BASELINE = '''"""The delta rule, as short as it gets."""


def delta_rule(q, k, v, beta, *, chunk_size):
    return v
'''


@pytest.fixture(autouse=True)
def _shared_folder_left_alone() -> Iterator[None]:
    """What ends an untrusted process must not close the folder that every process of the machine works in."""
    before = os.stat(tempfile.gettempdir()).st_mode
    yield
    assert os.stat(tempfile.gettempdir()).st_mode == before


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with prompts and a baseline; `python -m evaluator` is the stand-in, and no key is set."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "AGENT_", "GIT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", f"{STUB}{os.pathsep}{PROJECT}")
    folder = tmp_path / "root"
    shutil.copytree(PROJECT / "prompts", folder / "prompts")
    store(folder, "delta_net", BASELINE)
    return folder


def store(root: Path, name: str, source: str) -> Path:
    """A variant written by hand."""
    folder = root / "variants" / name
    folder.mkdir(parents=True)
    (folder / "naive.py").write_text(source)
    return folder


def made_elsewhere(entry: Path, place: Path) -> Path:
    """What an entry holds of its evaluation, as if another had been made in `place`."""
    place.mkdir()
    found = json.loads((entry / "evaluation.json").read_text())
    (place / "evaluation.json").write_text(json.dumps(found | {"started": "2029-01-01T00:00:01+00:00"}))
    shutil.copyfile(entry / "runs.csv", place / "runs.csv")
    return place


def remeasured(entry: Path, moved: Mapping[str, float] = {}, left_out: Sequence[str] = (), **facts: object) -> dict[str, Any]:
    """Make a stand-in's entry one in which these TASK:SETTING came out so much higher, and those are not done; its tasks."""
    found = json.loads((entry / "evaluation.json").read_text())
    with (entry / "runs.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    for task, _, name in (key.partition(":") for key in moved):
        result = found["tasks"][task]["settings"][name]
        result["accuracy"] += moved[f"{task}:{name}"]
        result["sweep_mean"] += moved[f"{task}:{name}"] / 2  # of two runs
        for run in runs:
            if (run["task"], run["setting"], run["audited"]) == (task, name, "1"):
                run["accuracy"] = str(result["accuracy"])
    for task, _, name in (key.partition(":") for key in left_out):
        del found["tasks"][task]["settings"][name]
    for task, column in COLUMN_OF.items():
        accuracies = [result["accuracy"] for result in found["tasks"][task]["settings"].values()]
        whole = len(accuracies) == found["tasks"][task]["settings_total"]
        found["tasks"][task] |= {"settings_done": len(accuracies), "accuracy": mean(accuracies) if whole else None}
        found["scores"][column] = found["tasks"][task]["accuracy"]
    score = mean([*found["scores"].values()])
    found |= {"status": "partial" if score is None else "scored", "mad_score": score} | facts
    (entry / "evaluation.json").write_text(json.dumps(found))
    with (entry / "runs.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(runs[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(runs)
    return dict(found["tasks"])


@pytest.fixture
def checkout(root: Path) -> Path:
    """The root as a git checkout with one commit."""
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "config", "user.name", "Someone")
    git(root, "config", "user.email", "someone@example.org")
    (root / ".gitignore").write_text("/history/.lock\n")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "start")
    return root


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout


def reply(name: str, *, mark: str = "", search: str = "    return v", title: str = "A change") -> str:
    """What a model answers: a child of the baseline; `mark` tells the stand-in evaluator what to do with it."""
    return (
        f"# {title}\nName: {name}\nMechanism: scaling\nPrediction: Compress +0.01\n\nBecause.\n\n"
        f"<<<<<<< SEARCH\n{search}\n=======\n    # {name}\n    # stub: {mark or 'none'}\n    return v\n>>>>>>> REPLACE\n"
    )


@dataclass
class Script:
    """A model that answers from a list, and keeps what it was asked."""

    answers: Sequence[str | BaseException]
    asked: list[list[Message]] = field(default_factory=list)

    def __call__(self, messages: Sequence[Message]) -> Answer:
        if "Write the insight" in messages[-1]["content"]:
            return Answer("It helped a little.\n\nMore words.\n", 10, 5, None)
        self.asked.append(list(messages))
        answer = self.answers[len(self.asked) - 1]
        if isinstance(answer, BaseException):
            raise answer
        return Answer(answer, 100, 50, 0.001)


MakeJob = Callable[..., Job]


@pytest.fixture
def make_job(root: Path) -> Iterator[MakeJob]:
    """Builds the job of a run under `root`, with a scripted model."""
    said = Console(file=open(root.parent / "said.txt", "w"), width=200)  # noqa: SIM115

    def make(
        answers: Sequence[str | BaseException] | Proposer = (), *, seed: int = 0, tries: int = 3, commit: bool = False
    ) -> Job:
        evaluator = Evaluator("cpu", "off")
        proposer = Prompted(root, "openai", "scripted", Script(answers)) if isinstance(answers, list | tuple) else answers
        repo = open_repo(root) if commit else None
        return Job(root, evaluator.protocol("smoke"), seed, tries, evaluator, proposer, repo, Reporter(said))

    yield make
    said.file.close()


@pytest.fixture
def said(root: Path) -> Callable[[], str]:
    """What was printed so far."""
    return lambda: (root.parent / "said.txt").read_text()
