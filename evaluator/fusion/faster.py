"""Whether a compiled operator may take the place of the eager one: as exact, and faster; else why not."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evaluator.model import Operator

if TYPE_CHECKING:
    from evaluator.fusion.library import Library

EXACTNESS = 3.0  # so many times the eager code's own distance from float32 products may be reached
ROUNDING = 0.01  # relative distance that is no matter, about that of a bfloat16 result


@dataclass(frozen=True)
class Compilation:
    """What became of an attempt at compiling."""

    used: bool
    message: str  # one sentence, with its figures


class NotUsed(Exception):
    """Why the eager code stays; one sentence."""


class Inexact(NotUsed):
    """It is further from float32 products than eager code."""


def faster(operator: Operator, sample: dict[str, Tensor], library: "Library", seconds: float) -> tuple[Operator, Compilation]:
    """The operator that training goes on with, on a GPU: the compiled one where it is as exact and faster.

    sample: the operator's inputs at the sizes to be trained with; other sizes stay eager. No kernel is begun after
    `seconds`.
    """
    started, before = time.monotonic(), len(library.kernels)
    library.deadline = started + seconds
    try:
        from evaluator.fusion.capture import shapes  # imports a compiler, for seconds

        compiled = _as_exact(operator, sample, library)
        eager_ms, fused_ms = _milliseconds(operator, sample), _milliseconds(compiled, sample)
        if fused_ms >= eager_ms:
            raise NotUsed(f"it takes {fused_ms:.2f} ms, eager code {eager_ms:.2f}")
    except NotUsed as reason:
        return operator, Compilation(False, f"the operator stays eager, for compiled {reason}")
    except Exception as error:  # tracing runs the variant's code, compiling Triton's: what they raise keeps it eager
        kind = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return operator, Compilation(False, f"the operator stays eager, for compiling it ended in {kind}")
    finally:
        library.deadline = float("inf")
        torch.cuda.empty_cache()
    known = shapes(sample)

    def chosen(inputs: dict[str, Tensor]) -> Tensor:
        return compiled(inputs) if shapes(inputs) == known else operator(inputs)

    took = time.monotonic() - started
    notes = ", products of three parts" * (library.products == "tf32x3")
    if library.refused:
        notes += f", without {len(library.refused)} that the compiler refused, as with {next(iter(library.refused.values()))}"
    told = f"the operator runs compiled, {len(library.kernels) - before} new kernels{notes}: {fused_ms:.2f} ms instead of {eager_ms:.2f}"
    return chosen, Compilation(True, f"{told}, after {took:.0f} s")


def _as_exact(operator: Operator, sample: dict[str, Tensor], library: "Library") -> Operator:
    """The compiled operator; with finer products where rounding weighs much, as in a normalisation of what is nearly nothing."""
    from evaluator.fusion.capture import fused_operator

    for products in ("tf32", "tf32x3"):
        library.products = products
        compiled = library.operators.setdefault(products, fused_operator(operator, library))
        try:
            _exact(operator, compiled, sample)
        except Inexact as reason:
            found = reason
        else:
            return compiled
    raise found


def _exact(operator: Operator, compiled: Operator, sample: dict[str, Tensor]) -> None:
    """Raises Inexact where compiled outputs or gradients are further from float32 products than eager ones."""
    grad = torch.randn_like(sample["v"])
    with torch.no_grad():
        fast = [compiled(sample), *_results(compiled, sample, grad)]
        plain = [operator(sample), *_results(operator, sample, grad)]
        allowed = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            exact = [operator(sample), *_results(operator, sample, grad)]
        finally:
            torch.backends.cuda.matmul.allow_tf32 = allowed
    for name, a, b, c in zip(("o", "o", *sample), exact, plain, fast, strict=True):
        own, other = _distance(a, b), _distance(a, c)
        if not other <= max(ROUNDING, EXACTNESS * own):
            raise Inexact(f"{name} is {other:.1e} away from float32 products, eager code {own:.1e}")


def _results(operator: Operator, sample: dict[str, Tensor], grad: Tensor) -> list[Tensor]:
    """Output and gradients of sum(o * grad)."""
    leaves = {name: x.detach().requires_grad_() for name, x in sample.items()}
    with torch.enable_grad():
        o = operator(leaves)
        grads = torch.autograd.grad(o, list(leaves.values()), grad, allow_unused=True, materialize_grads=True)
    return [o.detach(), *grads]


def _distance(exact: Tensor, other: Tensor) -> float:
    return float((exact.float() - other.float()).norm() / exact.float().norm().clamp(min=1e-20))


def _milliseconds(operator: Operator, sample: dict[str, Tensor], repeats: int = 5) -> float:
    """Median time of outputs and gradients, replayed as in training."""
    grad = torch.randn_like(sample["v"])
    replay = _captured(lambda: _results(operator, sample, grad))
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return float(statistics.median(times))


def _captured(call: Callable[[], object]) -> Callable[[], None]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
