"""runs.csv is what a score is made of: an entry whose runs don't bear it out is named and never quoted."""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agent import history
from agent.records import Attempt, now, results_csv
from evaluator.protocol import BASELINES, PROTOCOLS, settings_of, to_json
from evaluator.results import FIELDS, Row, append_rows, read_rows, summary

PROJECT = Path(__file__).parent.parent
MAD = dataclasses.replace(
    PROTOCOLS["mad"], settings=tuple(s for task in BASELINES for s in settings_of(task)[:2]), lrs=(1e-4, 1e-3), weight_decays=(0.0, 0.1)
)
"""Two settings a task, four runs each: line 2 is the first run of compression's baseline, line 5 its audited one."""

FOUR = "compression baseline: {} of 4 runs"
Edit = Callable[[str], str]


def runs_of(task: str, setting: str, seeds: Sequence[int], best: float) -> list[Row]:
    points = [(lr, wd, seed) for seed in seeds for lr in MAD.lrs for wd in MAD.weight_decays]
    scores = [best * (0.25 + 0.25 * (number % 4)) + seed / 100 for number, (_, _, seed) in enumerate(points)]
    return [
        Row(task, setting, *point, score, 1.5, 3, 20.5, int(number % 4 == 3), score, score, float("nan"), 3, 1234.56789, "eager")
        for number, (point, score) in enumerate(zip(points, scores, strict=True))
    ]  # fmt: skip


def entry(root: Path, *, seeds: Sequence[int] = (0,), settings: int = 12) -> Path:
    """A scored entry as the evaluator leaves it; of 12 settings so many are done."""
    folder = root / "history" / "0000"
    folder.mkdir(parents=True)
    for number, setting in enumerate(MAD.settings[:settings]):
        append_rows(folder, runs_of(setting.task, setting.name, seeds, 0.3 + number / 37))
    derive(folder, seeds)
    attempt = dict.fromkeys(Attempt.model_fields) | {
        "version": 1, "id": "0000", "kind": "attempt", "name": "mine", "protocol": "mad", "status": "scored", "success": True, "seed": seeds[0],
        "versus_parent": "unknown", "finished": now()}  # fmt: skip
    (folder / "attempt.json").write_text(Attempt.model_validate(attempt).model_dump_json())
    return folder


def derive(folder: Path, seeds: Sequence[int] = (0,)) -> None:
    found = summary(read_rows(folder), MAD, seeds)
    (folder / "results.csv").write_text(results_csv([("mine", found["scores"])]))
    (folder / "evaluation.json").write_text(json.dumps({
        "status": "partial" if found["mad_score"] is None else "scored", "error": None, "seeds": list(seeds), **found,
        "variant": {"name": "mine", "digest": "d", "form": "naive"}, "protocol": to_json(MAD), "fingerprint": "f",
        "device": {}, "versions": {}, "finished": "2026-01-01",
    }))  # fmt: skip


def problems(root: Path) -> list[str]:
    """What is told of the entry; nothing where it is read."""
    past = history.read(root)
    assert len(past.entries) + len(past.problems) == 1
    return [problem.removeprefix("history/0000: ").removesuffix("; passed over") for problem in past.problems]


def change(folder: Path, edit: Edit) -> None:
    path = folder / "runs.csv"
    text = edit(path.read_text())
    assert text != path.read_text()
    path.write_bytes(text.encode())


def line(number: int, edit: Edit) -> Edit:
    """The edit of one line, without its end."""

    def of_all(text: str) -> str:
        lines = text.split("\n")
        return "\n".join([*lines[: number - 1], edit(lines[number - 1]), *lines[number:]])

    return of_all


def cell(number: int, column: str, value: str) -> Edit:
    at = FIELDS.index(column)
    return line(number, lambda text: ",".join([*text.split(",")[:at], value, *text.split(",")[at + 1 :]]))


def drop(number: int) -> Edit:
    return lambda text: "".join(text.splitlines(keepends=True)[: number - 1] + text.splitlines(keepends=True)[number:])


