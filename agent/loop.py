"""The loop: read the history, propose, patch, check, train, score, reflect, record. Here the parts meet."""

import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import repeat

from . import history, policy, trial, variants
from .compare import BASELINE
from .errors import BadInput, EnvironmentFault
from .exchange import LLMError, NoText, totals
from .history import Entry, Pass, Past
from .interrupted import checked_name, is_as_checked, left_over, passed, put_back_orphans, stored_reply, waiting
from .job import Failed, Job, proposer_of, seal, start, tidy
from .policy import Brief
from .proposal.patch import PatchError, apply, unified_diff
from .proposal.prediction import left_out
from .proposal.reply import MOST_BYTES, Proposal, ReplyError, parse
from .proposers import Setback
from .records import SERVER_THEN, Start
from .slots import as_they_end

_GIVE_UP_AFTER = 3  # attempts in a row to which no model answered


class Unanswered(Failed):
    """No text came from the model; where an earlier one was refused in this attempt, that is what it failed of."""

    def __init__(self, error: LLMError, told: Failed | None = None) -> None:
        if told:
            super().__init__(told.status, f"{told.reason}{SERVER_THEN}{error})", told.name)
        else:
            super().__init__("reply-failed", str(error))
        self.sentence, self.fatal = str(error), error.fatal


Ended = tuple[Entry, Unanswered | None]


def run(job: Job, iterations: int) -> Generator[Entry, None, None]:
    """Go on with what was interrupted, score the baseline if it never was, then make new attempts."""
    if not variants.names(job.root):  # a folder that is no project is told, and left as it was
        variants.sources(variants.folder_of(job.root, BASELINE))
    with history.writing(job.root):
        variants.require_one_file_system(job.root)
        tidy(job.root, job.repo, job.reporter.say)
        yield from _finish_interrupted(job)
        past = history.read(job.root)
        for sentence in policy.edited(job.root, past, job.protocol):
            job.reporter.say(sentence)
        if policy.lacks_baseline(job.root, past, job.protocol):
            yield _baseline(job)
        yield from _in_turn(job, repeat(_attempt, iterations), iterations)


def score_stored(job: Job, name: str) -> Entry:
    """Check and score variants/NAME as an attempt of its own, or go on with one that was interrupted."""
    with history.writing(job.root):
        tidy(job.root, job.repo, job.reporter.say)
        _, going_on, _ = _interrupted(job, lambda known: known.name == name)
        for begun in going_on:
            entry, _ = _go_on(job, begun)
            if entry.status != "interrupted":
                return entry
        return trial.score(job, name, history.read(job.root))


def _interrupted(job: Job, is_ours: Callable[[Start], bool]) -> tuple[Past, list[Entry], list[Entry]]:
    """What was interrupted and goes on here, and what waits for other settings, which is told."""
    past, settings = history.read(job.root), (job.protocol.name, job.seed)
    left = left_over(past)
    going_on = [
        entry
        for entry in left
        if (entry.about.protocol, entry.about.seed) == settings
        and is_ours(entry.about)
        and is_as_checked(entry, job.root)
    ]
    others = [entry for entry in left if entry not in going_on]
    for sentence in waiting(others, job.root):
        job.reporter.say(sentence)
    return past, going_on, others


def _finish_interrupted(job: Job) -> Iterator[Entry]:
    """Finish what was begun under the same settings; what else was stored gives its name back."""
    past, going_on, others = _interrupted(job, partial(_is_ours, job))
    put_back_orphans(job.root, past, others)
    yield from _in_turn(job, [partial(_go_on, begun=entry) for entry in going_on], len(going_on))


def _is_ours(job: Job, known: Start) -> bool:
    if job.proposer is None:
        return False
    if known.proposer is None:
        return known.name == BASELINE
    return (known.proposer, known.model) == (job.proposer.name, job.proposer.model)


def _go_on(job: Job, begun: Entry) -> Ended:
    """From the gates on, where the evaluator goes on in the same folder; else from the reply that is stored."""
    with history.reopen(begun) as opened:
        try:
            if _is_in_place(job, opened, begun):
                job.reporter.say(f"{begun.id} was interrupted after its gates: going on with it")
                proposal = None if opened.start.name else parse(stored_reply(begun) or "")
                return trial.evaluate(job, opened, checked_name(begun) or "", proposal), None
            job.reporter.say(f"{begun.id} was interrupted before its training: going on with its reply")
            with job.desk:
                past, turn = history.read(job.root), int(begun.id)
                brief = policy.brief(job.root, past, job.protocol, job.seed, turn, job.desk, begun)
        except BadInput as error:  # what was measured or answered then is not mixed with what is there now
            put_back_orphans(job.root, history.read(job.root), [begun])
            return seal(job, opened, checked_name(begun), Failed("interrupted", str(error))), None
        reply, earlier = stored_reply(begun), totals(begun.folder / "llm.jsonl")["exchanges"] - 1
        opened.write("proposal.md", reply or "")
        return _pursue(job, opened, brief, reply, job.tries - max(0, int(earlier)))


def _is_in_place(job: Job, opened: Pass, begun: Entry) -> bool:
    """Whether its variant has passed and has its name in variants/, which it may still have to be given."""
    if not passed(begun):
        return False
    if opened.start.name is None and (opened.folder / "variant").exists():
        try:
            _publish(job, opened, parse(stored_reply(begun) or ""))
        except Failed:
            return False
    return True


