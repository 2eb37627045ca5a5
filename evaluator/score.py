"""Scoring one variant: what is not done yet is trained and audited, between gates, and kept as each setting ends."""

import datetime
import time
from collections.abc import Mapping, Sequence
from typing import Any
from typing import Protocol as Interface

from evaluator import results
from evaluator.bench import Failure
from evaluator.job import Job
from evaluator.progress import Progress, Report, cost
from evaluator.protocol import Setting, to_json
from evaluator.reading import source
from evaluator.results import ResultsError
from evaluator.train import sweep


class Place(Interface):
    """Where an evaluation is made: this machine (the module `local`) or a cluster."""

    def environment(self, job: Job) -> dict[str, Any]: ...

    def gates(self, job: Job, todo: Sequence[Setting]) -> str | None: ...

    def run(self, job: Job, todo: Sequence[Setting], progress: Progress) -> Failure | None: ...


def score(job: Job, report: Report, place: Place) -> dict[str, Any]:
    """Trains and audits what is not done yet, and returns the evaluation as it stands in evaluation.json.

    Raises ResultsError where the folder holds another evaluation, OSError where it can't be written.
    """
    header, before = _header(job), results.read_rows(job.out)
    per_seed = len(sweep(job.protocol, (0,)))
    left = [s for s in job.settings if not results.done(before, s, job.seeds, per_seed)]
    todo = sorted(left, key=lambda s: cost(s, job.protocol))  # what is cheap tells something soon
    if len(todo) < len(job.settings):
        report({"event": "note", "message": f"going on: {len(job.settings) - len(todo)} settings are done already"})
    header |= place.environment(job)
    header["started"] = _write(job, header, None)["started"]
    progress = Progress(job.protocol, todo, report)
    return _write(job, header, _run_between_gates(place, job, todo, progress, report) if todo else None)


def _run_between_gates(place: Place, job: Job, todo: Sequence[Setting], progress: Progress, report: Report) -> Failure | None:
    """On a GPU the causal, row and memory gates are asked at the trainer's own sizes, before training and after it.

    On a CPU `check` has asked the same on the same device; the audit asks about causality after training anyway.
    """
    if job.device.type == "cuda" and (message := _gates(place, job, todo, "before", report)):
        return "check-failed", message
    failure = place.run(job, todo, progress)
    if not failure and job.device.type == "cuda" and (message := _gates(place, job, todo, "after", report)):
        return "audit-failed", f"after training: {message}"
    return failure


def _gates(place: Place, job: Job, todo: Sequence[Setting], when: str, report: Report) -> str | None:
    began = time.monotonic()
    message = place.gates(job, todo)
    report({"event": "note", "message": f"gates on the device, {when} training: {time.monotonic() - began:.0f} s"})
    return message


def _header(job: Job) -> dict[str, Any]:
    """The facts of the evaluation; a folder that holds other ones is refused."""
    header = {
        "variant": {"name": job.name, "digest": source.digest(job.sources), "form": job.form},
        "protocol": to_json(job.protocol), "fingerprint": results.fingerprint(job.protocol), "seeds": list(job.seeds),
    }
    old = job.out / "evaluation.json"
    if old.exists():
        found = results.read_json(old)
        different = [k for k in header if found.get(k) != header[k]]
        if different:
            raise ResultsError(f"{job.out} holds an evaluation with another {' and '.join(different)}: choose another folder")
        header["started"] = found["started"]
    return header


def _write(job: Job, header: Mapping[str, Any], failure: Failure | None) -> dict[str, Any]:
    rows = results.read_rows(job.out)
    found = results.summary(rows, job.protocol, job.seeds)
    complete = all(t["settings_done"] == t["settings_total"] for t in found["tasks"].values())
    status, error = failure or (("scored" if complete else "partial"), None)
    diverged = results.failed_settings(rows, job.protocol, job.seeds)
    if diverged and not failure:
        status, error = "train-failed", f"no run of the sweep stayed finite in {', '.join(diverged)}"
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    content = {
        "status": status, "error": error, **header, **found,
        "seconds": {"total": round(sum(r.seconds for r in rows), 1)},
        "started": header.get("started", now), "finished": now,
    }
    results.write_json(job.out / "evaluation.json", content)
    return content
