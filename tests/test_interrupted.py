"""What a killed run left: it is gone on with, or sealed as interrupted, or told to wait; and counts as nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import BASELINE, MakeJob, Script, git, reply, store

from agent import history, loop, policy
from agent import replay as replaying
from agent.earlier.importer import import_files
from agent.errors import BadInput, EnvironmentFault
from agent.evaluate import Evaluator
from agent.exchange import LLMError
from agent.history import Entry
from agent.job import Job, tidy
from agent.listing import rows
from agent.progress import Reporter
from agent.proposers import Manual, Prompted
from agent.records import Start

Said = Callable[[], str]


def killed(job: Job, error: type[BaseException] = EnvironmentFault) -> Entry:
    """A run that ends in the middle of its last attempt, as a kill would end it."""
    with pytest.raises(error):
        list(loop.run(job, 1))
    entry = history.read(job.root).entries[-1]
    assert entry.status == "interrupted"
    assert entry.attempt is None
    return entry


def begin(root: Path, **known: object) -> history.Pass:
    (root / "history").mkdir(exist_ok=True)
    return history.begin(root, Start.model_validate(dict.fromkeys(Start.model_fields) | {"version": 1, "id": ""} | known))


def asking(root: Path, script: Script) -> Prompted:
    return Prompted(root, "openai", "scripted", script)


def test_the_environment_ends_the_run_and_the_next_one_goes_on(
    root: Path, make_job: MakeJob, said: Callable[[], str]
) -> None:
    with pytest.raises(EnvironmentFault, match="No space left on device"):
        list(loop.run(make_job([reply("child", mark="environment")]), 1))
    assert [entry.status for entry in history.read(root).entries] == ["scored", "interrupted"]
    (root / "mended").touch()
    (entry,) = loop.run(make_job(), 0)
    assert (entry.id, entry.name, entry.status) == ("0001", "child", "scored")
    assert "0001 was interrupted after its gates: going on with it" in said()


def test_one_that_had_no_reply_is_sealed_once_and_counts_as_nothing(checkout: Path, make_job: MakeJob, said: Said) -> None:
    entry = killed(make_job([KeyboardInterrupt()]), KeyboardInterrupt)
    before = policy.brief(checkout, history.read(checkout), make_job().protocol, 0, 7, make_job().desk)
    assert list(loop.run(make_job(commit=True), 0)) == []
    told = "0001 was killed before a proposal came: sealed as interrupted\n"
    assert said().endswith(told)
    assert list(loop.run(make_job(commit=True), 0)) == []
    assert said().endswith(told)
    assert git(checkout, "status", "--porcelain") == ""
    assert git(checkout, "log", "-1", "--format=%s") == "attempt 0001: (no name), interrupted\n"
    past = history.read(checkout)
    sealed = past.find(entry.id)
    assert sealed.attempt
    assert (sealed.attempt.parent, sealed.attempt.success, sealed.attempt.error) == ("delta_net", None, "killed before a proposal came")
    assert [(row.status, row.success) for row in rows(past)] == [("scored", True), ("interrupted", None)]
    after = policy.brief(checkout, past, make_job().protocol, 0, 7, make_job().desk)
    assert (after.failures, after.tried, after.table) == (before.failures, before.tried, before.table)
    (parent,) = policy.parents(checkout, past, make_job().protocol)
    assert policy._freshness(parent, past) == 1


def test_a_replay_that_is_recorded_seals_and_commits_what_was_killed(checkout: Path, make_job: MakeJob) -> None:
    entry = killed(make_job([KeyboardInterrupt()]), KeyboardInterrupt)
    replaying.replay(make_job(commit=True), history.read(checkout).find("0000"), keep=True)
    sealed = history.read(checkout).find(entry.id)
    assert sealed.attempt
    assert git(checkout, "status", "--porcelain", "--", f"history/{entry.id}") == ""


def test_a_stored_reply_is_gone_on_with_and_not_asked_for_again(root: Path, make_job: MakeJob, said: Said) -> None:
    entry = killed(make_job([reply("child", mark="gates-environment")]))
    assert (entry.folder / "proposal.md").exists()
    (root / "mended").touch()
    (done,) = loop.run(make_job(), 0)
    assert (done.id, done.name, done.status) == ("0001", "child", "scored")
    assert "0001 was interrupted before its training: going on with its reply" in said()
    assert (root / "variants" / "child").is_dir()


@pytest.mark.parametrize(("before", "tries", "status"), [(0, 3, "scored"), (1, 3, "scored"), (1, 2, "check-failed"), (0, 1, "check-failed")])
def test_a_stored_reply_that_is_refused_is_a_try_like_any_other(
    root: Path, make_job: MakeJob, before: int, tries: int, status: str
) -> None:
    bad = reply("child", mark="reject\n    # stub: gates-environment")
    killed(make_job([*["no proposal"] * before, bad], tries=tries))
    (root / "mended").touch()
    script = Script([reply("better")])
    (entry,) = loop.run(make_job(asking(root, script), tries=tries), 0)
    assert (entry.id, entry.status) == ("0001", status)
    assert len(script.asked) == (status == "scored")
    for messages in script.asked:
        assert messages[-2]["content"] == bad
        assert "outputs before a cut at 17 change" in messages[-1]["content"]
        assert ("This is the last try." in messages[-1]["content"]) == (before == 1)


def test_a_server_that_does_not_answer_the_next_try_ends_the_run(root: Path, make_job: MakeJob) -> None:
    killed(make_job([reply("child", mark="reject\n    # stub: gates-environment")]))
    (root / "mended").touch()
    with pytest.raises(EnvironmentFault, match="status 401"):
        list(loop.run(make_job([LLMError("status 401", fatal=True)]), 0))
    entry = history.read(root).entries[-1]
    assert entry.status == "check-failed"  # what the text failed of, and what became of the next try
    assert entry.attempt
    assert "(the try after it: status 401)" in (entry.attempt.error or "")


def test_a_name_that_was_taken_meanwhile_is_asked_for_anew(root: Path, make_job: MakeJob) -> None:
    killed(make_job([reply("child", mark="gates-environment")]))
    store(root, "child", BASELINE)
    (root / "mended").touch()
    (entry,) = loop.run(make_job([reply("other")]), 0)
    assert (entry.id, entry.name, entry.status) == ("0001", "other", "scored")


@pytest.mark.parametrize("gone", [False, True])
def test_a_reply_to_a_parent_that_is_another_now_is_sealed(root: Path, make_job: MakeJob, gone: bool) -> None:
    killed(make_job([reply("child", mark="gates-environment")]))
    parent = root / "variants" / "delta_net" / "naive.py"
    parent.write_text(BASELINE + "# mine\n")
    if not gone:
        loop.score_stored(make_job(), "delta_net")
    else:
        store(root, "other", BASELINE)
        loop.score_stored(make_job(), "other")
        parent.unlink()
        parent.parent.rmdir()
    (root / "mended").touch()
    (entry,) = loop.run(make_job(), 0)
    assert (entry.id, entry.name, entry.status) == ("0001", "child", "interrupted")
    assert entry.attempt
    told = "is no longer in variants/" if gone else "is no longer the source that it was begun with"
    assert told in (entry.attempt.error or "")
    assert "child" not in policy.tried(history.read(root), [])


@pytest.mark.parametrize("mark", ["environment", "gates-environment"])
def test_what_goes_on_under_other_settings_waits_and_frees_its_name(
    root: Path, make_job: MakeJob, said: Said, mark: str
) -> None:
    killed(make_job([reply("child", mark=mark)]))
    (root / "mended").touch()
    assert list(loop.run(make_job([reply("child")], seed=1), 1))[-1].name == "child"
    command = "`agent run --proposer openai --model scripted --protocol smoke --seed 0`"
    assert said().count(f"Interrupted: {command} goes on with 0001\n") == 1
    assert (root / "history" / "0001" / "variant" / "naive.py").exists()
    assert history.read(root).find("0001").attempt is None
    (entry,) = loop.run(make_job([reply("again")]), 0)  # the name was taken meanwhile
    assert (entry.id, entry.name, entry.status) == ("0001", "again", "scored")


def test_what_waits_is_no_long_list(root: Path, make_job: MakeJob, said: Said) -> None:
    for seed in (*range(5), *[0] * 4):
        with begin(root, kind="attempt", protocol="fast", seed=seed, proposer="catalogue", parent="delta_net") as opened:
            opened.write("proposal.md", reply("child"))
    loop.score_stored(make_job(), "delta_net")
    told = [line.removeprefix("Interrupted: `agent run --proposer catalogue --protocol fast ") for line in said().splitlines()][:5]
    assert told == ["--seed 0` goes on with 0000, 0005, 0006 and 2 more", "--seed 1` goes on with 0001", "--seed 2` goes on with 0002",
                    "Interrupted under other settings: 2 more, as `agent list` shows", "0009 delta_net: gates"]  # fmt: skip


def test_a_source_that_is_not_the_one_that_passed_is_not_trained_without_gates(root: Path, make_job: MakeJob, said: Said) -> None:
    naive = store(root, "mine", BASELINE + "# stub: environment\n") / "naive.py"
    with pytest.raises(EnvironmentFault):
        loop.score_stored(make_job(), "mine")
    (root / "mended").touch()
    checked = naive.read_text()
    naive.write_text(checked + "# stub: reject\n")
    assert loop.score_stored(make_job(), "mine").status == "check-failed"
    once = "once its source is again what passed its gates, `agent score mine --protocol smoke --seed 0`"
    assert f"Interrupted: {once} goes on with 0000" in said()
    naive.write_text(checked)
    entry = loop.score_stored(make_job(), "mine")
    assert (entry.id, entry.status) == ("0000", "scored")


def test_what_the_evaluator_refuses_to_go_on_with_is_sealed(root: Path, make_job: MakeJob) -> None:
    class Another(Evaluator):
        def score(self, *_: object, **__: object) -> object:  # type: ignore[override]
            raise BadInput("it holds an evaluation with another fingerprint")

    killed(make_job([reply("child", mark="environment")]))
    job = make_job()
    (entry,) = loop.run(Job(root, job.protocol, 0, 3, Another("cpu", "off"), job.proposer, None, job.reporter), 0)
    assert entry.attempt
    assert (entry.status, entry.attempt.error) == ("interrupted", "it holds an evaluation with another fingerprint")
    assert (entry.folder / "variant" / "naive.py").exists()
    assert not (root / "variants" / "child").exists()


def test_a_gate_that_had_rejected_is_told(root: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def say(reporter: Reporter, text: str) -> None:
        if "check-failed" in text:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Reporter, "say", say)
        killed(make_job([reply("child", mark="reject")]), KeyboardInterrupt)
    list(loop.run(make_job(), 0))
    entry = history.read(root).find("0001")
    assert entry.attempt
    assert (entry.name, entry.attempt.error) == ("child", "killed after its gates had rejected it")


def test_a_record_whose_import_was_killed_is_imported_again(root: Path, make_job: MakeJob) -> None:
    record = root.parent / "record.txt"
    record.write_text("Name\n\nold_net\n")
    for kind in ("imported", "replay"):
        with begin(root, kind=kind, source="record.txt") as opened:
            opened.write("record.txt", record.read_bytes())
    (imported,) = import_files(root, [record], None, print)
    assert imported.id == "0002"
    past = history.read(root)
    assert [(entry.status, entry.is_imported) for entry in past.entries] == [("interrupted", False), ("interrupted", False), ("imported", True)]
    assert [row.name for row in rows(past)] == [None, None, "old_net"]


def test_an_entry_that_lost_its_record_is_not_sealed_over(root: Path, make_job: MakeJob, said: Said) -> None:
    list(loop.run(make_job(), 0))
    (root / "history" / "0000" / "attempt.json").unlink()
    list(loop.run(make_job(), 0))
    assert not (root / "history" / "0000" / "attempt.json").exists()
    assert "history/0000: neither attempt.json nor start.json is there; passed over\n" in said()


def test_what_cannot_be_sealed_is_told_and_the_run_goes_on(
    root: Path, make_job: MakeJob, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(root, kind="attempt").__exit__()
    with monkeypatch.context() as patched:
        patched.setattr(history.Pass, "seal", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        tidy(root, None, make_job().reporter.say)
    assert "0000 was killed before a proposal came, and cannot be sealed: Permission denied" in said()
    assert [entry.id for entry in loop.run(make_job(), 0)] == ["0001"]


def test_an_answer_of_an_earlier_try_is_not_read_again(root: Path, make_job: MakeJob) -> None:
    job = make_job(Manual(root, print))
    brief = None
    for entry in loop.run(job, 0):
        brief = policy.brief(root, history.read(root), job.protocol, 0, 1, job.desk)
        (entry.folder / "prompt.md").write_text("asked")
        (entry.folder / "answer.md").write_text("an old answer")
        (entry.folder / "answer-2.md").write_text("a new answer")
        assert brief
        assert job.proposer
        assert job.proposer.propose(brief, [], 1, entry.folder) == "a new answer"
    assert brief


def test_an_answer_that_was_written_after_the_run_had_ended_is_taken_up(root: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    manual = Manual(root, print)
    monkeypatch.setattr(Manual, "_await", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    entry = killed(make_job(manual), KeyboardInterrupt)
    (entry.folder / "answer.md").write_text(reply("mine"))
    (again,) = loop.run(make_job(manual), 0)
    assert (again.id, again.name, again.status, again.prose("proposal.md")) == (entry.id, "mine", "scored", reply("mine"))


def test_a_variant_that_was_edited_stays_where_it_is(root: Path, make_job: MakeJob, said: Said) -> None:
    killed(make_job([reply("child", mark="environment")]))
    mine = root / "variants" / "child" / "naive.py"
    mine.write_text(BASELINE + "# mine\n")
    (root / "mended").touch()
    list(loop.run(make_job([reply("other")], seed=7), 1))
    assert mine.read_text() == BASELINE + "# mine\n"
    assert "once its source is again what passed its gates, `agent run" in said()


def test_a_folder_that_was_there_to_be_moved_once_goes_with_the_next_command(root: Path, make_job: MakeJob) -> None:
    (root / "history").mkdir()
    for left in (root / "history" / ".moved-a", root / "variants" / ".moved-b"):
        left.mkdir()
    (kept := root / "variants" / ".moved-c").mkdir()
    (kept / "mine.txt").write_text("mine")
    loop.score_stored(make_job(), "delta_net")
    assert [path.name for place in ("history", "variants") for path in (root / place).glob(".moved-*")] == [".moved-c"]
