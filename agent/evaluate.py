"""The evaluator, asked as a program: `python -m evaluator ...`, whose JSON is read as data."""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from . import process
from .errors import AgentError, BadInput, EnvironmentFault
from .events import Event, describe
from .files import append_line, read_whole
from .process import Bounds, Ended
from .recordfile import why
from .records import CheckReport, Evaluation, ProtocolInfo, Record, now
from .runs import check_runs
from .text import one_line
from .threads import Leash

COMMAND = (sys.executable, "-m", "evaluator")
_SCORE_BOUNDS = Bounds(total=48 * 3600, silence=1800)
_CHECK_BOUNDS = Bounds(total=900, silence=900)
_RECORD_LIMIT = 16 << 20
_PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_.*|TZ|TMPDIR|VIRTUAL_ENV|XDG_(CACHE|RUNTIME)_.*|PYTHON.*|LD_LIBRARY_PATH"
    r"|CUDA.*|NVIDIA_.*|NCCL_.*|ROCR_.*|HIP_.*|TORCH.*|PYTORCH_.*|TRITON_.*|INDUCTOR_.*|OMP_.*|KMP_.*|GOMP_.*"
    r"|MKL_.*|OPENBLAS_.*|MALLOC_.*|RAY_.*|CC|CXX|CPATH|C_INCLUDE_PATH|LIBRARY_PATH|COLUMNS"
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
T = TypeVar("T", bound=Record)


_EVENT = TypeAdapter(Event)


class EvaluationFailed(Exception):
    """The evaluator broke off over this variant; the sentence says how. A failed attempt, no bug of ours."""


@dataclass(frozen=True)
class Evaluator:
    """How to call the evaluator on this machine."""

    device: str = "auto"
    sandbox: str = "auto"
    bounds: Bounds = _SCORE_BOUNDS
    command: tuple[str, ...] = COMMAND
    ray: str | None = None  # where Ray spreads a score's settings
    share: Mapping[str, str] = field(default_factory=dict)  # of this machine, as environment variables
    leash: Leash = field(default_factory=Leash)

    def protocol(self, name: str) -> ProtocolInfo:
        """What a protocol is; also finds out early that a device or a wall that was asked for is missing."""
        ended = self._ask(["protocol", name, *self._machine(only_asked=True), *self._ray()])
        _expect(ended, 0)
        return _parse(ended, ProtocolInfo)

    def check(self, variant: Path, *, against: Path | None, seed: int | None = None) -> CheckReport:
        """Run the gates; without a seed their random inputs are fresh, so that nothing can be tuned to them."""
        extra = ["--against", _path(against)] if against else []
        extra += ["--seed", str(seed)] if seed is not None else []
        here = replace(self, device="auto") if self.ray else self  # a cluster's GPU need not be this machine's
        ended = self._ask(["check", _path(variant), "--json", *extra, *here._machine()])
        _expect(ended, 0, 1)
        return _parse(ended, CheckReport)

    def score(
        self,
        variant: Path,
        *,
        protocol: str,
        seeds: Sequence[int],
        out: Path,
        on_event: Callable[[Event], None],
        extra: Sequence[str] = (),
    ) -> Evaluation:
        """Train and audit under a protocol; called again with the same `out`, it goes on where it was."""
        asked = ["--seed", str(seeds[0])] + (["--seeds", str(len(seeds))] if len(seeds) > 1 else [])
        arguments = [
            "score",
            _path(variant),
            "--protocol",
            protocol,
            *asked,
            *self._machine(),
            *self._ray(),
            *extra,
            "--out",
            _path(out),
            "--events",
        ]
        log = out / "train.log"
        ended = self._run(arguments, self.bounds, log, lambda line: _hand_over(line, on_event, log))
        if ended.timed_out:
            raise EvaluationFailed(f"training was {ended.timed_out}")
        if ended.status in (2, 3):
            raise _fault(ended)
        evaluation = read_evaluation(out, ended)
        if (ended.status == 0) != (evaluation.status in ("scored", "partial")):
            raise EvaluationFailed(f"the evaluator ended with status {ended.status}: {_last_line(ended)}")
        return evaluation

    def part(self, folder: Path, protocol: str, out: Path) -> None:
        """Put into `out` what an evaluation says under a protocol whose settings are some of its own."""
        _expect(self._ask(["part", _path(folder), "--protocol", protocol, "--out", _path(out)]), 0)

    def _ask(self, arguments: list[str]) -> Ended:
        ended = self._run(arguments, _CHECK_BOUNDS)
        if ended.timed_out:
            raise EvaluationFailed(f"`evaluator {arguments[0]}` was {ended.timed_out}")
        return ended

    def _run(
        self, arguments: Sequence[str], bounds: Bounds, log: Path | None = None, on_line: Callable[[str], None] | None = None
    ) -> Ended:
        """Once more where something else than our bounds killed it, as a machine without memory does: a training goes on where it was."""
        for _ in range(2):
            ended = process.run(
                [*self.command, *arguments], self._environment(), bounds, log=log, on_line=on_line, leash=self.leash
            )
            if ended.status >= 0 or ended.timed_out:
                return ended
            how = f"the evaluator was killed by signal {-ended.status}{' (out of memory?)' if ended.status == -9 else ''}"
            if log:
                append_line(log, f"{now():%Y-%m-%d %H:%M:%S}  {how}")
        raise EvaluationFailed(f"{how}, twice")

    def _environment(self) -> Mapping[str, str]:
        return {**environment(), **self.share}

    def _ray(self) -> list[str]:
        return ["--ray", self.ray] if self.ray else []

    def _machine(self, *, only_asked: bool = False) -> list[str]:
        chosen = {"--device": self.device, "--sandbox": self.sandbox}
        return [
            part
            for flag, value in chosen.items()
            if value != "auto" or not only_asked
            for part in (flag, value)
        ]


