"""Old records: numbers that may be no scores, or another's, are told and left out; what is plainly a score is read."""

import gzip

import pytest

from agent.earlier.record import OldRecord, parse
from agent.errors import BadInput

TOP = "Name: ours\nSuccess: true\n\n"
LIST = "compression: 0.1\nmemorization: 0.2\n"
TABLE = "| model | Compress | Memorize |\n|---|---|---|\n| a_net | 0.1 | 0.2 |\n"


def scores(text: str) -> list[tuple[str, str | None, str | None]]:
    return [(line.name, line.values.get("Compress"), line.values.get("Memorize")) for line in parse(text.encode()).lines]


def told(found: OldRecord, words: str) -> bool:
    return any(words in oddity for oddity in found.oddities)


@pytest.mark.parametrize(
    "title",
    ["Results", "Scores:", "## Test accuracy (3 seeds)", "Final accuracy", "MAD", "We measured:", "Best epoch:", "Evaluation on the test set:", "Table 2: results",
     "scores = {", "<details><summary>Results</summary>", "```", "lr: 0.1", "Success: partially", ""],
)  # fmt: skip
def test_a_list_is_read_under_words_that_speak_of_scores(title: str) -> None:
    assert scores(f"{TOP}{title}\n\n{LIST}") == [("ours", "0.1", "0.2")]


@pytest.mark.parametrize(
    "title",
    ["Finished in 12 minutes", "Evaluation completed in 3.5 h", "Running evaluation on MAD", "Ran on 4 GPUs, 12 hours", "Wall time 2:13:05", "Status: FAILED",
     "Results (mean over 3 seeds, std below 0.01)", "Experiment 12: noise in keys", "Score table (best checkpoint, early stopping)", "python train.py --lr 0.001",
     "Some runs failed and were restarted", "Time mixing with learned gain", "Expected state, 2 heads", "Cosine similarity keys"],
)  # fmt: skip
def test_a_line_of_a_log_or_a_system_over_a_table_does_not_hide_it(title: str) -> None:
    assert scores(f"{TOP}{title}\n\n{TABLE}") == [("a_net", "0.1", "0.2")]


@pytest.mark.parametrize(
    "title",
    ["Task weights:", "Learning rates:", "## Dropout", "p-values:", "Chance levels:", "Published numbers:", "Retracted results:", "With the leak:", "Train accuracy:",
     "What a_net gets:", "Our hope:", "To beat:", "Epoch 3/200", "finished tasks:", "Crashed before the evaluation.", "learning_rates = {", "CURRICULUM = {",
     "$ cat weights.yaml", "noise = {", "(loss, accuracy)"],
)  # fmt: skip
def test_a_list_under_other_words_is_told_and_not_read(title: str) -> None:
    found = parse(f"{TOP}{title}\n\n{LIST}".encode())
    assert found.lines == ()
    assert told(found, f"under {title!r}")


@pytest.mark.parametrize(
    "title",
    ["## Invalid run (labels leaked, do not use)", "RETRACTED", "Wrong (fixed in v2)", "Placeholder numbers", "Train accuracy", "MSE", "Bits per token", "p-values", "Noise (2 sigma)",
     "Learning rate chosen per task", "Task weights in the mean", "Random-guess level", "Our guess before the run", "Generalization gap", "Accuracy drop without the gate",
     "All values are error rates.", "The numbers are losses (lower is better)", "Lower is better.", "Score minus baseline", "Relative to b_net", "Estimated", "Half-widths of 95% intervals",
     "Difference", "Change vs. baseline (absolute)", "Correlation between the tasks", "WARNING: labels leaked, the scores below are void."],
)  # fmt: skip
@pytest.mark.parametrize("table", [TABLE, "| task | a_net |\n|---|---|\n| Compress | 0.1 |\n| Memorize | 0.2 |\n"])
def test_a_table_under_words_of_something_else_is_told_and_not_read(title: str, table: str) -> None:
    found = parse(f"{title}\n\n{table}\n--- Insights ---\nIt helps.\n".encode())
    assert found.lines == ()
    assert told(found, f"the table under {title!r} holds no scores")
    assert parse(f"{TABLE.replace('a_net', 'b_net')}\n{title}\n\n{TABLE}\n--- Insights ---\nIt helps.\n".encode()).lines[1:] == ()


@pytest.mark.parametrize(
    "title",
    ["Delta rule variants", "Error-driven updates", "Tanh on the error before its update", "Learning rate sweep", "lr 5e-4, dropout 0.1", "3 seeds, mean \u00b1 std", "Results without the leak", "ours vs a_net", "Row norm variants"],
)
def test_a_table_under_words_that_systems_and_runs_are_described_by_is_read(title: str) -> None:
    assert scores(f"{title}\n\n{TABLE}\n--- Insights ---\nIt helps.\n") == [("a_net", "0.1", "0.2")]


