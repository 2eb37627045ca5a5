"""Scoring one variant: train every setting in an untrusted process, audit in this one, keep each as it ends."""

import contextlib
import dataclasses
import datetime
import math
import os
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluator import audit, check, results, source
from evaluator.model import Architecture, architecture, layout
from evaluator.operator import OperatorError, OperatorProcess, read_sources
from evaluator.progress import Progress, Report, cost
from evaluator.protocol import BASELINES, PROTOCOLS, Protocol, Setting, to_json, with_changes
from evaluator.results import ResultsError, Row
from evaluator.sandbox import Walls
from evaluator.train import Run, sweep

Failure = tuple[str, str]
"""A status word and the sentence that says what happened."""

HOST_MEMORY = 24 << 30  # bytes a training process may hold outside the GPU
TIMEOUT = {"cpu": 3600.0, "cuda": 7200.0}  # seconds for one setting


@dataclass(frozen=True)
class Job:
    """Everything that an evaluation is asked for."""

    name: str
    sources: Mapping[str, str]
    form: str
    protocol: Protocol
    settings: tuple[Setting, ...]  # those to be done now, all of them the protocol's
    seeds: tuple[int, ...]
    device: torch.device
    walls: Walls
    out: Path
    seconds: float | None = None  # start no further setting after so long


@dataclass(frozen=True)
class Outcome:
    """One group of runs as the training process reported it."""

    runs: tuple[Run, ...]
    facts: Mapping[str, Any]
    weights: Tensor


def make_job(
    path: Path, protocol: Protocol, settings: Sequence[Setting], seeds: Sequence[int], device: torch.device,
    walls: Walls, out: Path, form: str | None, seconds: float | None = None,
) -> Job:
    """A job for a folder or a file; the Triton form is trained with on a GPU where there is one."""
    sources = read_sources(path)
    best = "triton" if "triton" in sources and device.type == "cuda" else "naive"
    name = path.stem if path.is_file() else path.resolve().name
    if form == "triton" and "triton" not in sources:
        raise FileNotFoundError(f"{path} has no triton.py")
    return Job(name, sources, form or best, protocol, tuple(settings), tuple(seeds), device, walls, out, seconds)


def score(job: Job, report: Report) -> dict[str, Any]:
    """Trains and audits what is not done yet, and returns the evaluation as it stands in evaluation.json.

    Raises ResultsError where the folder holds another evaluation, OSError where it can't be written.
    """
    header, before = _header(job), results.read_rows(job.out)
    per_seed = len(sweep(job.protocol, (0,)))
    left = [s for s in job.settings if not results.done(before, s, job.seeds, per_seed)]
    todo = sorted(left, key=lambda s: cost(s, job.protocol))  # what is cheap tells something soon
    if len(todo) < len(job.settings):
        report({"event": "note", "message": f"going on: {len(job.settings) - len(todo)} settings are done already"})
    header["started"] = _write(job, header, None)["started"]
    return _write(job, header, _run_between_gates(job, todo, report) if todo else None)


def _run_between_gates(job: Job, todo: Sequence[Setting], report: Report) -> Failure | None:
    """On a GPU the causal, row and memory gates are asked at the trainer's own sizes, before training and after it.

    On a CPU `check` has asked the same on the same device; the audit asks about causality after training anyway.
    """
    if job.device.type == "cuda" and (message := _gates_here(job, todo)):
        return "check-failed", message
    failure = _run(job, todo, report)
    if not failure and job.device.type == "cuda" and (message := _gates_here(job, todo)):
        return "audit-failed", f"after training: {message}"
    return failure


def _gates_here(job: Job, todo: Sequence[Setting]) -> str | None:
    """What a gate has against the operator at the shortest batch and length to be trained with, or None."""
    rows = job.protocol.batch_size * len(sweep(job.protocol, job.seeds))
    asked = check.gates_on_device(
        job.sources, walls=job.walls, device=job.device.type, dtype=torch.bfloat16, form=job.form,
        shapes=[(rows, min(s.seq_len for s in todo))], chunk_size=job.protocol.chunk_size,
        num_heads=job.protocol.num_heads, head_dim=job.protocol.head_dim,
    )
    return next((f"{gate.name}: {gate.message}" for gate in asked if not gate.passed), None)


def _header(job: Job) -> dict[str, Any]:
    """The facts of the evaluation; a folder that holds other ones is refused."""
    header = {
        "variant": {"name": job.name, "digest": source.digest(job.sources), "form": job.form},
        "protocol": to_json(job.protocol), "fingerprint": results.fingerprint(job.protocol), "seeds": list(job.seeds),
    }
    old = job.out / "evaluation.json"
    if old.exists():
        found = results.read_json(old)
        different = [k for k in header if found.get(k) != header[k]]
        if different:
            raise ResultsError(f"{job.out} holds an evaluation with another {' and '.join(different)}: choose another folder")
        header["started"] = found["started"]
    return header


