"""What comes back for what is sent: a backward pass is linear in it."""

import torch
from torch import Tensor

from evaluator.gates.probe import Probe, Rejected, felt, loudness
from evaluator.operator import OperatorProcess

UNLIKE = 1e-2
"""Of a gradient's norm: powers of two round alike, but float16 inside loses what is small."""
UNFELT = 1e-6
"""Of the largest product of an input and its gradient: rounding alone gives 6e-9, the least of honest operators was 2e-5."""


def linear(operator: OperatorProcess, probe: Probe) -> None:
    """Raises Rejected where gradients of outputs are not proportional to what is sent back, or of its parts don't add up."""
    _proportional(operator, probe)
    _additive(operator, probe)


def _proportional(operator: OperatorProcess, probe: Probe) -> None:
    """What comes back is proportional to what is sent: that of a mean over a batch of tokens is small.

    By powers of two, so that float32 rounds alike at every size.
    """
    T = probe.randint(40, 90)
    x = probe.inputs(operator, 2, T, K=16)
    grad_o = probe.randn(2, probe.num_heads, T, 16) / loudness(operator.forward(x, chunk_size=probe.chunk_size))
    _, grads = operator.vjp(x, grad_o, chunk_size=probe.chunk_size)
    for power in (-10, -17, -24, 10):
        _, found = operator.vjp(x, grad_o * 2.0**power, chunk_size=probe.chunk_size)
        for name, grad in grads.items():
            other = found[name]
            if grad is not None and (other is None or float((other * 2.0**-power - grad).norm()) > UNLIKE * float(grad.norm())):
                raise Rejected(
                    f"backward is not linear: gradients of outputs that are 2^{power} times as large give other than 2^{power} times "
                    f"the gradient to {name}; a derivative is proportional to what is sent back"
                )


def _additive(operator: OperatorProcess, probe: Probe) -> None:
    """What comes back for a part of what is sent and for the rest add up: of a head, and of later tokens of a channel of it.

    Other gates ask for such parts, of heads of these sizes; a backward pass may be another for them.
    """
    for dim in (probe.width(operator, 4), probe.head_dim):
        _additive_at(operator, probe, probe.randint(40, 160), dim)


def _additive_at(operator: OperatorProcess, probe: Probe, T: int, D: int) -> None:
    x = probe.inputs(operator, 2, T, K=D)
    grad_o = probe.randn(2, probe.num_heads, T, D) / loudness(operator.forward(x, chunk_size=probe.chunk_size))
    head, part_of_it, drawn = (torch.zeros_like(grad_o) for _ in range(3))
    number = probe.a_head()
    channels = (probe.uniform(D) < probe.uniform()) | (torch.arange(D) == probe.randint(0, D - 1))
    drawn[:, number, probe.randint(T // 4, 3 * T // 4) :, channels] = 1
    head[:, number], part_of_it[:, number, T // 2 :, probe.randint(0, D - 1)] = 1, 1

    def back(sent: Tensor) -> dict[str, Tensor | None]:
        return operator.vjp(x, sent, chunk_size=probe.chunk_size)[1]

    whole, allowed = {n: g for n, g in back(grad_o).items() if g is not None}, 0.1 if probe.precision == "lower" else UNLIKE
    most = max(felt(x, whole).values(), default=0.0)
    for part, mask in (
        ("of one head", head), ("of later tokens of a channel of one head", part_of_it), ("of later tokens of some channels of one head", drawn)
    ):  # fmt: skip
        one, rest = back(grad_o * mask), back(grad_o * (1 - mask))
        for name, all_of_it in whole.items():
            sums = [torch.zeros_like(all_of_it) if g is None else g for g in (one[name], rest[name])]
            rounding = UNFELT * most / max(float(x[name].norm()), 1e-30)  # of what cancels
            if float((sums[0] + sums[1] - all_of_it).norm()) > allowed * float(all_of_it.norm()) + rounding:
                raise Rejected(
                    f"backward is not linear: the gradients to {name} of outputs {part} alone and of all others do not add up to that of "
                    "all outputs; a derivative is linear in what is sent back"
                )
