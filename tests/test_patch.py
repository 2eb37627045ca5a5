"""Edits give the child exactly when they fit the parent, and the diff of a child is one that git applies."""

import random
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.proposal.patch import PatchError, apply, unified_diff
from agent.proposal.reply import parse

PARENT = {
    "naive.py": "import torch\n\n\ndef delta_rule(q, k, v, beta, *, chunk_size):\n"
    "    o = q\n\n    o = o + v\n    return o\n",
    "triton.py": "import triton\n\n\ndef delta_rule(q, k, v, beta, *, chunk_size):\n    return q\n",
}
HEAD = "# T\nName: some_name\n\n"


def block(search: str, replace: str) -> str:
    return f"<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE\n"


def patched(change: str, parent: dict[str, str] = PARENT, name: str | None = None) -> dict[str, str]:
    return apply(parse(HEAD + change), parent, name)


def refusal(change: str, parent: dict[str, str] = PARENT) -> str:
    with pytest.raises(PatchError) as caught:
        patched(change, parent)
    assert str(caught.value).isprintable()
    return str(caught.value)


def diff(*hunks: str, file: str = "naive.py") -> str:
    return f"```diff\n--- a/{file}\n+++ b/{file}\n" + "".join(hunks) + "```\n"


def test_blocks_replace_lines_of_the_parent_and_other_forms_are_left_out():
    child = patched(
        block("    o = o + v", "    o = o - v\n    o = 2 * o") + block("    return o", "    return -o")
    )
    assert list(child) == ["naive.py"]
    assert child["naive.py"].endswith("    o = q\n\n    o = o - v\n    o = 2 * o\n    return -o\n")


def test_a_form_is_kept_when_it_is_edited_and_naive_always_is():
    child = patched("triton.py\n" + block("    return q", "    return -q"))
    assert child == PARENT | {"triton.py": PARENT["triton.py"].replace("return q", "return -q")}


def test_a_whole_file_replaces_the_parents():
    text = PARENT["naive.py"].replace("return o", "return v")
    assert patched(f"```python\n{text}```\n") == {"naive.py": text}


def test_one_line_may_be_named_by_a_part_of_it():
    assert "o = o + v * 2" in patched(block("+ v", "+ v * 2"))["naive.py"]


def test_lines_may_be_deleted_and_blanks_at_line_ends_do_not_count():
    removed = patched("<<<<<<< SEARCH\n    o = o + v\n=======\n>>>>>>> REPLACE")["naive.py"]
    assert removed == PARENT["naive.py"].replace("    o = o + v\n", "")
    assert patched(block("    o = q  \n  \n    o = o + v", "    o = v"))["naive.py"].count("o = v") == 1


@pytest.mark.parametrize(
    ("search", "replace", "old", "new"),
    [
        ("    o = q\n", "    o = k\n", "    o = q\n", "    o = k\n"),
        ("    o = o + v\n", "    o = v\n", "    o = o + v\n", "    o = v\n"),
        ("\n    return o", "\n    return v", "    return o\n", "    return v\n"),
        ("\n\n    return o", "    x = o\n\n    return x", "    return o\n", "    x = o\n\n    return x\n"),
        ("\n    return o", "\n    x = o\n    return x", "    return o\n", "    x = o\n    return x\n"),
        ("    o = q\n    o = o + v", "    o = q\n    o = o - v", "o + v", "o - v"),
        ("    o = q\n    o = o + v", "    o = q\n    x = q\n    o = o + v", "    o = q\n", "    o = q\n    x = q\n"),
        ("    o = q\n    o = o + v", "    o = k\n\n\n    o = o - v", "    o = q\n\n    o = o + v", "    o = k\n\n\n    o = o - v"),
        ("    o = q\n    o = o + v\n    return o", "    o = q\n    return o", "\n    o = o + v\n", ""),
        ("    o = q\n\n    o = o + v\n\n    return o", "    o = q\n\n    o = o + v\n\n    return v", "return o", "return v"),
        ("import torch\ndef delta_rule(q, k, v, beta, *, chunk_size):", "import torch\ndef delta_rule(q, k, v, beta, *, chunk_size, g):", "size)", "size, g)"),
        ("+ v\n", "- v\n", "+ v", "- v"),
    ],
)  # fmt: skip
def test_blank_lines_do_not_count_and_those_of_the_parent_stay(search: str, replace: str, old: str, new: str):
    text = PARENT["naive.py"]
    assert text.count(old) == 1
    assert patched(block(search, replace))["naive.py"] == text.replace(old, new)


