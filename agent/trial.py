"""A variant from its gates to its record: checked, trained, compared, kept; whoever wrote it."""

from pathlib import Path

from . import history, variants
from .errors import BadInput, Rejected
from .evaluate import EvaluationFailed, ended_evaluation, set_aside
from .history import Entry, Pass, Past
from .job import Failed, Job, keep_evaluation, record, seal, start, tidy
from .proposal.reply import Proposal
from .records import CheckReport, Evaluation
from .scratch import scratch
from .text import one_line, printable


def score(job: Job, name: str, past: Past) -> Entry:
    """Check, train and record variants/NAME as an attempt of its own."""
    folder = variants.folder_of(job.root, name)
    variants.sources(folder)
    with history.begin(job.root, start(job, name, _parent_of(past, name))) as opened:
        try:
            check(job, opened, folder, name, stored=True)
        except Failed as failed:
            return _seal_failed(job, opened, name, failed)
        return evaluate(job, opened, name, None)


def _parent_of(past: Past, name: str) -> str | None:
    """Of a variant that an earlier attempt made, its parent there."""
    made = [entry.attempt for entry in past.entries if entry.attempt and entry.name == name]
    return next((attempt.parent for attempt in made if attempt.parent), None)


def score_from(job: Job, name: str, folder: Path) -> Entry:
    """Record what was measured elsewhere: this source, under this protocol or one that it is a part of; the gates pass here."""
    variants.sources(variants.folder_of(job.root, name))
    try:
        evaluation = ended_evaluation(folder)
        if evaluation.fingerprint == job.protocol.fingerprint:
            return _keep(job, name, folder, evaluation, folder)
        with scratch() as part:
            job.evaluator.part(folder, job.protocol.name, part)
            return _keep(job, name, part, ended_evaluation(part), folder)
    except EvaluationFailed as error:
        raise BadInput(f"--from {folder}: {error}") from error


def _keep(job: Job, name: str, folder: Path, evaluation: Evaluation, source: Path) -> Entry:
    """The entry of an evaluation in `folder`, which came from `source`."""
    if evaluation.protocol.name != job.protocol.name:
        raise BadInput(f"{source} was measured under {one_line(evaluation.protocol.name, 60)}, and this is {job.protocol.name}")
    variant = variants.folder_of(job.root, name)
    _require_same(evaluation, variants.digest(job.root, name), name, source)  # before the gates, which take a quarter of a minute
    _require_new(history.read(job.root), evaluation, source)
    try:
        report = _ask_stored(job, variant, name)
    except EvaluationFailed as error:
        raise BadInput(f"variants/{name} could not be checked: {error}") from error
    if report.verdict != "pass":
        raise Rejected(f"variants/{name} does not pass the gates: {report.reason}")
    _require_same(evaluation, report.properties.get("digest"), name, source)
    with history.writing(job.root):
        tidy(job.root, job.repo, job.reporter.say)
        past = history.read(job.root)
        _require_new(past, evaluation, source)
        parent = _parent_of(past, name)
        return keep_evaluation(job, folder, name, evaluation, "attempt", printable(str(source)), parent, report)


def _require_same(evaluation: Evaluation, digest: object, name: str, source: Path) -> None:
    if evaluation.variant.digest != digest:
        measured = one_line(evaluation.variant.digest, 64)
        raise BadInput(f"{source} was measured with another source than variants/{name} holds now (digest {measured})")


def _require_new(past: Past, evaluation: Evaluation, source: Path) -> None:
    if there := _recorded(past, evaluation):
        raise BadInput(f"--from {source}: {there.id} is the record of this evaluation already")


def _recorded(past: Past, evaluation: Evaluation) -> Entry | None:
    """The attempt that holds the same evaluation: of this source, under this protocol, begun and ended at the same time."""
    for entry in past.entries:
        if entry.about.kind == "attempt" and entry.evaluation and _mark(entry.evaluation) == _mark(evaluation):
            return entry
    return None


def _mark(evaluation: Evaluation) -> tuple[object, ...]:
    return evaluation.variant.digest, evaluation.fingerprint, tuple(evaluation.seeds), evaluation.started, evaluation.finished


def check(job: Job, opened: Pass, folder: Path, name: str, *, stored: bool) -> None:
    """The gates, or Failed; one that is not `stored` yet must be another than all that are."""
    job.reporter.stage(f"{opened.id} {name}: gates")
    try:
        report = _ask_stored(job, folder, name) if stored else job.evaluator.check(folder, against=job.root / "variants")
    except EvaluationFailed as error:
        raise Failed("check-failed", str(error), name) from error
    opened.write("check.json", report.model_dump_json(indent=2) + "\n")
    if report.verdict != "pass":
        raise Failed("check-failed", report.reason, name)


def _ask_stored(job: Job, folder: Path, name: str) -> CheckReport:
    """What the gates say of a stored variant; one that is there twice may be scored, but not without a word."""
    report = job.evaluator.check(folder, against=job.root / "variants")
    if report.verdict == "duplicate":
        twin = one_line(str(report.properties.get("duplicate_of")), 120)
        job.reporter.say(f"variants/{name} is a duplicate of variants/{twin}, comments and names aside; it is scored all the same")
        report = job.evaluator.check(folder, against=None)
        return report.model_copy(update={"properties": report.properties | {"duplicate_of": twin}})
    if like := (report.properties.get("novelty") or {}).get("same_outputs_as"):
        job.reporter.say(f"variants/{name} computes what {one_line(', '.join(like), 300)} does; it is scored all the same")
    return report


def evaluate(job: Job, opened: Pass, name: str, proposal: Proposal | None) -> Entry:
    """Train, audit, compare, reflect, record."""
    try:
        evaluation = _train(job, opened, name)
    except Failed as failed:
        if proposal is None:
            return _seal_failed(job, opened, name, failed)
        variants.withdraw(job.root, opened.folder, name)
        return seal(job, opened, name, failed)
    return record(job, opened, evaluation, proposal)


def _seal_failed(job: Job, opened: Pass, name: str, failed: Failed) -> Entry:
    """variants/NAME stays its author's, who will mend it: the entry keeps what failed."""
    variants.draft(opened.folder, variants.sources(variants.folder_of(job.root, name)))
    return seal(job, opened, name, failed)


def _train(job: Job, opened: Pass, name: str) -> Evaluation:
    job.reporter.stage(f"{opened.id} {name}: {job.protocol.name}")
    try:
        evaluation = job.evaluator.score(
            variants.folder_of(job.root, name),
            protocol=job.protocol.name,
            seeds=(job.seed,),
            out=opened.folder,
            on_event=job.reporter.event,
        )
    except EvaluationFailed as error:
        set_aside(opened.folder)
        raise Failed("train-failed", str(error), name) from error
    if evaluation.status != "scored" and evaluation.status != "partial":
        raise Failed(evaluation.status, evaluation.error or "the evaluator gave no reason", name)
    return evaluation
