"""Where one setting after another is trained and audited: an untrusted process for each, and a thread for the audit.

The gates are asked in that thread while the first setting is already trained: no audit begins, and so no row is kept,
before they have passed, and a training that they are against is ended.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from evaluator import check, checkpoint
from evaluator.audit import AuditError
from evaluator.job import Job, process_for
from evaluator.operator import OperatorError, OperatorProcess
from evaluator.progress import Listener
from evaluator.protocol import Setting, sweep
from evaluator.results import Row
from evaluator.rows import audited
from evaluator.trainer import Outcome, Renewable, train

GATE_SECONDS = 120.0  # that one question may take, kernels compiled on the way, on a busy machine
SHORT = 128  # tokens up to which exact batches are asked at every length: 2 to 7 s each on an H200

Failure = tuple[str, str]
"""A status word and the sentence that says what happened."""


@dataclass(frozen=True)
class Work:
    """An evaluation about to be made. Each part says how it failed, or None."""

    run: Callable[[], Failure | None]  # the training, with gates beside it where the job has some
    again: Callable[[Setting], Failure | None]  # trains and audits a setting and keeps nothing: only the processes are as after it
    gates: Callable[[], Failure | None]  # what they have against the processes that have trained


class GateError(Exception):
    """What a gate has against the operator, in one sentence."""


FAILURES = (OperatorError, AuditError, GateError)
"""What a variant can do wrong; everything else that is raised is a bug of ours."""


class Bench:
    """Two untrusted processes with one variant, kept from setting to setting; a context manager."""

    def __init__(self, job: Job, folder: Path | None = None) -> None:
        """With a folder, a training that was killed is gone on with from what stands there."""
        if job.device.type == "cpu":
            torch.set_num_threads(1)  # the cores belong to the training
        self.job, self._trainer, self._judge = job, Renewable(job), Renewable(job)
        self._auditor, self._folder = ThreadPoolExecutor(1), folder
        self._watched: Future[None] | None = None
        self._asked: tuple[OperatorProcess, ...] = ()  # by the gates beside the training

    def gates(self, settings: Sequence[Setting], listener: Listener) -> Failure | None:
        """What a gate has against the operator at the batch and the lengths of these settings, or None.

        Asked of the processes that train and audit; the listener is told how long each gate took, the first of them with
        the start of the processes. An operator that gave no answer to judge is `train-failed`, as in training.
        """
        try:
            self._against((self._trainer.process, self._judge.process), settings, listener)
        except FAILURES as error:
            return failure(error)
        return None

    def again(self, setting: Setting, listener: Listener) -> Failure | None:
        """Trains and audits a setting and keeps nothing of it; how it failed, or None."""
        try:
            self.train(setting, listener).result()
        except FAILURES as error:
            return failure(error)
        finally:
            if self._folder:
                checkpoint.forget(self._folder, setting)
        return None

    def watch(self, settings: Sequence[Setting], listener: Listener) -> None:
        """Has the same asked while training begins, of the process that audits and of one that ends with it."""
        self._asked = self._judge.process, process_for(self.job)
        self._watched = self._auditor.submit(self._watch, *self._asked, settings, listener)

    def verdict(self) -> Exception | None:
        """What the gates that were asked while training began have against the operator; waits for them."""
        try:
            return self._watched.result() if self._watched else None
        except FAILURES as error:
            return error

    def _watch(self, judge: OperatorProcess, witness: OperatorProcess, settings: Sequence[Setting], listener: Listener) -> None:
        with witness:
            self._against((judge, witness), settings, listener)

    def _against(self, processes: tuple[OperatorProcess, OperatorProcess], settings: Sequence[Setting], listener: Listener) -> None:
        """Raises GateError with what a gate has against the operator, OperatorError where it can't say."""
        job, protocol = self.job, self.job.protocol
        rows, (*lengths, longest) = protocol.batch_size * len(sweep(protocol, job.seeds)), sorted({s.tokens for s in settings})
        shapes = [(rows, T) for T in (*(T for T in lengths if T <= SHORT), longest)]  # code may ask for both together
        dtype = torch.float32 if job.device.type == "cpu" else torch.bfloat16
        patience = [process.timeout for process in processes]
        with OperatorProcess(
            job.sources, walls=job.walls, timeout=GATE_SECONDS, num_heads=protocol.num_heads, head_dim=protocol.head_dim
        ) as plain:
            try:
                for process in processes:
                    process.timeout = GATE_SECONDS
                asked, lost = check.gates_on_device(*processes, plain, dtype=dtype, shapes=shapes, chunk_size=protocol.chunk_size)
            finally:
                for process, seconds in zip(processes, patience, strict=True):
                    process.timeout = seconds
        listener.note(f"gates on the device: {', '.join(f'{gate.name} {gate.seconds:.1f} s' for gate in asked)}")
        for gate in asked:
            if not gate.passed:
                raise GateError(f"{gate.name}: {gate.message}")
        if lost:
            raise lost

    def train(self, setting: Setting, listener: Listener, beside: Listener | None = None) -> Future[list[Row]]:
        """Trains a setting, and gives its audited rows as they come, while the next is trained; raises FAILURES.

        The audit tells `beside`, where there is one, in a thread of its own.
        """
        heard = _Watched(listener, self._watched) if self._watched else listener
        return self._auditor.submit(self._audit, setting, train(self._trainer, setting, heard, self._folder), beside or listener)

    def _audit(self, setting: Setting, outcomes: list[Outcome], listener: Listener) -> list[Row]:
        if self._watched:
            self._watched.result()  # it came before in this thread
        return self._judge.ask(lambda p: audited(self.job, setting, outcomes, p), setting, listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._trainer.close()
        if self._watched and not self._watched.done():  # its questions may take long
            for process in self._asked:
                process.kill()
        self._auditor.shutdown(cancel_futures=True)
        self._judge.close()


def failure(error: Exception) -> Failure:
    """One of FAILURES as a status and a sentence."""
    if isinstance(error, OperatorError):
        return "train-failed", error.message
    return "check-failed" if isinstance(error, GateError) else "audit-failed", str(error)


@dataclass(frozen=True)
class _Watched:
    """A listener that raises what the gates have against the operator as soon as they have it."""

    listener: Listener
    gates: "Future[None]"

    def update(self, setting: Setting, facts: Mapping[str, Any]) -> None:
        self._hear()
        self.listener.update(setting, facts)

    def note(self, message: str) -> None:
        self._hear()
        self.listener.note(message)

    def _hear(self) -> None:
        if self.gates.done():
            self.gates.result()
