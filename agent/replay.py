"""Evaluate a stored variant again, as it was recorded, and say whether the result is the same."""

import contextlib
import itertools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from . import forecast, history
from .compare import minus
from .errors import BadInput, EnvironmentFault
from .evaluate import EvaluationFailed, read_evaluation
from .history import Entry
from .job import Job, keep_evaluation, tidy
from .records import COLUMN_OF, COLUMNS, Evaluation, Key, PlaceOf, ProtocolInfo
from .repo import scored_source
from .scratch import scratch
from .text import one_line

Verdict = Literal["same", "within noise", "differs", "not comparable", "unknown noise"]
_SIGMAS = 3.0


@dataclass(frozen=True)
class Replay:
    """A recorded evaluation and the one that was made now, of all that was recorded or of some settings."""

    id: str
    name: str
    recorded: Evaluation
    new: Evaluation
    protocol: ProtocolInfo
    only: tuple[Key, ...] = ()
    unrecorded: str | None = None  # why it could not be kept, where that was asked for

    @property
    def changes(self) -> list[str]:
        """What is not as it was: then no bitwise agreement can be asked for."""
        pairs = {
            "fingerprint": (self.recorded.fingerprint[:12], self.new.fingerprint[:12]),
            "source": (self.recorded.variant.digest[:12], self.new.variant.digest[:12]),
            "form": (self.recorded.variant.form, self.new.variant.form),
        }
        places = itertools.product(_places(self.recorded), _places(self.new))
        moved = [_told(what, old, new) for what, (old, new) in pairs.items() if old != new]
        return list(dict.fromkeys([*moved, *(sentence for then, now in places for sentence in _moved(then, now))]))

    @property
    def verdict(self) -> Verdict:
        """Same, bit for bit, where nothing changed; else within three sigma over seeds, or not: the worst of its tasks.

        Another protocol, or a source that was edited meanwhile, says nothing of the record.
        """
        if self.recorded.fingerprint != self.new.fingerprint:
            return "not comparable"
        if self.recorded.variant.digest != self.new.variant.digest:
            return "not comparable"
        if all(old == new for old, new in self.settings.values()):
            return "same"
        if not self.changes:
            return "differs"
        found = {self._of_task(task) for task in {task for task, _ in self.settings}}
        return "differs" if "differs" in found else "unknown noise" if "unknown noise" in found else "within noise"

    def _of_task(self, task: str) -> Verdict:
        """By its score, where that is whole and its noise known; else setting by setting."""
        moved = {key: minus(new, old) for key, (old, new) in self.settings.items() if key[0] == task and old != new}
        by_setting = {key: value for key, value in moved.items() if value is not None}
        if len(by_setting) < len(moved):
            return "differs"  # one has a score and the other none
        sigma = self.protocol.noise.get(COLUMN_OF.get(task, ""))
        if self._whole(task) and sigma is not None:
            difference = sum(by_setting.values()) / self.recorded.tasks[task].settings_total
            return "within noise" if abs(difference) <= _SIGMAS * sigma else "differs"
        beyond = {key: value for key, value in by_setting.items() if abs(value) > self.protocol.resolution}
        sigmas = {key: self.protocol.setting_noise.get(":".join(key)) for key in beyond}
        if any(abs(beyond[key]) > _SIGMAS * sigma for key, sigma in sigmas.items() if sigma is not None):
            return "differs"
        return "unknown noise" if None in sigmas.values() else "within noise"

    def _whole(self, task: str) -> bool:
        """Whether all settings of a task stand on both sides."""
        sides = self.recorded.tasks.get(task), self.new.tasks.get(task)
        return all(side is not None and side.settings_done == side.settings_total for side in sides)

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
            "noise": self.protocol.noise,
            "changes": self.changes,
            "unrecorded": self.unrecorded,
        }


