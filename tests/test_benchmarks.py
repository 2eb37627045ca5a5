"""The comparison tables of benchmarks/, on small histories whose figures are worked out by hand."""

import csv
import dataclasses
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import early_stop
import measured
import noise as noise_script
import pytest
import reference
import reference_agreement
import sweep
import table

from evaluator import noise
from evaluator.protocol import BASELINES, COLUMNS, PROTOCOLS, Protocol, settings_of, to_json
from evaluator.results import Row, append_rows

PROJECT = Path(__file__).parent.parent
SETTINGS = tuple(s for task in BASELINES for s in settings_of(task)[:2])
MAD = dataclasses.replace(PROTOCOLS["mad"], settings=SETTINGS, lrs=(1e-3,), weight_decays=(0.0, 0.1))
"""Two settings a task, two runs a sweep."""


def evaluation(
    folder: Path, name: str, best: Mapping[str, Sequence[float]], *, protocol: Protocol = MAD, fingerprint: str = "f1",
    finished: str = "2026-01-01", status: str = "scored", settings: int = 12, digest: str | None = None, seed: int = 0,
) -> Path:
    """An entry whose runs reach, for each seed from `seed` on, best[task], or best[task:setting], without weight decay and half of it with."""
    folder.mkdir(parents=True)
    seeds = range(seed, seed + max(map(len, best.values())))
    for s in protocol.settings[:settings]:
        append_rows(folder, [
            Row(s.task, s.name, 1e-3, wd, seed, share * score, 1.0, 1, 30.0, int(wd == 0), share * score, share * score, 0.0, 1, 5.0)
            for seed, score in zip(seeds, best.get(f"{s.task}:{s.name}", best[s.task]), strict=True) for wd, share in ((0.0, 1.0), (0.1, 0.5))
        ])  # fmt: skip
    (folder / "evaluation.json").write_text(json.dumps({
        "variant": {"name": name, "digest": digest or name, "form": "naive"}, "protocol": to_json(protocol), "seeds": list(seeds),
        "fingerprint": fingerprint, "device": {"name": "a GPU"}, "status": status, "finished": finished,
        "judged": {task: [s.name for s in protocol.settings if s.task == task] for task in BASELINES},
    }))  # fmt: skip
    (folder / "attempt.json").write_text("{}")
    return folder


def alike(*scores: float) -> dict[str, Sequence[float]]:
    return dict.fromkeys(BASELINES, scores)


def test_ranks_and_spearman_are_those_of_the_textbook() -> None:
    assert measured.ranks([0.3, 0.1, 0.3, 0.9]) == [2.5, 1.0, 2.5, 4.0]
    assert measured.spearman([(1, 3), (2, 1), (3, 2)]) == pytest.approx(-0.5)
    assert measured.spearman([(1, 1), (2, 1), (3, 2)]) == pytest.approx(math.sqrt(0.75))
    assert measured.spearman([(1, 3), (2, 1)]) is None
    assert measured.spearman([(1, 3), (2, 3), (3, 3)]) is None


def test_a_score_is_the_best_of_the_sweep_and_stands_beside_its_mean(tmp_path: Path) -> None:
    found = measured.load(evaluation(tmp_path / "e", "delta_net", alike(0.4) | {"memorization": (0.8,)}))
    assert found.scores("accuracy")["Compress"] == pytest.approx(0.4)
    assert found.scores("sweep_mean")["Compress"] == pytest.approx(0.3)
    assert found.scores("accuracy")[measured.MEAN] == pytest.approx((5 * 0.4 + 0.8) / 6)
    assert found.minutes == pytest.approx(12 * 2 * 30 / 60)


def test_a_partial_row_is_shown_as_partial_and_never_averaged(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "0001", "delta_net", alike(0.4), settings=11, status="partial")
    page, records = table.report([measured.load(folder)], False)
    line = next(line for line in page.splitlines() if line.startswith("| delta_net"))
    assert "| partial 11/12 | 0.400 (0.487, -0.087)" in line.replace("**", "")
    assert "| 1/2 (0.991) | 11/12 (0.667) |" in line
    assert f"| delta_net |{' 0.400 |' * 7}" in page  # of the baselines none is missing
    last = next(r for r in records if (r["variant"], r["column"]) == ("delta_net", measured.MEAN))
    assert (last["ours"], last["difference"], last["published"]) == (None, None, pytest.approx(0.6674095))


