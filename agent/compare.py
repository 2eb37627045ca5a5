"""A variant's scores beside its parent's, else the baseline's, and whether the difference is more than noise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from .history import Entry, Past
from .records import COLUMNS, Evaluation, ProtocolInfo, Score, Versus, mean_score

BASELINE = "delta_net"

Noise = Mapping[str, float | None]
"""Column -> standard deviation of its score over seeds."""


@dataclass(frozen=True)
class Setting:
    """One setting of a row that is not whole, beside the same of another variant."""

    task: str
    name: str
    accuracy: float | None
    other: float | None
    sigma: float | None  # over seeds; None where it was not measured

    @property
    def difference(self) -> float | None:
        return minus(self.accuracy, self.other)


@dataclass(frozen=True)
class Comparison:
    """What reflecting on an attempt starts from; everything in it was measured."""

    name: str
    parent: str | None
    against: str | None  # whose scores `parent_scores` are: the parent, or the baseline where no parent was scored
    protocol: str
    scores: Mapping[str, Score]
    parent_scores: Mapping[str, Score]
    noise: Noise
    prediction: Mapping[str, float]
    settings: Sequence[Setting] = ()  # of a row that is not whole
    of: int = 0  # how many settings a whole row has

    @property
    def differences(self) -> dict[str, float | None]:
        """Column -> score minus the parent's."""
        return {column: minus(self.scores.get(column), self.parent_scores.get(column)) for column in COLUMNS}

    @property
    def mean(self) -> float | None:
        return mean_score(dict(self.scores))

    @property
    def parent_mean(self) -> float | None:
        return mean_score(dict(self.parent_scores))

    @property
    def mean_difference(self) -> float | None:
        return minus(self.mean, self.parent_mean)

    @property
    def mean_noise(self) -> float | None:
        """The smallest difference of two means that is not noise."""
        return mean_bar(self.noise)

    @property
    def versus_parent(self) -> Versus:
        """The verdict, where it is the parent that stands beside it."""
        return self.versus if self.against == self.parent else "unknown"

    @property
    def versus(self) -> Versus:
        """By the MAD score: better or worse where the difference is above two sigma of a difference."""
        return judged(self.mean_difference, self.mean_noise)


def judged(difference: float | None, limit: float | None) -> Versus:
    """What a difference says, given the smallest one that is not noise."""
    if difference is None or limit is None:
        return "unknown"
    if abs(difference) <= limit:
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


def beside(past: Past, name: str | None, parent: str | None, evaluation: Evaluation) -> Entry | None:
    """What a score is compared with: its parent's, else the baseline's, under the same fingerprint.

    Of several the one that has most settings in common, the latest of those; None where none has any.
    """
    for other in (parent, BASELINE):
        found = [entry for entry in scored(past, evaluation.fingerprint) if entry.name == other != name]
        best = max(reversed(found), key=lambda entry: _common(entry, evaluation), default=None)
        if best and _common(best, evaluation):
            return best
    return None


def stood_beside(entry: Entry, past: Past) -> Entry | None:
    """What the scores of an entry stand beside: of what was there when it ended, else of what came after."""
    if not entry.evaluation:
        return None
    ended = {other.id: (_ended(other), number) for number, other in enumerate(past.entries)}
    then = _ended(entry), ended[entry.id][1]
    before = Past(tuple(other for other in past.entries if ended[other.id] < then), past.problems)
    found = (beside(known, entry.name, entry.about.parent, entry.evaluation) for known in (before, past))
    return next(filter(None, found), None)


def _ended(entry: Entry) -> datetime:
    return entry.attempt.finished.replace(tzinfo=None) if entry.attempt else datetime.max


def _common(entry: Entry, evaluation: Evaluation) -> int:
    return len(entry.evaluation.settings.keys() & evaluation.settings.keys()) if entry.evaluation else 0


def settings_beside(evaluation: Evaluation, other: Entry | None, noise: Noise) -> list[Setting]:
    """The settings that are done of a row that is not whole, each beside the other's; none of one that is."""
    if evaluation.status == "scored":
        return []
    old = other.evaluation.settings if other and other.evaluation else {}
    return [
        Setting(task, name, accuracy, old.get((task, name)), noise.get(f"{task}:{name}"))
        for (task, name), accuracy in evaluation.settings.items()
    ]


def compare(
    past: Past, name: str, parent: str | None, evaluation: Evaluation, protocol: ProtocolInfo, prediction: Mapping[str, float]
) -> Comparison:
    """What was measured, beside the parent's or the baseline's."""
    before = beside(past, name, parent, evaluation)
    return Comparison(
        name,
        parent,
        before.name if before else None,
        evaluation.protocol.name,
        evaluation.row,
        before.scores if before else {},
        protocol.noise,
        prediction,
        settings_beside(evaluation, before, protocol.setting_noise),
        sum(task.settings_total for task in evaluation.tasks.values()),
    )


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
