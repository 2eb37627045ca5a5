"""What goes wrong while a setting is trained: a lost process, a hang, too little memory; and going on after it."""

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from scoring import CHEAP, SHORT, always, job_of, once, rows_of, scored

from evaluator import checkpoint, job, local, results, trainer
from evaluator.bench import Bench, Failure, Work
from evaluator.job import Job
from evaluator.operator import OperatorError, OperatorProcess
from evaluator.progress import Progress, cost
from evaluator.protocol import PROTOCOLS, Setting, sweep

ROOT = Path(__file__).parents[1]
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[object, ...]]:
    """The rows where nothing goes wrong."""
    usual = job_of(tmp_path_factory.mktemp("usual"), CHEAP)
    assert scored(usual)[0]["error"] is None
    return rows_of(usual)


def test_a_training_process_that_is_lost_is_followed_by_a_fresh_one(
    tmp_path: Path, expected: set[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # their number changes no row either
    asked = job_of(tmp_path, once(tmp_path / "mark", KILL))
    _, told = scored(asked)
    assert rows_of(asked) == expected
    assert ["signal 9" in e["message"] and "memorization" in e["message"] for e in told if e["event"] == "note"] == [True]


def test_a_setting_that_kills_every_process_is_a_failure_with_its_name(tmp_path: Path) -> None:
    asked = job_of(tmp_path, always(KILL))
    evaluation, told = scored(asked)
    assert evaluation["status"] == "train-failed"
    assert evaluation["error"].startswith(f"memorization {SHORT.settings[1].name}: ")
    assert "signal 9" in evaluation["error"]
    assert len([e for e in told if e["event"] == "note"]) == 1
    assert results.read_rows(asked.out) == []


def test_a_hang_is_ended_at_its_bound_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(job.TIMEOUT, "cpu", 5.0)
    evaluation, told = scored(job_of(tmp_path, always("signal.pause()")))
    assert evaluation["status"] == "train-failed"
    assert re.fullmatch(rf"memorization {SHORT.settings[1].name}: train was not answered within 5 s", evaluation["error"])
    assert told == []


def test_a_group_that_does_not_fit_in_memory_is_halved(tmp_path: Path, expected: set[tuple[object, ...]]) -> None:
    rows = SHORT.batch_size
    asked = job_of(tmp_path, CHEAP.replace("    return v", f"    if v.shape[0] > {rows}:\n        raise MemoryError\n    return v"))
    _, told = scored(asked)
    packed, halved = ({row[:5]: (float(row[5]), float(row[6])) for row in rows} for rows in (expected, rows_of(asked)))
    assert halved == {run: pytest.approx(figures, abs=1e-5) for run, figures in packed.items()}
    assert [e["message"].rpartition(": ")[2] for e in told if e["event"] == "note"] == ["2 runs at once do not fit in memory; halving"] * 2


def test_one_run_that_does_not_fit_in_memory_is_a_failure_with_its_setting(tmp_path: Path) -> None:
    evaluation, _ = scored(job_of(tmp_path, always("raise MemoryError")))
    assert evaluation["status"] == "train-failed"
    assert evaluation["error"].startswith("memorization ")
    assert "MemoryError" in evaluation["error"]


def test_an_operator_that_is_lost_once_it_was_compiled_is_trained_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, request = list[bool](), OperatorProcess.request

    def lost(self: OperatorProcess, header: dict[str, Any], tensors: dict[str, torch.Tensor], **options: Any) -> Iterator[Any]:
        if header["request"] == "train":
            compiled.append(header["compile"])
            if header["compile"]:
                yield {"event": "compiling"}, {}
                raise OperatorError("raised", "CUDA error: an illegal memory access was encountered")
        yield from request(self, header, tensors, **options)

    monkeypatch.setattr(OperatorProcess, "request", lost)
    evaluation, told = scored(job_of(tmp_path))
    assert (evaluation["status"], compiled) == ("scored", [True, False, False])
    (note,) = [event["message"] for event in told if event["event"] == "note"]
    assert "illegal memory access" in note
    assert note.endswith("(after its operator was compiled, which is not done again); once more in a fresh process")


def test_as_many_threads_as_asked_for_else_one_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, threads in (("3", 3), (" 3 ", 3), ("4,2", 4), ("0", os.cpu_count()), ("many", os.cpu_count()), ("", os.cpu_count())):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert job_of(tmp_path).threads == threads


def test_what_is_done_is_not_trained_again(tmp_path: Path) -> None:
    asked = job_of(tmp_path)
    scored(asked)
    before = (asked.out / "runs.csv").read_bytes()
    evaluation, told = scored(asked)
    assert evaluation["tasks"]["memorization"]["settings_done"] == 1
    assert [e["message"] for e in told] == ["going on: 2 settings are done already"]
    assert (asked.out / "runs.csv").read_bytes() == before


def test_what_the_audit_has_finished_is_kept_while_the_next_is_trained(tmp_path: Path) -> None:
    asked, told = job_of(tmp_path), list[dict[str, object]]()
    first, second, third = (*asked.settings, LONGER.settings[0])
    scored(dataclasses.replace(asked, settings=(first,)))
    rows = results.read_rows(asked.out)
    (asked.out / "runs.csv").unlink()
    audits = [Future[list[results.Row]]() for _ in range(2)]
    pending = list(zip((first, third), audits, strict=True))
    listener = local._Keeping(asked, pending, Progress(SHORT, asked.settings, told.append))
    facts = {"epoch": 1, "seconds": 1.0, "accuracy": [0.5], "step": 16}
    listener.update(second, facts)
    assert results.read_rows(asked.out) == []
    audits[0].set_result(rows)
    audits[1].set_exception(RuntimeError("of its own setting, not of the one that is trained"))
    listener.update(second, facts)
    assert [dataclasses.replace(row, fresh_accuracy=0.0) for row in results.read_rows(asked.out)] == [
        dataclasses.replace(row, fresh_accuracy=0.0) for row in rows
    ]
    assert [(event["event"], event["settings_done"]) for event in told] == [("progress", 0), ("setting", 1), ("progress", 1)]
    assert pending == [(third, audits[1])]


def test_where_each_part_of_an_evaluation_was_made_stays_in_it(tmp_path: Path) -> None:
    asked = job_of(tmp_path)
    scored(dataclasses.replace(asked, settings=asked.settings[:1]))
    file = asked.out / "evaluation.json"
    found = results.read_json(file)
    elsewhere = {fact: found[fact] for fact in ("device", "versions", "sandbox")} | {"device": {"kind": "cuda", "name": "GPU of another machine"}}
    results.write_json(file, found | elsewhere)
    gone_on, _ = scored(asked)
    assert (gone_on["device"], gone_on["earlier"]) == (found["device"], [elsewhere])
    results.write_json(file, gone_on | elsewhere)
    nothing_left, _ = scored(asked)
    assert (nothing_left["device"], nothing_left["earlier"]) == (elsewhere["device"], [elsewhere])


class Gated:
    """A place where gates are asked: this machine's training, and what they have against the operator after it."""

    def __init__(self, found: Failure | None = None, *, killed: bool = False) -> None:
        self.found, self.killed, self.asked, self.again = found, killed, 0, list[Setting]()

    environment = staticmethod(local.environment)

    @contextlib.contextmanager
    def work(self, job: Job, todo: Sequence[Setting], progress: Progress) -> Iterator[Work]:
        def gates() -> Failure | None:
            self.asked += 1
            if self.killed:
                raise KeyboardInterrupt
            return self.found

        def again(setting: Setting) -> Failure | None:
            self.again.append(setting)
            return work.again(setting)

        with local.work(job, todo, progress) as work:
            yield Work(work.run, again, gates)


@pytest.fixture
def after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """On a CPU too, but with no gates beside the training."""
    monkeypatch.setattr(Job, "gated", True)
    monkeypatch.setattr(Bench, "watch", lambda *_: None)
    return job_of(tmp_path)


def killed_before_its_gates(asked: Job) -> dict[str, object]:
    with pytest.raises(KeyboardInterrupt):
        scored(asked, Gated(killed=True))
    return results.read_json(asked.out / "evaluation.json")


def test_what_was_found_unsound_after_its_training_is_no_score_when_asked_again(after: Job) -> None:
    evaluation, _ = scored(after, Gated(("check-failed", "memory: another output")))
    assert (evaluation["status"], evaluation["error"]) == ("audit-failed", "after training: memory: another output")
    before = (after.out / "evaluation.json").read_bytes()
    for settings in (after.settings, after.settings[:1]):
        again, told = scored(dataclasses.replace(after, settings=settings), Gated())
        assert (again["status"], again["error"]) == (evaluation["status"], evaluation["error"])
        assert "only another folder begins anew" in told[-1]["message"]
    assert (after.out / "evaluation.json").read_bytes() == before


def test_one_killed_before_the_gates_after_its_training_is_asked_when_gone_on_with(after: Job) -> None:
    left = killed_before_its_gates(after)
    assert (left["status"], left["finished"], left["mad_score"]) == ("partial", None, None)
    rows = (after.out / "runs.csv").read_bytes()
    killed_before_its_gates(dataclasses.replace(after, settings=after.settings[:1]))
    sound, twice = Gated(), Gated()
    evaluation, _ = scored(after, sound)
    again, _ = scored(after, twice)
    assert (evaluation["status"], again["status"], sound.asked, twice.asked) == ("scored", "scored", 1, 0)
    assert sound.again == [after.settings[1]]  # the cheaper; they are asked of processes that have trained
    assert (after.out / "runs.csv").read_bytes() == rows
    assert sorted(path.name for path in after.out.iterdir()) == ["evaluation.json", "runs.csv"]


def test_gates_without_an_answer_to_judge_reject_nothing_and_are_asked_again(after: Job) -> None:
    evaluation, _ = scored(after, Gated(("train-failed", "causal: CUDA out of memory")))
    assert (evaluation["status"], evaluation["error"]) == ("train-failed", "after training: causal: CUDA out of memory")
    assert len(evaluation["owed"]) == len(after.settings)
    evaluation, _ = scored(after, later := Gated())
    assert (evaluation["status"], evaluation["owed"], later.asked, len(later.again)) == ("scored", [], 1, 1)


def test_what_was_trained_on_a_gpu_owes_its_gates_there(after: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dataclasses.replace(after, settings=after.settings[:1])
    on_a_gpu = killed_before_its_gates(first) | {"device": {"kind": "cuda", "name": "a GPU"}}
    results.write_json(after.out / "evaluation.json", on_a_gpu)
    monkeypatch.setattr(Job, "gated", False)
    owed = [f"{s.task} {s.name}" for s in first.settings]
    for asked in (first, after, after):
        evaluation, told = scored(asked)
        assert (evaluation["status"], evaluation["finished"], evaluation["owed"]) == ("partial", None, owed)
        assert told[-1]["message"].startswith(f"{owed[0]}: the gates after training are still to be asked")
    monkeypatch.setattr(Job, "gated", True)
    evaluation, _ = scored(after, later := Gated())
    assert (evaluation["status"], evaluation["owed"], later.asked, later.again) == ("scored", [], 1, list(first.settings))


def test_time_that_is_up_before_anything_is_trained_judges_nothing(after: Job) -> None:
    killed_before_its_gates(dataclasses.replace(after, settings=after.settings[:1]))
    evaluation, _ = scored(dataclasses.replace(after, seconds=0.0), Gated())
    assert (evaluation["status"], len(evaluation["owed"])) == ("partial", 1)


class Beside(Gated):
    """Where another process trains the last setting of the same folder meanwhile, and the gates find something."""

    def __init__(self, job: Job, theirs: Gated, ours: Failure | None = None) -> None:
        super().__init__(ours)
        self.other, self.theirs = dataclasses.replace(job, settings=job.settings[1:]), theirs

    @contextlib.contextmanager
    def work(self, job: Job, todo: Sequence[Setting], progress: Progress) -> Iterator[Work]:
        with contextlib.suppress(KeyboardInterrupt):
            scored(self.other, self.theirs)
        with super().work(job, todo, progress) as work:
            yield work


@pytest.mark.parametrize("ours", [None, ("train-failed", "it hung")])
def test_what_another_process_on_the_folder_found_unsound_stays_so(after: Job, ours: Failure | None) -> None:
    first = dataclasses.replace(after, settings=after.settings[:1])
    evaluation, _ = scored(first, Beside(after, Gated(("check-failed", "rows: they mix")), ours))
    assert (evaluation["status"], evaluation["error"]) == ("audit-failed", "after training: rows: they mix")
    assert results.read_json(after.out / "evaluation.json") == evaluation


def test_what_one_process_judged_stays_so_beside_another(after: Job) -> None:
    first = dataclasses.replace(after, settings=after.settings[:1])
    evaluation, _ = scored(first, Beside(after, Gated(), ("train-failed", "it hung")))
    last = after.settings[1]
    assert evaluation["judged"] == {last.task: [last.name]} | {task: [] for task in evaluation["judged"] if task != last.task}


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("evaluation.json", b'{"status": "sco', "can't be read as an evaluation"),
        ("evaluation.json", b"[]", "holds no evaluation"),
        ("evaluation.json", b"{}", "another variant and protocol"),
        ("evaluation.json", b'{"device": "a GPU", "earlier": {}}', "can't be gone on with: earlier and device in it"),
        ("runs.csv", b"a,b\n1,2\n", "is no table of runs: it has no column task"),
        ("runs.csv", b'task,setting\n"' + b"x" * 200_000 + b'"\n', "is no table of runs: field larger"),
    ],
)
def test_a_folder_that_is_no_evaluation_is_left_as_it_is(tmp_path: Path, file: str, content: bytes, said: str) -> None:
    asked = job_of(tmp_path)
    (asked.out / file).write_bytes(content)
    with pytest.raises(results.ResultsError, match=said):
        scored(asked)
    assert [(path.name, path.read_bytes()) for path in asked.out.iterdir()] == [(file, content)]


def test_a_table_that_was_torn_in_its_header_is_begun_anew(tmp_path: Path, expected: set[tuple[object, ...]]) -> None:
    asked = job_of(tmp_path, CHEAP)
    (asked.out / "runs.csv").write_text("task,setting,lr,wei")
    scored(asked)
    assert rows_of(asked) == expected


def test_the_process_that_trains_is_the_one_that_the_gates_ask(tmp_path):
    """An operator that is honest until it has been trained for some steps: a fresh process would show nothing."""
    rows = SHORT.batch_size * len(SHORT.lrs) * len(SHORT.weight_decays)
    late = f'''"""Values come back as they are, for a while."""
steps = []


def delta_rule(q, k, v, beta, *, chunk_size):
    if q.shape[0] == {rows} and q.requires_grad:
        steps.append(1)
    return v.roll(-1, 2) if len(steps) > 10 else v.clone()
'''
    job = job_of(tmp_path, late)
    told = []
    progress = Progress(job.protocol, job.settings, told.append)
    with Bench(job) as bench:
        assert bench.gates(job.settings, progress) is None
        bench.train(job.settings[0], progress).exception()
        assert "not causal" in bench.gates(job.settings, progress)[1]
    assert all("causal" in event["message"] and "memory" in event["message"] for event in (told[0], told[-1]))


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: the gates are asked beside the first training, and after the last."""
    monkeypatch.setattr(job.Job, "gated", True)


@pytest.mark.usefixtures("gated")
def test_gates_beside_the_training_change_no_row(tmp_path: Path, expected: set[tuple[object, ...]]) -> None:
    asked = job_of(tmp_path, CHEAP)
    evaluation, told = scored(asked)
    assert evaluation["error"] is None
    assert rows_of(asked) == expected
    assert ["causal" in e["message"] for e in told if e["event"] == "note"] == [True, True]


@pytest.mark.usefixtures("gated")
def test_a_training_that_the_gates_are_against_is_ended_and_keeps_nothing(tmp_path: Path) -> None:
    endless = dataclasses.replace(SHORT, epochs=100_000)
    asked = job_of(tmp_path, CHEAP.replace("return v", "return v.roll(-1, 2)"), endless)
    evaluation, _ = scored(asked)
    assert (evaluation["status"], evaluation["error"][:19]) == ("check-failed", "causal: not causal:")
    assert [path.name for path in asked.out.iterdir()] == ["evaluation.json"]


FAILING = """steps = []


def delta_rule(q, k, v, beta, *, chunk_size):
    if q.requires_grad and q.shape[0] == {rows}:
        steps.append(1)
    if len(steps) > 10:
        raise ValueError("ten steps are enough")
    return {value}
"""


@pytest.mark.usefixtures("gated")
@pytest.mark.parametrize(("value", "status", "said"), [("v.clone()", "train-failed", "ten steps are enough"), ("v.roll(-1, 2)", "check-failed", "not causal")])
def test_where_training_fails_the_gates_still_have_the_first_word(tmp_path: Path, value: str, status: str, said: str) -> None:
    rows = SHORT.batch_size * len(SHORT.lrs) * len(SHORT.weight_decays)
    asked = job_of(tmp_path, FAILING.format(rows=rows, value=value), dataclasses.replace(SHORT, epochs=50))
    evaluation, _ = scored(asked)
    assert evaluation["status"] == status
    assert said in evaluation["error"]
    assert results.read_rows(asked.out) == []


def test_who_leaves_does_not_wait_for_the_gates(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    asked = job_of(tmp_path, once(mark, "signal.pause()"))
    with Bench(asked) as bench:
        bench.watch(asked.settings, Progress(asked.protocol, asked.settings, print))
        while not mark.exists():
            time.sleep(0.05)
        began = time.monotonic()
    assert time.monotonic() - began < 30  # the question would wait for 60 s


LONGER = dataclasses.replace(SHORT, epochs=4, settings=SHORT.settings[1:])
STEPS = '''"""Values come back as they are, until a process has done so many steps."""
import os, signal

steps = []


def delta_rule(q, k, v, beta, *, chunk_size):
    steps.append(1)
    if len(steps) == {last} and not os.path.exists({mark!r}):
        open({mark!r}, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return v
'''


def test_a_setting_is_gone_on_with_where_its_training_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = job_of(tmp_path, CHEAP, LONGER, "usual")
    scored(usual)
    monkeypatch.setattr(trainer, "EVERY", 0.0)
    asked = job_of(tmp_path, STEPS.format(last=40, mark=str(tmp_path / "mark")), LONGER)
    evaluation, told = scored(asked)
    assert evaluation["status"] == "scored"
    notes = [e["message"] for e in told if e["event"] == "note"]
    assert "signal 9" in notes[0]
    assert re.fullmatch(r"memorization .*: going on after epoch [123]", notes[1])
    assert rows_of(asked) == rows_of(usual)
    assert not list(asked.out.glob(".*"))


SOUND = {
    "accuracy": [0.5, float("nan")], "perplexity": [2.0, float("inf")], "last_accuracy": [0, 1.0], "best_epoch": [1, 0], "epochs": [2, 2],
    "steps": 9, "seconds": 1.5, "setup_seconds": 1, "operator": "eager",
}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"accuracy": [10**400, 0.5]}, {"accuracy": [1.5, 0.5]}, {"accuracy": [0.5]}, {"accuracy": ["0.5", 0.5]}, {"perplexity": [10**400, 1.0]},
        {"best_epoch": [3, 0]}, {"best_epoch": [-1, 0]}, {"epochs": [True, 2]}, {"steps": 10**400}, {"seconds": float("nan")},
        {"seconds": -1.0}, {"setup_seconds": float("inf")}, {"operator": ["eager"]}, {"operator": None},
    ],
)  # fmt: skip
def test_figures_that_cannot_be_end_a_training(wrong: dict[str, object]) -> None:
    assert trainer._checked(SOUND, 2, 2) is SOUND
    with pytest.raises(OperatorError, match="without the figures of its runs"):
        trainer._checked(SOUND | wrong, 2, 2)


def test_halves_of_a_group_end_together(tmp_path: Path) -> None:
    protocol = dataclasses.replace(PROTOCOLS["smoke"], epochs=12, lrs=(1e-4, 3e-3))
    protocol = dataclasses.replace(protocol, settings=tuple(s for s in protocol.settings if s.task == "memorization"))
    plain = (ROOT / "variants" / "delta_net" / "naive.py").read_text()
    found = []
    for limit in (1 << 30, protocol.batch_size):
        guard = f"    if q.shape[0] > {limit}:\n        raise MemoryError\n    B, H, T, K = q.shape\n"
        assert plain.count("    B, H, T, K = q.shape\n") == 1
        asked = job_of(tmp_path, plain.replace("    B, H, T, K = q.shape\n", guard), protocol, str(limit))
        evaluation, told = scored(asked)
        assert evaluation["status"] == "scored"
        found.append([(row.lr, row.epochs, row.best_epoch, round(row.accuracy, 3)) for row in results.read_rows(asked.out)])
        assert any("halving" in e.get("message", "") for e in told) == (limit < 1 << 30)
    assert found[0] == found[1]
    assert len({epochs for _, epochs, _, _ in found[0]}) == 1


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(100)])
def test_a_checkpoint_that_can_not_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    job_ = job_of(tmp_path, CHEAP, LONGER)
    runs = sweep(LONGER, (0,))
    state = {name: torch.zeros(len(runs), 5) for name in checkpoint.STATE}
    facts = {"epoch": 1, "step": 16, "seconds": 1.0, "setup_seconds": 0.5, "best": [[2.0, 1, 0.5]] * len(runs), "last": [[1, 0.5, False]] * len(runs)}
    checkpoint.write(job_.out, LONGER.settings[0], runs, "cpu", facts, state)
    found = checkpoint.read(job_.out, LONGER.settings[0], runs, "cpu", 5)
    assert found is not None
    assert found[0] == facts
    assert checkpoint.read(job_.out, LONGER.settings[0], runs, "cpu", 6) is None
    assert checkpoint.read(job_.out, LONGER.settings[0], runs[:1], "cpu", 5) is None
    (path,) = job_.out.glob(".*.part")
    path.write_bytes(content)
    assert checkpoint.read(job_.out, LONGER.settings[0], runs, "cpu", 5) is None
    checkpoint.forget(job_.out, SHORT.settings[0])
    assert path.exists()
    checkpoint.forget(job_.out, LONGER.settings[0])
    assert not path.exists()


def test_on_a_cpu_what_was_scored_before_a_failure_stands(tmp_path: Path) -> None:
    settings = (SHORT.settings[1], next(s for s in PROTOCOLS["smoke"].settings if s.seq_len != SHORT.settings[1].seq_len))
    first = min(settings, key=lambda s: cost(s, SHORT))
    source = CHEAP.replace("    return v", f"    return v.nothing if v.shape[2] > {first.seq_len} else v")
    asked = job_of(tmp_path, source, dataclasses.replace(SHORT, settings=settings))
    evaluation, told = scored(asked)
    assert (evaluation["status"], evaluation["owed"], told[-1]["event"]) == ("train-failed", [], "setting")
    assert evaluation["tasks"][first.task]["settings"][first.name]["accuracy"] is not None


@pytest.mark.parametrize(("task", "tokens"), [("compression", 48), ("in-context-recall", 47)])
def test_each_length_is_asked_at_the_batch_that_trains(task: str, tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "gated", True)
    first = SHORT.settings[0]
    middle = dataclasses.replace(next(s for s in PROTOCOLS["smoke"].settings if s.task == task), seq_len=48)
    protocol = dataclasses.replace(SHORT, settings=(first, middle, dataclasses.replace(first, seq_len=64)))
    rows = SHORT.batch_size * len(sweep(SHORT, (0,)))
    ahead = CHEAP.replace("return v", f"return v.roll(-1, 2) if v.shape[:3:2] == ({rows}, {tokens}) else v")
    evaluation, _ = scored(job_of(tmp_path, ahead, protocol))
    assert (evaluation["status"], evaluation["error"].partition(":")[0]) == ("check-failed", f"exact {rows}x{tokens}")
