"""The verdict on a variant: its source is read, then it is watched in a process behind walls, then compared with others."""

import contextlib
import functools
import hashlib
import queue
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evaluator import gates
from evaluator.conversation import printable
from evaluator.gates.forms import forms
from evaluator.gates.probe import STANDARD, Probe, Rejected, gap, size
from evaluator.operator import OperatorError, OperatorProcess, read_sources
from evaluator.reading import source
from evaluator.reading.normal_form import normal_form
from evaluator.sandbox import Walls

TIMEOUT = 20.0
"""Seconds that one question to an operator may take in a check."""


@dataclass(frozen=True)
class Gate:
    """What one gate said: its name, and where it rejected the sentence for the one who must fix it."""

    name: str
    passed: bool
    message: str
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """The answer of a check, as `--json` prints it."""

    variant: str
    verdict: str  # pass, reject or duplicate
    flags: tuple[str, ...]
    gates: tuple[Gate, ...]
    properties: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"

    def to_json(self) -> dict[str, Any]:
        """One document for a machine."""
        return asdict(self)

    def text(self) -> str:
        """The same for a person: one line a gate, then the verdict."""
        lines = [f"{'ok    ' if g.passed else 'REJECT'} {g.name:14} {g.seconds:6.2f} s  {g.message}".rstrip() for g in self.gates]
        lines += [f"{folder} was not compared with: {why}" for folder, why in self.properties.get("not_compared", {}).items()]
        return "\n".join([*lines, f"{self.variant}: {self.verdict}{''.join(f', {flag}' for flag in self.flags)}"])


class _Stored(NamedTuple):
    """A variant to compare with."""

    folder: Path
    sources: Mapping[str, str]
    form: str  # of naive.py


def check(
    path: Path,
    *,
    walls: Walls,
    against: Path | None = None,
    device: torch.device | str = "cpu",
    seed: int | None = None,
    read_source: bool = True,
    timeout: float = TIMEOUT,
) -> Verdict:
    """Ask all gates of the variant at `path`, a folder or one .py file.

    `against` is a folder of stored variants for duplicates; `seed` None draws fresh inputs each time; `read_source`
    False leaves out the reading, which only tests do. Raises FileNotFoundError where there is no variant.
    """
    name = printable(path.stem if path.is_file() else path.resolve().name)  # bytes that are no text are no JSON
    began = time.perf_counter()
    try:
        sources = read_sources(path)
        found = source.read(sources) if read_source else []
    except ValueError as error:
        sources, found = {}, [str(error)]
    first = Gate("source", not found, "; ".join(found), time.perf_counter() - began)
    if found:
        return Verdict(name, "reject", (), (first,), {})
    properties: dict[str, Any] = {"digest": source.digest(sources), "sandbox": asdict(walls)}
    stored, unread = _stored(against) if against else ([], {})
    if unread:
        properties["not_compared"] = unread
    twin = _duplicate(sources, stored, path)
    if twin:
        message = f"the same source as the stored variant {twin}, once comments and names are left aside"
        return Verdict(name, "duplicate", (), (first, Gate("novel", False, message, 0.0)), properties | {"duplicate_of": twin})
    with ExitStack() as stack:
        asked = [first, *_behaviour(stack, sources, walls, str(device), seed, timeout, properties, stored)]
    verdict = "pass" if all(g.passed for g in asked) else "reject"
    flags = ("low-precision",) if properties.get("coarse_inputs") else ()
    return Verdict(name, verdict, flags, tuple(asked), properties)


