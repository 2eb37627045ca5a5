"""Through Ray the same rows come out as without, whoever is lost on the way; needs the extra `ray`."""

import dataclasses
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PROJECT
from scoring import CHEAP, SHORT, SMOKE, always, job_of, once, rows_of, scored

from evaluator import cluster, results
from evaluator.job import Job

HERE = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HERE, reason="needs Ray: pip install -e '.[ray]'")
THREE = dataclasses.replace(SMOKE, name="three", epochs=2, settings=(*SHORT.settings, SMOKE.settings[1]))
KILL_THE_RAY_WORKER = "os.kill(os.getppid(), signal.SIGKILL)"


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    with cluster.joined("local"):
        yield


def evaluator(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "evaluator", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)


@needs_ray
@pytest.mark.usefixtures("ray_here")
def test_rows_are_those_of_one_machine_and_what_is_done_is_not_trained_again(tmp_path: Path) -> None:
    alone, spread = job_of(tmp_path, protocol=THREE, out="alone"), job_of(tmp_path, protocol=THREE, out="spread")
    scored(alone)
    first = [row for row in results.read_rows(alone.out) if row.task == "memorization"]
    results.append_rows(spread.out, first)
    evaluation, told = scored(spread, cluster.Cluster(spread))
    assert evaluation["error"] is None
    assert rows_of(spread) == rows_of(alone)
    assert len(results.read_rows(spread.out)) == len(results.read_rows(alone.out))
    assert told[0]["message"] == "going on: 1 settings are done already"
    done = [e["settings_done"] for e in told if e["event"] == "setting"]
    assert done == [1, 2]
    assert any(e["event"] == "progress" and e["steps"] for e in told)


@needs_ray
@pytest.mark.usefixtures("ray_here")
def test_the_setting_of_a_lost_ray_worker_is_trained_by_another(tmp_path: Path) -> None:
    usual = job_of(tmp_path, CHEAP, out="usual")
    scored(usual)
    asked = job_of(tmp_path, once(tmp_path / "mark", KILL_THE_RAY_WORKER))
    evaluation, _ = scored(asked, cluster.Cluster(asked))
    assert (tmp_path / "mark").exists()
    assert evaluation["error"] is None
    assert rows_of(asked) == rows_of(usual)


@needs_ray
@pytest.mark.usefixtures("ray_here")
def test_a_setting_that_loses_every_ray_worker_is_a_failure_with_its_name(tmp_path: Path) -> None:
    asked = job_of(tmp_path, always(KILL_THE_RAY_WORKER))
    evaluation, _ = scored(asked, cluster.Cluster(asked))
    assert evaluation["status"] == "train-failed"
    assert evaluation["error"] in [f"{s.task} {s.name}: the Ray worker that trained it was lost 3 times" for s in SHORT.settings]


@needs_ray
@pytest.mark.usefixtures("ray_here")
def test_a_failure_of_the_variant_ends_the_evaluation_as_without_ray(tmp_path: Path) -> None:
    asked = job_of(tmp_path, always("raise ValueError('no')"))
    evaluation, _ = scored(asked, cluster.Cluster(asked))
    assert evaluation["status"] == "train-failed"
    assert "ValueError: no" in evaluation["error"]


@needs_ray
def test_an_address_where_nobody_answers_is_told_in_a_sentence(tmp_path: Path) -> None:
    done = evaluator("score", "variants/delta_net", "--protocol", "smoke", "--out", str(tmp_path), "--ray", "127.0.0.1:1")
    assert done.returncode == 3
    assert done.stderr.startswith("evaluator: --ray 127.0.0.1:1: no Ray cluster answers there (")
    assert done.stderr.count("\n") == 1
    assert evaluator("protocol", "smoke", "--ray", "127.0.0.1:1").returncode == 3
    assert evaluator("protocol", "smoke", "--ray", "nowhere").returncode == 2


@pytest.mark.skipif(HERE, reason="Ray is installed here")
def test_a_missing_ray_is_told_in_a_sentence(tmp_path: Path) -> None:
    done = evaluator("score", "variants/delta_net", "--protocol", "smoke", "--out", str(tmp_path), "--ray", "local")
    assert done.returncode == 3
    assert done.stderr == "evaluator: --ray local: Ray is not installed here; pip install -e '.[ray]' brings it\n"


@needs_ray
@pytest.mark.usefixtures("ray_here")
def test_the_gates_are_asked_of_one_ray_worker_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "gated", True)
    asked = job_of(tmp_path, CHEAP.replace("return v", "return v.roll(-1, 2)"))
    evaluation, told = scored(asked, cluster.Cluster(asked))
    assert (evaluation["status"], evaluation["error"][:19]) == ("check-failed", "causal: not causal:")
    assert results.read_rows(asked.out) == []
    assert any("gates on the device" in e["message"] for e in told if e["event"] == "note")
