"""Training one setting in an untrusted process, whose answer is held to types and shapes."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from evaluator import checkpoint, figures
from evaluator.conversation import printable
from evaluator.job import Job, architecture_for, process_for
from evaluator.model import layout
from evaluator.operator import OperatorError, OperatorProcess
from evaluator.progress import Listener
from evaluator.protocol import Run, Setting, sweep, to_json
from evaluator.train import OPERATORS

T = TypeVar("T")
MAX_NOTE = 400  # characters of what a training process has to say
EVERY = 60.0  # seconds between checkpoints of one group


@dataclass(frozen=True)
class Outcome:
    """One group of runs as the training process reported it."""

    runs: tuple[Run, ...]
    facts: Mapping[str, Any]
    weights: Tensor
    until: Mapping[int, int]  # seed -> epoch, as it was asked for

    @property
    def lengths(self) -> list[tuple[Run, int]]:
        """Each run, and for how many epochs it was trained."""
        return list(zip(self.runs, self.facts["epochs"], strict=True))


class Renewable:
    """An untrusted process that a fresh one can take the place of; for one thread at a time."""

    def __init__(self, job: Job) -> None:
        self.job, self.process = job, process_for(job)
        self.compiles = True  # until one was lost after it had compiled its operator

    def renew(self) -> None:
        self.process.close()
        self.process = process_for(self.job)

    def close(self) -> None:
        self.process.close()

    def ask(self, question: Callable[[OperatorProcess], T], setting: Setting, listener: Listener) -> T:
        """The answer to a question about a setting, asked once more of a fresh process where the first was lost.

        Raises OperatorError, which names the setting.
        """
        try:
            return question(self.process)
        except OperatorError as error:
            if error.kind != "crashed":
                raise _named(error, setting) from None
            listener.note(f"{setting.task} {setting.name}: {error.message}; once more in a fresh process")
        self.renew()
        try:
            return question(self.process)
        except OperatorError as error:
            raise _named(error, setting) from None


def _named(error: OperatorError, setting: Setting) -> OperatorError:
    return OperatorError(error.kind, f"{setting.task} {setting.name}: {error.message}")


def train(trainer: Renewable, setting: Setting, listener: Listener, folder: Path | None) -> list[Outcome]:
    """All runs of a setting as one group; a group that does not fit in memory is halved. Raises OperatorError.

    The runs of a seed end together all the same: those that were trained for longer than one in another half needed are
    trained again until then.
    With a folder, where each group is stands there once a minute, and what stands there is gone on with.
    """
    job, order = trainer.job, sweep(trainer.job.protocol, trainer.job.seeds)
    groups, outcomes = [order], list[Outcome]()
    until: dict[int, int] = {}  # seed -> the epoch after which a run of it had passed, where its runs are in several groups
    while groups:
        runs = groups.pop(0)
        try:
            question = functools.partial(_group, trainer, setting=setting, runs=runs, listener=listener, folder=folder, until=until)
            found = trainer.ask(question, setting, listener)
            outcomes.append(found)
            until = _earliest(found, until, job.protocol.stop_accuracy)
            if late := [o for o in outcomes if any(o.until.get(r.seed, job.protocol.epochs) > until.get(r.seed, n) < n for r, n in o.lengths)]:
                if folder:
                    checkpoint.forget(folder, setting)
                outcomes = [o for o in outcomes if o not in late]
                groups += [o.runs for o in late]
        except OperatorError as error:
            if error.kind != "memory" or len(runs) == 1:
                raise
            listener.note(f"{setting.task} {setting.name}: {len(runs)} runs at once do not fit in memory; halving")
            trainer.renew()
            groups = [runs[: len(runs) // 2], runs[len(runs) // 2 :], *groups]
    return sorted(outcomes, key=lambda o: order.index(o.runs[0]))


def _earliest(outcome: Outcome, until: Mapping[int, int], enough: float) -> dict[int, int]:
    """The epochs after which a run of each seed had passed and was kept with it, with this group's."""
    found = dict(until)
    for (run, epochs), accuracy, kept in zip(outcome.lengths, outcome.facts["last_accuracy"], outcome.facts["accuracy"], strict=True):
        if min(accuracy, kept) > enough:
            found[run.seed] = min(epochs, found.get(run.seed, epochs))
    return found


