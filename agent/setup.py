"""Builds the parts of a run out of its settings."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from . import prompts
from .errors import BadInput, EnvironmentFault
from .evaluate import EvaluationFailed, Evaluator
from .exchange import LLMError, Model
from .job import Job
from .process import Bounds
from .progress import Reporter
from .proposers import Catalogue, Manual, Prompted, Proposer
from .repo import GitError, Repo, open_repo
from .server.address import check_address
from .settings import DEFAULT_SERVER, Settings
from .slots import shares
from .text import one_line
from .threads import aside

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_WHERE = "set OPENAI_API_KEY, or give --base-url for a server of your own"
_LONGEST_KEY = 8192  # servers take no header that is longer


def existing(root: Path) -> Path:
    """`root` itself, which every command begins with: a folder that is there."""
    try:
        Path.cwd()
    except FileNotFoundError:  # no relative path means anything there, and torch can't be loaded
        raise EnvironmentFault("the folder that this was started in is gone: start it in one that is there") from None
    if not root.is_dir():
        raise BadInput(f"--root {one_line(str(root), 200)}: there is no such folder")
    return root


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
            if settings.proposer is None and "model" in settings.model_fields_set:  # it would be a night without that model
                raise BadInput(f"no server to ask for the model {settings.model!r}: {_WHERE}; --proposer catalogue asks none")
            proposer = Catalogue()
        case "manual":
            prompts.require(job.root)
            proposer = Manual(job.root, job.reporter.say)
        case "openai":
            prompts.require(job.root)
            if not settings.key and not settings.server:
                raise BadInput(f"no model to ask: {_WHERE}")
            proposer = Prompted(job.root, "openai", settings.model, _model(settings, job.reporter.say))
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


def _model(settings: Settings, say: Callable[[str], None]) -> Model:
    """The model, after a look at its server: what can be seen to be wrong is told before anything is trained."""
    if settings.key and not (settings.key.isascii() and settings.key.isprintable() and len(settings.key) <= _LONGEST_KEY):
        raise BadInput(f"OPENAI_API_KEY is no key: one is at most {_LONGEST_KEY} characters of plain ASCII on one line")
    server = settings.server or DEFAULT_SERVER
    try:
        check_address(server)  # that of OPENAI_BASE_URL is no setting of ours, and was not looked at
    except ValueError as error:
        raise BadInput(f"OPENAI_BASE_URL={one_line(server, 60)}: {one_line(str(error), 200)}") from None
    from httpx2 import URL, InvalidURL

    from .server.llm import OpenAIModel, Prices  # imports openai, which takes longer than a whole `agent list`

    try:
        URL(server)
    except InvalidURL as error:
        raise BadInput(f"the server's address {one_line(server, 100)} is none: {one_line(str(error), 100)}") from None
    try:
        model = OpenAIModel(
            settings.model,
            key=settings.key,
            base_url=server,
            deadline=settings.answer_seconds,
            retries=settings.retries,
            prices=Prices(settings.price_input, settings.price_output),
            say=say,
        )
    except (InvalidURL, ValueError, ImportError, OSError) as error:
        why = one_line(str(error), 200)
        if isinstance(error, OSError):
            why += "".join(f"; {name}={one_line(os.environ[name], 200)}" for name in _CERTIFICATES if name in os.environ)
        raise EnvironmentFault(f"what the environment says of proxies, certificates or headers cannot be used: {why}") from None
    try:
        if settings.iterations:
            aside(model.look)
    except LLMError as error:
        raise EnvironmentFault(str(error)) from None
    return model
