"""What table.py compares: evaluations found on disk, the published scores, rank correlation, noise."""

import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluator.protocol import COLUMNS, Protocol, Setting, from_json
from evaluator.results import ResultsError, judged, read_json, read_rows, settings_in, summary

PUBLISHED = Path(__file__).with_name("published.csv")
REFERENCE_ROWS = Path(__file__).parent / "results" / "references"
"""Evaluations of what the gates reject by design, and no history therefore holds: never ranked."""
REFERENCES = {"softmax_attention": "reference row, unbounded state", "gla": "reference row"}
MISS = 0.03
"""Differences up to this need no explanation, whatever the noise."""
MEAN = "mean of six"

Scores = Mapping[str, float | None]
"""Column, or MEAN -> score; None where it is not whole."""


class TableError(Exception):
    """What was found can't stand in one table; one sentence."""


@dataclass(frozen=True)
class Measured:
    """One evaluation, its scores worked out anew from its runs."""

    name: str
    digest: str
    folder: Path
    fingerprint: str
    protocol: Protocol
    seeds: tuple[int, ...]
    device: str
    status: str  # as the evaluation has it; "not ended" while it is under way, was killed, or owes the gates after training
    finished: str  # empty where it has not ended
    tasks: Mapping[str, Any]  # task -> what results.summary says of it
    minutes: float

    @property
    def done(self) -> int:
        return sum(t["settings_done"] for t in self.tasks.values())

    @property
    def total(self) -> int:
        return sum(t["settings_total"] for t in self.tasks.values())

    @property
    def usable(self) -> bool:
        """Whether its rows are sound: trained, audited, and no gate left to ask."""
        return self.status in ("scored", "partial", "train-failed")

    def scores(self, kind: str) -> dict[str, float | None]:
        """Columns and MEAN; kind is "accuracy" (best of the sweep) or "sweep_mean"."""
        found = {c: self.tasks[t][kind] if self.usable and t in self.tasks else None for t, c in COLUMNS.items()}
        return found | {MEAN: mean_of(found)}

    def baselines(self) -> dict[str, float | None]:
        """Columns and MEAN, as far as each task's baseline setting alone goes."""
        settings = {c: self.tasks.get(t, {}).get("settings", {}) for t, c in COLUMNS.items()}
        found = {c: s["baseline"]["accuracy"] if self.usable and "baseline" in s else None for c, s in settings.items()}
        return found | {MEAN: mean_of(found)}


def mean_of(scores: Scores) -> float | None:
    """The mean of the six columns where all are there; a partial row has none."""
    known = [s for c in COLUMNS.values() if (s := scores.get(c)) is not None]
    return statistics.fmean(known) if len(known) == len(COLUMNS) else None


def load(folder: Path) -> Measured:
    """The evaluation in a folder, as far as its runs.csv goes; raises TableError where there is none."""
    try:
        found = read_json(folder / "evaluation.json")
        protocol, seeds = from_json(found["protocol"]), tuple(found["seeds"])
        rows = read_rows(folder)
        finished = found["finished"] if settings_in(rows) <= judged(found) else None
        return Measured(
            found["variant"]["name"], found["variant"]["digest"], folder, found["fingerprint"], protocol, seeds,
            found["device"]["name"], found["status"] if finished else "not ended", finished or "", summary(rows, protocol, seeds)["tasks"],
            sum(r.seconds for r in rows) / 60,
        )  # fmt: skip
    except (ResultsError, KeyError, TypeError) as error:
        raise TableError(f"{folder} holds no evaluation that can be read: {type(error).__name__} {error}") from None


def of_history(root: Path, protocol: str) -> list[Measured]:
    """The finished entries of a history that were scored under a protocol; other protocols are passed over."""
    folders = sorted(p.parent for p in root.glob("*/attempt.json") if (p.parent / "evaluation.json").exists())
    return [m for m in map(load, folders) if m.protocol.name == protocol]


def references(found: Sequence[Measured]) -> list[Measured]:
    """The reference rows that are comparable with what was found."""
    rows = map(load, sorted(p.parent for p in REFERENCE_ROWS.glob("*/evaluation.json")))
    return [m for m in rows if m.fingerprint in {f.fingerprint for f in found}]


def one_fingerprint(found: Sequence[Measured]) -> None:
    """Raises TableError where two evaluations are not comparable."""
    if not found:
        raise TableError("no evaluation was found: nothing to show")
    first = found[0]
    for m in found:
        if m.fingerprint != first.fingerprint:
            raise TableError(
                f"{first.folder} ({first.protocol.name}, fingerprint {first.fingerprint}) and {m.folder} ({m.protocol.name}, "
                f"fingerprint {m.fingerprint}) are not comparable: one table holds one fingerprint, which --fingerprint chooses"
            )


def chosen(found: Iterable[Measured]) -> dict[str, Measured]:
    """Variant -> its evaluation with most settings done, the latest of those; one that is no score only where there is no other."""
    ordered = sorted(found, key=lambda m: (m.usable, m.done, m.finished))
    return {m.name: m for m in ordered}