def _behaviour(
    stack: ExitStack,
    sources: Mapping[str, str],
    walls: Walls,
    device: str,
    seed: int | None,
    timeout: float,
    properties: dict[str, Any],
    stored: Sequence[_Stored],
) -> Iterator[Gate]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # quicker for tensors of this size
    stack.callback(torch.set_num_threads, threads)

    def start(form: str, where: str = "cpu") -> OperatorProcess:
        patience = timeout if where == "cpu" else 6 * timeout  # kernels are compiled on the way
        return stack.enter_context(OperatorProcess(sources, form=form, device=where, walls=walls, timeout=patience, threads=1))

    # Thousands of small calls: a CPU answers them sooner, and more exactly; `gates_on_device` asks again on a GPU.
    pair = (start("naive"), start("naive"))
    asking = _Asking(secrets.randbits(62) if seed is None else seed, properties)
    for stage in gates.STAGES:
        asked = asking.stage(stage, pair)
        yield from asked
        behind = [gate for found in asked if not found.passed for gate in gates.BEHIND.get(found.name, ())]
        for gate in dict.fromkeys(behind):
            yield from asking.stage((gate,), pair)
        if not all(gate.passed for gate in asked):
            return
    operator, fresh = pair
    if "triton" in sources and device != "cpu":
        kernel, fresh_kernel = start("triton", device), start("triton", device)
        yield _ask(functools.partial(forms, other=kernel), operator, asking.probe("forms", fresh), "forms")
        for gate in gates.ON_DEVICE:
            probe = asking.probe(gate.__name__, fresh_kernel, {}).on_device(torch.bfloat16)
            yield _ask(gate, kernel, probe, f"triton {gate.__name__}")
    if stored:
        properties["novelty"] = {"same_outputs_as": _same_outputs(fresh, sources, stored)}


@dataclass
class _Asking:
    """What passes from gate to gate: each gate draws from a stream of its own, whichever process answers it."""

    seed: int
    properties: dict[str, Any]
    precision: str = "float32"
    first: tuple[dict[str, Tensor], Tensor] | None = None

    def probe(self, name: str, fresh: OperatorProcess, properties: dict[str, Any] | None = None) -> Probe:
        stream = int.from_bytes(hashlib.sha256(f"{self.seed}/{name}".encode()).digest()[:7], "big")
        found = self.properties if properties is None else properties
        rng = torch.Generator().manual_seed(stream)
        return Probe(rng, fresh, precision=self.precision, properties=found, first=self.first)

    def stage(self, stage: Sequence[gates.Gate], pair: tuple[OperatorProcess, OperatorProcess]) -> list[Gate]:
        """All gates of a stage: one alone, several in turn on whichever of the two processes is free."""
        waiting, answers, trouble = queue.SimpleQueue[tuple[int, gates.Gate]](), dict[int, Gate](), list[OSError]()
        for item in enumerate(stage):
            waiting.put(item)

        def work(operator: OperatorProcess, fresh: OperatorProcess) -> None:
            with contextlib.suppress(queue.Empty):
                while not (operator.failed or trouble):
                    at, gate = waiting.get_nowait()
                    probe = self.probe(gate.__name__, fresh)
                    try:
                        answers[at] = _ask(gate, operator, probe)
                    except OSError as error:
                        trouble.append(error)
                    self.first = self.first or probe.first
                    self.precision = probe.properties.get("precision", self.precision)

        others = [threading.Thread(target=work, args=pair[::-1])] if len(stage) > 1 else []
        for thread in others:
            thread.start()
        work(*pair)
        for thread in others:
            thread.join()
        if trouble:
            raise trouble[0]
        with contextlib.suppress(queue.Empty):
            while True:
                at, gate = waiting.get_nowait()
                answers[at] = Gate(gate.__name__, False, "not asked: the operator's processes were ended under earlier questions", 0.0)
        return [answers[at] for at in range(len(stage))]


def _ask(gate: gates.Gate, operator: OperatorProcess, probe: Probe, name: str | None = None) -> Gate:
    """What a gate says; an operator that fails under its questions is rejected as one that it is against."""
    began = time.perf_counter()
    try:
        return _say(gate, operator, probe, name or gate.__name__)
    except OperatorError as error:
        return Gate(name or gate.__name__, False, error.message, round(time.perf_counter() - began, 3))


def _say(gate: gates.Gate, operator: OperatorProcess, probe: Probe, name: str) -> Gate:
    """The same, but raises OperatorError where the operator gave no answer to judge, and OSError where the machine starts no process for it."""
    began, message = time.perf_counter(), ""
    try:
        probe.properties.update(gate(operator, probe) or {})
    except Rejected as error:
        message = str(error)
    except (OperatorError, OSError):
        raise
    except Exception as error:  # what an operator's values do to our own arithmetic is no pass
        message = f"the gate could not be decided, {type(error).__name__}: {printable(str(error), 160)}"
    return Gate(name, not message, message, round(time.perf_counter() - began, 3))