@pytest.mark.parametrize("above", ["The run was stopped after 3 of 200 epochs.", "It helps.\n\nLabels were checked."])
def test_every_paragraph_above_a_table_is_told(above: str) -> None:
    found = parse(f"{above}\n\n{TABLE}\n--- Insights ---\nIt helps.\n".encode())
    assert told(found, "what stands above the table stays in record.txt alone: " + ", ".join(map(repr, above.split("\n\n"))))


@pytest.mark.parametrize(
    "label",
    ["SEM", "95% CI", "2 sigma", "a_net std", "a_net loss", "p-value", "vs b_net", "Diff vs. base", "a_net - b_net", "gain over b_net", "target", "predicted", "upper bound",
     "lr", "time (h)", "ppl", "a_net (INVALID: leak)", "a_net (retracted)", "a_net [train]", "seed 0", "25%", "~~a_net~~", "\u00b1 std",
     "standard error", "wider_state train", "stdev of a_net", "a_net (\u00b1 std)", "error of a_net", "a_net, epoch 1", "noise floor", "n_runs", "p", "a_net/a_net", "[a_net.stderr]", "a_net.sd"],
)  # fmt: skip
def test_a_row_of_no_system_is_told_and_not_read(label: str) -> None:
    found = parse(f"{TOP}{TABLE}| {label} | 0.3 | 0.4 |\n".encode())
    assert [line.name for line in found.lines] == ["a_net"]
    assert told(found, label)


@pytest.mark.parametrize("label", ["tanh_on_error", "norm_decay", "delta rule", "weight decay gate", "a_net (noise injection)", "loss_weighted_net", "top 25% state", "k=0.5 gate", "no error gate", "unit norm", "b_net (\u00b1 std)"])
def test_a_row_of_a_system_is_read_whatever_words_it_has(label: str) -> None:
    assert scores(f"{TOP}{TABLE}| {label} | 0.3 | 0.4 |\n")[1:] == [(label, "0.3", "0.4")]


