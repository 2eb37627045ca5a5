"""What all passes of one command share, and how every pass ends: compared, recorded, sealed, committed."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import history, variants
from .compare import BASELINE, Comparison, compare
from .desk import Desk
from .errors import BadInput
from .evaluate import Evaluator
from .exchange import LLMError
from .history import Entry, Pass
from .insight import in_short, measured_insight
from .interrupted import checked_name, left_over, lost
from .progress import Reporter
from .proposal.reply import Proposal
from .proposers import Proposer
from .records import VERSION, Attempt, CheckReport, Evaluation, Failure, Kind, ProtocolInfo, Start, now, results_csv
from .repo import Repo, catch_up, follow


class Failed(Exception):
    """The attempt ends here, as data: a status word and the reason."""

    def __init__(self, status: Failure, reason: str, name: str | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.name = status, reason, name


@dataclass(frozen=True)
class Job:
    """What all passes of one command share."""

    root: Path
    protocol: ProtocolInfo
    seed: int
    tries: int
    evaluator: Evaluator
    proposer: Proposer | None  # None: only stored variants are scored
    repo: Repo | None  # None: nothing is committed
    reporter: Reporter
    shares: tuple[Mapping[str, str], ...] = ({},)  # of the machine, one for each attempt that may be in flight
    desk: Desk = field(default_factory=Desk)


def tidy(root: Path, repo: Repo | None, say: Callable[[str], None]) -> None:
    """At the start of a command that writes: say what cannot be read, seal what can't go on, commit what was not."""
    variants.tidy_moves(root)
    past = history.read(root)
    for problem in past.problems:
        say(problem)
    gone = [(entry, how) for entry in left_over(past) if (how := lost(entry))]
    for entry, how in gone:
        _seal_lost(entry, how, say)
    catch_up(repo, history.read(root) if gone else past, say)


def _seal_lost(entry: Entry, how: str, say: Callable[[str], None]) -> None:
    try:
        with history.reopen(entry) as opened:
            opened.seal(_attempt(entry.about, checked_name(entry), Failed("interrupted", how)))
        say(f"{entry.id} was {how}: sealed as interrupted")
    except OSError as error:
        say(f"{entry.id} was {how}, and cannot be sealed: {error.strerror}")


def record(job: Job, opened: Pass, evaluation: Evaluation, proposal: Proposal | None) -> Entry:
    """Write what was measured and learned, and seal the entry."""
    name = proposal.name if proposal else opened.start.name or evaluation.variant.name
    predicted = proposal.prediction if proposal else {}
    comparison = compare(history.read(job.root), name, opened.start.parent, evaluation, job.protocol, predicted)
    opened.write("results.csv", results_csv([(name, evaluation.row)]))
    if comparison.against is None and name != BASELINE:
        made = f"`agent score {BASELINE} --protocol {job.protocol.name}` makes one"
        job.reporter.say(f"{opened.id}: neither a parent nor {BASELINE} has a score under {job.protocol.name} to compare with: {made}")
    _reflect(job, opened, comparison, proposal)
    return seal(job, opened, name, None, comparison)


def keep_evaluation(
    job: Job, folder: Path, name: str, evaluation: Evaluation, kind: Kind, source: str, parent: str | None,
    report: CheckReport | None = None,
) -> Entry:  # fmt: skip
    """An entry out of the files of an evaluation that was made elsewhere, and what the gates say of the variant here."""
    begun = start(job, name, parent, kind, source).model_copy(update={"seed": evaluation.seeds[0]})
    with history.begin(job.root, begun) as opened:
        for file in ("evaluation.json", "runs.csv", "train.log"):
            if (folder / file).is_file():
                shutil.copyfile(folder / file, opened.folder / file)
        if report:
            opened.write("check.json", report.model_dump_json(indent=2) + "\n")
        return record(job, opened, evaluation, None)


def _reflect(job: Job, opened: Pass, comparison: Comparison, proposal: Proposal | None) -> None:
    """A failure here costs the model's insight, never the attempt."""
    job.reporter.stage(f"{opened.id} {comparison.name}: insight")
    if proposal is None or job.proposer is None:
        opened.write("insight.md", measured_insight(comparison))
        return
    try:
        said = (opened.folder / "proposal.md").read_text(encoding="utf-8", errors="replace")
        opened.write("insight.md", job.proposer.reflect(comparison, said, opened.folder))
    except (LLMError, BadInput) as error:  # no answer, or a prompt that is broken
        job.reporter.say(f"{opened.id}: no insight of the model's, a template's instead: {error}")
        opened.write("insight.md", measured_insight(comparison, "the model that was asked wrote none"))


def seal(
    job: Job, opened: Pass, name: str | None, failed: Failed | None, compared: Comparison | None = None
) -> Entry:
    """Make the entry whole, say how it ended, and have git follow."""
    attempt = _attempt(opened.start, name, failed, compared)
    with job.desk:
        opened.seal(attempt)
        job.desk.give_back(opened.id)
        entry = history.load(opened.folder)
        job.reporter.rest()
        job.reporter.say(_summary(entry, compared))
        follow(job.repo, entry, job.reporter.say)
    return entry


def _attempt(known: Start, name: str | None, failed: Failed | None, compared: Comparison | None = None) -> Attempt:
    return Attempt(
        **known.model_dump() | {"name": name},
        status=failed.status if failed else "scored",
        success=None if failed and failed.status == "interrupted" else failed is None,
        error=failed.reason if failed else None,
        versus_parent=compared.versus_parent if compared else "unknown",
        noise=dict(compared.noise) if compared else None,
        setting_noise={f"{s.task}:{s.name}": s.sigma for s in compared.settings} if compared and compared.settings else None,
        finished=now(),
    )


def _summary(entry: Entry, compared: Comparison | None) -> str:
    about = f"{entry.id} {entry.name or '(no name)'}: {entry.status}"
    if entry.attempt and entry.attempt.error:
        return f"{about}: {entry.attempt.error}"
    return f"{about}, {in_short(compared)}" if compared else about


def start(
    job: Job, name: str | None, parent: str | None, kind: Kind = "attempt", source: str | None = None
) -> Start:
    proposer = None if name else job.proposer
    return Start(
        version=VERSION,
        id="",
        kind=kind,
        name=name,
        parent=parent,
        protocol=job.protocol.name,
        seed=job.seed,
        proposer=proposer.name if proposer else None,
        model=proposer.model if proposer else None,
        base_commit=job.repo.head if job.repo else None,
        source=source,
        started=now(),
    )


def proposer_of(job: Job) -> Proposer:
    if job.proposer is None:
        raise BadInput("this command has no proposer")
    return job.proposer
