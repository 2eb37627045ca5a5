"""Old records: whose a number is, and of what. A score is filed with its own system and task, or told and left out."""

from pathlib import Path

import pytest

from agent import history, show
from agent.earlier.importer import import_files
from agent.earlier.record import parse

NAMED = "\n\n--- Insights ---\nIt helps.\n\nName\nours\n\nSuccess\ntrue\n"


@pytest.mark.parametrize(
    ("table", "lines"),
    [
        # A title begins another system, and a score that is missing is missing.
        ("ours_net\nCompress: NaN\nMemorize: 0.2\n\ndelta_net\nCompress: 0.3\nMemorize: 0.4", [("ours_net", None, "0.2"), ("delta_net", "0.3", "0.4")]),
        ("scores:\n  a_net:\n    compress: .nan\n    memorize: 0.2\n  b_net:\n    compress: 0.3\n    memorize: 0.4", [("a_net", None, "0.2"), ("b_net", "0.3", "0.4")]),
        ("Compress: 0.1 (baseline 0.3)\nMemorize: 0.2, up from 0.4\n\nBaseline b_net:\nCompress: 0.3\nMemorize: 0.4", [("ours", "0.1", "0.2"), ("b_net", "0.3", "0.4")]),
        ("Results\nCompress: 0.1\nMemorize: 0.2\n\nBaseline\nMemorize: 0.4\nCompress: OOM", [("ours", "0.1", "0.2"), ("baseline", None, "0.4")]),
        ("Baseline\nCompress: 0.3\nMemorize: 0.4", [("baseline", "0.3", "0.4")]),
        ("Baseline:\n\n  Compress  Memorize\n0  0.3  0.4", [("baseline", "0.3", "0.4")]),
        # What is hoped for, or measured otherwise, is no score.
        ("Targets\nCompress: 0.1\nMemorize: 0.2", []),
        ("Predicted\n\nModel,Compress,Memorize\na,0.1,0.2", []),
        ("Error rate per task\n\nModel,Compress,Memorize\na,0.1,0.2", []),
        ("Error: 1 - accuracy\n\nModel,Compress,Memorize\na,0.1,0.2", []),
        ("Deltas against b\n\nModel,Compress,Memorize\na,0.1,0.2", []),
        ("Delta rule variants\n\nModel,Compress,Memorize\na,0.1,0.2", [("a", "0.1", "0.2")]),
        ("Tanh error bounding, rank-one\n\nModel,Compress,Memorize\na,0.1,0.2", [("a", "0.1", "0.2")]),
        ("RuntimeError: NaN loss\nModel,Compress,Memorize\na,0.1,0.2", [("a", "0.1", "0.2")]),
        ("Model,Compress,Memorize\na,0.1,0.2\na (std),0.01,0.02\np-value,0.3,0.4", [("a", "0.1", "0.2")]),
        ("| Task | Loss | Accuracy |\n|---|---|---|\n| Compress | 0.9 | 0.1 |\n| Memorize | 0.8 | 0.2 |", [("ours", "0.1", "0.2")]),
        ("| Task | a | b | diff |\n|---|---|---|---|\n| Compress | 0.1 | 0.3 | +0.2 |\n| Memorize | 0.2 | 0.4 | -0.1 |", [("a", "0.1", "0.2"), ("b", "0.3", "0.4")]),
        ("Model,Compress,Memorize,Compress (baseline),Memorize (baseline)\na,0.1,0.2,0.3,0.4", [("a", "0.1", "0.2")]),
        ("Model,Compress (test),Compress (train),Memorize (test),Memorize (train)\na,0.1,0.9,0.2,0.9", [("a", "0.1", "0.2")]),
        ("Model,Compress (hours),Memorize (hours)\na,0.1,0.2", []),
        # A percentage is what says so, not what is followed by one.
        ("Model,Compress,Memorize\na,0.1 \u00b1 1.2%,0.2 (20%)", [("a", "0.1", "0.2")]),
        ("Accuracy (%)\n\nModel  Compress  Memorize\na  0.9  50", [("a", "0.009", "0.50")]),
        ("| Task (%) | a |\n|---|---|\n| Compress | 0.9 |\n| Memorize | 50 |", [("a", "0.009", "0.50")]),
        ("Model,Compress [0-100],Memorize (x100)\na,0.9,50", [("a", "0.009", "0.50")]),
        # The number of a row is no score of it.
        ("Variant  Compress  Memorize  Avg\n0  0.1  0.2  0.15\n1  0.3  0.4", [("ours", "0.1", "0.2")]),
    ],
)  # fmt: skip
def test_a_score_is_filed_with_its_own_system_and_task(table: str, lines: list[tuple[str, str | None, str | None]]) -> None:
    found = parse((table + NAMED).encode())
    assert [(line.name, line.values.get("Compress"), line.values.get("Memorize")) for line in found.lines] == lines


