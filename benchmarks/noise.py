"""The noise over random seeds, from evaluations with several seeds, into evaluator/noise.csv.

    python -m evaluator score variants/delta_net --protocol smoke --seeds 5 --out /tmp/noise
    python benchmarks/noise.py /tmp/noise

A setting's sigma is the standard deviation of its score over seeds, of several variants the one within them: the root of
their variances' mean. A column of several settings has a row of its own where all of them were trained. What was
measured of the same protocol, version, column and setting before is replaced.
"""

import argparse
import csv
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from measured import Measured, TableError, load, scores_by_seed, within

from evaluator.noise import TABLE
from evaluator.protocol import COLUMNS

FIELDS = ("protocol", "version", "column", "setting", "sigma", "mean", "seeds", "variant", "device", "date")
KEY = FIELDS[:4]


def scores_of(m: Measured) -> dict[tuple[str, str], dict[str, float]]:
    """(column, setting) -> seed -> score; an empty setting stands for the whole column."""
    found = {}
    for task, result in m.tasks.items():
        for setting, s in result["settings"].items():
            found[COLUMNS[task], setting] = s["by_seed"]
        if result["settings_total"] > 1 and result["accuracy"] is not None:
            found[COLUMNS[task], ""] = dict(zip(map(str, m.seeds), scores_by_seed(result), strict=True))
    return found


def rows_of(found: Iterable[Measured]) -> list[dict[str, Any]]:
    """A row for each setting and each whole column that one variant at least was trained on with several seeds."""
    scores: dict[tuple[str, ...], dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    sources: dict[tuple[str, ...], list[Measured]] = defaultdict(list)
    for m in found:
        for (column, setting), by_seed in scores_of(m).items():
            key = (m.protocol.name, str(m.protocol.version), column, setting)
            scores[key][m.digest].update(by_seed)
            sources[key].append(m)
    return [dict(zip(KEY, key, strict=True)) | row for key, of in scores.items() if (row := row_of(of, sources[key]))]


def row_of(by_variant: Mapping[str, Mapping[str, float]], sources: Iterable[Measured]) -> dict[str, Any] | None:
    """What the table says of one setting; None where no variant has several seeds."""
    several = {digest: list(of.values()) for digest, of in by_variant.items() if len(of) > 1}
    if not several:
        return None
    used = [m for m in sources if m.digest in several]
    return {
        "sigma": f"{within(several.values())[0]:.5f}",
        "mean": f"{statistics.fmean(x for scores in several.values() for x in scores):.5f}",
        "seeds": sum(map(len, several.values())), "variant": " ".join(sorted({m.name for m in used})),
        "device": " ".join(sorted({m.device for m in used})), "date": max(m.finished for m in used)[:10],
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+")
    try:
        found = [load(folder) for folder in parser.parse_args(arguments).folder]
    except TableError as error:
        print(f"noise: {error}", file=sys.stderr)
        return 2
    for m in found:
        if not (m.usable and m.finished):
            print(f"noise: {m.folder} holds no score: {m.status}", file=sys.stderr)
            return 2
    new = rows_of(found)
    replaced = {tuple(r[k] for k in KEY) for r in new}
    with TABLE.open(newline="") as file:
        kept = [r for r in csv.DictReader(file) if tuple(r[k] for k in KEY) not in replaced]
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *new])
    for row in new:
        print(row["protocol"], row["column"], row["setting"] or "(the column)", "sigma", row["sigma"], "of", row["seeds"], "seeds")
    return 0 if new else 1


if __name__ == "__main__":
    sys.exit(main())
