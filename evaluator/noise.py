"""The measured noise over random seeds: the standard deviation of each column, by protocol.

`noise.csv` is written from evaluations of the baseline with several seeds by `benchmarks/noise.py`, and read by
everything that compares two scores.
"""

import csv
import dataclasses
import math
from pathlib import Path

from evaluator.protocol import COLUMNS, PROTOCOLS, Protocol

TABLE = Path(__file__).with_name("noise.csv")


def sigmas(protocol: Protocol) -> dict[str, float | None]:
    """Column -> standard deviation of one score over seeds; None where it was never measured.

    It is at least what the early end of runs leaves open: two scores above the accuracy that ends them are not told apart.
    """
    least = (1 - protocol.stop_accuracy) / math.sqrt(8)  # two sigma of a difference are the width that is left
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["protocol"] == protocol.name and int(r["version"]) == protocol.version]
    measured = {r["column"]: float(r["sigma"]) for r in rows}
    return {column: max(measured[column], least) if column in measured else None for column in COLUMNS.values()}


def of_settings(protocol: Protocol) -> dict[str, float | None]:
    """TASK:SETTING -> the same of one setting; measured where a protocol that trains alike has it alone in its task."""
    found: dict[str, float | None] = {f"{s.task}:{s.name}": None for s in protocol.settings}
    for other in PROTOCOLS.values():
        if dataclasses.replace(other, name=protocol.name, settings=protocol.settings) == protocol:
            sigma = sigmas(other)
            alone = [s for s in other.settings if [t.task for t in other.settings].count(s.task) == 1]
            found |= {key: sigma[COLUMNS[s.task]] for s in alone if (key := f"{s.task}:{s.name}") in found}
    return found
