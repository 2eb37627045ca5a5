"""The loop: read the history, propose, patch, check, train, score, reflect, record. Here the parts meet."""

import shutil
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from itertools import repeat

from . import history, policy, trial, variants
from .compare import BASELINE
from .errors import BadInput, EnvironmentFault
from .exchange import LLMError
from .history import Entry, Pass, Past
from .interrupted import put_back_orphans, resumable
from .job import Failed, Job, proposer_of, seal, start, tidy
from .patch import PatchError, apply, unified_diff
from .policy import Brief
from .proposers import Setback
from .reply import Proposal, ReplyError, parse
from .slots import as_they_end

_GIVE_UP_AFTER = 3  # attempts in a row to which no model answered


class Unanswered(Failed):
    """No text came from the model."""

    def __init__(self, error: LLMError) -> None:
        super().__init__("reply-failed", str(error))
        self.fatal = error.fatal


def run(job: Job, iterations: int) -> Generator[Entry, None, None]:
    """Go on with what was interrupted, score the baseline if nothing is scored, then make new attempts."""
    with history.writing(job.root):
        tidy(job.root, job.repo, job.reporter.say)
        yield from _finish_interrupted(job)
        past = history.read(job.root)
        for sentence in policy.edited(job.root, past, job.protocol):
            job.reporter.say(sentence)
        if not policy.parents(job.root, past, job.protocol):
            yield _baseline(job)
        yield from _attempts(job, iterations)


def score_stored(job: Job, name: str) -> Entry:
    """Check and score variants/NAME as an attempt of its own, or go on with one that was interrupted."""
    with history.writing(job.root):
        tidy(job.root, job.repo, job.reporter.say)
        past = history.read(job.root)
        for entry in resumable(past, job.root, job.protocol.name, job.seed):
            if entry.start and entry.start.name == name and entry.start.proposer is None:
                return _resume(job, entry)
        return trial.score(job, name, past)


def _finish_interrupted(job: Job) -> Iterator[Entry]:
    """Finish what had passed its gates under the same settings; pass over the rest, and free its names."""
    past = history.read(job.root)
    going_on = [
        entry for entry in resumable(past, job.root, job.protocol.name, job.seed) if _is_ours(job, entry)
    ]
    passed_over = [entry for entry in past.entries if entry.attempt is None and entry not in going_on]
    put_back_orphans(job.root, past, passed_over)
    if passed_over:
        ids = ", ".join(entry.id for entry in passed_over)
        job.reporter.say(f"Interrupted earlier and passed over: {ids}")
    tasks = [partial(_go_on, past=past, entry=entry) for entry in going_on]
    with closing(as_they_end(job, tasks)) as ended:
        yield from filter(None, ended)


def _go_on(job: Job, past: Past, entry: Entry) -> Entry | None:
    job.reporter.say(f"{entry.id} was interrupted after its gates: going on with it")
    try:
        return _resume(job, entry)
    except BadInput as error:  # what was measured then is not mixed with what would be measured now
        job.reporter.say(f"{entry.id} cannot go on and is passed over: {error}")
        put_back_orphans(job.root, past, [entry])
        return None


def _is_ours(job: Job, entry: Entry) -> bool:
    known = entry.start
    if known is None or job.proposer is None:
        return False
    if known.proposer is None:
        return known.name == BASELINE
    return (known.proposer, known.model) == (job.proposer.name, job.proposer.model)


def _resume(job: Job, entry: Entry) -> Entry:
    """From the gates on; the evaluator goes on in the same folder where it was."""
    with history.reopen(entry) as opened:
        if opened.start.name is not None:
            return trial.evaluate(job, opened, opened.start.name, None)
        proposal = parse(entry.prose("proposal.md") or "")
        try:
            if (entry.folder / "variant").exists():
                _publish(job, opened, proposal)
        except Failed as failed:
            return seal(job, opened, proposal.name, failed)
        return trial.evaluate(job, opened, proposal.name, proposal)