def gates_on_device(
    operator: OperatorProcess,
    fresh: OperatorProcess,
    plain: OperatorProcess,
    *,
    dtype: torch.dtype,
    shapes: Sequence[tuple[int, int]],
    chunk_size: int = 32,
    seed: int | None = None,
) -> tuple[tuple[Gate, ...], OperatorError | None]:
    """The gates of ON_DEVICE once more on the training device, and `exact` at the trainer's exact (batch, length) and dtype.

    There the operator must also be the function that the check has seen: `plain` runs naive.py on a CPU, where it is
    asked in float32 and in small batches.

    Meant for another process when training begins, and for the very one that trains after it: a counter or a clock that the
    first check missed has run by then. `fresh` is one more process with the same variant, which does not train.
    Beside what the gates said stands the first failure that left one of them without an answer to judge: a process that
    was killed, or had no memory left, says nothing of the variant.
    """
    rng = torch.Generator().manual_seed(secrets.randbits(62) if seed is None else seed)
    probe = Probe(rng, fresh, num_heads=operator.num_heads, head_dim=operator.head_dim, chunk_size=chunk_size, dtype=dtype)
    probe = probe if operator.device == "cpu" else probe.on_device(dtype)
    asked = {gate.__name__: gate for gate in gates.ON_DEVICE}
    asked |= {f"exact {B}x{T}": functools.partial(gates.exact, B=B, T=T, plain=plain) for B, T in shapes}
    said, lost = [], None
    for name, gate in asked.items():
        try:
            said.append(_say(gate, operator, probe, name))
        except OperatorError as error:
            lost = lost or OperatorError(error.kind, f"{name}: {error.message}")
    return tuple(said), lost


# --- stored variants ----------------------------------------------------------------------------


def _stored(against: Path) -> tuple[list[_Stored], dict[str, str]]:
    """The variants there, and by folder why those that can't be read are not compared with."""
    found, unread = list[_Stored](), dict[str, str]()
    for folder in sorted(against.iterdir()):
        try:
            sources = read_sources(folder)
            found.append(_Stored(folder, sources, normal_form(sources["naive"])))
        except FileNotFoundError:  # no variant, or taken back by an attempt beside this one
            continue
        except (SyntaxError, ValueError, RecursionError, OSError) as error:
            unread[printable(ascii(str(folder))[1:-1])] = printable(str(error))
    return found, unread


def _duplicate(sources: Mapping[str, str], stored: Sequence[_Stored], path: Path) -> str | None:
    """The stored variant with the same naive.py in normal form; a variant is no duplicate of itself."""
    form, own = normal_form(sources["naive"]), (path if path.is_dir() else path.parent).resolve()
    return next((other.folder.name for other in stored if other.form == form and other.folder.resolve() != own), None)


def _same_outputs(process: OperatorProcess, sources: Mapping[str, str], stored: Sequence[_Stored]) -> list[str]:
    """Stored variants that compute the same function, though their source is another."""
    probe = Probe(torch.Generator().manual_seed(0), process)
    inputs = probe.inputs(process, 2, 3 * probe.chunk_size + 5)
    mine = process.forward(inputs, chunk_size=probe.chunk_size)
    return [other.folder.name for other in stored if other.sources != sources and _equal(process, other.sources, inputs, mine, probe)]


def _equal(process: OperatorProcess, stored: Mapping[str, str], inputs: dict[str, Tensor], mine: Tensor, probe: Probe) -> bool:
    try:
        process.load(stored)
        described = process.describe(0)
        declared = {n for n in described.projections if n != "output_gate"} | set(described.parameters)
        if declared != set(inputs) - set(STANDARD):
            return False
        theirs = process.forward(inputs, chunk_size=probe.chunk_size)
    except OperatorError:
        return False
    return gap(mine, theirs) <= 1e-4 * size(mine)