@pytest.mark.parametrize(
    ("table", "lines"),
    [
        # A difference is no score, in a row or in a column.
        (f"{TABLE}| b_net | +0.025 | -0.1 |\n| c_net | +2.5% | +0.1% |\n", [("a_net", "0.1", "0.2")]),
        ("| model | Compress | \u0394 Compress | Memorize | Memorize \u00b1 |\n|---|---|---|---|---|\n| a_net | 0.1 | 0.3 | 0.2 | 0.3 |\n", [("a_net", "0.1", "0.2")]),
        # A column may say that a row is none.
        ("model,status,Compress,Memorize\na_net,ok,0.1,0.2\nb_net,OOM,0,0\nc_net,INVALID,0.9,0.9\n", [("a_net", "0.1", "0.2")]),
        ("model,metric,Compress,Memorize\na_net,acc,0.1,0.2\na_net,loss,0.9,0.9\n", [("a_net", "0.1", "0.2")]),
        ("model,split,Compress,Memorize\na_net,train,0.9,0.9\na_net,test,0.1,0.2\n", [("a_net", "0.1", "0.2")]),
        ('model,Compress,Memorize,notes\na_net,0.1,0.2,"best, so far"\nb_net,0.9,0.9,"INVALID, leaks"\n', [("a_net", "0.1", "0.2")]),
        ("split,Compress,Memorize\ntrain,0.9,0.9\ntest,0.1,0.2\n", [("ours", "0.1", "0.2")]),
        ("parent,child,Compress,Memorize\nb_net,a_net,0.1,0.2\n", [("a_net", "0.1", "0.2")]),
        ("author,experiment,Compress,Memorize\nanna,a_net,0.1,0.2\n", [("a_net", "0.1", "0.2")]),
        # A percentage is one where words say so of the numbers, not of something else.
        ("Scores as fractions, not percent.\n" + TABLE, [("a_net", "0.1", "0.2")]),
        ("Accuracy (not in %)\n" + TABLE, [("a_net", "0.1", "0.2")]),
        ("Trained on 50 percent of the data\n" + TABLE, [("a_net", "0.1", "0.2")]),
        ("Accuracy in percent, not as fractions\n" + TABLE, [("a_net", "0.001", "0.002")]),
        (TABLE.replace("Compress", "Compress \u2193"), [("a_net", None, "0.2")]),
        (f"{TABLE}| b_net | 1e9999999999% | 1e-999990% |\n", [("a_net", "0.1", "0.2")]),
        ("| compression | 48% |\n| memorization | 30% |\n", [("ours", "0.48", "0.30")]),
        ("| task | what | a_net | Unit |\n|---|---|---|---|\n| compression | 1 | 0.1 | 5 |\n| memorization | 2 | 0.2 | 6 |\n", [("a_net", "0.1", "0.2")]),
        # What is said below of all, and what can't be told.
        (f"{TABLE}\n(values in percent)\n", [("a_net", "0.001", "0.002")]),
        ("model,Compress,Memorize\na_net,48.7,33.8\nb_net,8.6,0.97\n", [("a_net", "48.7", "33.8"), ("b_net", "8.6", None)]),
        (f"{TABLE}\nTable 1. Standard deviation over 3 seeds.\n", []),
        (f"{TABLE}\nAll values are error rates.\n", []),
        # Of a table with a row for each task the score is what is called so.
        ("task,lr,acc\ncompression,0.001,0.1\nmemorization,0.001,0.2\ncompression,0.0005,0.3\nmemorization,0.0005,0.2\n", [("ours", None, "0.2")]),
        ("| task | acc | note |\n|---|---|---|\n| compression | 0.1 | leak, ignore |\n| memorization | 0.2 | worse; see log |\n", [("ours", None, "0.2")]),
        ("| task | metric | value |\n|---|---|---|\n| compression | loss | 0.9 |\n| compression | accuracy | 0.1 |\n| memorization | accuracy | 0.2 |\n", [("ours", "0.1", "0.2")]),
        ("model,task,acc\na_net,compression,0.1\nb_net,compression,0.3\na_net,memorization,0.2\nb_net,memorization,0.4\n", [("a_net", "0.1", "0.2"), ("b_net", "0.3", "0.4")]),
        ("| task | best | last |\n|---|---|---|\n| compression | 0.1 | 0.3 |\n| memorization | 0.2 | 0.4 |\n", []),
        ("| task | seed 0 | seed 1 | mean |\n|---|---|---|---|\n| compression | 0.0 | 0.2 | 0.1 |\n| memorization | 0.2 | 0.2 | 0.2 |\n", [("ours", "0.1", "0.2")]),
    ],
)  # fmt: skip
def test_a_table_gives_scores_alone(table: str, lines: list[tuple[str, str | None, str | None]]) -> None:
    assert scores(TOP + table) == lines


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("0.3", "0.3"), ("30%", "0.30"), ("0.3 \u00b1 0.01", "0.3"), ("0.3 (n=1280)", "0.3"), ("0.3 (baseline 0.5)", "0.3"), ("0.3 (was 0.9)", "0.3"), ("0.3, loss 0.9", "0.3"),
        ("0.3 # fine", "0.3"), ("0.3*", "0.3"), ("0.3, accuracy 0.3", "0.3"), ("0.9 (acc 0.3)", None), ("0.9; acc 0.3", None), ("0.9 * 0.3", None), ("0.3 [0.2, 0.4]", "0.3"), ("0.9 (leak; corrected 0.512)", None), ("0.3 (predicted)", None), ("0.3 (loss)", None), ("0.3 (invalid)", None), ("0.3 (train)", None),
        ("0.3 (epoch 3 of 200, run died)", None), ("0.3 (lr)", None), ("0.3 (baseline)", None), ("0.3 (b_net)", None), ("0 (crashed)", None), ("0.000 (nan loss)", None), ("0.3, 0.5", None),
        ("0.3  0.5", None), ("0.3 -> 0.5", None), ("0.3 / 0.5", None), ("+0.3", None), ("0.3 hours", None), ("<0.3", None),
        ("0.9\ncompression: 0.3   # corrected", "0.3"), ("0.9\ncompression: 0.3", None), ("0.3\ncompression: 0.3", "0.3"),
    ],
)  # fmt: skip
def test_a_line_that_says_two_things_or_takes_its_value_back_gives_none_and_is_told(value: str, kept: str | None) -> None:
    found = parse(f"{TOP}compression: {value}\nmemorization: 0.2\ncontext recall: 0.4\n".encode())
    assert [(line.name, line.values.get("Compress"), line.values.get("Memorize")) for line in found.lines] == [("ours", kept, "0.2")]
    assert kept or told(found, "no score of Compress") or told(found, "of which none is taken")


@pytest.mark.parametrize(
    "aside",
    ["```python\nx = {\n  'compression': 0.5,\n  'memorization': 0.5,\n}\n```", "def noise():\n    x = {\n        'compression': 0.5,\n        'memorization': 0.5,\n    }",
     "class Cfg:\n    compression = 0.5\n    memorization = 0.5", "```python\n# | model | Compress | Memorize |\n# | x_net | 0.5 | 0.5 |\n```",
     "<!--\n| model | Compress | Memorize |\n| x_net | 0.5 | 0.5 |\n-->", "> | model | Compress | Memorize |\n> | x_net | 0.5 | 0.5 |",
     "@@ -1,2 +1,2 @@\n model,Compress,Memorize\n-x_net,0.5,0.5\n+x_net,0.6,0.6"],
)  # fmt: skip
def test_code_comments_and_quotations_hold_no_scores(aside: str) -> None:
    assert scores(f"{TOP}{aside}\n") == []
    assert scores(f"{TOP}{aside}\n\n{TABLE}") == [("a_net", "0.1", "0.2")]
    found = parse(f"{TABLE}\n--- Insights ---\nIt helps.\n\n{aside}\n\nName\nours\n\nSuccess\ntrue\n".encode())
    assert (found.insights, found.name, found.success) == (f"It helps.\n\n{aside}", "ours", True)  # where it is part of what was learned


