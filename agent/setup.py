"""Builds the parts of a run out of its settings."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from . import prompts
from .errors import BadInput, EnvironmentFault
from .evaluate import EvaluationFailed, Evaluator
from .exchange import Model
from .job import Job
from .process import Bounds
from .progress import Reporter
from .proposers import Catalogue, Manual, Prompted, Proposer
from .repo import GitError, Repo, open_repo
from .settings import Settings
from .slots import shares
from .text import one_line


@contextmanager
def job_for(root: Path, settings: Settings, console: Console) -> Iterator[Job]:
    """Everything but the proposer."""
    evaluator = evaluator_for(settings)
    try:
        protocol = evaluator.protocol(settings.protocol)
    except EvaluationFailed as error:
        raise EnvironmentFault(f"the evaluator does not answer: {error}") from error
    with Reporter(console) as reporter:
        repo = repo_for(root, settings, reporter.say)
        yield Job(root, protocol, settings.seed, settings.tries, evaluator, None, repo, reporter)


def proposer_for(job: Job, settings: Settings) -> Job:
    """The job, with whoever proposes."""
    if settings.parallel > 1 and settings.ray:
        raise BadInput("--parallel and --ray: Ray spreads one evaluation over all GPUs; choose one of them")
    job = replace(job, shares=shares(settings.parallel, settings.device))
    mark = " (no measure of quality)" if job.protocol.name == "smoke" else ""
    job.reporter.say(
        f"proposer={settings.chosen_proposer}, protocol={job.protocol.name}{mark}, seed={job.seed}{_shared(job)}"
    )
    proposer: Proposer
    match settings.chosen_proposer:
        case "catalogue":
            proposer = Catalogue()
        case "manual":
            prompts.require(job.root)
            proposer = Manual(job.root, job.reporter.say)
        case "openai":
            prompts.require(job.root)
            if not settings.key and not settings.server:
                raise BadInput(
                    "no model to ask: set OPENAI_API_KEY, or give --base-url for a server of your own"
                )
            proposer = Prompted(job.root, "openai", settings.model, _model(settings))
    return replace(job, proposer=proposer)


def _shared(job: Job) -> str:
    """How several attempts at once share the machine, in words."""
    if len(job.shares) == 1:
        return ""
    gpus = [share["CUDA_VISIBLE_DEVICES"] for share in job.shares if "CUDA_VISIBLE_DEVICES" in share]
    each = f"on GPU {', '.join(gpus)}" if gpus else f"threads each: {job.shares[0]['OMP_NUM_THREADS']}"
    return f", parallel={len(job.shares)} ({each})"


def evaluator_for(settings: Settings) -> Evaluator:
    bounds = Bounds(total=settings.evaluation_hours * 3600, silence=settings.silence_minutes * 60)
    return Evaluator(settings.device, settings.sandbox, bounds, ray=settings.ray)


def repo_for(root: Path, settings: Settings, say: Callable[[str], None]) -> Repo | None:
    """The checkout to commit to, or None, which is told and fine."""
    if not settings.commit:
        return None
    try:
        repo = open_repo(root)
    except GitError as error:
        say(str(error))
        return None
    for note in repo.notes:
        say(note)
    return repo


def _model(settings: Settings) -> Model:
    if settings.server and not re.match(r"https?://[^/\s]+", settings.server, re.IGNORECASE):
        raise BadInput(f"--base-url {one_line(settings.server, 100)}: an address begins with http:// or https:// and a host")
    from httpx2 import InvalidURL

    from .llm import OpenAIModel, Prices  # imports openai, which takes longer than a whole `agent list`

    try:
        (urlsplit(settings.server or "").hostname or "").encode("idna")
        return OpenAIModel(
            settings.model,
            key=settings.key,
            base_url=settings.server,
            deadline=settings.answer_seconds,
            retries=settings.retries,
            prices=Prices(settings.price_input, settings.price_output),
        )
    except (InvalidURL, ValueError) as error:
        why = one_line(str(error), 100)
        raise BadInput(f"--base-url {one_line(settings.server or '', 100)} is no address: {why}") from None
