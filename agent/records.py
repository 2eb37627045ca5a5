"""The records that an attempt leaves behind, as they stand in its folder."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

COLUMN_OF = {
    "compression": "Compress",
    "in-context-recall": "Context Recall",
    "fuzzy-in-context-recall": "Fuzzy Recall",
    "memorization": "Memorize",
    "noisy-in-context-recall": "Noisy Recall",
    "selective-copying": "Selective Copy",
}
"""Task -> its column."""

SERVER_THEN = " (the try after it: "
"""In the reason of a failure: behind it stands what became of the server, which teaches nothing."""
COLUMNS = tuple(COLUMN_OF.values())
"""The six columns of every results table, in its order."""

VERSION = 1
"""Of attempt.json and start.json; raised when an older program could misread a newer entry."""

Kind = Literal["attempt", "replay", "imported"]
Failure = Literal["reply-failed", "patch-failed", "check-failed", "train-failed", "audit-failed", "interrupted"]
Status = Literal[
    "scored", "reply-failed", "patch-failed", "check-failed", "train-failed", "audit-failed", "interrupted", "imported"
]
Key = tuple[str, str]
"""A task and the name of one of its settings."""
Versus = Literal["better", "worse", "within noise", "unknown"]
Seed = Annotated[int, Field(ge=0, lt=1 << 31)]
Score = Annotated[float, Field(ge=0, le=1)] | None
Sigma = Annotated[float, Field(ge=0, le=1)] | None
"""Standard deviation of a score; None where it was not measured."""


class Record(BaseModel):
    """A frozen record; a field that it does not know is left alone, one that it needs must be there."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Start(Record):
    """start.json: what is known when a pass begins. It goes once attempt.json stands."""

    version: int
    id: str
    kind: Kind
    name: str | None  # known from the start for a variant that is already stored, else None
    parent: str | None
    protocol: str | None
    seed: Seed | None
    proposer: str | None
    model: str | None
    base_commit: str | None
    source: str | None  # the entry replayed, the file imported, the folder taken over
    started: datetime | None


class Attempt(Start):
    """attempt.json: written last, it makes the entry whole."""

    status: Status
    success: bool | None  # None: interrupted, or an imported record that does not say
    error: str | None
    versus_parent: Versus
    noise: dict[str, Sigma] | None  # column -> sigma over seeds, as known when versus_parent was judged
    setting_noise: dict[str, Sigma] | None = None  # TASK:SETTING -> the same, of a row that is not whole
    finished: datetime


class VariantOf(Record):
    name: str
    digest: str
    form: str


class SettingOf(Record):
    task: str
    vocab_size: int
    seq_len: int
    num_train_examples: int


class ProtocolOf(Record):
    name: str
    version: int
    settings: tuple[SettingOf, ...]
    lrs: tuple[float, ...] = Field(min_length=1)
    weight_decays: tuple[float, ...] = Field(min_length=1)


class SettingResult(Record):
    accuracy: Score
    sweep_mean: Score = None
    seconds: float | None = Field(None, ge=0)  # of training, all runs of the setting together


class TaskResult(Record):
    accuracy: Score
    settings_done: int
    settings_total: int
    settings: dict[str, SettingResult]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if not self.settings_done == len(self.settings) <= self.settings_total:
            raise ValueError(f"{self.settings_done} of {self.settings_total} settings are said to be done, {len(self.settings)} are there")
        found = mean([setting.accuracy for setting in self.settings.values()])
        found = found if self.settings_done == self.settings_total else None
        if not alike(self.accuracy, found):
            raise ValueError(f"accuracy is {self.accuracy}, but its settings give {found}")
        return self


class PlaceOf(Record):
    """A device and the versions on it; None where that was not kept."""

    device: dict[str, Any] | None
    versions: dict[str, Any] | None