def _baseline(job: Job) -> Entry:
    job.reporter.say(
        f"No score of the baseline {BASELINE} under {job.protocol.name} yet: it comes first, as an extra pass"
    )
    entry = trial.score(job, BASELINE, history.read(job.root))
    if entry.status != "scored":
        raise EnvironmentFault(
            f"the baseline {BASELINE} could not be scored, so there is nothing to start from "
            f"({entry.id}, {entry.status}: {entry.attempt.error if entry.attempt else ''})"
        )
    return entry


def _in_turn(job: Job, tasks: Iterable[Callable[[Job], Ended]], number: int) -> Iterator[Entry]:
    """That many attempts, until they are done or no model answers any more."""
    silent: list[str] = []
    with closing(as_they_end(job, tasks)) as all_ended:
        for count, (entry, unanswered) in enumerate(all_ended, 1):
            yield entry
            silent = [*silent, unanswered.sentence] if unanswered else []
            if unanswered and unanswered.fatal:
                raise EnvironmentFault(f"no attempt after this one could do better: {unanswered.sentence}")
            if len(silent) == _GIVE_UP_AFTER or len(silent) == count == number:
                raise EnvironmentFault(f"no answer in {len(silent)} attempt(s) in a row: {silent[-1]}")


def _attempt(job: Job) -> Ended:
    """One pass: a parent, a proposal that passes the gates, its score."""
    with job.desk:
        past, turn = history.read(job.root), history.next_number(job.root)
        brief = policy.brief(job.root, past, job.protocol, job.seed, turn, job.desk)
        opened = history.begin(job.root, start(job, None, brief.parent))
    with opened:
        return _pursue(job, opened, brief, None, job.tries)


def _pursue(job: Job, opened: Pass, brief: Brief, reply: str | None, tries: int) -> Ended:
    """From the brief to the record; a `reply` that is stored is the first of the tries."""
    try:
        proposal = _invent(job, opened, brief, reply, tries)
    except Failed as failed:
        return seal(job, opened, failed.name, failed), failed if isinstance(failed, Unanswered) else None
    return trial.evaluate(job, opened, proposal.name, proposal), None


def _invent(job: Job, opened: Pass, brief: Brief, reply: str | None, tries: int) -> Proposal:
    """Ask until a reply parses, applies and passes the gates; each refusal goes back with its reason.

    What the last text failed of is what is recorded: where others came without any, that teaches more.
    """
    setbacks: list[Setback] = []
    told: Failed | None = None
    while True:
        try:
            reply = reply or _ask(job, opened, brief, setbacks, tries - len(setbacks))
            return _adopt(job, opened, brief, reply)
        except Failed as failed:
            cause = failed.__cause__
            if not reply and isinstance(cause, LLMError) and not isinstance(cause, NoText):
                raise Unanswered(cause, told) from cause
            if not reply and not isinstance(cause, NoText):
                raise
            job.reporter.say(f"{opened.id}: {failed.status}: {failed.reason}")
            setbacks.append(Setback(reply or "", failed.reason))
            told = failed if reply else told
            reply = None
            if len(setbacks) >= tries:
                raise told or failed from failed.__cause__


def _ask(job: Job, opened: Pass, brief: Brief, setbacks: list[Setback], left: int) -> str:
    job.reporter.stage(
        f"{opened.id}: {proposer_of(job).name} proposes a child of {brief.parent}"
        + (f" (try {len(setbacks) + 1})" if setbacks else "")
    )
    try:
        reply = proposer_of(job).propose(brief, setbacks, left, opened.folder)
        reply = reply[: MOST_BYTES + 1]  # longer ones are refused for that: all of it stands in llm.jsonl alone
    except LLMError as error:
        raise Unanswered(error) from error
    except ReplyError as error:
        raise Failed("reply-failed", str(error)) from error
    for name in ("patch.diff", "check.json"):  # of the reply before this one
        (opened.folder / name).unlink(missing_ok=True)
    shutil.rmtree(opened.folder / "variant", ignore_errors=True)
    opened.write("proposal.md", reply)
    return reply


def _adopt(job: Job, opened: Pass, brief: Brief, reply: str) -> Proposal:
    """Parse the reply, patch the parent, run the gates, and store the variant; or say what failed."""
    try:
        proposal = parse(reply)
        child = apply(proposal, brief.sources, brief.parent)
    except ReplyError as error:
        raise Failed("reply-failed", str(error)) from error
    except PatchError as error:
        raise Failed("patch-failed", str(error), proposal.name) from error
    if not job.desk.take(opened.id, proposal) or proposal.name in variants.names(job.root):
        raise Failed("reply-failed", f"The name {proposal.name} is taken: choose another.")  # it is another's
    folder = variants.draft(opened.folder, child)
    opened.write("patch.diff", unified_diff(brief.parent, brief.sources, proposal.name, child))
    if proposal.unread:
        job.reporter.say(f"{opened.id}: not read of its prediction: {left_out(proposal.unread)}")
    trial.check(job, opened, folder, proposal.name, stored=False)
    _publish(job, opened, proposal)
    return proposal


def _publish(job: Job, opened: Pass, proposal: Proposal) -> None:
    try:
        with job.desk:
            variants.publish(job.root, opened.folder, proposal.name)
    except FileExistsError as error:
        raise Failed("reply-failed", str(error)) from error
