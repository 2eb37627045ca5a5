"""Evaluate a stored variant again, as it was recorded, and say whether the result is the same."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from . import history, variants
from .compare import minus
from .errors import BadInput, EnvironmentFault
from .evaluate import EvaluationFailed
from .history import Entry
from .job import Job, keep_evaluation
from .records import COLUMNS, Evaluation

Verdict = Literal["same", "within noise", "differs", "not comparable", "unknown noise"]
_SIGMAS = 3.0

Key = tuple[str, str]
"""A task and the name of one of its settings."""


@dataclass(frozen=True)
class Replay:
    """A recorded evaluation and the one that was made now, of all that was recorded or of some settings."""

    id: str
    name: str
    recorded: Evaluation
    new: Evaluation
    noise: dict[str, float | None]
    only: tuple[Key, ...] = ()

    @property
    def changes(self) -> list[str]:
        """What is not as it was: then no bitwise agreement can be asked for."""
        pairs = {
            "fingerprint": (self.recorded.fingerprint[:12], self.new.fingerprint[:12]),
            "source": (self.recorded.variant.digest[:12], self.new.variant.digest[:12]),
            "form": (self.recorded.variant.form, self.new.variant.form),
            **{f"device {key}": pair for key, pair in _pairs(self.recorded.device, self.new.device).items()},
            **_pairs(self.recorded.versions, self.new.versions),
        }
        return [f"{what}: {old} then, {new} now" for what, (old, new) in pairs.items() if old != new]

    @property
    def verdict(self) -> Verdict:
        """Same, bit for bit, where nothing changed; else within three sigma over seeds, or not.

        Another protocol, or another source under the same name, says nothing of the record.
        """
        if self.recorded.fingerprint != self.new.fingerprint:
            return "not comparable"
        if self.recorded.variant.digest != self.new.variant.digest:
            return "not comparable"
        if all(old == new for old, new in self.settings.values()):
            return "same"
        if not self.changes:
            return "differs"
        if not any(self.differences.values()):
            return "unknown noise"  # settings moved, of tasks that have no score
        return _within(self.differences, self.noise)

    @property
    def agrees(self) -> bool:
        return self.verdict in ("same", "within noise")

    @property
    def settings(self) -> dict[Key, tuple[float | None, float | None]]:
        """Accuracies recorded and new, of every setting that is compared."""
        old, new = self.recorded.settings, self.new.settings
        return {key: (old.get(key), new.get(key)) for key in self.only or sorted({*old, *new})}

    @property
    def differences(self) -> dict[str, float | None]:
        return {column: minus(self.new.row[column], self.recorded.row[column]) for column in COLUMNS}

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "verdict": self.verdict,
            "agrees": self.agrees,
            "recorded": self.recorded.row,
            "new": self.new.row,
            "differences": self.differences,
            "settings": {f"{task}:{name}": pair for (task, name), pair in self.settings.items()},
            "noise": self.noise,
            "changes": self.changes,
        }


def _pairs(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (old.get(key), new.get(key)) for key in sorted({*old, *new})}


def _within(differences: dict[str, float | None], noise: dict[str, float | None]) -> Verdict:
    moved = {column: value for column, value in differences.items() if value}
    if any(noise.get(column) is None for column in moved):
        return "unknown noise"
    return (
        "within noise"
        if all(abs(value) <= _SIGMAS * (noise[column] or 0) for column, value in moved.items())
        else "differs"
    )


def recorded_evaluation(entry: Entry) -> Evaluation:
    """What is to be repeated, or BadInput with the reason why it cannot be."""
    if entry.attempt and entry.is_imported:
        raise BadInput(f"{entry.id} was imported from {entry.attempt.source}: it holds no variant to replay")
    if entry.status != "scored" or entry.evaluation is None:
        raise BadInput(f"{entry.id} is {entry.status}: only what was scored can be replayed")
    return entry.evaluation


def chosen(entry: Entry, names: Sequence[str]) -> tuple[Key, ...]:
    """The recorded settings that are named TASK:SETTING; BadInput for one that the record has not."""
    known = {f"{task}:{setting}": (task, setting) for task, setting in recorded_evaluation(entry).settings}
    for name in names:
        if name not in known:
            near = [other for other in known if other.partition(":")[0] == name.partition(":")[0]] or known
            raise BadInput(f"--only {name}: {entry.id} has no such setting; it has {', '.join(near)}")
    return tuple(known[name] for name in dict.fromkeys(names))


def replay(job: Job, entry: Entry, *, only: tuple[Key, ...] = (), out: Path | None = None, keep: bool) -> Replay:
    """Evaluate again, all or `only` some settings; with `keep`, record it as an entry of kind replay.

    In a folder `out` it goes on where an earlier call was cut off; else in one of its own, which is lost then.
    """
    recorded = recorded_evaluation(entry)
    name = entry.name or recorded.variant.name
    folder = variants.folder_of(job.root, name)
    variants.sources(folder)
    with _folder(out) as place:
        job.reporter.stage(f"replay of {entry.id} {entry.name}: {recorded.protocol.name}")
        new = _again(job, folder, recorded, only, place)
        done = Replay(entry.id, name, recorded, new, dict(job.protocol.noise), only)
        if keep:
            with history.writing(job.root):
                keep_evaluation(
                    job,
                    place,
                    name,
                    new,
                    "replay",
                    entry.id,
                    entry.about.parent if entry.about else None,
                )
        return done


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"--out {out}: {error.strerror}") from None
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="agent-replay-") as place:
        yield Path(place)


def _again(job: Job, folder: Path, recorded: Evaluation, only: Sequence[Key], out: Path) -> Evaluation:
    try:
        new = job.evaluator.score(
            folder,
            protocol=recorded.protocol.name,
            seeds=recorded.seeds,
            out=out,
            on_event=job.reporter.event,
            extra=["--form", recorded.variant.form, *_settings(recorded, only)],
        )
    except EvaluationFailed as error:
        raise EnvironmentFault(f"the replay failed: {error}") from error
    finally:
        job.reporter.rest()
    if new.status.endswith("-failed"):
        raise EnvironmentFault(f"the replay ended as {new.status}: {new.error}")
    return new


def _settings(recorded: Evaluation, only: Sequence[Key]) -> Sequence[str]:
    """Those asked for, else exactly the ones that were recorded, where not all of them were."""
    if recorded.status == "scored" and not only:
        return []
    return [part for task, setting in only or recorded.settings for part in ("--only", f"{task}:{setting}")]


def table(done: Replay) -> Table:
    """Recorded and new, task by task, or setting by setting where only some were asked for."""
    titles = ("task", "setting", "recorded", "new", "difference") if done.only else ("task", "recorded", "new", "difference", "3 sigma")
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        grid.add_column(title, justify="left" if title in ("task", "setting") else "right")
    if done.only:
        for key, (old, new) in done.settings.items():
            grid.add_row(*key, _number(old), _number(new), _signed(minus(new, old)))
        return grid
    for column in COLUMNS:
        sigma = done.noise.get(column)
        grid.add_row(
            column,
            _number(done.recorded.row[column]),
            _number(done.new.row[column]),
            _signed(done.differences[column]),
            "" if sigma is None else f"{_SIGMAS * sigma:.4f}",
        )
    return grid


def _signed(difference: float | None) -> str:
    return "" if difference is None else f"{difference:+.6f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