def published(path: Path = PUBLISHED) -> dict[str, dict[str, Scores]]:
    """Set -> variant -> published scores, in the order of the file, latest set first."""
    sets: dict[str, dict[str, Scores]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            scores = {c: float(row[c]) for c in COLUMNS.values()}
            sets.setdefault(row["set"], {})[row["variant"]] = scores | {MEAN: mean_of(scores)}
    return dict(sorted(sets.items(), reverse=True))


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1, equal values sharing the mean of theirs."""
    ordered = sorted(values)
    return [ordered.index(v) + (ordered.count(v) + 1) / 2 for v in values]


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Correlation of the ranks; None for fewer than three pairs or a side that is all equal."""
    if len(pairs) < 3:
        return None
    sides = [ranks(side) for side in zip(*pairs, strict=True)]
    if any(len(set(side)) == 1 for side in sides):
        return None
    return statistics.correlation(*sides)


def correlations(theirs: Mapping[str, Scores], ours: Mapping[str, Scores]) -> dict[str, tuple[float | None, int]]:
    """Column, or MEAN -> Spearman and the number of rows that are whole there."""
    result = {}
    for column in (*COLUMNS.values(), MEAN):
        both = [(p[column], ours[name][column]) for name, p in theirs.items() if name in ours]
        pairs = [(p, o) for p, o in both if p is not None and o is not None]
        result[column] = (spearman(pairs), len(pairs))
    return result


@dataclass(frozen=True)
class Standing:
    """How one setting alone would stand for its task, over the variants that are whole there."""

    setting: Setting
    lowest: float
    highest: float
    correlation: float | None  # Spearman of the setting with the task's score
    distance: float  # standard deviation, over the variants, of what the setting is above its task's score
    variants: int
    seconds: float  # of training, median over the variants


def standings(ours: Mapping[str, Measured], protocol: Protocol) -> list[Standing]:
    """Each setting of the protocol. A run ends where it passes `stop_accuracy`: what it has above that is luck, and ranks alike."""
    result = []
    for setting in protocol.settings:
        whole = [t for m in ours.values() if m.usable and (t := m.tasks.get(setting.task)) and t["accuracy"] is not None]
        if whole:
            alone = [t["settings"][setting.name] for t in whole]
            scores = [min(s["accuracy"], protocol.stop_accuracy) for s in alone]
            related = spearman(list(zip(scores, (t["accuracy"] for t in whole), strict=True)))
            distance = statistics.pstdev(s["accuracy"] - t["accuracy"] for s, t in zip(alone, whole, strict=True))
            seconds = statistics.median(s["seconds"] for s in alone)
            result.append(Standing(setting, min(scores), max(scores), related, distance, len(whole), seconds))
    return result


def agreement_of(settings: Sequence[Setting], ours: Mapping[str, Measured]) -> tuple[float | None, float | None, int]:
    """The mean over one setting a task beside the mean of six: Spearman, distance as above, how many whole variants have both."""
    pairs = []
    for m in ours.values():
        mean = m.scores("accuracy")[MEAN]
        if mean is not None and set(settings) <= set(m.protocol.settings):
            pairs.append((statistics.fmean(m.tasks[s.task]["settings"][s.name]["accuracy"] for s in settings), mean))
    return spearman(pairs), statistics.pstdev(x - y for x, y in pairs) if pairs else None, len(pairs)


def pooled(found: Iterable[Measured]) -> dict[str, tuple[float, int, int]]:
    """Column -> sigma over seeds within a variant, the variants it comes from, its degrees of freedom."""
    sigma = {}
    for (column, setting), by_variant in by_seed(found).items():
        several = [list(s.values()) for s in by_variant.values() if len(s) > 1]
        if not setting and several:
            value, freedom = within(several)
            sigma[column] = (value, len(several), freedom)
    return sigma


def by_seed(found: Iterable[Measured]) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """(column, setting) -> digest of a variant -> seed -> score; an empty setting stands for a column that is whole."""
    scores: dict[tuple[str, str], dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for m in found:
        for task, result in m.tasks.items():
            for setting, s in result["settings"].items():
                scores[COLUMNS[task], setting][m.digest] |= s["by_seed"]
            if result["accuracy"] is not None:
                scores[COLUMNS[task], ""][m.digest] |= dict(zip(map(str, m.seeds), scores_by_seed(result), strict=True))
    return scores


def scores_by_seed(task: Mapping[str, Any]) -> list[float]:
    """One score a seed: the mean over the task's settings."""
    seeds = list(next(iter(task["settings"].values()))["by_seed"])
    return [statistics.fmean(s["by_seed"][seed] for s in task["settings"].values()) for seed in seeds]


def within(scores: Iterable[Sequence[float]]) -> tuple[float, int]:
    """The standard deviation within groups of two scores and more, pooled over the groups, and its degrees of freedom."""
    groups = list(scores)
    freedom = sum(len(g) - 1 for g in groups)
    return math.sqrt(sum((len(g) - 1) * statistics.variance(g) for g in groups) / freedom), freedom


def misses(ours: float | None, theirs: float | None, sigma: float | None, seeds: int) -> bool:
    """Whether a difference needs a sentence: above MISS and above two sigma of a score over so many seeds."""
    if ours is None or theirs is None:
        return False
    return abs(ours - theirs) > max(MISS, 2 * (sigma or 0.0) / math.sqrt(seeds))
