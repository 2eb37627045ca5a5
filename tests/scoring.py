"""A small evaluation for the tests: two settings of `smoke`, one epoch each, an operator that takes no time."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from evaluator import local, results, sandbox, score
from evaluator.job import Job, make_job
from evaluator.protocol import PROTOCOLS

CHEAP = '''"""Values come back as they are."""


def delta_rule(q, k, v, beta, *, chunk_size):
    return v
'''
ONCE = '''"""Does one thing before its first answer."""
import os, signal


def delta_rule(q, k, v, beta, *, chunk_size):
    if {when}:
        if not os.path.exists({mark!r}):
            open({mark!r}, "w").close()
        {what}
    return v
'''
SMOKE = PROTOCOLS["smoke"]
SHORT = dataclasses.replace(SMOKE, name="short", epochs=1, settings=(SMOKE.settings[0], SMOKE.settings[3]))


def job_of(folder: Path, source: str = CHEAP, protocol: Any = SHORT, out: str = "out") -> Job:
    """Scores `source` on the CPU without walls, into folder/out."""
    variant = folder / "operator.py"
    variant.write_text(source)
    (folder / out).mkdir(exist_ok=True)
    walls = sandbox.choose("off")
    return make_job(variant, protocol, protocol.settings, (0,), torch.device("cpu"), walls, folder / out, None)


def scored(job: Job, place: score.Place = local) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The evaluation, and what was told of it."""
    told: list[dict[str, Any]] = []
    return score.score(job, told.append, place), told


def rows_of(job: Job) -> set[tuple[Any, ...]]:
    """What does not depend on time or on the audit's own random numbers."""
    kept = [f for f in results.FIELDS if f not in ("seconds", "setup_seconds", "fresh_accuracy")]
    return {tuple(str(getattr(row, f)) for f in kept) for row in results.read_rows(job.out)}


def once(mark: Path, what: str) -> str:
    """An operator that does `what` at its first call and never again."""
    return ONCE.format(when=f"not os.path.exists({str(mark)!r})", mark=str(mark), what=what)


def always(what: str) -> str:
    """An operator that does `what` at every call."""
    return ONCE.format(when="True", mark="/dev/null", what=what)
