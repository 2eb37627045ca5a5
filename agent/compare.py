"""A variant's scores beside its parent's, and whether the difference is more than noise."""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .history import Entry, Past
from .records import COLUMNS, Score, Versus, mean_score

Noise = Mapping[str, float | None]
"""Column -> standard deviation of its score over seeds."""


@dataclass(frozen=True)
class Comparison:
    """What reflecting on an attempt starts from; everything in it was measured."""

    name: str
    parent: str | None
    protocol: str
    scores: Mapping[str, Score]
    parent_scores: Mapping[str, Score]
    noise: Noise
    prediction: Mapping[str, float]

    @property
    def differences(self) -> dict[str, float | None]:
        """Column -> score minus the parent's."""
        return {column: minus(self.scores.get(column), self.parent_scores.get(column)) for column in COLUMNS}

    @property
    def versus_parent(self) -> Versus:
        """By the MAD score: better or worse where the difference is above two sigma of a difference."""
        difference = minus(mean_score(dict(self.scores)), mean_score(dict(self.parent_scores)))
        bar = mean_bar(self.noise)
        if difference is None or bar is None:
            return "unknown"
        if abs(difference) <= bar:
            return "within noise"
        return "better" if difference > 0 else "worse"


def minus(new: float | None, old: float | None) -> float | None:
    return None if new is None or old is None else new - old


def bar(sigma: float | None) -> float | None:
    """The smallest difference of two scores that is not noise: two sigma of a difference."""
    return None if sigma is None else 2 * math.sqrt(2) * sigma


def mean_bar(noise: Noise) -> float | None:
    """The same for the mean of the six columns, whose errors are independent."""
    sigmas = [noise.get(column) for column in COLUMNS]
    known = [sigma for sigma in sigmas if sigma is not None]
    if len(known) < len(COLUMNS):
        return None
    return bar(math.sqrt(sum(sigma**2 for sigma in known)) / len(COLUMNS))


def measured(past: Past, name: str | None, fingerprint: str) -> Entry | None:
    """The latest scored attempt at that variant under this fingerprint; no other may be compared."""
    found = [entry for entry in scored(past, fingerprint) if entry.name == name]
    return found[-1] if found else None


def scored(past: Past, fingerprint: str) -> list[Entry]:
    """The scored attempts of one fingerprint, oldest first."""
    return [
        entry
        for entry in past.entries
        if entry.status == "scored"
        and entry.attempt
        and entry.attempt.kind == "attempt"
        and entry.evaluation
        and entry.evaluation.fingerprint == fingerprint
    ]


def results_csv(rows: Iterable[tuple[str, Mapping[str, Score | str]]]) -> str:
    """The results table: index = name, the six columns, an empty cell where there is no score."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", *COLUMNS])
    for name, scores in rows:
        cells = [scores.get(column) for column in COLUMNS]
        table.writerow([name, *("" if cell is None else cell for cell in cells)])
    return text.getvalue()