def test_a_printed_table_may_stand_in_a_fence() -> None:
    assert scores(f"{TOP}```\n{TABLE}```\n") == [("a_net", "0.1", "0.2")]


def test_a_long_run_of_blanks_takes_no_time() -> None:
    assert parse(f"{TOP}hello{' ' * 200_000}x\ncompression: 0.1{' ' * 100_000}(x\n".encode()).name == "ours"
    assert parse(("compression  x\n" * 5_000 + "\ncompression: 0.1\n" * 5_000).encode()).lines == ()


PAIR = "\nName\nours\n\nSuccess\ntrue\n"


@pytest.mark.parametrize(
    ("text", "name", "success"),
    [
        # Code, and what is part of something else, names no record.
        (f"{TOP}{TABLE}\nInsights: It helps.\n\nCode:\n\n    class M:\n        name = 'inner'\n        success = False\n", "ours", True),
        (f"{TOP}{TABLE}\nCode:\n\n    name = 'inner'\n", "ours", True),
        (f"{TABLE}{PAIR}\n```yaml\nname: inner\nsuccess: false\n```\n", "ours", True),
        (f"{TABLE}{PAIR}\nresult = run()\nsuccess = result.ok\nname = result.name\n", "ours", True),
        (f"{TABLE}{PAIR}\n[data]\nname = mad\n", "ours", True),
        (f"{TABLE}{PAIR}\nReviewer\nName: Dr. A. Smith\n", "ours", True),
        (f"{TOP}{TABLE}\nname: inner\n", "ours", True),
        (f"name: ours\nsuccess: true\nbaseline:\n  name: b_net\noptimizer:\n  name: adamw\n\n{TABLE}", "ours", True),
        # What says two things says nothing.
        (f"{TABLE}{PAIR}\nLog:\nname: gpu03\nsuccess: false\nok\n", None, None),
        (f"{TABLE}{PAIR}{PAIR.replace('ours', 'other').replace('true', 'false')}", None, None),
        (f"{TABLE}{PAIR}\nSuccess: false\n", "ours", None),
        (f"Success: true\n\n{TABLE}\n--- Insights ---\nIt helps.\n\nName: ours\nSuccess: false\n", "ours", None),
        (f"{TABLE}{PAIR}\nUpdate: retracted, the flag should be false.\n", "ours", None),
        # Where they stand.
        (f"{TABLE}{PAIR}\n--- Insights ---\nIt helps.\n", "ours", True),
        (f"| Name | ours |\n| Success | true |\n\n{TABLE}", "ours", True),
        (f"Name: ours (Success: false)\n\n{TABLE}", "ours", False),
    ],
)  # fmt: skip
def test_the_labels_of_the_record_count_and_what_differs_is_none_and_told(text: str, name: str | None, success: bool | None) -> None:
    found = parse(text.encode())
    assert (found.name, found.success) == (name, success)
    assert success is not None or told(found, "of which none is taken") or told(found, "takes it back")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("**a_net**", "a_net"), ("1. a_net", "a_net"), ("~~b_net~~ a_net", "a_net"), ("[a_net](https://example.org/x)", "a_net"), ("<b>a_net</b>", "a_net"), ("a_net.", "a_net"), ("a_net - doubles its state", "a_net"),
        ("wider state with 2x heads", "wider state with 2x heads"), ("(tbd)", None), ("see above", None), ("???", None), ("The modification is called `a_net`.", None),
    ],
)  # fmt: skip
def test_a_name_is_told_from_its_markup_and_from_what_is_none(written: str, name: str | None) -> None:
    found = parse(f"{TABLE}\n--- Insights ---\nIt helps.\n\nName\n{written}\n\nSuccess\ntrue\n".encode())
    assert (found.name, found.success, found.insights) == (name, True, "It helps.")
    assert name or told(found, f"the name is none: {written!r}")


@pytest.mark.parametrize(("data", "form"), [(b"PK\x03\x04...", "a ZIP archive"), (gzip.compress(b"x", mtime=0), "compressed by gzip"), (b" \n", "empty"), (b"<html><body>", "HTML")])
def test_what_is_no_text_is_refused_by_what_it_is(data: bytes, form: str) -> None:
    with pytest.raises(BadInput, match=f"^it is {form}, not a printed record$"):
        parse(data)
