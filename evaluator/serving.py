"""The request `train`, answered inside the process that holds the variant: progress as it goes, weights at the end."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from evaluator.group import Group
from evaluator.loaded import Loaded
from evaluator.model import Operator, architecture, operations, stream_seed
from evaluator.protocol import Protocol, Run, Setting, from_json
from evaluator.train import Checkpoint, Progress, train_group

if TYPE_CHECKING:
    from evaluator.fusion.library import Library


def serve(header: dict[str, Any], tensors: dict[str, Tensor], operator: Loaded, send: Callable[..., None]) -> None:
    """Answers the request `train`: progress after every epoch, then what `Trained` holds, weights as a tensor.

    header: setting, protocol (as JSON), runs [[lr, weight_decay, seed]], num_threads, compile (whether the operator may
    be), every (seconds between checkpoints, or None), begin (what a checkpoint says, or None), whose state the tensors
    are, until [[seed, epoch]] (as `train_group` has it). What the operator declares is asked of it here, in its own process.
    """
    if operator.device.type == "cuda":
        torch.cuda.init()
    with arithmetic(operator.device, header["num_threads"]):
        _serve(header, tensors, operator, send)


@contextlib.contextmanager
def arithmetic(device: torch.device, num_threads: int) -> Iterator[None]:
    """Training's products and threads. Afterwards the process answers to the bits of one that never trained.

    Gates compare the two: an operator that selects or normalises what is nearly nothing makes rounding large.
    """
    threads, tf32 = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32
    if device.type == "cpu":
        torch.set_num_threads(num_threads)
    else:
        torch.backends.cuda.matmul.allow_tf32 = True  # the protocol's choice for float32 products
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = tf32


def _serve(header: dict[str, Any], tensors: dict[str, Tensor], operator: Loaded, send: Callable[..., None]) -> None:
    device = operator.device
    setting, protocol = Setting(**header["setting"]), from_json(header["protocol"])
    arch = architecture(setting, protocol, *declared(operator, protocol))
    group = Group(
        setting, protocol, [Run(*r) for r in header["runs"]], arch, operator_function(operator, protocol),
        lambda stream: _declare(operator, protocol, stream), device, operations(device),
    )
    last_sent = [-math.inf]

    def report(progress: Progress) -> None:
        if progress.seconds - last_sent[0] >= 0.5:
            last_sent[0] = progress.seconds
            send({"event": "progress", **dataclasses.asdict(progress)}, {})

    def keep(checkpoint: Checkpoint) -> None:
        facts = {f.name: getattr(checkpoint, f.name) for f in dataclasses.fields(checkpoint) if f.name != "state"}
        send({"event": "checkpoint", **facts}, {name: x.cpu() for name, x in checkpoint.state.items()})

    def compile_operator() -> None:
        send({"event": "compiling"}, {})
        send({"event": "note", "message": group.compile(_library(operator, protocol.chunk_size))}, {})

    may = header["compile"] and operator.device.type == "cuda" and operator.form == "naive"
    trained = train_group(
        group, report, compile_operator if may else None,
        _begun(header["begin"], tensors), keep, math.inf if header["every"] is None else header["every"],
        dict(map(tuple, header["until"])),
    )
    facts = {f.name: getattr(trained, f.name) for f in dataclasses.fields(trained) if f.name != "weights"}
    peak = torch.cuda.max_memory_allocated() if group.cuda else 0
    send({"event": "done", "peak_bytes": peak, **facts}, {"weights": trained.weights})


def _begun(facts: dict[str, Any] | None, state: dict[str, Tensor]) -> Checkpoint | None:
    if facts is None:
        return None
    best = tuple((float(p), int(epoch), float(a)) for p, epoch, a in facts["best"])
    last = tuple((int(epoch), float(a), ended) for epoch, a, ended in facts["last"])
    return Checkpoint(**{**facts, "best": best, "last": last, "state": state})


@functools.cache
def _library(operator: Loaded, chunk_size: int) -> "Library":
    """Where a naive operator is kept compiled, for one chunk size, from setting to setting."""
    from evaluator.fusion.library import Library

    return Library()


def declared(operator: Loaded, protocol: Protocol) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Widths of the projections and shapes of the parameters that a loaded operator declares."""
    sizes = (protocol.num_heads, protocol.head_dim)
    projections = dict(operator.projections(*sizes)) if operator.projections else {}
    shapes = {k: v.shape for k, v in _declare(operator, protocol, "shapes").items()}
    return projections, shapes


def _declare(operator: Loaded, protocol: Protocol, stream: str) -> dict[str, np.ndarray]:
    if not operator.parameters:
        return {}
    generator = torch.Generator().manual_seed(stream_seed(stream) % 2**63)
    found = operator.parameters(protocol.num_heads, protocol.head_dim, generator)
    return {name: tensor.detach().float().numpy() for name, tensor in found.items()}


def operator_function(operator: Loaded, protocol: Protocol) -> Operator:
    """The variant's delta_rule as the model calls it: autocast off, declared inputs by keyword."""

    def call(inputs: dict[str, Tensor]) -> Tensor:
        rest = {k: v for k, v in inputs.items() if k not in ("q", "k", "v", "beta")}
        standard = (inputs[n] for n in ("q", "k", "v", "beta"))
        with torch.autocast(inputs["q"].device.type, enabled=False):
            o: Tensor = operator.delta_rule(*standard, chunk_size=protocol.chunk_size, **rest)
        return o

    return call