def _baseline(job: Job) -> Entry:
    job.reporter.say(
        f"No scores under {job.protocol.name} yet: the baseline {BASELINE} comes first, as an extra pass"
    )
    entry = trial.score(job, BASELINE, history.read(job.root))
    if entry.status != "scored":
        raise EnvironmentFault(
            f"the baseline {BASELINE} could not be scored, so there is nothing to start from "
            f"({entry.id}, {entry.status}: {entry.attempt.error if entry.attempt else ''})"
        )
    return entry


def _attempts(job: Job, iterations: int) -> Iterator[Entry]:
    """New attempts, until they are done or no model answers any more."""
    silent: list[str] = []
    with closing(as_they_end(job, repeat(_attempt, iterations))) as ended:
        for number, (entry, unanswered) in enumerate(ended, 1):
            yield entry
            silent = [*silent, str(unanswered)] if unanswered else []
            if unanswered and unanswered.fatal:
                raise EnvironmentFault(f"no attempt after this one could do better: {unanswered}")
            if len(silent) == _GIVE_UP_AFTER or len(silent) == number == iterations:
                raise EnvironmentFault(f"no answer in {len(silent)} attempt(s) in a row: {silent[-1]}")


def _attempt(job: Job) -> tuple[Entry, Unanswered | None]:
    """One pass: a parent, a proposal that passes the gates, its score."""
    with job.desk:
        past, turn = history.read(job.root), history.next_number(job.root)
        brief = policy.brief(job.root, past, job.protocol, job.seed, turn, job.desk)
        opened = history.begin(job.root, start(job, None, brief.parent))
    with opened:
        try:
            proposal = _invent(job, opened, brief)
        except Failed as failed:
            return seal(job, opened, failed.name, failed), failed if isinstance(failed, Unanswered) else None
        return trial.evaluate(job, opened, proposal.name, proposal), None


def _invent(job: Job, opened: Pass, brief: Brief) -> Proposal:
    """Ask until a reply parses, applies and passes the gates; each refusal goes back with its reason."""
    setbacks: list[Setback] = []
    while True:
        left = job.tries - len(setbacks)
        job.reporter.stage(
            f"{opened.id}: {proposer_of(job).name} proposes a child of {brief.parent}"
            + (f" (try {len(setbacks) + 1})" if setbacks else "")
        )
        reply = _ask(job, opened, brief, setbacks, left)
        try:
            return _adopt(job, opened, brief, reply)
        except Failed as failed:
            job.reporter.say(f"{opened.id}: {failed.status}: {failed.reason}")
            setbacks.append(Setback(reply, failed.reason))
            if len(setbacks) == job.tries:
                raise


def _ask(job: Job, opened: Pass, brief: Brief, setbacks: list[Setback], left: int) -> str:
    for name in ("patch.diff", "check.json"):  # of the reply before this one
        (opened.folder / name).unlink(missing_ok=True)
    shutil.rmtree(opened.folder / "variant", ignore_errors=True)
    try:
        reply = proposer_of(job).propose(brief, setbacks, left, opened.folder)
    except LLMError as error:
        raise Unanswered(error) from error
    except ReplyError as error:
        raise Failed("reply-failed", str(error)) from error
    opened.write("proposal.md", reply)
    return reply


def _adopt(job: Job, opened: Pass, brief: Brief, reply: str) -> Proposal:
    """Parse the reply, patch the parent, run the gates, and store the variant; or say what failed."""
    try:
        proposal = parse(reply)
        child = apply(proposal, brief.sources)
    except ReplyError as error:
        raise Failed("reply-failed", str(error)) from error
    except PatchError as error:
        raise Failed("patch-failed", str(error), proposal.name) from error
    if not job.desk.take(opened.id, proposal) or proposal.name in variants.names(job.root):
        raise Failed("reply-failed", f"The name {proposal.name} is taken: choose another.", proposal.name)
    folder = variants.draft(opened.folder, child)
    opened.write("patch.diff", unified_diff(brief.parent, brief.sources, proposal.name, child))
    trial.check(job, opened, folder, proposal.name, stored=False)
    _publish(job, opened, proposal)
    return proposal


def _publish(job: Job, opened: Pass, proposal: Proposal) -> None:
    try:
        with job.desk:
            variants.publish(job.root, opened.folder, proposal.name)
    except FileExistsError as error:
        raise Failed("reply-failed", str(error), proposal.name) from error