@pytest.mark.parametrize("seeds", [(0,), (3, 4)])
@pytest.mark.parametrize("settings", [12, 7, 0])
def test_what_the_evaluator_leaves_is_borne_out(tmp_path: Path, seeds: tuple[int, ...], settings: int) -> None:
    entry(tmp_path, seeds=seeds, settings=settings) if settings else append_rows(entry(tmp_path, settings=0), [])
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (cell(5, "accuracy", "0.31"), "compression baseline: 0.31 in the runs, 0.3 in the evaluation"),
        (cell(5, "accuracy", "0.300000003"), "compression baseline: 0.300000003 in the runs, 0.3 in the evaluation"),
        (cell(2, "accuracy", "0.1"), "compression baseline: mean of its sweep 0.19375 in the runs, 0.1875 in the evaluation"),
        (cell(2, "accuracy", "nan"), "compression baseline: mean of its sweep 0.16875 in the runs, 0.1875 in the evaluation"),
        (cell(5, "audited", "0"), "compression baseline: no audited run of seed 0"),
        (cell(4, "audited", "1"), None),  # the best one counts
        (drop(3), FOUR.format(3)),
        (lambda text: "\n".join(text.split("\n")[:1]) + "\n", FOUR.format(0)),
        (cell(3, "seed", "1"), FOUR.format(3)),
        (cell(3, "lr", "0.0002"), FOUR.format(3)),
        (cell(3, "setting", "other"), FOUR.format(3)),
        (lambda text: text.replace("compression", "Compression"), FOUR.format(0)),
        (lambda text: text.replace("-copying", "-copy"), "selective-copying baseline: 0 of 4 runs"),
    ],
)
def test_runs_that_say_something_else_are_named(tmp_path: Path, edit: Edit, told: str | None) -> None:
    change(entry(tmp_path), edit)
    assert problems(tmp_path) == ([f"runs.csv does not agree with evaluation.json ({told})"] if told else [])


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (cell(5, "accuracy", "0.3x"), "line 5: accuracy is '0.3x'"),
        (cell(5, "accuracy", "1.5"), "line 5: accuracy is '1.5'"),
        (cell(5, "accuracy", "-0.1"), "line 5: accuracy is '-0.1'"),
        (cell(5, "accuracy", "inf"), "line 5: accuracy is 'inf'"),
        (cell(5, "accuracy", "\0" * 9), "line 5: accuracy is ''"),
        (cell(3, "loss", "1.5x"), "line 3: loss is '1.5x'"),
        (cell(5, "audited", "yes"), "line 5: audited is 'yes'"),
        (cell(5, "seed", ""), "line 5: seed is ''"),
        (line(3, lambda text: text[:30]), "line 3: 4 of 16 columns"),
        (line(3, lambda text: f'"{text}'), "line 3: 1 of 16 columns"),
        (line(3, lambda text: "\0" * len(text)), "line 3: 1 of 16 columns"),
        (line(1, lambda text: text.replace("accuracy", "acc", 1)), "line 1: there is no column accuracy"),
        (line(1, lambda _: ""), "line 1: there is no column task"),
        (drop(1), "line 1: there is no column task"),
        (lambda _: "", "line 1: there is no column task"),
        (lambda text: text[:-1], "line 49: it is cut off"),
        (lambda text: text[:-90], "line 49: it is cut off"),
        (lambda text: text[: len(text) // 2], "line 25: it is cut off"),
        (line(3, lambda text: f'"{text}'), "field larger than field limit (131072)"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, edit: Edit, told: str) -> None:
    folder = entry(tmp_path)
    if "field limit" in told:
        with (folder / "runs.csv").open("a") as file:
            file.writelines(f"{row}\n" for row in range(40_000))
    change(folder, edit)
    assert problems(tmp_path) == [f"runs.csv is damaged ({told})"]


def test_runs_are_read_whole_or_not_at_all(tmp_path: Path) -> None:
    change(entry(tmp_path), lambda text: text + "x" * (16 << 20))
    assert problems(tmp_path) == ["runs.csv cannot be read (it is larger than 16 MiB)"]


def shuffled(text: str) -> str:
    return "".join(",".join(reversed(row.split(","))) + "\n" for row in text.splitlines())


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",eager", "").replace(",operator", ""),  # of an older evaluator
        line(1, lambda text: text.removesuffix(",operator")),  # and gone on with by this one
        shuffled,
        lambda text: text.replace("compression,baseline", '"compression","baseline"'),
        lambda text: text.replace("0.0001,0.0,", "1E-04,0,").replace("1.5", "1.50E+00"),  # as a spreadsheet writes them
        lambda text: text + text.splitlines()[4] + "\n",  # twice the same line
        lambda text: text + "memorization,vocab_size=1024,0.0001,0.0,0,1.5\n",  # of a setting that was under way
        lambda text: text + "compression,baseline,0.0001,0.0,0,0.0",  # a torn last line
        line(6, lambda text: f"compression,baseline,0.0001,0.0,0,0.07\n\n\0\0\0\n{text}"),  # what a kill tore, trained again since
        line(6, lambda text: "".join(f"memorization,vocab_size=8192,{lr},{wd},0,0.9,1,3,9,1,1,1,1,1,1\n" for lr in MAD.lrs for wd in MAD.weight_decays) + text),
    ],
)  # fmt: skip
def test_what_changes_no_score_is_no_damage(tmp_path: Path, edit: Edit) -> None:
    change(entry(tmp_path), edit)
    assert problems(tmp_path) == []


def test_a_setting_trained_again_after_a_kill_counts_as_the_evaluator_counts_it(tmp_path: Path) -> None:
    folder = entry(tmp_path)
    again = [dataclasses.replace(row, accuracy=row.accuracy + 0.01, seconds=9.0) for row in read_rows(folder)[:4]]
    append_rows(folder, again)
    assert "0.31 in the runs, 0.3 in the evaluation" in problems(tmp_path)[0]
    derive(folder)
    assert problems(tmp_path) == []


def test_every_seed_is_asked_for(tmp_path: Path) -> None:
    change(entry(tmp_path, seeds=(0, 1)), cell(9, "audited", "0"))
    assert "compression baseline: no audited run of seed 1" in problems(tmp_path)[0]
    change(tmp_path / "history" / "0000", drop(9))
    assert "compression baseline: 7 of 8 runs" in problems(tmp_path)[0]


def test_a_file_that_is_missing_or_none_is_a_sentence(tmp_path: Path) -> None:
    path = entry(tmp_path) / "runs.csv"
    path.unlink()
    assert problems(tmp_path) == ["runs.csv is missing"]
    path.mkdir()
    assert problems(tmp_path) == ["runs.csv cannot be read (Is a directory)"]
    path.rmdir()
    os.mkfifo(path)
    assert problems(tmp_path) == ["runs.csv cannot be read (Not a regular file)"]


def test_what_ships_is_borne_out_by_its_runs() -> None:
    past = history.read(PROJECT)
    shipped = [entry for entry in past.entries if entry.id.startswith("r")]
    assert [problem for problem in past.problems if problem.startswith("history/r")] == []
    assert len([entry for entry in shipped if entry.scores]) >= 24
