"""Law 1: killed at any moment, by anything, the history holds all that was sealed, and the next run goes on.

AGENT_TORTURE says how many kills; the full size is 300.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PROJECT, git

from agent import history

TORTURE = int(os.environ.get("AGENT_TORTURE", "8"))
RECORD = """Unnamed: 0  Compress  Context Recall  Fuzzy Recall  Memorize  Noisy Recall  Selective Copy
0  plain_net_{0}  0.41  0.99  0.15  0.33  0.98  0.97

20240131_235959

--- Insights ---
A lesson.
"""


def agent(root: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "agent", *arguments, "--root", str(root)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)  # fmt: skip


def evaluators(root: Path) -> list[str]:
    """The command lines of this machine that train or check something under `root`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if "-m evaluator" in line and str(root) in line:
            found.append(line)
    return found


def gits(root: Path) -> list[Path]:
    """What git does in `root`: it finishes what it began though the agent was killed, and fsck must not look before."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text() == "git\n" and (process / "cwd").resolve(strict=True) == root:
                found.append(process)
        except OSError:
            continue
    return found


@pytest.fixture
def checkout(checkout: Path) -> Path:
    """With the real baseline, in which the catalogue finds its places."""
    shutil.copy(PROJECT / "variants" / "delta_net" / "naive.py", checkout / "variants" / "delta_net" / "naive.py")
    git(checkout, "commit", "--quiet", "--all", "--message", "the real baseline")
    return checkout


def kill_often(root: Path, times: int, longest: float, *arguments: str, seed: int = 0) -> dict[str, bytes]:
    """Start, kill the whole group, look; the sealed entries that the last look found."""
    moment = random.Random(seed)
    sealed: dict[str, bytes] = {}
    for _ in range(times):
        child = agent(root, *arguments)
        time.sleep(0.4 + moment.random() * longest)
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        sealed = look(root, sealed)
    return sealed


def look(root: Path, before: dict[str, bytes]) -> dict[str, bytes]:
    """What was sealed is as it was, every stored variant has an owner, git is whole, no evaluator lives on."""
    past = history.read(root)
    assert past.problems == ()
    sealed = {entry.id: (entry.folder / "attempt.json").read_bytes() for entry in past.entries if entry.attempt}
    assert {entry: sealed[entry] for entry in before} == before
    scored = {entry.name for entry in past.entries if entry.status == "scored"}
    orphans = {path.name for path in (root / "variants").iterdir()} - scored - {"delta_net"}
    assert len(orphans) <= 3  # those of the attempts that were under way
    while gits(root):
        time.sleep(0.05)
    assert git(root, "fsck", "--strict") == ""
    assert evaluators(root) == []
    return sealed


def finish(root: Path, *arguments: str) -> dict[str, bytes]:
    """One more run, left alone: it ends well and commits everything."""
    child = agent(root, *arguments)
    output, _ = child.communicate(timeout=300)
    assert child.returncode == 0, output
    sealed = look(root, {})
    assert git(root, "status", "--porcelain", "--", *(f"history/{entry}" for entry in sealed)) == ""
    return sealed


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_run_goes_on(checkout: Path, parallel: int) -> None:
    command = ("run", "--iterations", "9", "--proposer", "catalogue", "--parallel", f"{parallel}")
    before = kill_often(checkout, TORTURE // parallel, 2.2, *command)
    after = finish(checkout, "run", "--iterations", "1", "--proposer", "catalogue")
    assert before.items() <= after.items()
    assert len(after) > len(before)


@pytest.mark.parametrize("stage", ["proposal", "gates"])
def test_a_kill_before_the_training_leaves_nothing_behind(checkout: Path, stage: str) -> None:
    finish(checkout, "score", "delta_net")
    (checkout / "hang-gates").touch()
    command = ("run", "--proposer", "manual" if stage == "proposal" else "catalogue")
    child = agent(checkout, *command)
    entry, told = checkout / "history" / "0001", {"proposal": "prompt.md", "gates": "patch.diff"}[stage]
    end = time.monotonic() + 60
    while not (entry / told).exists() and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    (checkout / "hang-gates").unlink()
    before = (entry / told).read_bytes()
    finish(checkout, "run", "--iterations", "0", "--proposer", "catalogue")
    (found,) = (entry for entry in history.read(checkout).entries if entry.id == "0001")
    assert (found.status, (entry / told).read_bytes()) == ("interrupted" if stage == "proposal" else "scored", before)
    assert git(checkout, "status", "--porcelain", "history", "variants") == ""
    again = agent(checkout, "run", "--iterations", "0", "--proposer", "catalogue")
    assert "0001" not in again.communicate()[0]


def test_an_import_goes_on(checkout: Path) -> None:
    files = [checkout.parent / f"record_{number}.txt" for number in range(12)]
    for number, file in enumerate(files):
        file.write_text(RECORD.format(number))
    command = ("import", *map(str, files))
    before = kill_often(checkout, max(2, TORTURE // 4), 1.5, *command)
    after = finish(checkout, *command)
    assert before.items() <= after.items()
    assert sum(b'"status": "imported"' in record for record in after.values()) == len(files)  # none is lost, none is there twice


def test_a_recorded_replay_goes_on(checkout: Path) -> None:
    first = finish(checkout, "score", "delta_net")
    before = kill_often(checkout, max(2, TORTURE // 4), 1.5, "replay", "0000", "--record")
    assert first.items() <= before.items()
    assert len(finish(checkout, "replay", "0000", "--record")) == len(before) + 1


@pytest.mark.parametrize("number", range(max(1, TORTURE // 12)))
def test_an_evaluation_goes_on_by_setting(checkout: Path, number: int) -> None:
    source = checkout / "variants" / "delta_net" / "naive.py"
    source.write_text(source.read_text() + f"# stub: slow=0.25\n# {number}\n")
    seen: dict[Path, str] = {}
    for seed in range(3):
        kill_often(checkout, 1, 1.6, "score", "delta_net", seed=3 * number + seed)
        for rows in (checkout / "history").glob("*/runs.csv"):
            before, now = seen.get(rows, ""), rows.read_text()
            assert now.startswith(before[: before.rfind("\n") + 1])
            seen[rows] = now
    finish(checkout, "score", "delta_net")
    scored = [entry for entry in history.read(checkout).entries if entry.status == "scored"]
    for entry in scored:
        runs = [tuple(line.split(",")[:5]) for line in (entry.folder / "runs.csv").read_text().splitlines()[1:]]
        assert len(runs) == len(set(runs)) == 24  # none is trained twice, none is left out
    assert scored


@pytest.mark.parametrize("number", [2, 4])
def test_several_agents_on_one_root(checkout: Path, number: int) -> None:
    """One works, the others say why they do not; no ID is given twice."""
    children = [agent(checkout, "run", "--iterations", "3", "--proposer", "catalogue") for _ in range(number)]
    ended = [(child.communicate(timeout=120)[0], child.returncode) for child in children]
    assert {status for _, status in ended} <= {0, 3}
    assert all("is writing to" in output for output, status in ended if status == 3)
    assert any(status == 0 for _, status in ended)
    assert git(checkout, "status", "--porcelain") == ""
    look(checkout, {})


def test_the_evaluator_dies_with_the_agent_alone(checkout: Path) -> None:
    source = checkout / "variants" / "delta_net" / "naive.py"
    source.write_text(source.read_text() + "# stub: hang\n")
    child = agent(checkout, "run")
    log = checkout / "history" / "0000" / "train.log"
    end = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size) and time.monotonic() < end:
        time.sleep(0.05)
    assert len(evaluators(checkout)) == 1
    child.kill()
    child.communicate()
    time.sleep(0.2)
    assert evaluators(checkout) == []