def test_blank_lines_of_a_hunk_do_not_count():
    hunk = "@@ -5,3 +5,3 @@\n     o = q\n-    o = o + v\n+    o = o - v\n     return o\n"
    assert patched(diff(hunk))["naive.py"] == PARENT["naive.py"].replace("+ v", "- v")


def test_a_place_that_is_one_of_two_but_for_blank_lines_is_refused():
    parent = {"naive.py": "a = 1\n\nb = 2\na = 1\n\n\nb = 2\n"}
    assert "occurs 2 times" in refusal(block("a = 1\nb = 2", "c = 3"), parent)
    assert patched(block("a = 1\n\nb = 2", "c = 3"), parent)["naive.py"] == "c = 3\na = 1\n\n\nb = 2\n"


@pytest.mark.parametrize(
    "change",
    [
        block("o = q\n\no = o + v", "o = q\nif o is q:\n\n    o = v"),
        block("        o = q\n        o = o + v", "        o = q\n        if o is q:\n\n            o = v"),
        "".join(f"    {line}\n" for line in block("    o = q\n\n    o = o + v", "    o = q\n    if o is q:\n\n        o = v").splitlines()),
        "".join(f"    {line}\n" for line in block("    o = o + v", "    if o is q:\n\n        o = v").splitlines()),
        "".join(f"    {line}\n" for line in block("o = o + v", "if o is q:\n\n    o = v").splitlines()),
        block("o = o + v", "if o is q:\n\n    o = v"),
    ],
)
def test_lines_may_be_indented_otherwise_as_a_whole(change: str):
    lines = patched(change)["naive.py"].split("\n")
    assert [line for line in lines if line.strip()] == [
        "import torch", "def delta_rule(q, k, v, beta, *, chunk_size):", "    o = q", "    if o is q:", "        o = v", "    return o",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("search", "replace", "new"),
    [
        ("return o", "x = o\n    return x", "    x = o\n    return x\n"),
        ("return o", "x = o\nreturn x", "    x = o\n    return x\n"),
        ("  return o", "  x = o\n  return x", "    x = o\n    return x\n"),
        ("  return o", "  if x:\n    return x\n  return o", "    if x:\n      return x\n    return o\n"),
        ("return o", "return f(o)\n\n\ndef f(o):\n    return o", "    return f(o)\n\n\ndef f(o):\n    return o\n"),
        ("o = o + v", "if x:\n        o = v\n    o = o", "    if x:\n        o = v\n    o = o\n"),
    ],
)
def test_lines_for_a_part_of_one_are_indented_as_it_is_where_they_were_not(search: str, replace: str, new: str):
    old = f"    {search.strip()}\n"
    assert patched(block(search, replace))["naive.py"] == PARENT["naive.py"].replace(old, new)


def test_lines_that_are_indented_otherwise_are_told_with_their_indentation():
    assert "it has '      return o', and the line there is '    return o'" in refusal(block("      return o", "    return v"))
    assert "it has '\\treturn o', and the line there is '    return o'" in refusal(block("\treturn o", "    return v"))
    parent = {"naive.py": "if a:\n    x = 1\n    y = 2\nelse:\n        x = 1\n        y = 2\n"}
    assert "occurs 2 times" in refusal(block("x = 1\ny = 2", "x = 3"), parent)
    assert "it has '        o = q'" in refusal(block("        o = q\n        o = o + v", "  o = v"))