@pytest.mark.parametrize(
    ("flag", "success"),
    [
        ("true (all six)", True), ("true.", True), ("false (failed in training)", False), ("true -> false", None), ("true?", None),
        ("True (invalid: leak found)", None), ("true - retracted", None), ("false -> true", None),
    ],
)  # fmt: skip
def test_a_flag_that_is_taken_back_is_none(flag: str, success: bool | None) -> None:
    assert parse(f"Model,Compress,Memorize\na,0.1,0.2{NAMED.replace('true', flag)}".encode()).success is success


@pytest.mark.parametrize(
    ("closing", "success", "told"),
    [
        ("Name: a_net\nStatus: success", True, None),
        ("Name: a_net\nStatus: failed", False, None),
        ("- **Name:** a_net\n- **Outcome:** Succeeded", True, None),
        ("Name\n\na_net\n\nStatus\n\nfailed", False, None),
        ("Name: a_net, Status: failed", False, None),
        ("| Name | a_net |\n| Status | passed |", True, None),
        ("Name: a_net\nStatus: running", None, "success is 'running', neither true nor false"),
        ("Name: a_net\nStatus: 0", None, "success is 'status 0', neither true nor false"),
        ("Name: a_net\nStatus: failed\nSuccess: true", None, "there are 2 success flags, of which none is taken: failed, true"),
        ("Status: failed\n\nMore words.\n\nName: a_net\nSuccess: true", True, None),
    ],
)
def test_a_status_in_words_is_the_flag_and_costs_no_name(closing: str, success: bool | None, told: str | None) -> None:
    table = "         Compress  Memorize\n0  a_net      0.48      0.34\n\n20250618_093000\n\n--- Insights ---\nWords.\n\n"
    found = parse((table + closing + "\n").encode())
    assert (found.name, found.success) == ("a_net", success)
    assert told is None or told in found.oddities


def test_the_flag_of_a_record_that_is_quoted_is_not_taken() -> None:
    quoted = "--- Insights ---\nThe one before:\n\nName\nold_net\n\nSuccess\ntrue\n\nMine gave NaN.\n\nName\nours\n"
    found = parse(f"Model,Compress,Memorize\na,0.1,0.2\n\n{quoted}".encode())
    assert (found.name, found.success) == ("ours", None)
    assert "Mine gave NaN." in (found.insights or "")
    assert "the success flag 'true' stands with another name: it is not taken" in found.oddities


@pytest.mark.parametrize(
    ("label", "name"),
    [("Name: ours, Success: true", "ours"), ("Name:\n- ours", "ours"), ("Name: (none)", None), ("Name: <name of it>", None), ("Name: n/a", None)],
)
def test_a_name_is_one(label: str, name: str | None) -> None:
    assert parse(f"Model,Compress,Memorize\na,0.1,0.2\n\n--- Insights ---\nIt helps.\n\n{label}\n".encode()).name == name


def test_what_stands_above_a_table_is_told() -> None:
    found = parse(f"Code\n```\nx = 1\n```\n\nModel,Compress,Memorize\na,0.1,0.2{NAMED}".encode())
    assert "what stands above the table stays in record.txt alone: 'Code'" in found.oddities


def test_an_entry_has_the_scores_of_its_own_row(root: Path) -> None:
    rows = "Model,Compress,Memorize\ndelta_net,0.1,0.2\n"
    for name, more in (("one", "ours,0.3,0.4\n"), ("two", "")):
        (root / name).write_text(rows + more + NAMED.replace("\nours\n", "\nours\n" if more else "\nother_net\n"))
    ids = [done.id or "" for done in import_files(root, [root / "one", root / "two"], None, print)]
    past = history.read(root)
    found = [show.as_json(next(e for e in past.entries if e.id == i), past) for i in ids]
    assert [(f["name"], f["scores"]["Compress"]) for f in found] == [("ours", 0.3), ("other_net", None)]
    assert [line["name"] for line in found[1]["imported"]] == ["delta_net"]
