"""A part of an evaluation is the evaluation that training these settings alone would have made."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from scoring import CHEAP, SHORT, job_of, scored

from evaluator import evaluation, results
from evaluator.__main__ import main
from evaluator.protocol import PROTOCOLS, to_json

ROOT = Path(__file__).parents[1]
WHOLE = ROOT / "history" / "r0004"  # all 66 settings
PARTIAL = ROOT / "history" / "r0003"
FAST = PROTOCOLS["fast"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (folder := tmp_path / "part").mkdir()
    return folder


def changed(folder: Path, **facts: Any) -> Path:
    """A copy of WHOLE with other facts in its evaluation.json."""
    folder.mkdir()
    (folder / "runs.csv").write_bytes((WHOLE / "runs.csv").read_bytes())
    (folder / "evaluation.json").write_text(json.dumps(results.read_json(WHOLE / "evaluation.json") | facts))
    return folder


def test_a_part_is_what_training_it_alone_makes(tmp_path: Path, out: Path) -> None:
    for name in ("whole", "alone"):
        (tmp_path / name).mkdir()
    asked = job_of(tmp_path / "whole", CHEAP)
    alone = job_of(tmp_path / "alone", CHEAP)
    wanted = dataclasses.replace(asked.protocol, name="half", settings=asked.protocol.settings[1:])
    assert scored(asked)[0]["status"] == "scored"
    trained, _ = scored(dataclasses.replace(alone, protocol=wanted, settings=wanted.settings))
    part = evaluation.part(asked.out, wanted, out)
    assert results.read_json(out / "evaluation.json") == part
    timeless = ("started", "finished", "seconds", "tasks")
    assert {k: v for k, v in part.items() if k not in timeless} == {k: v for k, v in trained.items() if k not in timeless}
    strip = lambda rows: [(r.task, r.setting, r.lr, r.weight_decay, r.seed, r.accuracy, r.loss) for r in rows]  # noqa: E731
    assert sorted(strip(results.read_rows(out))) == sorted(strip(results.read_rows(alone.out)))


def test_the_command_prints_the_part_of_a_shipped_row(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["part", str(WHOLE), "--protocol", "fast", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    best = {r.task: 0.0 for r in results.read_rows(out)}
    for row in results.read_rows(WHOLE):
        if any((row.task, row.setting) == (s.task, s.name) for s in FAST.settings):
            best[row.task] = max(best[row.task], row.accuracy)
    assert f"mean of six (no MAD score): {sum(best.values()) / 6:.4f}  [scored]" in told
    assert len(results.read_rows(out)) == 36
    assert main(["part", str(WHOLE), "--out", str(out)]) == 2
    assert f"--out {out}: it holds something already" in capsys.readouterr().err


@pytest.mark.parametrize(("facts", "protocol", "told"), [
    ({}, SHORT, "its protocol, mad, trains otherwise than "),
    ({"fingerprint": "0" * 16}, FAST, "was measured by another version of the evaluator, or on other data"),
    ({"status": "audit-failed"}, FAST, "holds no scores: its evaluation is 'audit-failed'"),
    ({"judged": {}}, FAST, "lacks compression:num_train_examples=800, "),
    ({"judged": [1]}, FAST, "evaluation.json can't be read as an evaluation: "),
    ({"seeds": None}, FAST, "names no seeds, but None"),
    ({"protocol": {"name": "mad"}}, FAST, "evaluation.json can't be read as an evaluation: "),
    ({"protocol": 3}, FAST, "evaluation.json can't be read as an evaluation: "),
    ({"protocol": to_json(PROTOCOLS["mad"]) | {"schedule": "cosine"}}, FAST, "its protocol, mad, trains otherwise than fast"),
])  # fmt: skip
def test_what_was_not_measured_is_no_part(tmp_path: Path, out: Path, facts: dict[str, Any], protocol: Any, told: str) -> None:
    with pytest.raises(results.ResultsError, match=told):
        evaluation.part(changed(tmp_path / "other", **facts), protocol, out)
    assert list(out.iterdir()) == []


def test_lengths_that_no_memory_holds_are_refused_before_anything_is_drawn(tmp_path: Path, out: Path) -> None:
    forged = to_json(PROTOCOLS["mad"])
    forged["settings"][0] |= {"seq_len": 2_000_000, "num_train_examples": 1}
    with pytest.raises(results.ResultsError, match="seq_len=2000000 must be at most 65536"):
        evaluation.part(changed(tmp_path / "other", protocol=forged), FAST, out)


@pytest.mark.parametrize("name", ["evaluation.json", "runs.csv"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = changed(tmp_path / "other") / name
    file.unlink()
    os.mkfifo(file)
    assert main(["part", str(file.parent), "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"evaluator: {file} is no file\n"
    file.unlink()
    monkeypatch.setattr(results, "LARGEST", 1 << 20)
    file.write_bytes(b" " * ((1 << 20) + 1))
    assert main(["part", str(file.parent), "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"evaluator: {file} is larger than 1 MiB, which no evaluation is\n"


def test_a_line_that_is_there_twice_counts_once(tmp_path: Path, out: Path) -> None:
    other = changed(tmp_path / "other")
    lines = (other / "runs.csv").read_text().splitlines(keepends=True)
    (other / "runs.csv").write_text("".join([*lines, *(line for line in lines if "vocab_size=8192" in line)]))
    assert evaluation.part(other, FAST, out)["tasks"]["memorization"]["settings"]["vocab_size=8192"]["seconds"]
    assert len(results.read_rows(out)) == 36


def test_what_a_partial_row_lacks_is_named(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["part", str(PARTIAL), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert f"evaluator: {PARTIAL} lacks compression:num_train_examples=800, in-context-recall:num_train_examples=1600" in told
    assert "memorization" not in told
