"""What an evaluation leaves on disk: one line a run in runs.csv, and evaluation.json derived from them.

runs.csv is the only memory of an evaluation: a setting is done when all its lines are there, a torn last line is
dropped, and whoever goes on from the folder trains the other settings alone. Lines are appended in one write, so
that several processes may work on one folder, each on its own settings.
"""

import contextlib
import csv
import dataclasses
import fcntl
import hashlib
import io
import json
import math
import os
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluator.protocol import COLUMNS, EVALUATOR_VERSION, Protocol, Setting, to_json
from evaluator.tasks import first_batch_digest


@dataclass(frozen=True)
class Row:
    """One training run. `accuracy` and `loss` are the audit's where `audited` is 1, else what training reported."""

    task: str
    setting: str
    lr: float
    weight_decay: float
    seed: int
    accuracy: float  # NaN: the run was never finite
    loss: float
    epochs: int
    seconds: float  # this run's share of its group's time, set-up included
    audited: int
    reported_accuracy: float
    last_accuracy: float
    fresh_accuracy: float  # NaN where not audited
    best_epoch: int
    setup_seconds: float
    operator: str = ""  # how the operator ran: eager, fused, or unknown


FIELDS = tuple(f.name for f in dataclasses.fields(Row))
LARGEST = 256 << 20  # bytes of a file that is read
_TYPES = {"str": str, "int": int, "float": float}


class ResultsError(Exception):
    """The folder can't take this evaluation; one sentence."""


def read_rows(folder: Path) -> list[Row]:
    """All whole lines of runs.csv; a torn last line is left out. Raises ResultsError where it is a table of something else."""
    path = folder / "runs.csv"
    if not path.exists():
        return []
    text = _read(path).decode("utf-8", "replace")
    whole = text[: text.rfind("\n") + 1]
    try:
        header, *lines = list(csv.reader(io.StringIO(whole))) or [[]]
    except csv.Error as error:
        raise ResultsError(f"{path} is no table of runs: {error}") from None
    # Columns are only ever added at the end, so that an older file is gone on with as it is.
    names = FIELDS if tuple(header) == FIELDS[: len(header)] else header
    if missing := [name for name in FIELDS if name not in names and name != "operator"]:
        raise ResultsError(f"{path} is no table of runs: it has no column {missing[0]}")
    once = dict.fromkeys(map(tuple, lines))
    return [row for line in once if (row := _row(dict(zip(names, line, strict=False))))]


def _row(line: Mapping[str, Any]) -> Row | None:
    try:
        kinds = {f.name: _TYPES[str(getattr(f.type, "__name__", f.type))] for f in dataclasses.fields(Row)}
        return Row(**{name: kinds[name](line[name]) for name in FIELDS if name in line or name != "operator"})
    except (KeyError, TypeError, ValueError):
        return None  # a line torn in the middle of a write that was later appended to


def append_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Adds the lines of one setting in a single write, and waits until they are on disk."""
    path = folder / "runs.csv"
    with alone(folder):
        _append(path, rows)


def _append(path: Path, rows: Iterable[Row]) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(fd).st_size
        if b"\n" not in os.pread(fd, min(size, 1 << 16), 0):  # not even its header is whole
            os.ftruncate(fd, 0)
            writer.writerow(FIELDS)
        elif os.pread(fd, 1, size - 1) != b"\n":
            out.write("\n")  # ends the line that a killed process left torn
        writer.writerows([_text(v) for v in dataclasses.astuple(row)] for row in rows)
        data = out.getvalue().encode()
        if os.write(fd, data) != len(data):
            raise OSError(f"{path} took only a part of a setting's results: is the disk full?")
        os.fsync(fd)
    finally:
        os.close(fd)


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) and abs(value) >= 1e3 else str(value)


def done(rows: Sequence[Row], setting: Setting, seeds: Sequence[int], per_seed: int) -> bool:
    """Whether every run of a setting is there."""
    found = {(r.lr, r.weight_decay, r.seed) for r in rows if _is(r, setting) and r.seed in seeds}
    return len(found) == per_seed * len(seeds)


def _is(row: Row, setting: Setting) -> bool:
    return row.task == setting.task and row.setting == setting.name


def fingerprint(protocol: Protocol) -> str:
    """What a score depends on beside the variant: the protocol, the evaluator's version, the data."""
    digests = [first_batch_digest(s) for s in protocol.settings]
    content = {"protocol": to_json(protocol), "evaluator": EVALUATOR_VERSION, "data": digests}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def summary(rows: Sequence[Row], protocol: Protocol, seeds: Sequence[int]) -> dict[str, Any]:
    """Scores of settings, tasks and the whole, from the rows alone; None where a setting is missing or failed."""
    tasks = {t: _task(rows, t, protocol, seeds) for t in protocol.tasks}
    scores: dict[str, float | None] = {COLUMNS[t]: tasks[t]["accuracy"] if t in tasks else None for t in COLUMNS}
    known = [s for s in scores.values() if s is not None]
    return {
        "tasks": tasks, "scores": scores,
        "mad_score": statistics.fmean(known) if len(known) == len(COLUMNS) else None,
    }


