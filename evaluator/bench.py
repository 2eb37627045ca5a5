"""Where one setting after another is trained and audited: an untrusted process for each, and a thread for the audit."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch

from evaluator.audit import AuditError
from evaluator.job import Job
from evaluator.operator import OperatorError
from evaluator.progress import Listener
from evaluator.protocol import Setting
from evaluator.results import Row
from evaluator.rows import audited
from evaluator.trainer import Outcome, Renewable, train

Failure = tuple[str, str]
"""A status word and the sentence that says what happened."""

FAILURES = (OperatorError, AuditError)
"""What a variant can do wrong; everything else that is raised is a bug of ours."""


class Bench:
    """Two untrusted processes with one variant, kept from setting to setting; a context manager."""

    def __init__(self, job: Job) -> None:
        if job.device.type == "cpu":
            torch.set_num_threads(1)  # the cores belong to the training
        self.job, self._trainer, self._judge = job, Renewable(job), Renewable(job)
        self._auditor = ThreadPoolExecutor(1)

    def train(self, setting: Setting, listener: Listener) -> Future[list[Row]]:
        """Trains a setting, and gives its audited rows as they come, while the next is trained; raises FAILURES."""
        return self._auditor.submit(self._audit, setting, train(self._trainer, setting, listener), listener)

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
