"""Where one setting after another is trained and audited: an untrusted process for each, and a thread for the audit."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from evaluator import check
from evaluator.audit import AuditError
from evaluator.job import Job
from evaluator.operator import OperatorError, OperatorProcess
from evaluator.progress import Listener
from evaluator.protocol import Setting, sweep
from evaluator.results import Row
from evaluator.rows import audited
from evaluator.trainer import Outcome, Renewable, train

GATE_SECONDS = 60.0  # that one question may take, kernels compiled on the way

Failure = tuple[str, str]
"""A status word and the sentence that says what happened."""


@dataclass(frozen=True)
class Work:
    """An evaluation about to be made: what a gate has against the operator, and the training."""

    gates: Callable[[], str | None]
    run: Callable[[], Failure | None]


FAILURES = (OperatorError, AuditError)
"""What a variant can do wrong; everything else that is raised is a bug of ours."""


class Bench:
    """Two untrusted processes with one variant, kept from setting to setting; a context manager."""

    def __init__(self, job: Job, folder: Path | None = None) -> None:
        """With a folder, a training that was killed is gone on with from what stands there."""
        if job.device.type == "cpu":
            torch.set_num_threads(1)  # the cores belong to the training
        self.job, self._trainer, self._judge = job, Renewable(job), Renewable(job)
        self._auditor, self._folder = ThreadPoolExecutor(1), folder

    def gates(self, settings: Sequence[Setting], listener: Listener) -> str | None:
        """What a gate has against the operator at the shortest batch and length of these settings, or None.

        Asked of the processes that train and audit, which then need not start or compile anew; the listener is told how
        long each gate took, the first of them with the start of the processes.
        """
        job, protocol = self.job, self.job.protocol
        shape = (protocol.batch_size * len(sweep(protocol, job.seeds)), min(s.seq_len for s in settings))
        dtype = torch.float32 if job.device.type == "cpu" else torch.bfloat16
        processes = self._trainer.process, self._judge.process
        patience = [process.timeout for process in processes]
        with OperatorProcess(
            job.sources, walls=job.walls, timeout=GATE_SECONDS, num_heads=protocol.num_heads, head_dim=protocol.head_dim
        ) as plain:
            try:
                for process in processes:
                    process.timeout = GATE_SECONDS
                asked = check.gates_on_device(*processes, plain, dtype=dtype, shapes=[shape], chunk_size=protocol.chunk_size)
            finally:
                for process, seconds in zip(processes, patience, strict=True):
                    process.timeout = seconds
        listener.note(f"gates on the device: {', '.join(f'{gate.name} {gate.seconds:.1f} s' for gate in asked)}")
        return next((f"{gate.name}: {gate.message}" for gate in asked if not gate.passed), None)

    def train(self, setting: Setting, listener: Listener) -> Future[list[Row]]:
        """Trains a setting, and gives its audited rows as they come, while the next is trained; raises FAILURES."""
        return self._auditor.submit(self._audit, setting, train(self._trainer, setting, listener, self._folder), listener)

    def _audit(self, setting: Setting, outcomes: list[Outcome], listener: Listener) -> list[Row]:
        return self._judge.ask(lambda p: audited(self.job, setting, outcomes, p), setting, listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._trainer.close()
        self._auditor.shutdown(cancel_futures=True)
        self._judge.close()


def failure(error: Exception) -> Failure:
    """One of FAILURES as a status and a sentence."""
    return ("train-failed", error.message) if isinstance(error, OperatorError) else ("audit-failed", str(error))