def _path(path: Path) -> str:
    """As an argument that is no option, whatever its name."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def environment() -> dict[str, str]:
    """What the evaluator may know of ours: an allow-list, and nothing in it that is named like a secret."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if _PASSED_ON.fullmatch(name) and not _SECRET.search(name)
    }
    # A folder that happens to hold a triton.py, as every variant's may, must not shadow the library.
    return passed | {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


def read_evaluation(folder: Path, ended: Ended | None = None) -> Evaluation:
    """The evaluation that stands in `folder`; what may be recorded as scores its runs must bear out."""
    try:
        found = Evaluation.model_validate_json(read_whole(folder / "evaluation.json", _RECORD_LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        if ended:
            raise EvaluationFailed(f"the evaluator left no evaluation.json: {_last_line(ended)}") from None
        raise EvaluationFailed("it holds no evaluation.json" if folder.is_dir() else "there is no such folder") from None
    except (ValidationError, OSError) as error:
        if ended and isinstance(error, OSError):  # it was written just now, by us
            raise
        raise EvaluationFailed(f"{folder / 'evaluation.json'} is no evaluation: {why(error)}") from error
    if found.status in ("scored", "partial"):
        try:
            check_runs(folder, found)
        except ValueError as error:
            raise EvaluationFailed(str(error)) from error
    return found


def set_aside(folder: Path) -> None:
    """An evaluation.json that can't be recorded gets another name: its entry has to be loaded without it."""
    try:
        read_evaluation(folder)
    except EvaluationFailed:
        with suppress(FileNotFoundError, NotADirectoryError):
            (folder / "evaluation.json").rename(folder / "evaluation.json.refused")


def ended_evaluation(folder: Path) -> Evaluation:
    """The same, of one whose scores may be recorded."""
    found = read_evaluation(folder)
    if found.status not in ("scored", "partial"):
        raise EvaluationFailed(f"its evaluation is {found.status}: {one_line(found.error or '')}")
    if found.finished is None:
        raise EvaluationFailed("its evaluation has not ended: `python -m evaluator score` on the folder asks what is left")
    return found


def _hand_over(line: str, on_event: Callable[[Event], None], log: Path) -> None:
    """Progress only informs, so a line that is none is not worth a failure; what stays true of it is logged."""
    try:
        event = _EVENT.validate_json(line)
    except ValidationError:
        return
    if event.event != "progress":
        append_line(log, f"{now():%Y-%m-%d %H:%M:%S}  {describe(event)}")
    on_event(event)


def _expect(ended: Ended, *statuses: int) -> None:
    if ended.status in (2, 3):
        raise _fault(ended)
    if ended.status not in statuses:
        raise EvaluationFailed(f"the evaluator ended with status {ended.status}: {_last_line(ended)}")


def _fault(ended: Ended) -> AgentError:
    kind = BadInput if ended.status == 2 else EnvironmentFault
    return kind(_last_line(ended).removeprefix("evaluator: "))


def _last_line(ended: Ended) -> str:
    lines = [line for line in ended.complaint.splitlines() if line.strip()]
    return one_line(lines[-1], 500) if lines else f"exit status {ended.status} without a word"


def _parse(ended: Ended, model: type[T]) -> T:
    try:
        return model.model_validate_json(ended.output)
    except ValidationError as error:
        raise EvaluationFailed(
            f"the evaluator's answer is no {model.__name__}: {_last_line(ended)}"
        ) from error
