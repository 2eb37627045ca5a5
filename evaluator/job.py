"""What an evaluation is asked for: a variant's sources, a protocol, its settings, seeds, a device and walls."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from evaluator.model import Architecture, architecture
from evaluator.operator import OperatorProcess, read_sources
from evaluator.protocol import BASELINES, PROTOCOLS, Protocol, Setting, with_changes
from evaluator.sandbox import Walls

HOST_MEMORY = 24 << 30  # bytes a training process may hold outside the GPU
TIMEOUT = {"cpu": 3600.0, "cuda": 7200.0}  # seconds for one setting


def _threads() -> int:
    """Of a training on a CPU: what OMP_NUM_THREADS says (of a list, at its first level), else one a core; how many does not change its result."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(asked) if asked.isdecimal() and int(asked) else os.cpu_count() or 1


@dataclass(frozen=True)
class Job:
    """Everything that an evaluation is asked for."""

    name: str
    sources: Mapping[str, str]
    form: str
    protocol: Protocol
    settings: tuple[Setting, ...]  # those to be done now, all of them the protocol's
    seeds: tuple[int, ...]
    device: torch.device
    walls: Walls
    out: Path
    seconds: float | None = None  # start no further setting after so long
    threads: int = field(default_factory=_threads)

    @property
    def gated(self) -> bool:
        """Whether the gates are asked again, at the trainer's own sizes: on a CPU `check` has asked the same there."""
        return self.device.type == "cuda"


def make_job(
    path: Path, protocol: Protocol, settings: Sequence[Setting], seeds: Sequence[int], device: torch.device,
    walls: Walls, out: Path, form: str | None, seconds: float | None = None,
) -> Job:
    """A job for a folder or a file; the Triton form is trained with on a GPU where there is one."""
    sources = read_sources(path)
    best = "triton" if "triton" in sources and device.type == "cuda" else "naive"
    name = path.stem if path.is_file() else path.resolve().name
    if form == "triton" and "triton" not in sources:
        raise FileNotFoundError(f"{path} has no triton.py")
    return Job(name, sources, form or best, protocol, tuple(settings), tuple(seeds), device, walls, out, seconds)


def process_for(job: Job) -> OperatorProcess:
    """An untrusted process with the job's variant."""
    sizes = {"num_heads": job.protocol.num_heads, "head_dim": job.protocol.head_dim}
    return OperatorProcess(
        job.sources, form=job.form, device=job.device.type, walls=job.walls, timeout=TIMEOUT[job.device.type],
        memory=HOST_MEMORY, **sizes,
    )


def architecture_for(job: Job, setting: Setting, process: OperatorProcess) -> Architecture:
    """The model of one setting around what the variant declares."""
    declared = process.description
    shapes = {k: tuple(v.shape) for k, v in declared.parameters.items()}
    return architecture(setting, job.protocol, declared.projections, shapes)


def choose_settings(
    protocol: Protocol, tasks: Sequence[str], changes: Mapping[str, float]
) -> tuple[Protocol, tuple[Setting, ...]]:
    """The settings asked for; one that the protocol does not hold makes a protocol of its own, named so.

    Raises ValueError for an unknown task or key.
    """
    unknown = [t for t in tasks if t not in BASELINES]
    if unknown:
        raise ValueError(f"unknown task {unknown[0]}: the tasks are {', '.join(BASELINES)}")
    chosen = tuple(s for s in protocol.settings if not tasks or s.task in tasks)
    if not changes:
        return protocol, chosen
    bases = {s.task: s for s in reversed(chosen)}
    wanted = tuple(with_changes(base, changes) for base in reversed(bases.values()))
    if all(s in protocol.settings for s in wanted):
        return protocol, wanted
    return dataclasses.replace(protocol, name=f"{protocol.name}-custom", settings=wanted), wanted


def protocol_named(name: str) -> Protocol:
    """A protocol by its name; raises ValueError for an unknown one."""
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name}: there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