def _task(rows: Sequence[Row], task: str, protocol: Protocol, seeds: Sequence[int]) -> dict[str, Any]:
    settings = [s for s in protocol.settings if s.task == task]
    per_seed = len(protocol.lrs) * len(protocol.weight_decays)
    found = {s.name: _setting([r for r in rows if _is(r, s)], seeds) for s in settings if done(rows, s, seeds, per_seed)}
    accuracies = [f["accuracy"] for f in found.values()]
    complete = len(found) == len(settings) and None not in accuracies
    means = [f["sweep_mean"] for f in found.values()]
    return {
        "accuracy": statistics.fmean(accuracies) if complete else None,
        "sweep_mean": statistics.fmean(means) if complete and None not in means else None,
        "settings_done": len(found), "settings_total": len(settings), "settings": found,
    }


def _setting(rows: Sequence[Row], seeds: Sequence[int]) -> dict[str, Any]:
    """Best of the sweep, averaged over seeds; None where a seed has no finite run."""
    best = {seed: max((r for r in rows if r.seed == seed), key=_rank) for seed in seeds}
    scores = {str(seed): row.accuracy for seed, row in best.items()}
    finite = all(math.isfinite(a) for a in scores.values())
    swept = [r.accuracy if math.isfinite(r.accuracy) else 0.0 for r in rows]
    first = best[seeds[0]]
    return {
        "accuracy": statistics.fmean(scores.values()) if finite else None,
        "sweep_mean": statistics.fmean(swept) if finite else None,
        "by_seed": {k: v if math.isfinite(v) else None for k, v in scores.items()},
        "best": {"lr": first.lr, "weight_decay": first.weight_decay, "epoch": first.best_epoch},
        "seconds": round(sum(r.seconds for r in rows), 3),
        "setup_seconds": max(r.setup_seconds for r in rows),
        "operator": ", ".join(sorted({r.operator for r in rows if r.operator})) or None,
    }


def _rank(row: Row) -> tuple[int, float]:
    """An audited run before any other, then by accuracy; never a run that was not finite."""
    return (row.audited, row.accuracy if math.isfinite(row.accuracy) else -1.0)


def failed_settings(rows: Sequence[Row], protocol: Protocol, seeds: Sequence[int]) -> list[str]:
    """Settings of which no run of some seed was ever finite."""
    tasks = summary(rows, protocol, seeds)["tasks"]
    return [f"{t} {n}" for t, task in tasks.items() for n, s in task["settings"].items() if s["accuracy"] is None]


Names = Set[tuple[str, str]]
"""Settings as (task, setting)."""


def judged(evaluation: Mapping[str, Any]) -> Names:
    """The settings of an evaluation after whose training the gates had nothing against the variant."""
    known = evaluation.get("judged")
    if known is None and evaluation.get("finished") and evaluation.get("status") in ("scored", "partial"):  # an older file
        tasks = evaluation.get("tasks") or {}
        known = {task: told.get("settings") for task, told in tasks.items() if isinstance(told, dict)}
    named = ((task, name) for task, names in (known or {}).items() if isinstance(names, (list, dict)) for name in names)
    return {(task, name) for task, name in named if isinstance(name, str)}


def settings_in(rows: Iterable[Row]) -> Names:
    """The settings of which there are runs. Those that are not judged owe the gates after them, and are no scores yet."""
    return {(r.task, r.setting) for r in rows}


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Among the processes that work on one folder."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems lock no folder; there it is as good as a rename
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Whole or not at all: a temporary file, flushed, then renamed over the old one."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _read(path: Path) -> bytes:
    """A pipe would be waited for, a device has no end; raises ResultsError."""
    if path.exists() and not path.is_file():
        raise ResultsError(f"{path} is no file")
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ResultsError(f"{path} is larger than {LARGEST >> 20} MiB, which no evaluation is")
    return data


def read_json(path: Path) -> dict[str, Any]:
    """An evaluation.json; raises ResultsError where it is none."""
    try:
        found = json.loads(_read(path).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path} can't be read as an evaluation: {error}") from None
    if not isinstance(found, dict):
        raise ResultsError(f"{path} holds no evaluation")
    return found
