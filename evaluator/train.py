"""Training of all runs of one setting as one group, inside the process that holds the variant.

What is reported from here only steers (early stop, best epoch): the recorded accuracy is the audit's.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from evaluator.group import Group

if TYPE_CHECKING:
    from evaluator.fusion.library import Library


@dataclass(frozen=True)
class Progress:
    """State of a group after an epoch; accuracy and perplexity of each run on the test set."""

    epoch: int
    step: int
    seconds: float
    accuracy: tuple[float, ...]
    perplexity: tuple[float, ...]


Best = tuple[float, int, float]
"""Of one run so far: the lowest test perplexity, its epoch (0 where none was finite), the accuracy then."""


@dataclass(frozen=True)
class Checkpoint:
    """A group after an epoch: what another process goes on from, to the same bits."""

    epoch: int
    step: int
    seconds: float  # that it took to get there, set-up included
    setup_seconds: float
    best: tuple[Best, ...]
    state: Mapping[str, Tensor]  # as `Group.state`


@dataclass(frozen=True)
class Trained:
    """What is left of a group: per run the epoch of lowest test perplexity, and the weights it had then."""

    weights: Tensor  # float32 [R, P]
    best_epoch: tuple[int, ...]  # 0 where no epoch was finite
    accuracy: tuple[float, ...]
    perplexity: tuple[float, ...]
    last_accuracy: tuple[float, ...]
    epochs: int
    steps: int
    seconds: float
    setup_seconds: float
    operator: str  # one of OPERATORS


OPERATORS = ("eager", "fused")
"""How the operator of a run was computed in the end."""

COMPILE_AFTER = 2  # epochs; a setting that is learned at once is not worth compiling for
COMPILE_FROM = 2e8  # tokens still to be trained on, about 20 s of eager code on one H200


def train_group(
    group: Group, report: Callable[[Progress], None], library: "Library | None" = None, note: Callable[[str], None] = print,
    begin: Checkpoint | None = None, keep: Callable[[Checkpoint], None] | None = None, every: float = math.inf,
) -> Trained:
    """Trains until the last epoch, or until one run passes the protocol's accuracy at an epoch's end.

    With a library, the operator is compiled into it once it is sure that the training takes long. `keep` is given a
    checkpoint at an epoch's end, every so many seconds; training goes on from `begin` where there is one.
    """
    protocol, count = group.protocol, len(group.runs)
    started, best = time.monotonic(), [(math.inf, 0, math.nan)] * count
    accuracy, epoch, steps, setup = [math.nan] * count, 0, 0, math.nan
    if begin:
        best, epoch, steps, setup = list(begin.best), begin.epoch, begin.step, begin.setup_seconds
        group.restore(begin.state, [b[0] for b in best], epoch, steps)
        started -= begin.seconds
    kept, long = time.monotonic(), group.tokens_after(COMPILE_AFTER) >= COMPILE_FROM
    if library is not None and long and epoch >= COMPILE_AFTER:
        note(group.compile(library))
    while epoch < protocol.epochs:
        group.epoch(epoch)
        epoch, steps = epoch + 1, steps + group.steps_an_epoch
        accuracy, perplexity = group.test_scores()
        setup = time.monotonic() - started if epoch == 1 else setup
        for r, (acc, ppl) in enumerate(zip(accuracy, perplexity, strict=True)):
            best[r] = (ppl, epoch, acc) if ppl < best[r][0] else best[r]
        seconds = time.monotonic() - started
        report(Progress(epoch, steps, seconds, tuple(accuracy), tuple(perplexity)))
        if any(a > protocol.stop_accuracy for a in accuracy) or not any(map(math.isfinite, perplexity)):
            break
        if library is not None and long and epoch == COMPILE_AFTER:
            note(group.compile(library))
        if keep and time.monotonic() - kept >= every and epoch < protocol.epochs:
            keep(Checkpoint(epoch, steps, seconds, setup, tuple(best), group.state))
            kept = time.monotonic()
    return Trained(
        group.best, tuple(b[1] for b in best), tuple(b[2] for b in best), tuple(b[0] for b in best),
        tuple(accuracy), epoch, steps, time.monotonic() - started, setup, OPERATORS[group.fused],
    )
