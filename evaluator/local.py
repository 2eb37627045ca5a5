"""An evaluation on this machine: setting after setting on one device, gates around them."""

import contextlib
import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluator import checkpoint, kernel_cache, results
from evaluator.bench import FAILURES, Bench, Failure, Work, failure
from evaluator.job import Job
from evaluator.progress import Listener, Progress
from evaluator.protocol import Setting, sweep
from evaluator.results import Row

Pending = list[tuple[Setting, Future[list[Row]]]]


@contextlib.contextmanager
def work(job: Job, todo: Sequence[Setting], progress: Progress) -> Iterator[Work]:
    """Gates and training on this machine, by the same processes."""
    prepare(job, todo, progress)
    with Bench(job, job.out) as bench:
        yield Work(
            run=lambda: _run(job, todo, progress, bench),
            again=lambda setting: bench.again(setting, progress),
            gates=lambda: bench.gates(todo, progress),
        )


def _run(job: Job, todo: Sequence[Setting], progress: Progress, bench: Bench) -> Failure | None:
    """Trains setting after setting, the audit of each overlapping the training of the next, and the gates that of the first."""
    pending: Pending = []
    listener = _Keeping(job, pending, progress)
    wrong: Exception | None = None
    if job.gated:
        bench.watch(todo, progress)
    try:
        for i, setting in enumerate(todo):
            if job.seconds is not None and progress.elapsed > job.seconds:
                progress.note(left_out(job.seconds, len(todo) - i))
                break
            pending.append((setting, bench.train(setting, listener, progress)))
            _collect(job, pending, progress, wait=False)
        _collect(job, pending, progress, wait=True)
    except FAILURES as error:
        with contextlib.suppress(*FAILURES):
            _collect(job, pending, progress, wait=True)  # what was trained before it is kept
        wrong = error
    wrong = bench.verdict() or wrong
    if wrong:
        checkpoint.forget(job.out)
    return failure(wrong) if wrong else None


@dataclass(frozen=True)
class _Keeping:
    """A listener that puts on disk what the audit has finished: the next setting may train for an hour, and be killed."""

    job: Job
    pending: Pending
    progress: Progress

    def update(self, setting: Setting, facts: Mapping[str, Any]) -> None:
        self._keep()
        self.progress.update(setting, facts)

    def note(self, message: str) -> None:
        self._keep()
        self.progress.note(message)

    def _keep(self) -> None:
        """A failure is left for the one who waits for it: it is not this training's."""
        while self.pending and self.pending[0][1].done() and not self.pending[0][1].exception():
            _collect_first(self.job, self.pending, self.progress)


def prepare(job: Job, todo: Sequence[Setting], listener: Listener) -> None:
    """On a GPU: have our own kernels compiled before the first process that trains is started, once and for all."""
    if job.device.type == "cuda":
        trouble = kernel_cache.fill(job.protocol, todo, len(sweep(job.protocol, job.seeds)))
        if trouble:
            listener.note(f"{trouble}; every training process compiles them for itself")


def left_out(seconds: float, count: int) -> str:
    """What is told when --seconds have passed."""
    return f"{seconds:.0f} s have passed: {count} settings are left for another time"


def _collect(job: Job, pending: Pending, progress: Progress, wait: bool) -> None:
    """Puts on disk what the audit has finished; with `wait`, all of it."""
    while pending and (wait or pending[0][1].done()):
        _collect_first(job, pending, progress)


def _collect_first(job: Job, pending: Pending, progress: Progress) -> None:
    setting, future = pending.pop(0)
    rows = future.result()
    results.append_rows(job.out, rows)
    checkpoint.forget(job.out, setting)
    progress.finished(setting, rows)


def environment(job: Job) -> dict[str, Any]:
    """Device, versions and walls: what a replay names where it differs."""
    cuda = job.device.type == "cuda"
    device = {"kind": job.device.type, "name": torch.cuda.get_device_name() if cuda else _processor()}
    ours = {"python": platform.python_version(), "evaluator": source_digest()}
    return {
        "device": device, "versions": ours | {"torch": torch.__version__, "triton": _triton_version(), "numpy": np.__version__},
        "sandbox": {"level": job.walls.level, "walls": list(job.walls.standing)},
    }


def source_digest() -> str:
    """Of the evaluator's own modules, as they are installed on this machine."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


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
