"""What goes wrong while a setting is trained: a lost process, a hang, too little memory; and going on after it."""

import os
import re
from pathlib import Path

import pytest
from scoring import CHEAP, SHORT, always, job_of, once, rows_of, scored

from evaluator import job, results
from evaluator.bench import Bench
from evaluator.progress import Progress

KILL = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[object, ...]]:
    """The rows where nothing goes wrong."""
    usual = job_of(tmp_path_factory.mktemp("usual"), CHEAP)
    assert scored(usual)[0]["error"] is None
    return rows_of(usual)


def test_a_training_process_that_is_lost_is_followed_by_a_fresh_one(
    tmp_path: Path, expected: set[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # their number changes no row either
    asked = job_of(tmp_path, once(tmp_path / "mark", KILL))
    _, told = scored(asked)
    assert rows_of(asked) == expected
    assert ["signal 9" in e["message"] and "memorization" in e["message"] for e in told if e["event"] == "note"] == [True]


def test_a_setting_that_kills_every_process_is_a_failure_with_its_name(tmp_path: Path) -> None:
    asked = job_of(tmp_path, always(KILL))
    evaluation, told = scored(asked)
    assert evaluation["status"] == "train-failed"
    assert evaluation["error"].startswith(f"memorization {SHORT.settings[1].name}: ")
    assert "signal 9" in evaluation["error"]
    assert len([e for e in told if e["event"] == "note"]) == 1
    assert results.read_rows(asked.out) == []


def test_a_hang_is_ended_at_its_bound_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(job.TIMEOUT, "cpu", 5.0)
    evaluation, told = scored(job_of(tmp_path, always("signal.pause()")))
    assert evaluation["status"] == "train-failed"
    assert re.fullmatch(rf"memorization {SHORT.settings[1].name}: train was not answered within 5 s", evaluation["error"])
    assert told == []


def test_a_group_that_does_not_fit_in_memory_is_halved(tmp_path: Path, expected: set[tuple[object, ...]]) -> None:
    rows = SHORT.batch_size
    asked = job_of(tmp_path, CHEAP.replace("    return v", f"    if v.shape[0] > {rows}:\n        raise MemoryError\n    return v"))
    _, told = scored(asked)
    packed, halved = ({row[:5]: (float(row[5]), float(row[6])) for row in rows} for rows in (expected, rows_of(asked)))
    assert halved == {run: pytest.approx(figures, abs=1e-5) for run, figures in packed.items()}
    assert [e["message"].rpartition(": ")[2] for e in told if e["event"] == "note"] == ["2 runs at once do not fit in memory; halving"] * 2


def test_one_run_that_does_not_fit_in_memory_is_a_failure_with_its_setting(tmp_path: Path) -> None:
    evaluation, _ = scored(job_of(tmp_path, always("raise MemoryError")))
    assert evaluation["status"] == "train-failed"
    assert evaluation["error"].startswith("memorization ")
    assert "MemoryError" in evaluation["error"]


def test_as_many_threads_as_asked_for_else_one_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, threads in (("3", 3), ("0", os.cpu_count()), ("4,2", os.cpu_count()), ("", os.cpu_count())):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert job_of(tmp_path).threads == threads


def test_what_is_done_is_not_trained_again(tmp_path: Path) -> None:
    asked = job_of(tmp_path)
    scored(asked)
    before = (asked.out / "runs.csv").read_bytes()
    evaluation, told = scored(asked)
    assert evaluation["tasks"]["memorization"]["settings_done"] == 1
    assert [e["message"] for e in told] == ["going on: 2 settings are done already"]
    assert (asked.out / "runs.csv").read_bytes() == before


def test_the_process_that_trains_is_the_one_that_the_gates_ask(tmp_path):
    """An operator that is honest until it has been trained for some steps: a fresh process would show nothing."""
    rows = SHORT.batch_size * len(SHORT.lrs) * len(SHORT.weight_decays)
    late = f'''"""Values come back as they are, for a while."""
steps = []


def delta_rule(q, k, v, beta, *, chunk_size):
    if q.shape[0] == {rows} and q.requires_grad:
        steps.append(1)
    return v.roll(-1, 2) if len(steps) > 10 else v.clone()
'''
    job = job_of(tmp_path, late)
    with Bench(job) as bench:
        assert bench.gates(job.settings) is None
        bench.train(job.settings[0], Progress(job.protocol, job.settings, lambda event: None)).exception()
        assert "not causal" in bench.gates(job.settings)
