"""The noise over random seeds, from evaluations with several seeds, into evaluator/noise.csv.

    python -m evaluator score variants/delta_net --protocol smoke --seeds 5 --out /tmp/noise
    python benchmarks/noise.py /tmp/noise

A setting's sigma is the standard deviation of its score over seeds, of several variants the one within them: the root of
their variances' mean. A column of several settings has a row of its own where all of them were trained. What was
measured of the same protocol, version, column and setting before is replaced, unless it is of more scores: one variant
that is near its end has less noise than most.
"""

import argparse
import csv
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measured import Measured, TableError, by_seed, load, within

from evaluator.noise import TABLE
from evaluator.protocol import COLUMNS

FIELDS = ("protocol", "version", "column", "setting", "sigma", "mean", "seeds", "variant", "device", "date")
KEY = FIELDS[:4]


def rows_of(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row for each setting, and each whole column of several, that one variant at least was trained on with several seeds."""
    rows = []
    for name, version in sorted({(m.protocol.name, m.protocol.version) for m in found}):
        alike = [m for m in found if (m.protocol.name, m.protocol.version) == (name, version)]
        count = Counter(COLUMNS[s.task] for s in alike[0].protocol.settings)
        for (column, setting), by_variant in by_seed(alike).items():
            several = {digest: list(scores.values()) for digest, scores in by_variant.items() if len(scores) > 1}
            if several and (setting or count[column] > 1):
                key = dict(zip(KEY, (name, str(version), column, setting), strict=True))
                rows.append(key | row_of(several, [m for m in alike if m.digest in several and (column, setting) in by_seed([m])]))
    return rows


def row_of(several: Mapping[str, Sequence[float]], sources: Sequence[Measured]) -> dict[str, Any]:
    """What the table says of one setting, from the scores of each variant and the evaluations that they are of."""
    return {
        "sigma": f"{within(several.values())[0]:.5f}",
        "mean": f"{statistics.fmean(x for scores in several.values() for x in scores):.5f}",
        "seeds": sum(map(len, several.values())), "variant": " ".join(sorted({m.name for m in sources})),
        "device": " ".join(sorted({m.device for m in sources})), "date": max(m.finished for m in sources)[:10],
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
    with TABLE.open(newline="") as file:
        table = {tuple(r[k] for k in KEY): r for r in csv.DictReader(file)}
    new = rows_of(found)
    for row in new:
        key = tuple(row[k] for k in KEY)
        told = f"{row['protocol']} {row['column']} {row['setting'] or '(the column)'}: sigma {row['sigma']} of {row['seeds']} scores"
        stored = table.get(key)
        if stored and int(stored["seeds"]) > row["seeds"]:
            print(f"{told}; {stored['sigma']} of {stored['seeds']} stays")
        else:
            table[key] = row
            print(told)
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.values())
    return 0 if new else 1


if __name__ == "__main__":
    sys.exit(main())
