"""git follows the files: one commit an entry, nothing else touched, and every refusal of git is told and fine."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeJob, git, reply

from agent import loop
from agent.repo import GitError, open_repo


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


def test_what_the_user_staged_of_the_variant_that_is_scored_stays_staged(checkout: Path, make_job: MakeJob) -> None:
    naive = checkout / "variants" / "delta_net" / "naive.py"
    naive.write_text(naive.read_text() + "# mine, staged\n")
    git(checkout, "add", "variants")
    list(loop.run(make_job(commit=True), 0))
    assert git(checkout, "log", "-1", "--format=%s") == "attempt 0000: delta_net, scored\n"
    assert git(checkout, "status", "--porcelain").splitlines() == ["M  variants/delta_net/naive.py"]


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
