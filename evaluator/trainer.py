"""Training one setting in an untrusted process, whose answer is held to types and shapes."""

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evaluator.job import Job, architecture_for, process_for
from evaluator.model import layout
from evaluator.operator import OperatorError
from evaluator.progress import Progress
from evaluator.protocol import Setting, to_json
from evaluator.train import Run, sweep


@dataclass(frozen=True)
class Outcome:
    """One group of runs as the training process reported it."""

    runs: tuple[Run, ...]
    facts: Mapping[str, Any]
    weights: Tensor


class Trainer:
    """The untrusted process that trains; started anew after it ran out of memory."""

    def __init__(self, job: Job, stack: contextlib.ExitStack) -> None:
        self.job, self.stack = job, stack
        self.process = stack.enter_context(process_for(job))

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
                self.process = self.stack.enter_context(process_for(self.job))
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
        return layout(architecture_for(self.job, setting, self.process)).size


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
