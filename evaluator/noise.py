"""The measured noise over random seeds: the standard deviation of each column, and of each setting, by protocol.

`noise.csv` is written from evaluations with several seeds by `benchmarks/noise.py`, and read by everything that compares
two scores.
"""

import csv
import dataclasses
import math
from pathlib import Path

from evaluator.protocol import COLUMNS, PROTOCOLS, Protocol

TABLE = Path(__file__).with_name("noise.csv")


def sigmas(protocol: Protocol) -> dict[str, float | None]:
    """Column -> standard deviation of one score over seeds; None where not every setting of it was measured.

    That of a mean of settings trained apart, or the column's own where that is more, as what a seed does to all its
    settings shows there alone. It is at least what the early end of runs leaves open: two scores above the accuracy that
    ends them are not told apart.
    """
    alone = of_settings(protocol)
    of_column = {r["column"]: float(r["sigma"]) for r in _rows() if _is(r, protocol) and not r["setting"]}
    found: dict[str, float | None] = dict.fromkeys(COLUMNS.values())
    for task in protocol.tasks:
        of_task = [alone[f"{task}:{s.name}"] for s in protocol.settings if s.task == task]
        known = [sigma for sigma in of_task if sigma is not None]
        if len(known) == len(of_task):
            column = COLUMNS[task]
            found[column] = _told_apart(protocol, max(math.hypot(*known) / len(known), of_column.get(column, 0.0)))
    return found


def of_settings(protocol: Protocol) -> dict[str, float | None]:
    """TASK:SETTING -> the same of one setting, measured under any protocol that trains alike."""
    alike = [
        other for other in PROTOCOLS.values()
        if dataclasses.replace(other, name=protocol.name, version=protocol.version, settings=protocol.settings) == protocol
    ]  # fmt: skip
    rows = [r for r in _rows() if any(_is(r, other) for other in alike)]
    measured = {(r["column"], r["setting"]): float(r["sigma"]) for r in rows}
    found = {f"{s.task}:{s.name}": measured.get((COLUMNS[s.task], s.name)) for s in protocol.settings}
    return {name: None if sigma is None else _told_apart(protocol, sigma) for name, sigma in found.items()}


def _rows() -> list[dict[str, str]]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _is(row: dict[str, str], protocol: Protocol) -> bool:
    return row["protocol"] == protocol.name and int(row["version"]) == protocol.version


def _told_apart(protocol: Protocol, sigma: float) -> float:
    return max(sigma, (1 - protocol.stop_accuracy) / math.sqrt(8))  # two sigma of a difference are the width that is left
