"""Training of all runs of one setting as one group, inside the process that holds the variant.

What is reported from here only steers (early stop, best epoch): the recorded accuracy is the audit's.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from evaluator.group import Group
from evaluator.protocol import Run


@dataclass(frozen=True)
class Progress:
    """State of a group after an epoch; each run's accuracy and perplexity on the test set, at its last epoch."""

    epoch: int
    step: int
    seconds: float
    accuracy: tuple[float, ...]
    perplexity: tuple[float, ...]


Best = tuple[float, int, float]
"""Of one run so far: the lowest test perplexity, its epoch (0 where none was finite), the accuracy then."""

Last = tuple[int, float, bool]
"""Of one run so far: its last epoch, the accuracy then, whether it ended there."""


@dataclass(frozen=True)
class Checkpoint:
    """A group after an epoch: what another process goes on from, to the same bits."""

    epoch: int
    step: int
    seconds: float  # that it took to get there, set-up included
    setup_seconds: float
    best: tuple[Best, ...]
    last: tuple[Last, ...]
    state: Mapping[str, Tensor]  # as `Group.state`


@dataclass(frozen=True)
class Trained:
    """What is left of a group: per run the epoch of lowest test perplexity, and the weights it had then."""

    weights: Tensor  # float32 [R, P]
    best_epoch: tuple[int, ...]  # 0 where no epoch was finite
    accuracy: tuple[float, ...]
    perplexity: tuple[float, ...]
    last_accuracy: tuple[float, ...]
    epochs: tuple[int, ...]
    steps: int
    seconds: float
    setup_seconds: float
    operator: str  # one of OPERATORS


OPERATORS = ("eager", "fused")
"""How the operator of a run was computed in the end."""

COMPILE_AFTER = 2  # epochs; a setting that is learned at once is not worth compiling for
COMPILE_FROM = 2e8  # tokens still to be trained on, about 20 s of eager code on one H200


def train_group(
    group: Group, report: Callable[[Progress], None], compile_operator: Callable[[], None] | None = None,
    begin: Checkpoint | None = None, keep: Callable[[Checkpoint], None] | None = None, every: float = math.inf,
    until: Mapping[int, int] | None = None,
) -> Trained:
    """Trains until the last epoch, or until of each seed one run passes the protocol's accuracy at an epoch's end.

    The runs of a seed end together, as they would without those of other seeds beside them: what an ended run goes on to
    compute is not looked at. One that is kept with less, as its loss was lower in an epoch before, ends alone: the best of
    the others could be above it. Those of a seed in `until` end after that epoch at the latest, as one in another group has passed then.
    The operator is compiled, where it can be, once it is sure that the training takes long. `keep` is given a
    checkpoint at an epoch's end, every so many seconds; training goes on from `begin` where there is one.
    """
    protocol, count = group.protocol, len(group.runs)
    started, best = time.monotonic(), [(math.inf, 0, math.nan)] * count
    last, epoch, steps, setup = [(0, math.nan, False)] * count, 0, 0, math.nan
    if begin:
        best, last, epoch, steps, setup = list(begin.best), list(begin.last), begin.epoch, begin.step, begin.setup_seconds
        group.restore(begin.state, [b[0] for b in best], epoch, steps)
        started -= begin.seconds
    kept, long = time.monotonic(), group.tokens_after(COMPILE_AFTER) >= COMPILE_FROM
    if compile_operator and long and epoch >= COMPILE_AFTER:
        compile_operator()
    while epoch < protocol.epochs:
        group.epoch(epoch)
        epoch, steps = epoch + 1, steps + group.steps_an_epoch
        accuracy, perplexity = group.test_scores([not ended for _, _, ended in last])
        setup = time.monotonic() - started if epoch == 1 else setup
        active = [r for r in range(count) if not last[r][2]]
        for r in active:
            best[r] = (perplexity[r], epoch, accuracy[r]) if perplexity[r] < best[r][0] else best[r]
        over = _over(group.runs, accuracy, perplexity, [b[2] for b in best], protocol.stop_accuracy)
        over |= {seed for seed, end in (until or {}).items() if epoch >= end}
        for r in active:
            last[r] = epoch, accuracy[r], accuracy[r] > protocol.stop_accuracy or group.runs[r].seed in over
        seconds = time.monotonic() - started
        report(Progress(epoch, steps, seconds, tuple(acc for _, acc, _ in last), tuple(perplexity)))
        if all(ended for _, _, ended in last):
            break
        if compile_operator and long and epoch == COMPILE_AFTER:
            compile_operator()
        if keep and time.monotonic() - kept >= every and epoch < protocol.epochs:
            keep(Checkpoint(epoch, steps, seconds, setup, tuple(best), tuple(last), group.state))
            kept = time.monotonic()
    return Trained(
        group.best, tuple(b[1] for b in best), tuple(b[2] for b in best), tuple(b[0] for b in best),
        tuple(acc for _, acc, _ in last), tuple(e for e, _, _ in last), steps, time.monotonic() - started, setup, OPERATORS[group.fused],
    )


def _over(runs: Sequence[Run], accuracy: Sequence[float], perplexity: Sequence[float], kept: Sequence[float], enough: float) -> set[int]:
    """The seeds of which one run has passed the accuracy that is enough and is kept with it, or no run is finite any more."""
    passed = {run.seed for run, a, k in zip(runs, accuracy, kept, strict=True) if min(a, k) > enough}
    finite = {run.seed for run, p in zip(runs, perplexity, strict=True) if math.isfinite(p)}
    return passed | {run.seed for run in runs} - finite
