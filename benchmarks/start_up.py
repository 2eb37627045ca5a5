"""Seconds from the command to the first training steps, on a first and on a second start.

    python benchmarks/start_up.py --variant variants/delta_net --out start_up.csv

Each start scores the same setting in a folder of its own, as `python -m evaluator score` does, and is ended at the
first report of progress: after one epoch of it and its test, which is two steps of memorization's baseline (256
examples). The first start has an empty cache of compiled kernels (XDG_CACHE_HOME, which is set to a folder of our own),
the later ones have what it left. Columns: start, device, seconds (command to first report), training (of it,
the seconds since the training itself began).
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def start(variant: Path, task: str, protocol: str, cache: Path) -> dict[str, Any]:
    """One start: seconds to the first report, and how many of them belong to the training itself."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "evaluator", "score", str(variant), "--protocol", protocol, "--task", task]
        command += ["--out", out, "--events"]
        began = time.monotonic()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"XDG_CACHE_HOME": str(cache)}, text=True)
        try:
            event = first_progress(child)
            seconds = time.monotonic() - began
        finally:
            child.send_signal(signal.SIGINT)
            child.wait()
        device = json.loads((Path(out) / "evaluation.json").read_text())["device"]["name"]
        return {"device": device, "seconds": f"{seconds:.2f}", "training": f"{event['step'] / event['steps_per_second']:.2f}"}


def first_progress(child: "subprocess.Popen[str]") -> dict[str, Any]:
    assert child.stdout is not None
    for line in child.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "progress":
            return event
    raise SystemExit("the evaluation ended before its first report")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", type=Path, default=Path("variants/delta_net"))
    parser.add_argument("--protocol", default="mad")
    parser.add_argument("--task", default="memorization")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="takes a row a start")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache, args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("start", "device", "seconds", "training"))
        writer.writeheader()
        for number in range(1, args.starts + 1):
            row = {"start": number, **start(args.variant, args.task, args.protocol, Path(cache))}
            writer.writerow(row)
            print(row, flush=True)


if __name__ == "__main__":
    main()