class Evaluation(Record):
    """evaluation.json, as far as the agent reads it; the evaluator owns the file."""

    status: Literal["scored", "partial", "check-failed", "train-failed", "audit-failed"]
    error: str | None
    variant: VariantOf
    protocol: ProtocolOf
    fingerprint: str
    seeds: tuple[Seed, ...] = Field(min_length=1)
    device: dict[str, Any]
    versions: dict[str, Any]
    earlier: tuple[PlaceOf, ...] = ()  # where a part of it may have been made that was gone on with elsewhere
    tasks: dict[str, TaskResult]
    scores: dict[str, Score]
    mad_score: Score = None
    started: str | None = None
    finished: str | None  # None: killed, under way, or gates after training are still to be asked

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        """A task whose gates after training are still to be asked has no score though its settings are done."""
        if self.seeds != tuple(range(self.seeds[0], self.seeds[0] + len(self.seeds))):
            raise ValueError(f"seeds are {', '.join(map(str, self.seeds))}: a replay trains those that follow on the first")
        totals = Counter(setting.task for setting in self.protocol.settings)
        for task, found in self.tasks.items():
            if found.settings_total != totals[task]:
                raise ValueError(f"{task} is said to have {found.settings_total} settings, its protocol has {totals[task]}")
        for task, column in COLUMN_OF.items():
            score, accuracy = self.scores.get(column), self.tasks[task].accuracy if task in self.tasks else None
            if not alike(score, accuracy) and (score is not None or self.status == "scored"):
                raise ValueError(f"{column} is {score}, but the accuracy of {task} is {accuracy}")
        left = [task for task in totals if task not in self.tasks or self.tasks[task].accuracy is None]
        if left and self.status == "scored":
            raise ValueError(f"status is scored, but {left[0]} is not whole")
        if self.mad_score is not None and not alike(self.mad_score, mean_score(self.scores)):
            raise ValueError(f"mad_score is {self.mad_score}, but the mean of its six scores is {mean_score(self.scores)}")
        return self

    @property
    def results(self) -> dict[Key, SettingResult]:
        """Each setting that is done."""
        return {(task, name): result for task, found in self.tasks.items() for name, result in found.settings.items()}

    @property
    def settings(self) -> dict[Key, float | None]:
        """Accuracy of each setting that is done, 0 to 1."""
        return {key: result.accuracy for key, result in self.results.items()}

    @property
    def devices(self) -> list[str]:
        """Every device that had a part in it, the oldest first, each once."""
        devices = [*(place.device for place in self.earlier), self.device]
        names = [(device or {}).get("name") or (device or {}).get("kind") for device in devices]
        return list(dict.fromkeys(str(name or "a device that was not recorded") for name in names))

    @property
    def row(self) -> dict[str, Score]:
        """The six columns in their order."""
        return {column: self.scores.get(column) for column in COLUMNS}


class Gate(Record):
    name: str
    passed: bool
    message: str | None
    seconds: float


class CheckReport(Record):
    """check.json: what the gates said of a variant."""

    variant: str
    verdict: Literal["pass", "reject", "duplicate"]
    flags: tuple[str, ...]
    gates: tuple[Gate, ...]
    properties: dict[str, Any]

    @property
    def reason(self) -> str:
        """What must be mended, one line a gate."""
        failed = [f"{gate.name}: {gate.message}" for gate in self.gates if not gate.passed]
        return "\n".join(failed) or f"the verdict is {self.verdict}"


class ProtocolInfo(Record):
    """What `python -m evaluator protocol NAME` says."""

    name: str
    version: int
    fingerprint: str
    noise: dict[str, Sigma]  # column -> standard deviation over seeds
    setting_noise: dict[str, Sigma]  # TASK:SETTING -> the same of one setting
    resolution: float = Field(ge=0)  # what of an accuracy the early end of runs leaves open


def results_csv(rows: Iterable[tuple[str, Mapping[str, Score | str]]]) -> str:
    """The results table: index = name, the six columns, an empty cell where there is no score."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", *COLUMNS])
    for name, scores in rows:
        cells = [scores.get(column) for column in COLUMNS]
        table.writerow([name, *("" if cell is None else cell for cell in cells)])
    return text.getvalue()


def mean_score(scores: dict[str, Score]) -> float | None:
    """The MAD score: the mean over the six columns, or None where one of them is missing."""
    return mean([scores.get(column) for column in COLUMNS])


def mean(values: Sequence[float | None]) -> float | None:
    """None where one of them is missing, or all."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def alike(one: float | None, other: float | None) -> bool:
    """The same but for the rounding of sums."""
    return one == other or (one is not None and other is not None and math.isclose(one, other, rel_tol=0, abs_tol=1e-9))


def mean_name(protocol: str | None) -> str:
    """What the mean of the six columns may be called: only the full protocol gives a MAD score."""
    return "MAD score" if protocol == "mad" else "mean of six"


def now() -> datetime:
    """The time, to the second, with its zone."""
    return datetime.now(UTC).replace(microsecond=0)
