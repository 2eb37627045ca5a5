"""Time of one training step of a six-run group on a GPU, and what the time goes into.

    python benchmarks/step_speed.py --variant variants/delta_net --form naive --out steps.csv [--profile]

Prints a row per setting: milliseconds a step (median over epochs after the first), milliseconds of a scored
epoch's test pass, seconds before the first step, peak memory. Variants are loaded in this process: use it on
code that you trust.
"""

import argparse
import csv
import importlib.util
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch

from evaluator.fusion.library import Library
from evaluator.group import Group
from evaluator.model import architecture, operations, stream_seed
from evaluator.protocol import PROTOCOLS, Run, Setting, settings_of, sweep


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"variant_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def build(folder: Path, form: str, setting: Setting, runs: Sequence[Run]) -> Group:
    """A group ready to train, as the worker builds it."""
    protocol = PROTOCOLS["mad"]
    naive, module = load(folder / "naive.py"), load(folder / f"{form}.py")
    sizes = (protocol.num_heads, protocol.head_dim)
    projections = naive.projections(*sizes) if hasattr(naive, "projections") else {}

    def declare(stream: str) -> dict[str, object]:
        generator = torch.Generator().manual_seed(stream_seed(stream) % 2**63)
        given = naive.parameters(*sizes, generator) if hasattr(naive, "parameters") else {}
        return {k: v.numpy() for k, v in given.items()}

    def operator(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        rest = {k: v for k, v in inputs.items() if k not in ("q", "k", "v", "beta")}
        q, k, v, beta = (inputs[n] for n in ("q", "k", "v", "beta"))
        with torch.autocast("cuda", enabled=False):
            out: torch.Tensor = module.delta_rule(q, k, v, beta, chunk_size=protocol.chunk_size, **rest)
        return out

    shapes = {k: tuple(v.shape) for k, v in declare("shapes").items()}  # type: ignore[attr-defined]
    arch = architecture(setting, protocol, projections, shapes)
    return Group(setting, protocol, runs, arch, operator, declare, torch.device("cuda"), operations(torch.device("cuda")))  # type: ignore[arg-type]


def measure(group: Group, epochs: int) -> dict[str, float]:
    """Seconds of set-up, then medians over epochs."""
    started = time.perf_counter()
    group.epoch(0)
    group.test_scores()
    torch.cuda.synchronize()
    first = time.perf_counter() - started
    steps = -(-group.order.shape[1] // group.protocol.batch_size)
    trains, tests = [], []
    for number in range(1, epochs + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        group.epoch(number)
        torch.cuda.synchronize()
        middle = time.perf_counter()
        group.test_scores()
        trains.append((middle - start) / steps)
        tests.append(time.perf_counter() - middle)
    return {
        "ms_step": 1e3 * statistics.median(trains),
        "ms_test": 1e3 * statistics.median(tests),
        "first_epoch_s": first,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
    }


def profile(group: Group, steps: int = 5) -> None:
    """Where one step's time goes, by kernel."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        group.cursor.zero_()
        for _ in range(steps):
            group._run("train", group.protocol.batch_size)
        torch.cuda.synchronize()
    rows = sorted(found.key_averages(), key=lambda e: -e.self_device_time_total)
    total = sum(e.self_device_time_total for e in rows)
    print(
        f"  kernels: {total / steps / 1e3:.2f} ms a step, {sum(e.count for e in rows) / steps:.0f} launches"
    )
    for e in rows[:22]:
        share = e.self_device_time_total / total
        print(
            f"  {e.self_device_time_total / steps:8.1f} us {share:5.1%} {e.count / steps:5.1f}x  {e.key[:110]}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", type=Path, default=Path("variants/delta_net"))
    parser.add_argument("--form", choices=("naive", "triton"), default="naive")
    parser.add_argument("--compile", action="store_true", help="compile the operator as training does")
    parser.add_argument("--setting", action="append", help="task or task:name, e.g. compression:seq_len=64")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    rows = []
    for wanted in args.setting or ["compression", "in-context-recall"]:
        task, _, name = wanted.partition(":")
        setting = next(s for s in settings_of(task) if s.name == (name or "baseline"))
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        group = build(args.variant, args.form, setting, sweep(PROTOCOLS["mad"], [0])[: args.runs])
        if args.compile:
            print(group.compile(Library()), flush=True)
        build_s = time.perf_counter() - started
        row = {
            "variant": args.variant.name,
            "form": args.form,
            "compiled": args.compile,
            "task": task,
            "setting": setting.name,
            "runs": args.runs,
            "build_s": build_s,
            **measure(group, args.epochs),
        }
        rows.append(row)
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        if args.profile:
            profile(group)
        del group
        torch.cuda.empty_cache()
    if args.out:
        with args.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
