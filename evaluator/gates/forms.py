"""Gates on an operator's other forms: the recurrent one and the kernel say what naive.py says."""

import torch
from torch import Tensor

from evaluator.gates.probe import Probe, Rejected, Tensors, apart, gap, size
from evaluator.gates.rounding import another_way
from evaluator.operator import OperatorProcess

LONG = 10
"""Rounding may have grown as much after hundreds of tokens."""


def recurrence(operator: OperatorProcess, probe: Probe) -> dict[str, object] | None:
    """A recurrent form, where there is one, says the same token by token with a state that stays within its bound."""
    if not operator.description.has_recurrence:
        return None
    T = 2 * probe.chunk_size + 9
    x = probe.inputs(operator, 2, T)
    grad_o = probe.randn(2, probe.num_heads, T, probe.head_dim)
    found = operator.recurrence(x, grad_o)
    o, grads = operator.vjp(x, grad_o, chunk_size=probe.chunk_size)
    if (moved := apart(found.o, o)) > another_way(operator, probe, x, o):
        raise Rejected(f"recurrence and delta_rule differ by {moved:.3g} of the largest output; change it likewise, or leave it out")
    for name, grad in grads.items():
        other = found.grads[name]
        if grad is not None and (other is None or _far(grad, other, probe)):
            raise Rejected(f"recurrence and delta_rule differ in the gradient to {name}")
    sizes = found.state_sizes
    if probe.properties.get("milliseconds_a_token", 0.0) < 1:
        sizes = _far_on(operator, probe)
    _bounded(sizes, probe)
    return {"recurrent_state": sizes[-1]}


def _far_on(operator: OperatorProcess, probe: Probe) -> list[int]:
    """The same after hundreds of tokens, as one form may count them. Returns how large the state was after each."""
    T = probe.randint(700, 1000)
    x = probe.inputs(operator, 1, T)
    o = operator.forward(x, chunk_size=probe.chunk_size)
    found = operator.recurrence(x)
    if (moved := apart(found.o, o)) > LONG * another_way(operator, probe, x, o):
        raise Rejected(f"recurrence and delta_rule differ by {moved:.3g} of the largest output after hundreds of tokens (T = {T})")
    return found.state_sizes


def _far(grad: Tensor, other: Tensor, probe: Probe) -> bool:
    distance = float((grad - other).double().norm())
    return distance > {"float64": 1e-3, "float32": 1e-3, "lower": 0.1}[probe.precision] * float(grad.double().norm())


def _bounded(sizes: list[int], probe: Probe) -> None:
    """A window may fill with the first tokens, then the state is of one size."""
    limit = 4 * probe.head_dim**2 + probe.chunk_size * 2 * probe.head_dim
    if len(set(sizes[len(sizes) // 2 :])) > 1 or max(sizes) > limit:
        raise Rejected(
            f"the state of recurrence has {sizes[0]} to {max(sizes)} numbers a head within {len(sizes)} tokens; "
            f"it must stop growing, at {limit} at most"
        )


def forms(operator: OperatorProcess, probe: Probe, other: OperatorProcess) -> dict[str, object]:
    """A kernel says the same as naive.py, in outputs and gradients, at every kind of length, also on poisoned memory.

    In bfloat16, as it is trained, and at two lengths in float32, whose kernels take long to compile.
    """
    worst = 0.0
    for T in (1, 31, 32, 33, 127, 128, probe.randint(129, 300)):
        for dtype in (torch.float32, torch.bfloat16) if T in (33, 127) else (torch.bfloat16,):
            x = probe.inputs(operator, 3, T, dtype=dtype)
            grad_o = probe.randn(3, probe.num_heads, T, probe.head_dim, dtype=dtype)
            o, grads = operator.vjp(x, grad_o, chunk_size=probe.chunk_size)
            theirs, their_grads = other.vjp(x, grad_o, chunk_size=probe.chunk_size)
            _same_output(o, theirs, T, dtype)
            _same_gradients(grads, their_grads, T, dtype)
            _same_output(theirs, other.forward(x, chunk_size=probe.chunk_size, poison=True), T, dtype)
            worst = max(worst, gap(o, theirs) / size(o))
    return {"forms_differ": worst}


def _same_output(o: Tensor, other: Tensor, T: int, dtype: torch.dtype) -> None:
    if gap(o, other) > {torch.float32: 5e-3, torch.bfloat16: 4e-2}[dtype] * size(o):  # TF32 inside is allowed
        raise Rejected(
            f"triton.py and naive.py differ by {gap(o, other):.3g} in outputs of magnitude {size(o):.3g} at T = {T}, {dtype}"
        )


def _same_gradients(
    grads: Tensors | dict[str, Tensor | None], other: dict[str, Tensor | None], T: int, dtype: torch.dtype
) -> None:
    for name, grad in grads.items():
        theirs = other[name]
        if grad is None or not bool(grad.any()):
            continue
        if theirs is None:
            raise Rejected(f"triton.py gives no gradient to {name}")
        distance = float((grad - theirs).double().norm() / grad.double().norm())
        if not distance <= {torch.float32: 2e-2, torch.bfloat16: 6e-2}[dtype]:
            raise Rejected(
                f"triton.py and naive.py differ by {distance:.3g} of its norm in the gradient to {name} at T = {T}, {dtype}"
            )
