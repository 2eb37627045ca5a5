"""git follows the files: one commit an entry, nothing else touched, and every refusal of git is told and fine."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import BASELINE, MakeJob, git, reply, store

from agent import history, loop, variants
from agent.evaluate import Event
from agent.progress import Reporter
from agent.proposers import Manual
from agent.repo import GitError, committed_source, open_repo


def test_one_commit_an_entry_of_its_own_two_folders(checkout: Path, make_job: MakeJob) -> None:
    (checkout / "staged.txt").write_text("staged")
    git(checkout, "add", "staged.txt")
    (checkout / "prompts" / "contract.md").write_text("changed")
    list(loop.run(make_job([reply("child"), reply("bad", mark="train-failed")], tries=1, commit=True), 2))
    subjects = git(checkout, "log", "--format=%s").splitlines()
    assert subjects == ["attempt 0002: bad, train-failed", "attempt 0001: child, scored",
                        "attempt 0000: delta_net, scored", "start"]  # fmt: skip
    changed = git(checkout, "show", "--name-only", "--format=", "HEAD~1").split()
    assert {name.rsplit("/", 1)[0] for name in changed} == {"history/0001", "variants/child"}
    assert git(checkout, "status", "--porcelain").splitlines() == [" M prompts/contract.md", "A  staged.txt"]


def test_a_source_written_by_hand_is_committed_with_the_entry_that_scored_it(checkout: Path, make_job: MakeJob) -> None:
    mine = store(checkout, "mine", BASELINE + "# mine\n")
    (mine / "notes.txt").write_text("private")
    naive = checkout / "variants" / "delta_net" / "naive.py"
    naive.write_text(naive.read_text() + "# mine, staged\n")
    git(checkout, "add", "variants/delta_net")
    (checkout / "staged.txt").write_text("staged")
    git(checkout, "add", "staged.txt")
    for name in ("mine", "delta_net"):
        loop.score_stored(make_job(commit=True), name)
        changed = set(git(checkout, "show", "--name-only", "--format=", "HEAD").split())
        assert {file for file in changed if "history" not in file} == {f"variants/{name}/naive.py"}
    assert git(checkout, "status", "--porcelain").splitlines() == ["A  staged.txt", "?? variants/mine/notes.txt"]
    again = checkout.parent / "clone"
    git(checkout, "clone", "--quiet", str(checkout), str(again))
    for entry in history.read(again).entries:
        assert entry.evaluation
        assert variants.digest(again, entry.name or "") == entry.evaluation.variant.digest


def test_a_source_edited_or_dropped_since_is_committed_with_what_scored_it_again(checkout: Path, make_job: MakeJob) -> None:
    mine = store(checkout, "mine", BASELINE)
    (mine / "triton.py").write_text(BASELINE + "# kernel\n")
    loop.score_stored(make_job(commit=True), "mine")
    (mine / "triton.py").unlink()
    (mine / "naive.py").write_text(BASELINE + "# better\n")
    loop.score_stored(make_job(commit=True), "mine")
    assert git(checkout, "status", "--porcelain") == ""
    assert git(checkout, "ls-files", "variants/mine").split() == ["variants/mine/naive.py"]


def test_a_source_edited_while_it_was_scored_is_not_committed_as_what_was(
    checkout: Path, make_job: MakeJob, said: Callable[[], str]
) -> None:
    mine, job = store(checkout, "mine", BASELINE), make_job(commit=True)
    quick = replace(job, reporter=Editing(job.reporter, mine / "naive.py"))
    assert loop.score_stored(quick, "mine").status == "scored"
    assert git(checkout, "status", "--porcelain").splitlines() == ["?? variants/mine/"]
    assert "variants/mine was edited while 0000 was scored" in said()


class Editing(Reporter):
    """Whose user edits the file while it is trained."""

    def __init__(self, beside: Reporter, file: Path) -> None:
        super().__init__(beside._console, beside)
        self._file = file

    def event(self, event: Event) -> None:
        self._file.write_text(BASELINE + "# edited meanwhile\n")


def test_a_source_that_git_ignores_stays_private_and_one_that_failed_is_in_its_entry(checkout: Path, make_job: MakeJob) -> None:
    (checkout / ".git" / "info" / "exclude").write_text("variants/mine*\n")
    store(checkout, "mine", BASELINE)
    assert loop.score_stored(make_job(commit=True), "mine").status == "scored"
    assert git(checkout, "ls-files", "variants").split() == ["variants/delta_net/naive.py"]
    for mark in ("reject", "train-failed"):
        source = BASELINE + f"# stub: {mark}\n"
        store(checkout, f"bad_{mark[:5]}", source)
        entry = loop.score_stored(make_job(commit=True), f"bad_{mark[:5]}")
        assert (entry.folder / "variant" / "naive.py").read_text() == source
        assert f"history/{entry.id}/variant/naive.py" in git(checkout, "ls-files")
        assert (checkout / "variants" / f"bad_{mark[:5]}" / "naive.py").read_text() == source


def test_the_patch_applies_with_git(checkout: Path, make_job: MakeJob) -> None:
    *_, entry = loop.run(make_job([reply("child")]), 1)
    (checkout / "variants" / "child" / "naive.py").rename(checkout / "made.py")
    (checkout / "variants" / "child").rmdir()
    git(checkout, "apply", str(entry.folder / "patch.diff"))
    assert (checkout / "variants" / "child" / "naive.py").read_text() == (checkout / "made.py").read_text()


def test_what_was_sealed_but_not_committed_is_committed_at_the_next_start(checkout: Path, make_job: MakeJob) -> None:
    list(loop.run(make_job([reply("child")], commit=False), 1))
    git(checkout, "add", "history/0000")  # as a kill between `add` and `commit` leaves it
    list(loop.run(make_job(commit=True), 0))
    assert git(checkout, "log", "--format=%s").splitlines()[:2] == [
        "attempt 0001: child, scored", "attempt 0000: delta_net, scored"]  # fmt: skip
    assert git(checkout, "status", "--porcelain") == ""


def test_a_hand_edited_entry_is_the_users_to_commit(checkout: Path, make_job: MakeJob) -> None:
    list(loop.run(make_job(commit=True), 0))
    (checkout / "history" / "0000" / "insight.md").write_text("mine")
    list(loop.run(make_job([reply("child")], commit=True), 1))
    assert git(checkout, "status", "--porcelain").splitlines() == [" M history/0000/insight.md"]


def test_a_foreign_lock_is_told_and_caught_up(
    checkout: Path, make_job: MakeJob, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.repo._PATIENCE", 0.1)
    lock = checkout / ".git" / "index.lock"
    lock.touch()
    list(loop.run(make_job(commit=True), 0))
    assert "recorded but not committed: another git process holds" in said()
    lock.unlink()
    list(loop.run(make_job(commit=True), 0))
    assert git(checkout, "log", "-1", "--format=%s") == "attempt 0000: delta_net, scored\n"


@pytest.mark.parametrize(
    ("begin", "end", "told"),
    [
        (("merge", "other"), ("merge", "--abort"), "a merge is under way in this checkout"),
        (("cherry-pick", "other"), ("cherry-pick", "--abort"), "a cherry-pick is under way in this checkout"),
        (("revert", "HEAD~1"), ("revert", "--abort"), "a revert is under way in this checkout"),
        (("rebase", "other"), ("rebase", "--abort"), "a rebase is under way in this checkout"),
        (("bisect", "start", "HEAD", "HEAD~2"), ("bisect", "reset"), "a bisection is under way in this checkout"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_the_user_has_half_done_is_left_alone_and_caught_up(
    checkout: Path, make_job: MakeJob, said: Callable[[], str], begin: tuple[str, ...], end: tuple[str, ...], told: str
) -> None:
    contract = checkout / "prompts" / "contract.md"
    for branch, text in (("other", "theirs"), ("main", "before"), ("main", "ours")):
        git(checkout, "checkout", "--quiet", *(["-b"] if branch == "other" else []), branch)
        contract.write_text(text)
        git(checkout, "commit", "--quiet", "--all", "--message", text)
    subprocess.run(["git", *begin], cwd=checkout, capture_output=True)
    before = git(checkout, "status", "--porcelain", "--untracked-files=no")
    list(loop.run(make_job(commit=True), 0))
    assert f"0000 is recorded but not committed: {told}; the next start tries again\n" in said()
    assert git(checkout, "status", "--porcelain", "--untracked-files=no") == before
    git(checkout, *end)
    list(loop.run(make_job(commit=True), 0))
    assert git(checkout, "log", "--format=%s", "main").splitlines()[:2] == ["attempt 0000: delta_net, scored", "ours"]
    assert git(checkout, "status", "--porcelain") == ""


@pytest.mark.parametrize("staged", [True, False])
def test_a_commit_that_git_refuses_leaves_nothing_staged(
    checkout: Path, make_job: MakeJob, said: Callable[[], str], staged: bool
) -> None:
    lock = checkout / ".git" / "refs" / "heads" / "main.lock"
    lock.touch()
    with (checkout / "variants" / "delta_net" / "naive.py").open("a") as file:
        file.write("# mine\n")
    if staged:
        git(checkout, "add", "variants")
    before = git(checkout, "status", "--porcelain", "--untracked-files=no")
    list(loop.run(make_job(commit=True), 0))
    assert "0000 is recorded but not committed: git: fatal: cannot lock ref 'HEAD'" in said()
    assert git(checkout, "status", "--porcelain").splitlines() == [*before.splitlines(), "?? history/"]
    lock.unlink()
    list(loop.run(make_job(commit=True), 0))
    assert git(checkout, "status", "--porcelain") == ""


def test_a_history_that_git_ignores_is_named(checkout: Path, make_job: MakeJob, said: Callable[[], str]) -> None:
    (checkout / ".gitignore").write_text("history/\n")
    list(loop.run(make_job(commit=True), 0))
    assert "The following paths are ignored by one of your .gitignore files: history; the next start" in said()


def test_hooks_signing_and_gits_environment_do_not_interfere(
    checkout: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pre-commit", "commit-msg", "prepare-commit-msg", "post-commit"):
        hook = checkout / ".git" / "hooks" / name
        hook.write_text("#!/bin/sh\necho hook >> hooked.txt\nexit 1\n")
        hook.chmod(0o755)
    git(checkout, "config", "commit.gpgsign", "true")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    list(loop.run(make_job(commit=True), 0))
    monkeypatch.delenv("GIT_INDEX_FILE")
    monkeypatch.delenv("GIT_DIR")
    assert git(checkout, "status", "--porcelain") == ""


def test_the_first_commit_of_a_repository(root: Path, make_job: MakeJob) -> None:
    git(root, "init", "--quiet")
    list(loop.run(make_job(commit=True), 0))
    assert git(root, "log", "--format=%s") == "attempt 0000: delta_net, scored\n"


def test_without_a_name_commits_are_signed_agent(
    root: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(root, "init", "--quiet")
    monkeypatch.setenv("HOME", str(root))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(root))
    repo = open_repo(root)
    assert "no user.name" in repo.notes[0]
    list(loop.run(make_job(commit=True), 0))
    assert git(root, "log", "--format=%an") == "agent\n"


def test_a_detached_head_is_told(checkout: Path) -> None:
    git(checkout, "checkout", "--quiet", "--detach")
    assert "detached" in open_repo(checkout).notes[0]


def test_a_root_below_the_top_of_the_checkout(root: Path, make_job: MakeJob) -> None:
    git(root.parent, "init", "--quiet")
    list(loop.run(make_job(commit=True), 0))
    list(loop.run(make_job(commit=True), 0))
    assert git(root.parent, "log", "--format=%s") == "attempt 0000: delta_net, scored\n"


def test_no_checkout_and_no_git_are_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GitError, match="is no git checkout"):
        open_repo(root)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(GitError, match="git is not installed"):
        open_repo(root)


def test_what_a_user_ignores_everywhere_is_committed_and_what_the_checkout_ignores_is_told(
    checkout: Path, make_job: MakeJob, said: Callable[[], str]
) -> None:
    (checkout.parent / "everywhere").write_text("*.csv\n*.json\n*.log\n")
    git(checkout, "config", "core.excludesFile", str(checkout.parent / "everywhere"))
    list(loop.run(make_job(commit=True), 0))
    again = checkout.parent / "clone"
    git(checkout, "clone", "--quiet", str(checkout), str(again))
    assert (history.read(again).problems, [entry.status for entry in history.read(again).entries]) == ((), ["scored"])
    (checkout / ".gitignore").write_text("*.csv\n")
    loop.score_stored(make_job(commit=True), "delta_net")
    assert "history/0001/runs.csv is ignored by this checkout, and a clone could not read the entry without it" in said()
    assert git(checkout, "diff", "--cached", "--name-only") == ""


def test_a_source_with_line_ends_of_windows_is_found_in_its_commit(checkout: Path, make_job: MakeJob) -> None:
    naive = store(checkout, "mine", "") / "naive.py"
    naive.write_bytes(BASELINE.replace("\n", "\r\n").encode())
    entry = loop.score_stored(make_job(commit=True), "mine")
    naive.write_text(BASELINE)
    assert entry.evaluation
    assert committed_source(checkout, "mine", entry.evaluation.variant.digest)


def test_a_file_that_no_record_is_so_large_as_is_kept_out_and_told(checkout: Path, make_job: MakeJob, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.repo._LARGEST", 300_000)
    answers: list[str] = []

    def write(text: str) -> None:
        if "Waiting for" in text:
            name = text.partition("Waiting for the answer in ")[2].partition(" (")[0]
            Path(name).write_text(answers.pop(0))

    list(loop.run(make_job(commit=True), 0))
    answers += ["x" * 300_001, reply("small")]
    (entry,) = loop.run(make_job(Manual(checkout, write), commit=True), 1)
    assert entry.name == "small"
    assert "history/0001/answer.md has 300,001 bytes and is not committed: it is kept on disk alone" in said()
    assert git(checkout, "status", "--porcelain").splitlines() == ["?? history/0001/answer.md", "?? history/0001/llm.jsonl"]
    assert "history/0001/answer-2.md" in git(checkout, "ls-files").split()
    said_before = len(said())
    list(loop.run(make_job(commit=True), 0))
    assert "not committed" not in said()[said_before:]
    clone = checkout.parent / "clone"
    git(checkout, "clone", "--quiet", str(checkout), str(clone))
    assert [entry.status for entry in history.read(clone).entries] == ["scored", "scored"]