def _places(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The facts of each place that had a part in it, the last one first."""
    here = PlaceOf(device=evaluation.device, versions=evaluation.versions)
    return [
        {f"device {key}": value for key, value in (place.device or {}).items()} | (place.versions or {})
        for place in (here, *reversed(evaluation.earlier))
    ]


def _moved(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [_told(key, then.get(key), now.get(key)) for key in sorted({*then, *now}) if then.get(key) != now.get(key)]


def _told(what: str, then: Any, now: Any) -> str:
    old, new = ("not recorded" if value is None else value for value in (then, now))
    return f"{what}: {old} then, {new} now"


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

    In a folder `out` it goes on where an earlier call was cut off; else in one of its own, which is lost then. What was
    measured and could not be recorded is kept in either, and told.
    """
    recorded = recorded_evaluation(entry)
    if keep:
        with history.writing(job.root):  # what could not be recorded is told before it is trained
            tidy(job.root, job.repo, job.reporter.say)
    name = entry.name or recorded.variant.name
    with scored_source(job.root, entry, job.reporter.say) as folder, _folder(job.root, recorded, out) as place:
        for sentence in forecast.sentences(job, entry, recorded, only or tuple(recorded.settings)):
            job.reporter.say(sentence)
        job.reporter.stage(f"replay of {entry.id} {entry.name}: {recorded.protocol.name}")
        new = _again(job, folder, recorded, only, place)
        done = Replay(entry.id, name, recorded, new, job.protocol, only)
        if keep:
            try:
                with history.writing(job.root):
                    keep_evaluation(job, place, name, new, "replay", entry.id, entry.about.parent)
            except (EnvironmentFault, OSError) as fault:
                kept = out or shutil.move(place, f"{place}-measured")
                how = f"`agent replay {entry.id} --record --out {kept}` records what was measured, without training again"
                return replace(done, unrecorded=f"not recorded: {fault}; {how}")
        return done


@contextlib.contextmanager
def _folder(root: Path, recorded: Evaluation, out: Path | None) -> Iterator[Path]:
    if out:
        try:
            out.mkdir(parents=True, exist_ok=True)
            _require_own(root, recorded, out)
        except OSError as error:
            raise BadInput(f"--out {out}: {error.strerror}") from None
        yield out
        return
    with scratch() as place:
        yield place


def _require_own(root: Path, recorded: Evaluation, out: Path) -> None:
    """BadInput where `out` is no place for a replay: it would change what is there, or find the record and train nothing."""
    place = out.resolve()
    if any(place.is_relative_to((root / kept).resolve()) for kept in ("history", "variants")):
        raise BadInput(f"--out {out} lies in history/ or variants/: a replay needs a folder of its own")
    there = {path.name for path in out.iterdir()}
    if there and not there & {"evaluation.json", "train.log"}:
        raise BadInput(f"--out {out} holds other files ({one_line(min(there), 60)}): a replay needs a folder of its own")
    if "evaluation.json" in there:
        with contextlib.suppress(EvaluationFailed):
            if recorded.started and read_evaluation(out).started == recorded.started:
                raise BadInput(f"--out {out} holds the record itself: a replay there would train nothing")


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
    """Recorded and new, task by task, or setting by setting where the record is no whole row or only some were asked for."""
    by_setting = bool(done.only) or done.recorded.status != "scored"
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("task", *["setting"] * by_setting):
        grid.add_column(title)
    for title in ("recorded", "new", "difference", "3 sigma"):
        grid.add_column(title, justify="right")
    if by_setting:
        for key, (old, new) in done.settings.items():
            grid.add_row(*key, *_cells(old, new, done.protocol.setting_noise.get(":".join(key))))
    else:
        for column in COLUMNS:
            grid.add_row(column, *_cells(done.recorded.row[column], done.new.row[column], done.protocol.noise.get(column)))
    return grid


def _cells(old: float | None, new: float | None, sigma: float | None) -> tuple[str, ...]:
    limit = "" if sigma is None else f"{_SIGMAS * sigma:.4f}"
    return _number(old), _number(new), _signed(minus(new, old)), limit


def _signed(difference: float | None) -> str:
    return "" if difference is None else f"{difference:+.6f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
