"""Scoring one variant: what is not done yet is trained and audited, after gates and before them, and kept as each setting ends."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from typing import Protocol as Interface

from evaluator import checkpoint, evaluation, results
from evaluator.bench import Failure, Work
from evaluator.job import Job
from evaluator.progress import Progress, Report, cost
from evaluator.protocol import Setting, sweep, to_json
from evaluator.reading import source
from evaluator.results import ResultsError

PLACE = ("device", "versions", "sandbox")  # what a place says of itself
KEPT = {"started": str, "earlier": list, "tasks": dict, "judged": dict} | dict.fromkeys(PLACE, dict)
"""What is taken over from an evaluation that is gone on with, where it is there."""
UNSOUND = "audit-failed"  # for good: no other call may make a score of such rows; gates that fail first leave none


class Place(Interface):
    """Where an evaluation is made: this machine (the module `local`) or a cluster."""

    def environment(self, job: Job) -> dict[str, Any]: ...

    def work(self, job: Job, todo: Sequence[Setting], progress: Progress) -> AbstractContextManager[Work]: ...


def score(job: Job, report: Report, place: Place) -> dict[str, Any]:
    """Trains and audits what is not done yet, and returns the evaluation as it stands in evaluation.json.

    What was found unsound stays so: it is returned as it was found. Rows of a GPU count when the gates have been asked
    there after their training; of one that was killed before, they are asked when it is gone on with on a GPU, after
    a setting was trained once more. Raises ResultsError where the folder holds another evaluation, OSError where it
    can't be written.
    """
    header, before = _header(job), results.read_rows(job.out)
    found = _found(job, header)
    if "started" in found:
        header["started"] = found["started"]
    then = header | {fact: found[fact] for fact in (*PLACE, "earlier") if fact in found}
    if unsound := _unsound(found):
        report({"event": "note", "message": f"{job.out} holds what was found unsound: only another folder begins anew"})
        return evaluation.content(job.out, job.protocol, job.seeds, then, unsound, results.judged(found))
    per_seed = len(sweep(job.protocol, (0,)))
    left = [s for s in job.settings if not results.done(before, s, job.seeds, per_seed)]
    todo = sorted(left, key=lambda s: cost(s, job.protocol))  # what is cheap tells something soon
    if len(todo) < len(job.settings):
        report({"event": "note", "message": f"going on: {len(job.settings) - len(todo)} settings are done already"})
    unjudged = results.settings_in(before) - results.judged(found)
    owed = [s for s in job.settings if s not in todo and (s.task, s.name) in unjudged]
    of_a_gpu = not job.gated and "cuda" in _kinds(found)
    if not todo and (not owed or of_a_gpu) and all(fact in found for fact in PLACE):  # this machine has no part in it
        return _told(_write(job, then, None), report)
    header |= place.environment(job)
    header["earlier"] = _elsewhere(found, header) if before or checkpoint.is_there(job.out) else []
    header["started"] = _write(job, header, None, ended=False)["started"]
    failure, rows, asked = None, before, todo or owed
    if todo or (owed and job.gated):
        with place.work(job, asked, Progress(job.protocol, asked, report)) as work:
            failure = work.run() if todo else work.again(min(owed, key=lambda s: cost(s, job.protocol)))
            rows = results.read_rows(job.out)
            if job.gated and not failure:
                failure = _after(work.gates())
    # Of what was trained on a GPU nothing is sound until the gates have been asked after it; elsewhere the audit decides.
    sound = results.settings_in(rows) if not failure or (not job.gated and failure[0] != UNSOUND) else frozenset()
    if of_a_gpu or (todo and len(rows) == len(before)):  # those before were not this device's, or nothing was trained
        sound = sound - unjudged
    return _told(_write(job, header, failure, sound), report)


def _told(done: dict[str, Any], report: Report) -> dict[str, Any]:
    if owed := done["owed"]:
        say = f"{', '.join(owed)}: the gates after training are still to be asked; scoring the folder again on a GPU does it"
        report({"event": "note", "message": say})
    return done


def _unsound(found: Mapping[str, Any]) -> Failure | None:
    return (UNSOUND, str(found.get("error"))) if found.get("status") == UNSOUND else None


def _after(found: Failure | None) -> Failure | None:
    """What a gate has against a variant that has been trained is no rejection any more, as its rows are there."""
    if not found:
        return None
    status, message = found
    return UNSOUND if status == "check-failed" else status, f"after training: {message}"


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
    places = [{fact: place.get(fact) for fact in PLACE} for place in _places(found)]
    here = {fact: now[fact] for fact in PLACE}
    return [place for number, place in enumerate(places) if place != here and place not in places[:number]]


def _places(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [place for place in (*found.get("earlier", []), found) if isinstance(place, dict)]


def _kinds(found: Mapping[str, Any]) -> set[Any]:
    """The kinds of device that an evaluation was made on so far."""
    return {place["device"].get("kind") for place in _places(found) if isinstance(place.get("device"), dict)}


def _write(
    job: Job, header: Mapping[str, Any], failure: Failure | None, sound: results.Names = frozenset(), ended: bool = True
) -> dict[str, Any]:
    """Puts the evaluation on disk; what another process on this folder found unsound, or judged, meanwhile, stays so."""
    path = job.out / "evaluation.json"
    with results.alone(job.out):
        beside = results.read_json(path) if path.exists() else {}
        judged = results.judged(beside) | sound
        told = evaluation.content(job.out, job.protocol, job.seeds, header, _unsound(beside) or failure, judged, ended)
        results.write_json(path, told)
    return told
