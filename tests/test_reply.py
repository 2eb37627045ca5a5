"""A model's reply becomes a proposal, or a sentence that says why not."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.names import BadName, check_name
from agent.proposal.edits import SearchReplace, UnifiedDiff, WholeFile
from agent.proposal.reply import MOST_BYTES, Proposal, ReplyError, parse
from agent.records import COLUMNS

HEAD = """\
# Tanh on the error

Name: tanh_on_error
Mechanism: error bounding
Prediction: Compress +0.01, Context Recall 0, Memorize -0.05

What is written is bounded.

"""
BLOCK = "<<<<<<< SEARCH\n    x = 1\n=======\n    x = 2\n>>>>>>> REPLACE\n"
WHOLE = "```python\nimport torch\n\n\ndef delta_rule(q, k, v, beta, *, chunk_size):\n    return v\n```\n"
DIFF = "--- a/naive.py\n+++ b/naive.py\n@@ -1,2 +1,2 @@\n import torch\n-x = 1\n+x = 2\n"


def refusal(text: str) -> str:
    with pytest.raises(ReplyError) as caught:
        parse(text)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 500
    return message


def assert_read_or_refused(text: str) -> None:
    try:
        proposal = parse(text)
    except ReplyError as error:
        message = str(error)
    else:
        message = proposal.title
        assert check_name(proposal.name) == proposal.name
        assert proposal.edits
    assert message.isprintable()
    assert 0 < len(message) < 500


@pytest.mark.parametrize("change", [BLOCK, WHOLE, WHOLE.replace("```python", "```python naive.py")])
@pytest.mark.parametrize("fence", ["```markdown", "```", "````md", "~~~"])
@pytest.mark.parametrize(("before", "after"), [("", ""), ("Sure, here you go.\n\n", "\nHope this helps!\n"), ("", "Done.")])
def test_a_fence_around_the_proposal_is_taken_off(change, fence, before, after):
    close = fence.rstrip("mardownk")
    assert parse(f"{before}{fence}\n{HEAD}{change}{close}\n{after}") == parse(HEAD + change)


def test_a_reply_in_the_format_is_a_proposal():
    assert parse(HEAD + BLOCK) == Proposal(
        title="Tanh on the error",
        name="tanh_on_error",
        mechanism="error bounding",
        prediction={"Compress": 0.01, "Context Recall": 0.0, "Memorize": -0.05},
        prose="What is written is bounded.",
        edits=(SearchReplace(file="naive.py", search="    x = 1\n", replace="    x = 2\n"),),
    )


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "```\n" + BLOCK + "```\n",
        HEAD + "````python naive.py\n" + BLOCK + "````\nThat is all.",
        HEAD + "~~~python\nnaive.py\n" + BLOCK + "~~~",
        HEAD + "`naive.py`:\n\n" + BLOCK,
        HEAD + "**File: naive.py**\n```python\n" + BLOCK + "```",
        HEAD + "  ```\n" + "".join("  " + line + "\n" for line in BLOCK.splitlines()) + "  ```\n",
        (HEAD + BLOCK).replace("\n", "\r\n"),
        "\ufeff \n\n" + HEAD + BLOCK,
        "Sure! Here it is.\n\n" + HEAD + BLOCK + "\nGood luck.",
        "<think>\n# No\nName: no_no\n" + WHOLE + "</think>\n" + HEAD + BLOCK,
        "let me see ...\n</think>\n\n" + HEAD + BLOCK,
        "a draft:\n# No\nName: no_no\n</think>\n\n" + HEAD + BLOCK,
        "<think>a</think>\n<think>I had <think> tags</think>\n" + HEAD + BLOCK,
        HEAD + "<reasoning>\nwhy\n</reasoning>\n" + BLOCK,
        HEAD + "Unlike `</think>`, it helps.\n" + BLOCK,
        "```markdown\n" + HEAD + BLOCK + "```",
        HEAD.replace("Name: tanh_on_error", "- **Name:** `tanh_on_error`").replace("Mech", "**Mech") + BLOCK,
        HEAD.replace("# Tanh", "## Analysis\n\n# **Tanh").replace("the error\n", "the error**\n", 1) + BLOCK,
        HEAD + BLOCK + BLOCK,
        HEAD + "An example:\n```python\nx = torch.tanh(u)\n```\nand now:\n" + BLOCK,
        HEAD + BLOCK.replace("<<<<<<< SEARCH", "<<<<<<< SEARCH naive.py").replace(">>>>>>> ", ">>>>>>>"),
        HEAD + BLOCK.replace("    x = 1\n", "```python\n    x = 1\n```\n"),
        HEAD + BLOCK + "```\n",
    ],
)
def test_what_models_do_in_practice_is_read(text: str):
    proposal = parse(text)
    assert proposal.title.replace("*", "") == "Tanh on the error"
    assert (proposal.name, proposal.prediction["Memorize"]) == ("tanh_on_error", -0.05)
    assert proposal.edits[0].model_dump()["replace"].strip() == "x = 2"
    assert len(proposal.edits) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# Tanh on the error", "**Tanh on the error**"),
        ("# Tanh on the error", "Title: Tanh on the error"),
        ("# Tanh on the error", "**Title:** Tanh on the error"),
        ("# Tanh on the error", "# Title: Tanh on the error"),
        ("Name: tanh_on_error", "## Name\ntanh_on_error"),
        ("Name: tanh_on_error\nMechanism: error bounding", "## Name\n\n`tanh_on_error`\n\n## Mechanism\n\nerror bounding\n"),
        ("Name: tanh_on_error", "**Name**\ntanh_on_error"),
        ("Name: tanh_on_error", "Name:\ntanh_on_error"),
        ("Name: tanh_on_error", "Name: tanh_on_error."),
        ("Name: tanh_on_error", "Name: `tanh_on_error`."),
        ("# Tanh", "<|channel|>final<|message|># Tanh"),
        ("# Tanh", "<|channel|>analysis<|message|># No\nName: no_no<|end|><|start|>assistant<|channel|>final<|message|># Tanh"),
        ("    x = 2\n>>>>>>> REPLACE\n", "    x = 2\n>>>>>>> REPLACE\n<|return|>"),
        ("SEARCH", "search"),
        ("SEARCH\n    x = 1\n=======\n    x = 2\n>>>>>>> REPLACE", "Search\n    x = 1\n=======\n    x = 2\n>>>>>>> Replace"),
    ],
)
def test_titles_names_and_marks_may_be_written_in_other_ways(old: str, new: str):
    begin = "<|channel|>final<|message|>" if "return" in new else ""
    assert parse(begin + (HEAD + BLOCK).replace(old, new)) == parse(HEAD + BLOCK)


def test_a_label_that_is_alone_takes_no_prose():
    proposal = parse("# T\nName: some_name\nMechanism:\n\nIt is bounded.\n" + BLOCK)
    assert (proposal.mechanism, proposal.prose) == ("", "It is bounded.")
    assert "inside its thinking" in refusal("<|channel|>analysis<|message|># T\nName: some_name\n" + BLOCK)


def test_whole_files_are_named_or_are_naive():
    kernel = "import triton\n\n\ndef delta_rule(q, k, v, beta, *, chunk_size):\n    return q\n"
    both = parse(HEAD + WHOLE + f"\n```python triton.py\n{kernel}```")
    assert {edit.file: edit.text for edit in both.edits} == {"naive.py": WHOLE[10:-4], "triton.py": kernel}
    assert parse(HEAD + f"### triton.py\n```python\n{kernel}```").edits == (
        WholeFile(file="triton.py", text=kernel),
    )
    assert parse(HEAD + f"```python\n# triton.py\n{kernel}```").edits[0].model_dump()["file"] == "triton.py"
    assert "names no file" in refusal(HEAD + f"```python\n{kernel}```")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("The line in `naive.py`:\n\n```python\n    x = 1\n```\n\nbecomes\n\n", ""),
        ("", "\nThen run `naive.py`:\n\n```bash\npython naive.py\n```\n"),
        ("```python naive.py\n    x = 1\n```\n", ""),
        ("naive.py\n```\n    x = 1\n```\n", ""),
        ("```python\n# naive.py\n    x = 1\n```\n", ""),
        ("Not in `triton.py`:\n```python\n    y = 1\n```\nbut in `naive.py`:\n", ""),
    ],
)
def test_a_fence_that_only_quotes_a_file_is_prose(before: str, after: str):
    assert parse(HEAD + before + BLOCK + after).edits == parse(HEAD + BLOCK).edits
    assert parse(HEAD + before.replace("`triton.py`", "`naive.py`") + WHOLE + after).edits == parse(HEAD + WHOLE).edits
    assert parse(HEAD + before + "\n" + DIFF + "\n" + after).edits == parse(HEAD + DIFF).edits


def test_a_fence_that_is_headed_as_a_file_that_nothing_changes_is_refused():
    assert "headed triton.py" in refusal(HEAD + "```python triton.py\nx = 1\n```\n" + BLOCK)
    assert "headed triton.py" in refusal(HEAD + "And `triton.py`:\n```python\nx = 1\n```\n" + WHOLE)


@pytest.mark.parametrize("path", ["./naive.py", "a/naive.py", "variants/some_parent/naive.py", "./variants/tanh_on_error/naive.py", "some_parent/naive.py"])
def test_a_path_to_one_of_the_two_files_is_that_file(path: str):
    for change in (f"`{path}`:\n{BLOCK}", f"```python {path}\n{BLOCK}```", BLOCK.replace("SEARCH", f"SEARCH {path}"), f"**File: {path}**\n{BLOCK}"):
        assert parse(HEAD + change).edits == parse(HEAD + BLOCK).edits
    for fence in (f"```python:{path}\n", f"{path}\n```python\n", f"### `{path}`\n\n```python\n"):
        assert parse(HEAD + WHOLE.replace("```python\n", fence)).edits == parse(HEAD + WHOLE).edits
    triton = path.replace("naive", "triton")
    assert parse(HEAD + f"In `{triton}`:\n{BLOCK}").edits[0].model_dump()["file"] == "triton.py"


@pytest.mark.parametrize("path", ["../naive.py", "/naive.py", "a/../naive.py", "/variants/some_parent/naive.py", "x/naive.py", "variants/a_b/c_d/naive.py", "variants/../naive.py"])
def test_a_path_to_another_place_is_refused(path: str):
    assert "only naive.py and triton.py" in refusal(HEAD + f"{path}\n{BLOCK}")
    assert "only naive.py and triton.py" in refusal(HEAD + WHOLE.replace("```python", f"```python:{path}"))


@pytest.mark.parametrize("after", ["\n- this clamps\n+ pros\n", "- this clamps\n", "\n---\n\nDone.\n", "\n- a\n\n- b\n"])
def test_bullets_below_a_diff_that_is_whole_are_prose(after: str):
    proposal = parse(HEAD + DIFF + after)
    assert proposal.edits == (UnifiedDiff(text=DIFF),)
    assert after.strip() in proposal.prose


def test_what_goes_on_below_a_diff_is_no_prose():
    more = "@@ -9 +9 @@\n-y = 1\n+y = 2\n"
    assert parse(HEAD + DIFF + "\n- and below\n\n" + more).edits == (UnifiedDiff(text=DIFF), UnifiedDiff(text=more))
    wrong = DIFF.replace("-1,2 +1,2", "-1,9 +1,9") + "\n- x\n"
    assert parse(HEAD + wrong).edits == (UnifiedDiff(text=wrong),)
    assert parse(HEAD + DIFF + "+y = 3\n").edits == (UnifiedDiff(text=DIFF + "+y = 3\n"),)


def test_a_file_named_once_holds_for_the_blocks_that_follow():
    edits = parse(HEAD + "triton.py\n" + BLOCK + "\n" + BLOCK.replace("1", "3")).edits
    assert [edit.model_dump()["file"] for edit in edits] == ["triton.py", "triton.py"]


@pytest.mark.parametrize("text", [DIFF, f"```diff\n{DIFF}```", f"```\n{DIFF}```\nDone."])
def test_unified_diffs_are_accepted(text: str):
    assert parse(HEAD + text).edits == (UnifiedDiff(text=DIFF),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("I cannot help with that.", "no change"),
        (HEAD, "no change"),
        (BLOCK, "Name: slug"),
        (HEAD.replace("# Tanh on the error", "Tanh") + BLOCK, "no title"),
        (HEAD.replace("Name: tanh_on_error\n", "") + BLOCK, "Name: slug"),
        (HEAD + "Name: other_name\n" + BLOCK, "two names"),
        (HEAD + WHOLE[:-4], "never closed"),
        (HEAD + WHOLE + WHOLE.replace("return v", "return q"), "two different versions"),
        (HEAD + WHOLE + BLOCK, "one or the other"),
        (HEAD + DIFF + "\nor\n\n" + BLOCK, "in one form"),
        (HEAD + BLOCK[:-18], "never closed"),
        (HEAD + BLOCK.replace("=======\n", ""), "is due"),
        (HEAD + BLOCK.replace("=======\n", "=======\n\n=======\n"), "is due"),
        (HEAD + BLOCK.replace(">>>>>>> REPLACE", "<<<<<<< SEARCH"), "is due"),
        (HEAD + "=======\n>>>>>>> REPLACE\n", "never begun"),
        (HEAD + BLOCK.replace("SEARCH", "HEAD"), "begins with"),
        (HEAD + BLOCK.replace("x = 2", "x = 1"), "by themselves"),
        (HEAD + BLOCK.replace("    x = 1\n", "\n"), "empty SEARCH"),
        (HEAD + "evaluator/train.py\n" + BLOCK, "only naive.py and triton.py"),
        (HEAD + "```python ../naive.py\n" + BLOCK + "```", "only naive.py and triton.py"),
        (HEAD + "```python naive.py\nx = 1\n```", "no line 'def delta_rule"),
        (HEAD + "```python\nx = 3\n" + BLOCK + "```", "beside its SEARCH/REPLACE"),
        ("<think>" + HEAD, "thinking"),
        (HEAD + BLOCK + "\x00", "NUL"),
        (HEAD + BLOCK + "\ud800", "surrogate"),
        (HEAD + BLOCK * 2 + "".join(BLOCK.replace("1", str(i)) for i in range(3, 203)), "more than 100"),
    ],
)
def test_what_would_need_a_guess_is_refused_with_a_sentence(text: str, reason: str):
    assert reason in refusal(text)


@pytest.mark.parametrize(
    "name",
    ["", "ab", "a" * 97, "Tanh", "tanh-x", "../x", "a/b", ".", "naive", "triton", "history", "con", "lambda",
     "0007", "r0001", "___", "__pycache__", "x\x1b[31m", "t\u0430nh", "tanh\n", "\u202etanh", "a b"],
)  # fmt: skip
def test_a_name_that_is_no_slug_or_is_taken_by_the_house_is_refused(name: str):
    with pytest.raises(BadName) as caught:
        check_name(name)
    assert str(caught.value).isprintable()
    if name.strip() == name and name not in ("Tanh", "tanh-x", "a b"):
        refusal(HEAD.replace("tanh_on_error", name) + BLOCK)


def test_a_name_that_is_a_slug_but_for_case_blanks_and_hyphens_costs_no_try():
    assert parse(HEAD.replace("tanh_on_error", "**Tanh on-Error 2**") + BLOCK).name == "tanh_on_error_2"
    assert "is reserved" in refusal(HEAD.replace("tanh_on_error", "Triton") + BLOCK)


def test_a_near_miss_is_told_the_slug():
    assert "For example: tanh_on_error." in refusal(HEAD.replace("tanh_on_error", "Tanh (on error)") + BLOCK)
    assert check_name("tanh_on_error_2") == "tanh_on_error_2"


def test_escapes_and_invisible_characters_leave_title_and_prose():
    dirty = HEAD.replace("the error", "the\x1b[31m \u202eerror\u200b").replace(
        "bounded", "boun\x1b]0;x\x07ded"
    )
    proposal = parse(dirty + BLOCK)
    assert (proposal.title.split(), proposal.title.isprintable()) == (["Tanh", "on", "the", "error"], True)
    assert proposal.prose == "What is written is bounded."


@pytest.mark.parametrize(("line", "expected"), [("none", {}), ("**n/a**", {}), ("Compression +1.5%, Memorize -2 %", {"Compress": 0.015, "Memorize": -0.02})])
def test_a_prediction_may_say_nothing_or_per_cent(line, expected):
    proposal = parse((HEAD + BLOCK).replace("Prediction: Compress +0.01, Context Recall 0, Memorize -0.05", f"Prediction: {line}"))
    assert proposal.prediction == pytest.approx(expected)


def predicted(text: str) -> Proposal:
    return parse((HEAD + BLOCK).replace("Prediction: Compress +0.01, Context Recall 0, Memorize -0.05", text))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        *((f"Compress {said}", {"Compress": 0.01}) for said in
          ("+ 0.01", "(+0.01)", "~+0.01", "\u2248 +0.01", "+1e-2", "+1pp", "+1 percentage point", "\u2014 +0.01", "approx. +0.01",
           "by +0.01", "+0.01 (a guess, no more; or less)", "+0.01 \u00b1 0.005", "+0.01 because errors are bounded", "+0.01.")),
        ("Compress +0.01 to +0.02", {"Compress": 0.015}),
        ("Compress -1 to -2%", {"Compress": -0.015}),
        ("Compress +0.01 and Memorize +0.05", {"Compress": 0.01, "Memorize": 0.05}),
        ("Compress +0.01. Memorize - 0.05.", {"Compress": 0.01, "Memorize": -0.05}),
        ("Selective Copying +0.02", {"Selective Copy": 0.02}),
        ("selective_copying +0.02, in-context-recall \u20130.01", {"Selective Copy": 0.02, "Context Recall": -0.01}),
        ("memorisation +0.02", {"Memorize": 0.02}),
        ("Memorize +0.05, others 0", dict.fromkeys(COLUMNS, 0.0) | {"Memorize": 0.05}),
        ("Compress +0.01\n\nSummary.\n\nPrediction: Compress +0.01", {"Compress": 0.01}),
        ("Compress +0.01, Memorize +0.05\n**Prediction:** Memorize +0.05", {"Compress": 0.01, "Memorize": 0.05}),
    ],
)  # fmt: skip
def test_a_prediction_that_is_clear_is_read(line: str, expected: dict[str, float]):
    proposal = predicted(f"Prediction: {line}")
    assert proposal.prediction == pytest.approx(expected)
    assert not proposal.unread


@pytest.mark.parametrize(
    "lines",
    [
        "Prediction:\n- Compress: +0.01\n- Memorize: +0.05",
        "**Prediction:**\n\n* **Compress**: +0.01\n* **Memorize**: +0.05",
        "Prediction (against the parent):\n1. Compress +0.01\n2. Memorize +0.05",
        "## Prediction\n\nCompress +0.01, Memorize +0.05",
        "Prediction: Compress +0.01,\nMemorize +0.05",
        "Prediction:\n\n| column | change |\n|---|---|\n| Compress | +0.01 |\n| Memorize | +0.05 |",
        "Prediction:\n- Compress: +0.01\n\n- Memorize: +0.05\n\n- It stays bounded.",
    ],
)
def test_a_prediction_below_its_label_is_read(lines: str):
    proposal = predicted(lines)
    assert (proposal.prediction, proposal.unread) == ({"Compress": 0.01, "Memorize": 0.05}, ())
    assert proposal.prose.endswith("What is written is bounded.")
    assert "0.0" not in proposal.prose


def test_prose_below_a_prediction_stays_prose():
    for said in ("Compress +0.01\n- It is bounded.\n- Compress is short.", "none\n\n- Compress +0.01 is a hope", "\n\n- It is bounded."):
        proposal = predicted(f"Prediction: {said}")
        assert ("bounded." in proposal.prose, "Compress +0.01" in proposal.prose) == (True, "hope" in said)


@pytest.mark.parametrize(
    ("line", "unread"),
    [
        ("Speed +3", "Speed +3"), ("Compress +1.5", "Compress +1.5"), ("Compress a lot", "Compress a lot"), ("Compress nan", "Compress nan"),
        ("\u0421ompress +0.01", "\u0421ompress +0.01"), ("Compress 0.45 -> 0.47", "Compress 0.45 -> 0.47"), ("Compress +0,01", "Compress +0,01"),
        ("Compress \u00b10.02", "Compress \u00b10.02"), ("Compress +5% relative", "Compress +5% relative"), ("Compress", "Compress"),
        ("Compress 0.01 to 0.02", "Compress 0.01 to 0.02"), ("others 0, Compress a lot", "others"), ("Compress +0.5 sigma", "Compress +0.5 sigma"),
        ("\n- Compress: more", "Compress: more"), ("\n- Speed: more", "Speed: more"),
    ],
)  # fmt: skip
def test_a_prediction_that_is_not_clear_is_left_out_and_told_and_costs_no_try(line: str, unread: str):
    proposal = predicted(f"Prediction: {line}")
    assert proposal.prediction == {}
    assert unread in proposal.unread
    assert predicted(f"Prediction: Memorize +0.05, {line}").prediction.get("Memorize") == 0.05


def test_of_two_numbers_for_a_column_none_is_taken():
    proposal = predicted("Prediction: Compress +0.01, Memorize 0\n\nPrediction: Compress +0.02")
    assert (proposal.prediction, proposal.unread) == ({"Memorize": 0.0}, ("Compress +0.01", "Compress +0.02"))


def test_missing_mechanism_and_prediction_are_told_as_absent():
    proposal = parse("# T\nName: some_name\n" + BLOCK)
    assert (proposal.mechanism, proposal.prediction) == ("", {})


def test_the_minus_sign_and_task_names_are_understood():
    line = "Prediction: **memorization**: \u22120.05; Noisy Recall = +.1 (a guess), Compress \u00b10"
    proposal = parse(f"# T\nName: some_name\n{line}\n" + BLOCK)
    assert proposal.prediction == {"Memorize": -0.05, "Noisy Recall": 0.1, "Compress": 0.0}


@pytest.mark.parametrize(
    "text",
    [
        "<<<<<<< SEARCH\n" * 40_000,
        HEAD + "<<<<<<< SEARCH\n" * 12_000,
        HEAD + "```\n" * 45_000 + BLOCK,
        HEAD + "~~~\n```\n" * 22_000,
        HEAD + "`" * 190_000,
        HEAD + ">" * 100_000,
        HEAD + "[" * 100_000 + "]" * 90_000 + BLOCK,
        HEAD + "<think>" * 25_000,
        HEAD + "</think>Name: a\n" * 12_000,
        "# " + "*" * 190_000 + "\n" + HEAD + BLOCK,
        HEAD + "=======\n" * 20_000,
        HEAD + "--- a\n+++ b\n" * 15_000,
        HEAD + "@@ -1 +1 @@\n- x\n" * 12_000,
        HEAD + "Prediction:\n" * 15_000 + BLOCK,
        HEAD + "Prediction:\n\n- Compress +0.01\n" * 6_000 + BLOCK,
        HEAD + "Prediction: " + "(" * 1900 + "\n" + "Compress +0.01 " * 12_000 + BLOCK,
        HEAD + "**" * 90_000 + BLOCK,
        HEAD + "naive.py\n```\nx\n```\n" * 8_000 + BLOCK,
        "<|channel|>final<|message|>" * 7_000,
        "x" * 50_000_000,
        "\u20ac" * (MOST_BYTES // 2),
    ],
)
def test_hostile_sizes_end_at_once(text: str):
    began = time.process_time()
    assert_read_or_refused(text)
    assert time.process_time() - began < 1.0


PIECES = st.sampled_from(
    [*HEAD.splitlines(keepends=True), *BLOCK.splitlines(keepends=True), *WHOLE.splitlines(keepends=True),
     *DIFF.splitlines(keepends=True), BLOCK, WHOLE, "naive.py\n", "../x.py\n", "<think>", "</think>", "~~~\n",
     "````\n", "Name: x\n", "Prediction: Compress 1e9\n", "\r", "\u202e", "\x1b[2J", "# \n", "|---|\n"]
)  # fmt: skip


@settings(max_examples=400, deadline=2000)
@given(st.lists(st.one_of(PIECES, st.text(max_size=12)), max_size=40).map("".join))
def test_any_text_is_a_proposal_or_a_sentence(text: str):
    for reply in (text, HEAD + text, HEAD + text + BLOCK):
        assert_read_or_refused(reply)


@settings(max_examples=150, deadline=2000)
@given(st.integers(0, len(HEAD + WHOLE + BLOCK)), st.binary(max_size=6))
def test_a_reply_cut_or_damaged_anywhere_is_never_a_crash(cut: int, junk: bytes):
    whole = HEAD + BLOCK + "```python triton.py\n" + WHOLE[10:]
    for text in (
        whole[:cut],
        whole[cut:],
        whole[:cut] + junk.decode("utf-8", "surrogateescape") + whole[cut:],
    ):
        assert_read_or_refused(text)