def test_a_row_that_failed_the_audit_has_no_scores(tmp_path: Path) -> None:
    found = measured.load(evaluation(tmp_path / "e", "delta_net", alike(0.4), status="audit-failed"))
    assert set(found.scores("accuracy").values()) == {None}
    page, _ = table.report([found], False)
    assert "12/12 audit-failed" in page
    assert "0.400" not in page


def test_rank_correlation_is_over_the_rows_that_are_whole_in_a_task(tmp_path: Path) -> None:
    ours = {"delta_net": 0.5, "gated_delta_net": 0.4, "tanh_on_error_before_state_update": 0.6, "topk25_sparsify_error_before_state_update": 0.7}
    for i, (name, score) in enumerate(ours.items()):
        evaluation(tmp_path / f"000{i}", name, alike(score), settings=12 if i else 11)
    found = measured.chosen(measured.of_history(tmp_path, "mad"))
    scores = {name: m.scores("accuracy") for name, m in found.items()}
    result = measured.correlations(measured.published()["2025-06-17"], scores)
    # Published Compress: 0.487 0.408 0.495 0.446, ranks 3 1 4 2 against 2 1 3 4: 1 - 6 * 6 / 60.
    assert result["Compress"] == (pytest.approx(0.4), 4)
    # Without delta_net, published Selective Copy: 0.9993 0.9895 0.9917, ranks 3 1 2 against 1 2 3: 1 - 6 * 6 / 24.
    assert result["Selective Copy"] == (pytest.approx(-0.5), 3)
    assert result[measured.MEAN][1] == 3


def test_a_setting_stands_for_its_task_as_far_as_it_ranks_the_variants_alike(tmp_path: Path) -> None:
    for i, score in enumerate((0.2, 0.4, 0.9992, 0.9998)):
        evaluation(tmp_path / f"000{i}", f"v{i}", alike(score))
    evaluation(tmp_path / "0004", "v4", alike(0.1), settings=11)  # not whole in the last task
    found = measured.chosen(measured.of_history(tmp_path, "mad"))
    first, last = (measured.standings(found, MAD)[i] for i in (0, -1))
    assert (first.variants, last.variants, first.lowest, last.lowest) == (5, 4, 0.1, 0.2)
    assert first.highest == MAD.stop_accuracy
    # What ended for having learned the task ranks alike: 1 2 3.5 3.5 against 1 2 3 4.
    assert last.correlation == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert last.distance == pytest.approx(0)
    assert measured.agreement_of(SETTINGS[::2], found) == (pytest.approx(1), pytest.approx(0), 4)
    assert measured.agreement_of(SETTINGS[::2], {}) == (None, None, 0)


def test_a_setting_is_as_far_from_its_task_as_the_variants_differ_otherwise_there(tmp_path: Path) -> None:
    # Task 0.3 and 0.4, its first setting 0.2 and 0.6: above the task by -0.1 and 0.2.
    for i, (first, rest) in enumerate(((0.2, 0.4), (0.6, 0.2))):
        of_first = {f"{s.task}:{s.name}": (first,) for s in SETTINGS[::2]}
        evaluation(tmp_path / f"000{i}", f"v{i}", alike(rest) | of_first)
    found = measured.chosen(measured.of_history(tmp_path, "mad"))
    assert measured.standings(found, MAD)[0].distance == pytest.approx(0.15)
    assert measured.agreement_of(SETTINGS[::2], found)[1] == pytest.approx(0.15)


def test_noise_of_settings_and_whole_columns_goes_into_the_table_unless_it_has_that_of_more_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = (s.name for s in SETTINGS[:3])
    old = [("smoke", first, 0.1, 5), ("mad", first, 0.5, 4), ("mad", second, 0.5, 5)]
    stored = tmp_path / "noise.csv"
    stored.write_text("\n".join([",".join(noise_script.FIELDS), *(f"{p},1,Compress,{s},{x},0.2,{n},old,GPU,2026-01-01" for p, s, x, n in old), ""]))
    monkeypatch.setattr(noise_script, "TABLE", stored)
    evaluation(tmp_path / "a", "delta_net", alike(0.1, 0.3))
    evaluation(tmp_path / "b", "gla", alike(0.5, 0.5), settings=11)  # not whole in the last task
    assert noise_script.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    rows = {(r["protocol"], r["column"], r["setting"]): r for r in csv.DictReader(stored.read_text().splitlines())}
    assert len(rows) == 1 + len(SETTINGS) + len(COLUMNS)
    assert rows["smoke", "Compress", first]["variant"] == "old"
    for setting in ("", first, third):
        row = rows["mad", "Compress", setting]
        assert (row["sigma"], row["mean"], row["seeds"], row["variant"]) == ("0.10000", "0.35000", "4", "delta_net gla")
    assert rows["mad", "Compress", second]["variant"] == "old"
    assert f"mad Compress {second}: sigma 0.10000 of 4 scores; 0.5 of 5 stays" in capsys.readouterr().out
    assert rows["mad", "Selective Copy", ""]["variant"] == "delta_net"