def _group(
    trainer: Renewable, process: OperatorProcess, setting: Setting, runs: tuple[Run, ...], listener: Listener, folder: Path | None,
    until: Mapping[int, int],
) -> Outcome:
    job = trainer.job
    size = layout(architecture_for(job, setting, process)).size
    begin, state = (checkpoint.read(folder, setting, runs, job.device.type, size) if folder else None) or (None, {})
    begin, state = (None, {}) if begin and any(begin["epoch"] >= end for end in until.values()) else (begin, state)
    if begin:
        listener.note(f"{setting.task} {setting.name}: going on after epoch {begin['epoch']}")
    header = {
        "request": "train", "setting": dataclasses.asdict(setting), "protocol": to_json(job.protocol),
        "runs": [dataclasses.astuple(r) for r in runs], "num_threads": job.threads,
        "compile": trainer.compiles, "every": EVERY if folder else None, "begin": begin,
        "until": list(map(list, until.items())),
    }
    facts: dict[str, Any] = {}
    weights: dict[str, Tensor] = {}
    kept = time.monotonic()
    for answer, tensors in _answers(trainer, process, header, state):
        if answer.get("event") == "progress":
            listener.update(setting, answer)
        elif answer.get("event") == "note":
            listener.note(f"{setting.task} {setting.name}: {printable(str(answer.get('message')), MAX_NOTE)}")
        elif answer.get("event") == "checkpoint":
            if folder and time.monotonic() - kept >= EVERY / 2:  # no flood of them reaches the disk
                _keep(folder, setting, runs, job.device.type, answer, tensors, size, listener)
                kept = time.monotonic()
        else:
            facts, weights = answer, tensors
    return Outcome(runs, _checked(facts, len(runs), job.protocol.epochs), _weights(weights, "weights", size, len(runs)), dict(until))


def _answers(
    trainer: Renewable, process: OperatorProcess, header: dict[str, Any], state: dict[str, Tensor]
) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """What the process answers. If it fails after it began to compile, a fresh one may train without: our kernels may be why.

    An address that a compiled kernel may not read is an error of every call after it, whose message blames the variant.
    """
    compiling = False
    try:
        for answer, tensors in process.request(header, state):
            if answer.get("event") == "compiling":
                compiling = True
            else:
                yield answer, tensors
    except OperatorError as error:
        if not compiling or error.kind not in ("raised", "crashed"):
            raise
        trainer.compiles = False
        raise OperatorError("crashed", f"{error.message} (after its operator was compiled, which is not done again)") from None


def _keep(
    folder: Path, setting: Setting, runs: tuple[Run, ...], kind: str, answer: Mapping[str, Any], tensors: Mapping[str, Tensor],
    size: int, listener: Listener,
) -> None:
    """Puts a checkpoint on disk, held to types and shapes; a full disk costs what it would have saved, and no more."""
    state = {name: _weights(tensors, name, size, len(runs)) for name in checkpoint.STATE}
    facts = {name: answer.get(name) for name in (*checkpoint.FIGURES, *checkpoint.OF_A_RUN)}
    if not checkpoint.sound(facts, len(runs)):
        raise OperatorError("bad-output", "the training process told of its state without the figures of its runs")
    try:
        checkpoint.write(folder, setting, runs, kind, facts, state)
    except OSError as error:
        listener.note(f"{setting.task} {setting.name}: where training is could not be kept: {error}")


def _checked(facts: Mapping[str, Any], count: int, epochs: int) -> Mapping[str, Any]:
    """What a training process reported, held to lengths and to what can be: it comes from a stranger."""
    until = functools.partial(figures.count, most=epochs)
    of_a_run: dict[str, figures.Test] = {
        "accuracy": figures.share, "perplexity": figures.real, "last_accuracy": figures.share, "best_epoch": until, "epochs": until,
    }  # fmt: skip
    good = all(isinstance(facts.get(k), list) and len(facts[k]) == count and all(map(is_one, facts[k])) for k, is_one in of_a_run.items())
    good = good and facts.get("operator") in OPERATORS and figures.count(facts.get("steps"))
    if not good or not all(figures.duration(facts.get(k)) for k in ("seconds", "setup_seconds")):
        raise OperatorError("bad-output", "the training process ended without the figures of its runs")
    return facts


def _weights(tensors: Mapping[str, Tensor], name: str, size: int, count: int) -> Tensor:
    weights = tensors.get(name)
    if weights is None or weights.shape != (count, size) or weights.dtype != torch.float32:
        raise OperatorError("bad-output", f"the training process returned no {name}, or of another shape than the model's")
    return weights