def _write(job: Job, header: Mapping[str, Any], failure: Failure | None) -> dict[str, Any]:
    rows = results.read_rows(job.out)
    found = results.summary(rows, job.protocol, job.seeds)
    complete = all(t["settings_done"] == t["settings_total"] for t in found["tasks"].values())
    status, error = failure or (("scored" if complete else "partial"), None)
    diverged = results.failed_settings(rows, job.protocol, job.seeds)
    if diverged and not failure:
        status, error = "train-failed", f"no run of the sweep stayed finite in {', '.join(diverged)}"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    content = {
        "status": status, "error": error, **header, **environment(job), **found,
        "seconds": {"total": round(sum(r.seconds for r in rows), 1)},
        "started": header.get("started", now), "finished": now,
    }
    results.write_json(job.out / "evaluation.json", content)
    return content


def environment(job: Job) -> dict[str, Any]:
    """Device, versions, sizes and walls: what a replay names where it differs."""
    cuda = job.device.type == "cuda"
    device = {"kind": job.device.type, "name": torch.cuda.get_device_name() if cuda else _processor()}
    return {
        "device": device,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "triton": _triton_version(), "numpy": np.__version__},
        "sandbox": {"level": job.walls.level, "walls": list(job.walls.standing)},
    }


def _processor() -> str:
    """The CPU's name where Linux tells it, else the kind of machine."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return platform.processor() or platform.machine()


def _triton_version() -> str | None:
    try:
        import triton
    except ImportError:
        return None
    return str(triton.__version__)


def _run(job: Job, todo: Sequence[Setting], report: Report) -> Failure | None:
    """Trains setting after setting, the audit of each overlapping the training of the next."""
    progress = Progress(job.protocol, todo, report)
    pending: list[tuple[Setting, Future[list[Row]]]] = []
    with contextlib.ExitStack() as stack:
        if job.device.type == "cpu":
            torch.set_num_threads(1)  # the cores belong to the training
        judge = stack.enter_context(_process(job))
        auditor = stack.enter_context(ThreadPoolExecutor(1))
        trainer = _Trainer(job, stack)
        try:
            for i, setting in enumerate(todo):
                if job.seconds is not None and progress.elapsed > job.seconds:
                    progress.note(f"{job.seconds:.0f} s have passed: {len(todo) - i} settings are left for another time")
                    break
                outcomes = trainer.train(setting, progress)
                pending.append((setting, auditor.submit(_audited, job, setting, outcomes, judge)))
                _collect(job, pending, progress, wait=False)
            _collect(job, pending, progress, wait=True)
        except OperatorError as error:
            with contextlib.suppress(OperatorError, audit.AuditError):
                _collect(job, pending, progress, wait=True)  # what was trained before it is kept
            return "train-failed", error.message
        except audit.AuditError as error:
            return "audit-failed", str(error)
    return None


def _process(job: Job) -> OperatorProcess:
    sizes = {"num_heads": job.protocol.num_heads, "head_dim": job.protocol.head_dim}
    return OperatorProcess(
        job.sources, form=job.form, device=job.device.type, walls=job.walls, timeout=TIMEOUT[job.device.type],
        memory=HOST_MEMORY, **sizes,
    )


class _Trainer:
    """The untrusted process that trains; started anew after it ran out of memory."""

    def __init__(self, job: Job, stack: contextlib.ExitStack) -> None:
        self.job, self.stack = job, stack
        self.process = stack.enter_context(_process(job))

    def train(self, setting: Setting, progress: Progress) -> list[Outcome]:
        """All runs of a setting as one group; a group that does not fit in memory is halved."""
        groups, outcomes = [sweep(self.job.protocol, self.job.seeds)], []
        while groups:
            runs = groups.pop(0)
            try:
                outcomes.append(self._group(setting, runs, progress))
            except OperatorError as error:
                if error.kind != "memory" or len(runs) == 1:
                    raise
                progress.note(f"{setting.task} {setting.name}: {len(runs)} runs at once do not fit in memory; halving")
                self.process.close()
                self.process = self.stack.enter_context(_process(self.job))
                groups = [runs[: len(runs) // 2], runs[len(runs) // 2 :], *groups]
        return outcomes

    def _group(self, setting: Setting, runs: tuple[Run, ...], progress: Progress) -> Outcome:
        header = {
            "request": "train", "setting": dataclasses.asdict(setting), "protocol": to_json(self.job.protocol),
            "runs": [dataclasses.astuple(r) for r in runs], "num_threads": os.cpu_count() or 1,
        }
        facts: dict[str, Any] = {}
        weights: dict[str, Tensor] = {}
        for answer, tensors in self.process.request(header, {}):
            if answer.get("event") == "progress":
                progress.update(setting, answer)
            else:
                facts, weights = answer, tensors
        return Outcome(runs, _checked(facts, len(runs)), _weights(weights, self._size(setting), len(runs)))

    def _size(self, setting: Setting) -> int:
        return layout(_architecture(self.job, setting, self.process)).size


def _architecture(job: Job, setting: Setting, process: OperatorProcess) -> Architecture:
    declared = process.description
    shapes = {k: tuple(v.shape) for k, v in declared.parameters.items()}
    return architecture(setting, job.protocol, declared.projections, shapes)


def _checked(facts: Mapping[str, Any], count: int) -> Mapping[str, Any]:
    """What a training process reported, held to types and lengths: it comes from a stranger."""
    lists = ("accuracy", "perplexity", "last_accuracy", "best_epoch")
    numbers = ("epochs", "steps", "seconds", "setup_seconds")
    good = all(isinstance(facts.get(k), list) and len(facts[k]) == count for k in lists)
    good = good and all(type(x) in (int, float) for k in lists for x in facts[k])
    if not good or not all(type(facts.get(k)) in (int, float) for k in numbers):
        raise OperatorError("bad-output", "the training process ended without the figures of its runs")
    return facts


def _weights(tensors: Mapping[str, Tensor], size: int, count: int) -> Tensor:
    weights = tensors.get("weights")
    if weights is None or weights.shape != (count, size) or weights.dtype != torch.float32:
        raise OperatorError("bad-output", "the training process returned no weights, or of another shape than the model's")
    return weights


def _audited(job: Job, setting: Setting, outcomes: Sequence[Outcome], judge: OperatorProcess) -> list[Row]:
    """Rows of all runs; the best run of every seed, which alone enters the score, is audited."""
    rows = [_row(setting, outcome, i) for outcome in outcomes for i in range(len(outcome.runs))]
    weights = [w for outcome in outcomes for w in outcome.weights]
    rng = np.random.default_rng()  # unknown to the process that trained
    arch = _architecture(job, setting, judge)
    for seed in job.seeds:
        best = max((i for i, r in enumerate(rows) if r.seed == seed), key=lambda i: _or_less(rows[i].accuracy))
        if math.isfinite(rows[best].accuracy):
            claimed = rows[best].accuracy
            found = audit.audit(weights[best], claimed, setting, job.protocol, seed, arch, judge, job.device, rng)
            rows[best] = dataclasses.replace(
                rows[best], audited=1, accuracy=found.accuracy, loss=found.loss, fresh_accuracy=found.fresh_accuracy
            )
    return rows


def _or_less(accuracy: float) -> float:
    return accuracy if math.isfinite(accuracy) else -1.0


def _row(setting: Setting, outcome: Outcome, i: int) -> Row:
    run, facts = outcome.runs[i], outcome.facts
    perplexity = facts["perplexity"][i]
    loss = math.log(perplexity) if 0 < perplexity < math.inf else math.nan
    return Row(
        task=setting.task, setting=setting.name, lr=run.lr, weight_decay=run.weight_decay, seed=run.seed,
        accuracy=facts["accuracy"][i], loss=loss, epochs=facts["epochs"], seconds=facts["seconds"] / len(outcome.runs),
        audited=0, reported_accuracy=facts["accuracy"][i], last_accuracy=facts["last_accuracy"][i],
        fresh_accuracy=math.nan, best_epoch=facts["best_epoch"][i], setup_seconds=facts["setup_seconds"],
    )


def _collect(job: Job, pending: list[tuple[Setting, Future[list[Row]]]], progress: Progress, wait: bool) -> None:
    """Puts on disk what the audit has finished; with `wait`, all of it."""
    while pending and (wait or pending[0][1].done()):
        setting, future = pending.pop(0)
        rows = future.result()
        results.append_rows(job.out, rows)
        progress.finished(setting, rows)


def choose_settings(
    protocol: Protocol, tasks: Sequence[str], changes: Mapping[str, float]
) -> tuple[Protocol, tuple[Setting, ...]]:
    """The settings asked for; one that the protocol does not hold makes a protocol of its own, named so.

    Raises ValueError for an unknown task or key.
    """
    unknown = [t for t in tasks if t not in BASELINES]
    if unknown:
        raise ValueError(f"unknown task {unknown[0]}: the tasks are {', '.join(BASELINES)}")
    chosen = tuple(s for s in protocol.settings if not tasks or s.task in tasks)
    if not changes:
        return protocol, chosen
    bases = {s.task: s for s in reversed(chosen)}
    wanted = tuple(with_changes(base, changes) for base in reversed(bases.values()))
    if all(s in protocol.settings for s in wanted):
        return protocol, wanted
    return dataclasses.replace(protocol, name=f"{protocol.name}-custom", settings=wanted), wanted


def protocol_named(name: str) -> Protocol:
    """A protocol by its name; raises ValueError for an unknown one."""
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name}: there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]

