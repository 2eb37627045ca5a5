"""Controls of a protocol: settings trained with other schedules and numbers of heads, everything else as it is.

    python benchmarks/controls.py --setting compression:num_train_examples=800 --heads 1 2 4 --out controls.csv

Prints a row per setting, schedule and number of heads: the accuracy at the epoch of lowest test perplexity of every rate in
the sweep (or of --lr alone), and the last epoch's. The width of all heads together stays 128. Variants are loaded in
this process: use it on code that you trust.
"""

import argparse
import csv
import dataclasses
import itertools
import time
from pathlib import Path

import torch
from step_speed import load

from evaluator.group import Group
from evaluator.model import architecture, operations
from evaluator.protocol import PROTOCOLS, Protocol, Setting, sweep
from evaluator.train import Progress, train_group


def trained(source: Path, setting: Setting, protocol: Protocol, seeds: range) -> dict[str, list[float]]:
    """Accuracies of all runs: at their best epochs, and at the last."""
    module = load(source)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def operator(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        out: torch.Tensor = module.delta_rule(**inputs, chunk_size=protocol.chunk_size)
        return out

    arch = architecture(setting, protocol, {}, {})
    runs = sweep(protocol, seeds)
    group = Group(setting, protocol, runs, arch, operator, lambda stream: {}, device, operations(device))
    started = time.monotonic()

    def report(progress: Progress) -> None:
        if progress.epoch % 20 == 0:
            best = max(progress.accuracy)
            left = (time.monotonic() - started) / progress.epoch * (protocol.epochs - progress.epoch)
            print(f"  epoch {progress.epoch}: {best:.4f}, {left:.0f} s left", flush=True)

    found = train_group(group, report)
    return {"best": list(found.accuracy), "last": list(found.last_accuracy)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", type=Path, default=Path("variants/delta_net"), help="one that declares nothing")
    parser.add_argument("--form", choices=("naive", "triton"), default="naive")
    parser.add_argument("--setting", nargs="+", default=["compression:num_train_examples=800"], metavar="TASK:SETTING")
    parser.add_argument("--schedule", nargs="+", default=["constant", "cosine"], choices=("constant", "cosine"))
    parser.add_argument("--heads", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--lr", nargs="+", type=float, default=list(PROTOCOLS["mad"].lrs))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    known = {f"{s.task}:{s.name}": s for s in PROTOCOLS["mad"].settings}
    if unknown := set(args.setting) - set(known):
        parser.error(f"there is no setting {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    torch.backends.cuda.matmul.allow_tf32 = True
    rows = []
    for name, schedule, heads in itertools.product(args.setting, args.schedule, args.heads):
        protocol = dataclasses.replace(
            PROTOCOLS["mad"], schedule=schedule, num_heads=heads, head_dim=128 // heads, lrs=tuple(args.lr), weight_decays=(0.0,)
        )
        found = trained(args.variant / f"{args.form}.py", known[name], protocol, range(args.seeds))
        for run, best, last in zip(sweep(protocol, range(args.seeds)), found["best"], found["last"], strict=True):
            row = {"setting": name, "schedule": schedule, "heads": heads, "lr": run.lr, "seed": run.seed}
            rows.append({**row, "best": best, "last": last})
            print({**row, "best": round(best, 4), "last": round(last, 4)}, flush=True)
    if args.out:
        with args.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
