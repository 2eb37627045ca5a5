"""An evaluation as it stands in evaluation.json, told from its runs; and the part of it that is one under another protocol."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluator import protocol, results
from evaluator.bench import Failure
from evaluator.protocol import COLUMNS, Protocol, sweep
from evaluator.results import ResultsError


def content(
    folder: Path, asked: Protocol, seeds: Sequence[int], header: Mapping[str, Any],
    failure: Failure | None, judged: results.Names, ended: bool = True,
) -> dict[str, Any]:
    """One that has not ended, or of which gates are still to be asked, is `partial` and has no time at which it finished."""
    rows = results.read_rows(folder)
    found = results.summary(rows, asked, seeds)
    owed = results.settings_in(rows) - judged
    if owed:  # no score of a task before its rows are known to be sound
        found |= {"scores": found["scores"] | {COLUMNS[task]: None for task, _ in owed}, "mad_score": None}
    whole = all(t["settings_done"] == t["settings_total"] for t in found["tasks"].values()) and not owed and ended
    status, error = failure or (("scored" if whole else "partial"), None)
    diverged = results.failed_settings(rows, asked, seeds)
    if diverged and not failure:
        status, error = "train-failed", f"no run of the sweep stayed finite in {', '.join(diverged)}"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "status": status, "error": error, **header, **found,
        "judged": {task: sorted(name for t, name in judged if t == task) for task in asked.tasks},
        "owed": [f"{task} {name}" for task, name in sorted(owed)],
        "seconds": {"total": round(sum(r.seconds for r in rows), 1)},
        "started": header.get("started", now), "finished": now if ended and (failure or not owed) else None,
    }


def part(folder: Path, wanted: Protocol, out: Path) -> dict[str, Any]:
    """Puts into `out` what `folder`'s evaluation says under another protocol, if that trains a part of its settings, and alike.

    Runs and times stay as they are. Raises ResultsError where nothing was measured that `wanted` would measure.
    """
    try:
        return _part(folder, results.read_json(folder / "evaluation.json"), wanted, out)
    except (AttributeError, TypeError, ValueError, KeyError, MemoryError) as error:
        raise ResultsError(f"{folder / 'evaluation.json'} can't be read as an evaluation: {error!r}") from error


def _part(folder: Path, found: Mapping[str, Any], wanted: Protocol, out: Path) -> dict[str, Any]:
    if found.get("status") not in ("scored", "partial"):
        raise ResultsError(f"{folder} holds no scores: its evaluation is {found.get('status')!r}")
    made, seeds = protocol.from_json(found["protocol"]), _seeds_of(folder, found)
    if dataclasses.replace(made, name=wanted.name, version=wanted.version, settings=wanted.settings) != wanted:
        raise ResultsError(f"{folder}: its protocol, {made.name}, trains otherwise than {wanted.name}")
    if results.fingerprint(made) != found.get("fingerprint"):
        raise ResultsError(f"{folder} was measured by another version of the evaluator, or on other data")
    rows, judged = results.read_rows(folder), results.judged(found)
    per_seed = len(sweep(wanted, (0,)))
    there = {s for s in made.settings if results.done(rows, s, seeds, per_seed) and (s.task, s.name) in judged}
    if lacking := [f"{s.task}:{s.name}" for s in wanted.settings if s not in there]:
        raise ResultsError(f"{folder} lacks {', '.join(lacking)} of {wanted.name}")
    names = {(s.task, s.name) for s in wanted.settings}
    results.append_rows(out, [row for row in rows if (row.task, row.setting) in names])
    header = {**found, "protocol": protocol.to_json(wanted), "fingerprint": results.fingerprint(wanted)}
    told = content(out, wanted, seeds, header, None, names) | {"finished": found.get("finished")}
    results.write_json(out / "evaluation.json", told)
    return told


def _seeds_of(folder: Path, found: Mapping[str, Any]) -> list[int]:
    seeds = found.get("seeds")
    if not isinstance(seeds, list) or not seeds or not all(isinstance(seed, int) for seed in seeds):
        raise ResultsError(f"{folder}: its evaluation.json names no seeds, but {seeds!r}")
    return seeds
