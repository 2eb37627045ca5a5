"""Scoring one variant: what is not done yet is trained and audited, between gates, and kept as each setting ends."""

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
from evaluator.results import ResultsError


class Place(Interface):
    """Where an evaluation is made: this machine (the module `local`) or a cluster."""

    def environment(self, job: Job) -> dict[str, Any]: ...

    def work(self, job: Job, todo: Sequence[Setting], progress: Progress) -> AbstractContextManager[Work]: ...


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
    if not todo:
        return _write(job, header, None)
    with place.work(job, todo, Progress(job.protocol, todo, report)) as work:
        return _write(job, header, _between_gates(work) if job.device.type == "cuda" else work.run())


def _between_gates(work: Work) -> Failure | None:
    """On a GPU the causal, row and memory gates are asked at the trainer's own sizes, before training and after it.

    On a CPU `check` has asked the same on the same device; the audit asks about causality after training anyway.
    """
    if message := work.gates():
        return "check-failed", message
    failure = work.run()
    if not failure and (message := work.gates()):
        return "audit-failed", f"after training: {message}"
    return failure


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