def test_one_seed_tells_no_noise_and_a_folder_without_a_score_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(noise_script, "TABLE", tmp_path / "noise.csv")
    (tmp_path / "noise.csv").write_text(",".join(noise_script.FIELDS) + "\n")
    evaluation(tmp_path / "a", "delta_net", alike(0.1))
    assert noise_script.main([str(tmp_path / "a")]) == 1
    assert noise_script.main([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_the_noise_of_a_column_is_that_of_the_mean_of_its_settings_or_its_own_where_that_is_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [s.name for s in PROTOCOLS["mad"].settings if s.task == "memorization"]
    only = next(s.name for s in PROTOCOLS["fast"].settings if s.task == "memorization")
    rows = [f"mad,1,Memorize,{name},{0.3 if name == only else 0.4}" for name in settings]
    (tmp_path / "noise.csv").write_text("\n".join(["protocol,version,column,setting,sigma", *rows, ""]))
    monkeypatch.setattr(noise, "TABLE", tmp_path / "noise.csv")
    assert noise.sigmas(PROTOCOLS["fast"])["Memorize"] == 0.3
    assert noise.sigmas(PROTOCOLS["mad"])["Memorize"] == pytest.approx(math.hypot(0.3, *[0.4] * 5) / 6)
    (tmp_path / "noise.csv").write_text("\n".join(["protocol,version,column,setting,sigma", *rows, "mad,1,Memorize,,0.5", ""]))
    assert noise.sigmas(PROTOCOLS["mad"])["Memorize"] == 0.5
    (tmp_path / "noise.csv").write_text("\n".join(["protocol,version,column,setting,sigma", *rows[1:], ""]))
    assert noise.sigmas(PROTOCOLS["mad"])["Memorize"] is None


def test_of_several_evaluations_the_fullest_is_shown_and_the_latest_of_those(tmp_path: Path) -> None:
    evaluation(tmp_path / "0001", "delta_net", alike(0.1), finished="2026-01-01")
    evaluation(tmp_path / "0002", "delta_net", alike(0.2), finished="2026-01-02")
    evaluation(tmp_path / "0003", "delta_net", alike(0.3), finished="2026-01-03", settings=3, status="partial")
    assert measured.chosen(measured.of_history(tmp_path, "mad"))["delta_net"].folder.name == "0002"


def test_entries_of_another_protocol_are_passed_over_and_an_unfinished_one_too(tmp_path: Path) -> None:
    evaluation(tmp_path / "0001", "delta_net", alike(0.1))
    evaluation(tmp_path / "0002", "gla", alike(0.1), protocol=dataclasses.replace(MAD, name="fast"), fingerprint="f2")
    (evaluation(tmp_path / "0003", "gla", alike(0.1)) / "attempt.json").unlink()
    assert [m.name for m in measured.of_history(tmp_path, "mad")] == ["delta_net"]


def test_two_fingerprints_are_refused_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation(tmp_path / "0001", "delta_net", alike(0.1))
    evaluation(tmp_path / "0002", "gated_delta_net", alike(0.1), fingerprint="f2")
    assert table.main(["--history", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "0001 (mad, fingerprint f1)" in said
    assert "0002 (mad, fingerprint f2) are not comparable" in said
    assert table.main(["--history", str(tmp_path), "--fingerprint", "f2"]) == 0


@pytest.mark.parametrize("content", ["", "[]", '{"protocol": {}}', '{"protocol": {"settings": []}, "seeds": [0]}'])
def test_a_folder_without_an_evaluation_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (tmp_path / "evaluation.json").write_text(content)
    assert table.main(["--from", str(tmp_path)]) == 2
    assert f"{tmp_path}" in capsys.readouterr().err


def test_noise_is_pooled_within_variants_over_all_their_seeds(tmp_path: Path) -> None:
    folders = [
        evaluation(tmp_path / "a", "delta_net", alike(0.1, 0.3)),  # variance 0.02, 1 degree of freedom
        evaluation(tmp_path / "b", "gla", alike(0.5, 0.5)),
        evaluation(tmp_path / "c", "gla", alike(0.8), seed=2),  # with b: variance 0.03, 2 degrees of freedom
        evaluation(tmp_path / "d", "gated_delta_net", alike(0.9)),  # one seed tells nothing
    ]
    found = [measured.load(f) for f in folders]
    value, variants, freedom = measured.pooled(found)["Compress"]
    assert (value, variants, freedom) == (pytest.approx(math.sqrt(0.08 / 3)), 2, 3)
    assert "| Compress | 0.1633 | pooled over 2 variants, 3 degrees of freedom |" in table.report(found, True)[0]


def test_the_interval_of_a_mean_of_six_says_what_of_its_noise_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["mad,1,Memorize,vocab_size=512,0.3", "mad,1,Memorize,baseline,0.4"]
    (tmp_path / "noise.csv").write_text("\n".join(["protocol,version,column,setting,sigma", *rows, ""]))
    monkeypatch.setattr(noise, "TABLE", tmp_path / "noise.csv")
    mad, sources = PROTOCOLS["mad"], dict.fromkeys(COLUMNS.values(), "somewhere")
    low, high = math.hypot(0.3, 0.4) / 6, math.hypot(0.3, 0.4, *[0.4] * 4) / 6  # six settings, two of them measured
    assert table.bounds_of("memorization", mad) == (pytest.approx(low), pytest.approx(high))

    page = table.noise_table(dict.fromkeys(COLUMNS.values(), 0.06) | {"Memorize": None}, sources, mad)
    assert f"| Memorize | {low:.4f} to {high:.4f} | somewhere |" in page
    of_others = 5 * 0.06**2
    interval = f"{math.sqrt(low**2 + of_others) / 3:.4f} to {math.sqrt(high**2 + of_others) / 3:.4f}"
    assert f"a mean of six of one seed is known to +- {interval} |" in page

    page = table.noise_table(dict.fromkeys(COLUMNS.values(), None), sources, mad)
    assert "| Compress | - | somewhere |" in page
    assert f"| at least {low / 6:.4f} |" in page


def test_noise_is_never_less_than_what_the_early_end_of_runs_leaves_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"mad,1,Memorize,{s.name},0.00001" for s in PROTOCOLS["mad"].settings if s.task == "memorization"]
    (tmp_path / "noise.csv").write_text("\n".join(["protocol,version,column,setting,sigma", *rows, ""]))
    monkeypatch.setattr(noise, "TABLE", tmp_path / "noise.csv")
    sigma = noise.sigmas(PROTOCOLS["mad"])
    assert 2 * math.sqrt(2) * (sigma["Memorize"] or 0) == pytest.approx(0.001)
    assert sigma["Noisy Recall"] is None


def test_the_noise_of_a_setting_holds_under_every_protocol_that_trains_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = next(s.name for s in PROTOCOLS["fast"].settings if s.task == "memorization")
    rows = [f"fast,{PROTOCOLS['fast'].version},Memorize,{setting},0.01", "smoke,1,Compress,baseline,0.5", "fast,99,Compress,baseline,0.5"]
    (tmp_path / "noise.csv").write_text("\n".join(["protocol,version,column,setting,sigma", *rows, ""]))
    monkeypatch.setattr(noise, "TABLE", tmp_path / "noise.csv")
    known = {name: sigma for name, sigma in noise.of_settings(PROTOCOLS["mad"]).items() if sigma is not None}
    assert known == {f"memorization:{setting}": 0.01}


def test_a_cell_needs_a_sentence_above_three_hundredths_and_above_two_sigma() -> None:
    assert not measured.misses(0.52, 0.50, None, 1)
    assert measured.misses(0.54, 0.50, None, 1)
    assert not measured.misses(0.54, 0.50, 0.03, 1)
    assert measured.misses(0.54, 0.50, 0.03, 4)  # four seeds: half the noise
    assert not measured.misses(None, 0.50, 0.01, 1)


def test_the_files_hold_every_cell_and_every_setting(tmp_path: Path) -> None:
    evaluation(tmp_path / "h" / "0001", "delta_net", alike(0.4))
    evaluation(tmp_path / "h" / "0002", "softmax_attention", alike(0.9))
    cells, settings = tmp_path / "cells.csv", tmp_path / "settings.csv"
    assert table.main(["--history", str(tmp_path / "h"), "--csv", str(cells), "--settings", str(settings)]) == 0
    rows = list(csv.DictReader(cells.open()))
    assert len(rows) == (17 + 6 + 1) * 7
    row = next(r for r in rows if (r["set"], r["variant"], r["column"]) == ("2025-06-17", "delta_net", "Compress"))
    assert float(row["difference"]) == pytest.approx(0.4 - 0.487037)
    assert {r["note"] for r in rows if r["variant"] == "softmax_attention"} == {"reference row, unbounded state"}
    assert len(list(csv.DictReader(settings.open()))) == 2 * 12


def test_every_published_row_is_a_stored_variant() -> None:
    sets = measured.published()
    assert {name: len(rows) for name, rows in sets.items()} == {"2025-06-17": 17, "2025-06-13": 6}
    for rows in sets.values():
        assert all((PROJECT / "variants" / name / "naive.py").is_file() for name in rows)
    means = {name: scores[measured.MEAN] or 0.0 for name, scores in sets["2025-06-17"].items()}
    assert max(means, key=means.__getitem__) == "softmax_tanh_beta_gated_update"
    assert round(max(means.values()), 3) == 0.741


def test_the_shipped_history_makes_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert table.main(["--history", str(PROJECT / "history")]) == 0
    assert "| delta_net | " in capsys.readouterr().out


def test_a_run_is_scored_at_its_lowest_perplexity_before_it_was_ended() -> None:
    assert reference_agreement.scored([0.2, 0.5, 0.4], [3.0, 2.0, 2.5]) == 0.5
    assert reference_agreement.scored([0.2, 0.9995, 0.4], [3.0, 2.0, 1.5]) == 0.9995
    assert reference_agreement.scored([0.2, 0.3], [math.nan, 2.0]) == 0.3
    assert math.isnan(reference_agreement.scored([0.2], [math.inf]))


def test_the_sentence_of_an_agreement_says_what_was_seen() -> None:
    theirs = [reference_agreement.Curve("compression", "reference", s, (a,), (2.0,), a) for s, a in enumerate((0.5, 0.7))]
    ours = [reference_agreement.Curve("compression", "ours", s, (a,), (2.0,), None) for s, a in enumerate((0.6, 0.8))]
    said = reference_agreement.compared(theirs, ours, 1)
    assert "reference 0.6000 (sd 0.1414: 0.5000 0.7000), ours 0.7000 (sd 0.1414" in said
    assert "ours - reference +0.1000, standard error 0.1414" in said


def test_a_folder_that_is_no_checkout_of_the_peer_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no train\.py: it is no checkout"):
        reference.connect(tmp_path, None)
    shutil.copy(__file__, tmp_path / "train.py")
    with pytest.raises(FileNotFoundError, match=r"has no mad/registry\.py"):
        reference.connect(tmp_path, None)


def test_epochs_are_bounded_by_task() -> None:
    found = reference_agreement.epochs_of(["compression=3", "compression:seq_len=64=7"])
    assert (found["compression"], found["compression:seq_len=64"], found["compression:vocab_size=32"]) == (3, 7, 200)
    with pytest.raises(SystemExit, match="--epochs compression=0: SETTING=N"):
        reference_agreement.epochs_of(["compression=0"])


def test_a_sweep_scores_each_variant_once_and_says_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def scored(self: sweep.Sweep, name: str, environment: Mapping[str, str], left: float | None) -> int:
        (self.out / name).mkdir()
        (self.out / name / "score.log").write_text("a line\nit broke\x1b[2J\n")
        if name == "gla":
            return 3
        shutil.rmtree(self.out / name)
        evaluation(self.out / name, name, alike(0.5))
        return 0

    monkeypatch.setattr(sweep.Sweep, "_score", scored)
    monkeypatch.setattr("sys.argv", ["sweep.py", "delta_net", "gla", "--lanes", "3", "--out", str(tmp_path)])
    assert sweep.main() == 1
    told = capsys.readouterr().out
    assert "delta_net: 12 of 12 settings, Compress 0.500" in told
    assert "gla: exit status 3: it broke" in told
    assert "1 of 2 variants done, 1 failed, 0 not begun" in told
    assert "\x1b" not in told
    assert sweep.stored()[0] == "delta_net"
    monkeypatch.setattr("sys.argv", ["sweep.py", "delta_nett", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        sweep.main()


def test_the_early_end_of_a_group_is_bounded_by_what_is_left_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = evaluation(tmp_path / "e", "delta_net", alike(0.4) | {"memorization": (0.9995,)})
    monkeypatch.setattr("sys.argv", ["early_stop.py", str(folder)])
    early_stop.main()
    assert "2 settings ended early; the least score of them is 0.99950" in capsys.readouterr().out
