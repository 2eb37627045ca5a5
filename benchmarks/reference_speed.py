"""Time of a training step of MAD's reference code and of ours, on one GPU in one process.

    python benchmarks/reference_speed.py --reference MAD-LAB [--fla FLASH-LINEAR-ATTENTION] [--out speed.csv]

The peer (see reference.py) trains ONE run by its own train() with its defaults: Lightning, bf16 autocast, data
loader without workers, CSV log, progress bar, two checkpoints an epoch, fla's DeltaNet as mixer. Ours trains the
six runs of a sweep at once. Both are timed over whole epochs after the first: the training part alone, and all of
the epoch with its test pass (for the peer also its log and checkpoints), each divided by the epoch's optimiser
steps. Data, set-up and compilation are left out on both sides. The ratio is the peer's time for one run's step
over a sixth of ours. Variants are loaded in this process: use it on code that you trust.
"""

import argparse
import csv
import statistics
import sys
from pathlib import Path
from typing import Any

import reference
import torch
from step_speed import build, measure

from evaluator.fusion.library import Library
from evaluator.protocol import BASELINES, PROTOCOLS, Run, Setting, sweep

VARIANT = Path(__file__).parents[1] / "variants" / "delta_net"
SWEEP = sweep(PROTOCOLS["mad"], [0])
NEVER_STOPS = Run(lr=1e-6, weight_decay=0.0, seed=0)  # learns too slowly to pass the accuracy that ends a run


def steps_of(setting: Setting) -> tuple[int, int]:
    """Optimiser steps of an epoch, and batches of its test pass."""
    size = PROTOCOLS["mad"].batch_size
    return -(-setting.num_train_examples // size), -(-setting.num_test_examples // size)


def time_peer(peer: reference.Peer, setting: Setting, epochs: int) -> dict[str, float]:
    """Milliseconds a step of the peer's one run: medians over `epochs` epochs after the first."""
    seen, _ = reference.train(peer, setting, NEVER_STOPS, epochs + 1)
    if len(seen.trained) != epochs + 1:
        raise RuntimeError(f"{setting.task}: the peer trained {len(seen.trained)} epochs instead of {epochs + 1}")
    steps, _ = steps_of(setting)
    trained = [t - b for b, t in zip(seen.began, seen.trained, strict=False)][1:]
    whole = [end - b for b, end in zip(seen.began, seen.began[1:], strict=False)][1:]
    return {"train_ms": 1e3 * statistics.median(trained) / steps, "whole_ms": 1e3 * statistics.median(whole) / steps}


def time_ours(setting: Setting, form: str, epochs: int) -> dict[str, float]:
    """Milliseconds a step of our group of a whole sweep; a naive operator is compiled, as in training."""
    group = build(VARIANT, form, setting, SWEEP)
    if form == "naive":
        print(group.compile(Library()), flush=True)
    found = measure(group, epochs)
    steps, _ = steps_of(setting)
    torch.cuda.empty_cache()
    return {"train_ms": found["ms_step"], "whole_ms": found["ms_step"] + found["ms_test"] / steps}


def rows_of(peer: reference.Peer, setting: Setting, forms: list[str], epochs: int) -> list[dict[str, Any]]:
    """The peer's row, then one for each form of our operator."""
    steps, batches = steps_of(setting)
    same = {"device": torch.cuda.get_device_name(), "task": setting.task, "setting": setting.name,
            "steps_an_epoch": steps, "test_batches_an_epoch": batches, "epochs_timed": epochs}  # fmt: skip
    theirs = time_peer(peer, setting, epochs)
    rows = [{**same, "code": "reference", "runs": 1, **theirs, "train_ratio": 1.0, "whole_ratio": 1.0}]
    for form in forms:
        ours, runs = time_ours(setting, form, epochs), len(SWEEP)
        ratios = {f"{part}_ratio": theirs[f"{part}_ms"] * runs / ours[f"{part}_ms"] for part in ("train", "whole")}
        rows.append({**same, "code": f"ours {form}", "runs": runs, **ours, **ratios})
    return rows


def print_row(row: dict[str, Any]) -> None:
    print(f"{row['task']:18s} {row['code']:12s} {row['runs']} run(s) at once: {row['train_ms']:7.2f} ms a step of training, "
          f"{row['whole_ms']:7.2f} ms with the epoch's test pass; per run and step {row['train_ratio']:.1f} x and "
          f"{row['whole_ratio']:.1f} x the reference", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="a checkout of athms/mad-lab")
    parser.add_argument("--fla", type=Path, help="a checkout of flash-linear-attention; default: the installed one")
    parser.add_argument("--task", action="append", choices=sorted(BASELINES), help="default: compression and in-context-recall")
    parser.add_argument("--form", action="append", choices=("naive", "triton"), help="default: both")
    parser.add_argument("--epochs", type=int, default=3, help="epochs timed, after one that is not")
    parser.add_argument("--out", type=Path, help="CSV file")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("reference_speed needs a CUDA device, and torch sees none.")
    peer = reference.connect(args.reference, args.fla)
    torch.backends.cuda.matmul.allow_tf32 = True
    rows = []
    for task in args.task or ["compression", "in-context-recall"]:
        found = rows_of(peer, BASELINES[task], args.form or ["naive", "triton"], args.epochs)
        for row in found:
            print_row(row)
        rows += found
    print("Timed: whole epochs after the first. Not timed: data, set-up, compilation. See --help.")
    if args.out:
        with args.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
