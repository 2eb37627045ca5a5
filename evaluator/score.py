"""Scoring one variant: what is not done yet is trained and audited, after gates and before them, and kept as each setting ends."""

import datetime
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from typing import Protocol as Interface

from evaluator import results
from evaluator.bench import Failure, Work
from evaluator.job import Job
from evaluator.progress import Progress, Report, cost
from evaluator.protocol import Setting, sweep, to_json
from evaluator.reading import source
from evaluator.results import ResultsError, Row

PLACE = ("device", "versions", "sandbox")  # what a place says of itself
KEPT = {"started": str, "earlier": list, "tasks": dict} | dict.fromkeys(PLACE, dict)
"""What is taken over from an evaluation that is gone on with, where it is there."""
UNSOUND = "audit-failed"  # for good: no other call may make a score of such rows; gates that fail first leave none


class Place(Interface):
    """Where an evaluation is made: this machine (the module `local`) or a cluster."""

    def environment(self, job: Job) -> dict[str, Any]: ...

    def work(self, job: Job, todo: Sequence[Setting], progress: Progress) -> AbstractContextManager[Work]: ...


def score(job: Job, report: Report, place: Place) -> dict[str, Any]:
    """Trains and audits what is not done yet, and returns the evaluation as it stands in evaluation.json.

    What was found unsound stays so: it is returned as it was found. Raises ResultsError where the folder holds another evaluation, OSError where it can't be written.
    """
    header, before = _header(job), results.read_rows(job.out)
    found = _found(job, header)
    if "started" in found:
        header["started"] = found["started"]
    then = header | {fact: found[fact] for fact in (*PLACE, "earlier") if fact in found}
    if unsound := _unsound(found):
        report({"event": "note", "message": f"{job.out} holds what was found unsound: only another folder begins anew"})
        return _content(job, then, unsound)
    per_seed = len(sweep(job.protocol, (0,)))
    left = [s for s in job.settings if not results.done(before, s, job.seeds, per_seed)]
    todo = sorted(left, key=lambda s: cost(s, job.protocol))  # what is cheap tells something soon
    if len(todo) < len(job.settings):
        report({"event": "note", "message": f"going on: {len(job.settings) - len(todo)} settings are done already"})
    judged = not job.gated or _judged(found, before)
    if not todo and judged and all(fact in found for fact in PLACE):  # this machine has no part in it
        return _write(job, then, None)
    header |= place.environment(job)
    header["earlier"] = _elsewhere(found, header) if before else []
    header["started"] = _write(job, header, None, ended=False)["started"]
    if not todo and judged:
        return _write(job, header, None)
    asked = todo or job.settings
    with place.work(job, asked, Progress(job.protocol, asked, report)) as work:
        return _write(job, header, _and_gates(work, bool(todo)) if job.gated else work.run())


def _unsound(found: Mapping[str, Any]) -> Failure | None:
    return (UNSOUND, str(found.get("error"))) if found.get("status") == UNSOUND else None


def _judged(found: Mapping[str, Any], rows: Sequence[Row]) -> bool:
    """Whether the evaluation came to its end, and to the gates after it, with all of these rows."""
    settings = {task: told.get("settings") for task, told in found.get("tasks", {}).items() if isinstance(told, dict)}
    return found.get("finished") is not None and all(r.setting in (settings.get(r.task) or ()) for r in rows)


def _and_gates(work: Work, train: bool) -> Failure | None:
    """The training, which no gate had anything against when it began, and whether one has now.

    Without: one that was killed after its last row, before the gates were asked again.
    """
    failure = work.run() if train else None
    if not failure and (message := work.gates()):
        return UNSOUND, f"after training: {message}"
    return failure


def _header(job: Job) -> dict[str, Any]:
    """What is evaluated, and how."""
    return {
        "variant": {"name": job.name, "digest": source.digest(job.sources), "form": job.form},
        "protocol": to_json(job.protocol), "fingerprint": results.fingerprint(job.protocol), "seeds": list(job.seeds),
    }


def _found(job: Job, header: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation that the folder holds, none if empty; one of anything else is refused."""
    old = job.out / "evaluation.json"
    if not old.exists():
        return {}
    found = results.read_json(old)
    if damaged := [k for k, kind in KEPT.items() if not isinstance(found.get(k, kind()), kind)]:
        raise ResultsError(f"{old} can't be gone on with: {' and '.join(damaged)} in it is of another kind than an evaluation's")
    different = [k for k in header if found.get(k) != header[k]]
    if different:
        raise ResultsError(f"{job.out} holds an evaluation with another {' and '.join(different)}: choose another folder")
    return found


def _elsewhere(found: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where rows that are there may have been made, as far as it was not here: one item a place, the oldest first."""
    places = [{fact: place.get(fact) for fact in PLACE} for place in (*found.get("earlier", []), found) if isinstance(place, dict)]
    here = {fact: now[fact] for fact in PLACE}
    return [place for number, place in enumerate(places) if place != here and place not in places[:number]]


def _write(job: Job, header: Mapping[str, Any], failure: Failure | None, ended: bool = True) -> dict[str, Any]:
    """Puts the evaluation on disk; what another process on this folder found unsound meanwhile, stays so.

    One that has not `ended` has no time at which it finished.
    """
    path = job.out / "evaluation.json"
    content = _content(job, header, failure or (_unsound(results.read_json(path)) if path.exists() else None))
    content |= {} if ended else {"finished": None}
    results.write_json(path, content)
    return content


def _content(job: Job, header: Mapping[str, Any], failure: Failure | None) -> dict[str, Any]:
    rows = results.read_rows(job.out)
    found = results.summary(rows, job.protocol, job.seeds)
    complete = all(t["settings_done"] == t["settings_total"] for t in found["tasks"].values())
    status, error = failure or (("scored" if complete else "partial"), None)
    diverged = results.failed_settings(rows, job.protocol, job.seeds)
    if diverged and not failure:
        status, error = "train-failed", f"no run of the sweep stayed finite in {', '.join(diverged)}"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "status": status, "error": error, **header, **found,
        "seconds": {"total": round(sum(r.seconds for r in rows), 1)},
        "started": header.get("started", now), "finished": now,
    }
