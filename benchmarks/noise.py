"""The noise over random seeds, from an evaluation with several seeds, into evaluator/noise.csv.

    python -m evaluator score variants/delta_net --protocol smoke --seeds 5 --out /tmp/noise
    python benchmarks/noise.py /tmp/noise

A column's sigma is the standard deviation over seeds of that task's score, a setting's of its own score alone; rows of
the same protocol and version are replaced, those of a column together.
"""

import argparse
import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from evaluator.noise import TABLE
from evaluator.protocol import COLUMNS


def scores_by_seed(task: dict[str, Any]) -> list[float]:
    """One score a seed: the mean over the task's settings."""
    seeds = list(next(iter(task["settings"].values()))["by_seed"])
    return [statistics.fmean(s["by_seed"][seed] for s in task["settings"].values()) for seed in seeds]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """A row for each task whose settings are all done, and one for each of them."""
    found = json.loads((folder / "evaluation.json").read_text())
    if found["finished"] is None or found["status"] not in ("scored", "partial"):
        sys.exit(f"noise: {folder} holds no score: {found['status']}{'' if found['finished'] else ', and it has not ended'}")
    rows = []
    for name, task in found["tasks"].items():
        if task["accuracy"] is None:
            continue
        of_settings = {setting: list(s["by_seed"].values()) for setting, s in task["settings"].items()}
        for setting, scores in {"": scores_by_seed(task), **of_settings}.items():
            rows.append({
                "protocol": found["protocol"]["name"], "version": found["protocol"]["version"], "column": COLUMNS[name],
                "setting": setting, "sigma": f"{statistics.stdev(scores):.5f}", "mean": f"{statistics.fmean(scores):.5f}",
                "seeds": len(scores), "variant": found["variant"]["name"], "device": found["device"]["name"],
                "date": found["finished"][:10],
            })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+")
    new = [row for folder in parser.parse_args().folder for row in rows_of(folder)]
    replaced = {(r["protocol"], str(r["version"]), r["column"]) for r in new}
    with TABLE.open(newline="") as file:
        kept = [r for r in csv.DictReader(file) if (r["protocol"], r["version"], r["column"]) not in replaced]
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["protocol", "version", "column", "setting", "sigma", "mean", "seeds", "variant", "device", "date"], lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *new])
    for row in new:
        print(row["protocol"], row["column"], row["setting"] or "(the column)", "sigma", row["sigma"], "over", row["seeds"], "seeds")


if __name__ == "__main__":
    main()
