"""Accuracy of MAD's reference code and of ours on the same data, with the spread over random seeds.

    python benchmarks/reference_agreement.py --reference MAD-LAB [--fla FLASH-LINEAR-ATTENTION] [--out epochs.csv]

For each setting (TASK alone is its baseline, else TASK:NAME) and each seed, the peer (see reference.py) trains one run by its own train() and
its own metric on the arrays that our generator gives for that seed, and our trainer trains the same runs as one
group; initial weights and shuffles are each side's own. A run's score on both sides: test accuracy at the epoch
of lowest test perplexity, training ended by the first epoch above 0.999. Epochs are bounded (--epochs
SETTING=N). Printed: mean and standard deviation over seeds, and the difference of the means with its standard error.
The file takes every epoch's scores. Variants are loaded in this process: use it on code that you trust.
"""

import argparse
import csv
import math
import multiprocessing
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import reference
import torch
from step_speed import build

from evaluator.group import Group
from evaluator.protocol import PROTOCOLS, Run

VARIANT = Path(__file__).parents[1] / "variants" / "delta_net"
EPOCHS = {"in-context-recall": 1, "memorization": 200, "compression": 10}
"""Setting -> epochs unless --epochs says otherwise, all 200 of the protocol for what is not here."""

SETTINGS = {f"{s.task}:{s.name}".removesuffix(":baseline"): s for s in PROTOCOLS["mad"].settings}


@dataclass(frozen=True)
class Curve:
    """Test scores of one run after each epoch."""

    task: str  # a setting, as SETTINGS names it
    code: str  # "reference" or "ours"
    seed: int
    accuracy: tuple[float, ...]
    perplexity: tuple[float, ...]
    own: float | None  # what the peer's train() itself returned

    @property
    def score(self) -> float:
        return scored(self.accuracy, self.perplexity)


def scored(accuracy: Sequence[float], perplexity: Sequence[float]) -> float:
    """Accuracy at the epoch of lowest perplexity, up to the first epoch that ends a run; NaN if none is finite."""
    stop = PROTOCOLS["mad"].stop_accuracy
    last = next((i for i, a in enumerate(accuracy) if a > stop), len(accuracy) - 1)
    finite = [(p, i) for i, p in enumerate(perplexity[: last + 1]) if math.isfinite(p)]
    return accuracy[min(finite)[1]] if finite else math.nan


@dataclass(frozen=True)
class Job:
    """One run of the peer, told to the process that makes it."""

    folder: Path
    fla: Path | None
    task: str
    run: Run
    epochs: int


def train_peer(job: Job) -> Curve:
    peer = reference.connect(job.folder, job.fla)
    seen, own = reference.train(peer, SETTINGS[job.task], job.run, job.epochs)
    return Curve(job.task, "reference", job.run.seed, tuple(seen.accuracy), tuple(seen.perplexity), own)


def train_ours(task: str, form: str, runs: Sequence[Run], epochs: int) -> list[Curve]:
    """All runs as one group, until each has passed the accuracy that ends a run: `scored` leaves out what came after."""
    group: Group = build(VARIANT, form, SETTINGS[task], runs)
    scores: list[tuple[list[float], list[float]]] = []
    passed = [False] * len(runs)
    while len(scores) < epochs and not all(passed):
        group.epoch(len(scores))
        scores.append(group.test_scores())
        passed = [p or a > group.protocol.stop_accuracy for p, a in zip(passed, scores[-1][0], strict=True)]
    accuracy, perplexity = (list(zip(*part, strict=True)) for part in zip(*scores, strict=True))
    return [Curve(task, "ours", r.seed, a, p, None) for r, a, p in zip(runs, accuracy, perplexity, strict=True)]


def spread(scores: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation; the latter is NaN for a single score."""
    return statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else math.nan


def compared(theirs: Sequence[Curve], ours: Sequence[Curve], epochs: int) -> str:
    """The sentence about one task."""
    sides = [[c.score for c in curves] for curves in (theirs, ours)]
    (a, sa), (b, sb) = (spread(scores) for scores in sides)
    error = math.sqrt(sa**2 / len(theirs) + sb**2 / len(ours))
    values = [" ".join(f"{s:.4f}" for s in scores) for scores in sides]
    return (f"{theirs[0].task}, at most {epochs} epochs, {len(ours)} seeds: reference {a:.4f} "
            f"(sd {sa:.4f}: {values[0]}), ours {b:.4f} (sd {sb:.4f}: {values[1]}); ours - reference {b - a:+.4f}, "
            f"standard error {error:.4f}")  # fmt: skip


def own_differs(theirs: Sequence[Curve]) -> float:
    """The most that the accuracy returned by the peer is off from what its epochs say by our rule."""
    return max(abs(c.own - c.score) for c in theirs if c.own is not None)


def write(path: Path, curves: Sequence[Curve]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "code", "seed", "epoch", "accuracy", "perplexity"])
        for c in curves:
            both = zip(c.accuracy, c.perplexity, strict=True)
            writer.writerows([c.task, c.code, c.seed, e, f"{a:.6f}", f"{p:.6g}"] for e, (a, p) in enumerate(both, 1))


def epochs_of(given: Sequence[str]) -> dict[str, int]:
    """Setting -> epochs, from words like compression=20; exits with a sentence for another word."""
    found = dict.fromkeys(SETTINGS, PROTOCOLS["mad"].epochs) | EPOCHS
    for word in given:
        task, _, count = word.rpartition("=")
        if task not in SETTINGS or not count.isdecimal() or int(count) < 1:
            sys.exit(f"--epochs {word}: SETTING=N with one of {', '.join(SETTINGS)} and N of at least 1")
        found[task] = int(count)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="a checkout of athms/mad-lab")
    parser.add_argument("--fla", type=Path, help="a checkout of flash-linear-attention; default: the installed one")
    parser.add_argument("--task", action="append", choices=list(SETTINGS), metavar="TASK[:NAME]", help=f"default: {', '.join(EPOCHS)}")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", action="append", default=[], metavar="SETTING=N")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--form", choices=("naive", "triton"), default="triton")
    parser.add_argument("--jobs", type=int, default=1, help="runs of the peer side by side: they wait for the CPU, not for the GPU")
    parser.add_argument("--out", type=Path, help="CSV file")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("reference_agreement needs a CUDA device, and torch sees none.")
    torch.backends.cuda.matmul.allow_tf32 = True
    epochs, tasks = epochs_of(args.epochs), args.task or list(EPOCHS)
    runs = [Run(args.lr, args.weight_decay, seed) for seed in range(args.seeds)]
    jobs = [Job(args.reference, args.fla, t, r, epochs[t]) for t in tasks for r in runs]
    print(f"{torch.cuda.get_device_name()}, lr {args.lr}, weight decay {args.weight_decay}, our form {args.form}", flush=True)
    theirs, ours = [], []
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        pending = [pool.submit(train_peer, job) for job in jobs]
        for task in tasks:
            ours += train_ours(task, args.form, runs, epochs[task])
        for task in tasks:
            theirs += [p.result() for p, job in zip(pending, jobs, strict=True) if job.task == task]
            both = [[c for c in curves if c.task == task] for curves in (theirs, ours)]
            print(compared(*both, epochs[task]), flush=True)
            if args.out:  # after each setting, so that a run that is cut off has not been for nothing
                write(args.out, [*theirs, *(c for c in ours if any(c.task == t.task for t in theirs))])
    print(f"The accuracy that the reference returned is at most {own_differs(theirs):.1e} off from its epochs' by our rule.")


if __name__ == "__main__":
    main()