def test_every_search_is_found_in_the_parent_not_in_what_another_block_wrote():
    assert "does not occur" in refusal(
        block("    return o", "    new = o") + block("    new = o", "    x = o")
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (block("    o = q - v", "    o = v"), "the nearest is"),
        (block("    zzzzzzzz", "    o = v"), "nothing there is like it"),
        (block("o", "x"), "occurs 6 times"),
        (block("    return o\n    o = o + v", "x"), "not one after another in this order"),
        (block("    o = q\n\n    o = o + v", "a") + block("    o = o + v\n    return o", "b"), "overlap"),
        (f"```python\n{PARENT['naive.py']}```", "leave the parent's source as it was"),
        (diff("@@ -5,2 +5,2 @@\n     o = q\n-    o = k\n+    o = v\n"), "does not occur"),
        (diff("@@ -1 +1 @@\n-import torch\n+x\n", file="variants/x/naive.py"), "only naive.py"),
        (diff("@@ -1 +1 @@\n-import torch\n+import os\n", file="../naive.py"), "only naive.py and triton.py"),
        ("```diff\nold mode 100644\nnew mode 100755\n--- a/naive.py\n+++ b/naive.py\n```", "old mode"),
        ("```diff\n--- a/naive.py\n+++ b/triton.py\n@@ -1 +1 @@\n-import torch\n+x\n```", "renames"),
        ("```diff\ndiff --git a/naive.py b/naive.py\nrename from naive.py\n```", "rename"),
        ("```diff\n--- /dev/null\n+++ b/naive.py\n@@ -0,0 +1 @@\n+x\n```", "only naive.py"),
        (diff("@@ -1,0 +1 @@\n+x = 1\n"), "no line of the parent"),
        (diff("@@ -1 +1 @@\n*import torch\n"), "begin each with"),
        (diff(), "no hunk"),
        (diff("hello\n"), "outside of its hunks"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_the_values(change: str, reason: str):
    assert reason in refusal(change)


HUNK = "@@ -8 +8 @@\n-    return o\n+    return v\n"


@pytest.mark.parametrize(
    "change",
    [
        diff(HUNK).replace("--- a/", "--- a/variants/the_parent/").replace("+++ b/", "+++ b/variants/some_name/"),
        diff(HUNK).replace("--- a/", "--- ./").replace("+++ b/", "+++ ./"),
        diff(HUNK, file="the_parent/naive.py"),
        f"```diff\ndiff --git a/variants/the_parent/naive.py b/variants/some_name/naive.py\n{diff(HUNK)[8:]}",
        f"```diff\n{HUNK}```",
        f"```diff\n@@\n{HUNK.split(chr(10), 1)[1]}```",
        f"`naive.py`:\n\n```diff\n{HUNK}```",
        f"```\n{HUNK}```",
        HUNK,
        f"variants/the_parent/naive.py\n{block('    return o', '    return v')}",
        f"variants/some_name/naive.py\n{block('    return o', '    return v')}",
    ],
)
def test_paths_of_parent_and_child_and_a_diff_that_can_mean_one_file_alone_are_taken(change: str):
    assert patched(change, PARENT, "the_parent") == {"naive.py": PARENT["naive.py"].replace("return o", "return v")}


def test_a_folder_of_any_other_variant_is_refused():
    for change in (diff(HUNK, file="variants/another/naive.py"), f"variants/another/naive.py\n{block('    return o', '    return v')}"):
        assert "only" in refusal(change)
        with pytest.raises(PatchError, match=r"naive\.py and triton\.py may change"):
            patched(change, PARENT, "the_parent")


def test_a_diff_without_headers_is_refused_where_it_fits_both_files_or_none():
    both = "```diff\n@@ -1,4 +1,4 @@\n-def delta_rule(q, k, v, beta, *, chunk_size):\n+def delta_rule(q, k, v, beta, *, chunk_size, g):\n```"
    assert "The diff names no file and fits naive.py and triton.py" in refusal(both)
    assert list(patched(both, {"naive.py": PARENT["naive.py"]})) == ["naive.py"]
    assert patched(f"triton.py\n{both}")["triton.py"].count("size, g)") == 1
    assert "does not occur" in refusal("```diff\n@@ -1 +1 @@\n-no such line\n+x\n```")


def test_diffs_that_overlap_are_told_apart():
    second = diff("@@ -7,2 +7,2 @@\n     o = o + v\n-    return o\n+    return k\n")
    assert "Hunk 1 of diff 2 and Hunk 1 of diff 1 overlap" in refusal(diff(HUNK) + second)
    assert "Hunk 1 of diff 2 has no line" in refusal(diff(HUNK) + diff("@@ -1,0 +1 @@\n+x = 1\n"))


def test_edits_of_a_form_that_the_parent_lacks_are_refused():
    message = refusal("triton.py\n" + block("    return q", "    return v"), {"naive.py": PARENT["naive.py"]})
    assert "no triton.py to edit" in message


def test_hunks_are_found_by_their_lines_where_the_numbers_are_off():
    hunk = "@@ -99,3 +99,2 @@ def delta_rule\n     o = q\n \n-    o = o + v\n     return o\n"
    assert patched(diff(hunk)) == {"naive.py": PARENT["naive.py"].replace("    o = o + v\n", "")}
    assert patched(diff("@@\n" + hunk.split("\n", 1)[1])) == patched(diff(hunk))


def test_a_hunk_that_fits_in_two_places_goes_where_its_number_says_or_nowhere():
    parent = {"naive.py": "x = 1\ny = 2\nx = 1\n"}
    assert patched(diff("@@ -3 +3 @@\n-x = 1\n+x = 3\n"), parent) == {"naive.py": "x = 1\ny = 2\nx = 3\n"}
    assert "occurs 2 times" in refusal(diff("@@ -9 +9 @@\n-x = 1\n+x = 3\n"), parent)


def test_line_ends_and_a_missing_last_newline_of_the_parent_do_not_matter():
    parent = {"naive.py": PARENT["naive.py"].replace("\n", "\r\n").rstrip()}
    assert patched(block("    return o", "    return v"), parent)["naive.py"].endswith("\n    return v\n")


def test_large_edits_of_lines_that_occur_often_end_at_once():
    names = [f"x{i} = {i % 7}" for i in range(300)]
    parent = {"naive.py": "\n\n".join(names)}
    many = ["\n".join(random.Random(seed).choice(names) for _ in range(14_000)) for seed in range(2)]
    began = time.process_time()
    assert len(patched(block("\n".join(names), many[0]), parent)["naive.py"]) > len(many[0])
    assert "does not occur" in refusal(block("x0 = 0\n" * 20_000, "y"), parent)
    assert "overlap" in refusal("```diff\n" + "@@ -1 +1 @@\n-x0 = 0\n+x\n" * 6_000 + "```", parent)
    assert time.process_time() - began < 5.0


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(("git", *arguments), cwd=folder, check=True, capture_output=True, text=True).stdout


def tree(folder: Path, parent: str, files: dict[str, str]) -> Path:
    (folder / "variants" / parent).mkdir(parents=True)
    for file, text in files.items():
        (folder / "variants" / parent / file).write_bytes(text.encode())
    git(folder, "init", "-q")
    return folder


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (PARENT["naive.py"], PARENT["naive.py"].replace("return o", "return v")),
        (PARENT["naive.py"], PARENT["naive.py"]),
        (PARENT["naive.py"].rstrip(), PARENT["naive.py"]),
        (PARENT["naive.py"], PARENT["naive.py"].replace("return o", "return v").rstrip()),
        (PARENT["naive.py"].rstrip(), PARENT["naive.py"].replace("return o", "return v").rstrip()),
        (PARENT["naive.py"].replace("\n", "\r\n"), PARENT["naive.py"]),
        (
            PARENT["naive.py"].replace("\n", "\r\n"),
            PARENT["naive.py"].replace("q", "k").replace("\n", "\r\n"),
        ),
        ("a\x0cb\nc\u2028d\re\n", "a\x0cb\nc\u2028d\rf\n"),
        ("", "x\n"),
        ("x\n" * 40, "y\n" * 40),
    ],
)
def test_git_applies_the_diff_on_a_tree_that_holds_the_parent(tmp_path: Path, old: str, new: str):
    folder = tree(tmp_path, "parent_name", {"naive.py": old})
    (folder / "patch.diff").write_bytes(
        unified_diff("parent_name", {"naive.py": old}, "child", {"naive.py": new}).encode()
    )
    git(folder, "apply", "patch.diff")
    assert (folder / "variants/child/naive.py").read_bytes() == new.encode()
    assert (folder / "variants/parent_name/naive.py").read_bytes() == old.encode()


def test_git_applies_the_diff_of_a_variant_without_a_parent_and_of_a_new_form(tmp_path: Path):
    folder = tree(tmp_path, "parent_name", {"naive.py": PARENT["naive.py"]})
    text = unified_diff(None, {}, "first", PARENT)
    text += unified_diff("parent_name", {"naive.py": PARENT["naive.py"]}, "second", PARENT)
    (folder / "patch.diff").write_text(text)
    git(folder, "apply", "--check", "patch.diff")
    git(folder, "apply", "patch.diff")
    for name in ("first", "second"):
        assert {f: (folder / "variants" / name / f).read_text() for f in PARENT} == PARENT


@settings(max_examples=150, deadline=2000)
@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), st.lists(st.sampled_from("abcd"), min_size=1)
)
def test_a_diff_made_of_any_two_files_gives_the_second_back(old: list[str], new: list[str]):
    parent = {"naive.py": "top\n" + "".join(x + "\n" for x in old)}
    child = {"naive.py": "top\n" + "".join(x + "\n" for x in new)}
    hunks = unified_diff("p", parent, "c", child).split("\n", 6)[6:]
    if old != new:
        assert patched(f"```diff\n--- a/naive.py\n+++ b/naive.py\n{hunks[0]}```", parent) == child
