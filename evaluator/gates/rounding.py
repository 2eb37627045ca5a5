"""What rounding explains: how far outputs may be `apart` that are the same but for the order of sums."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from evaluator.gates.probe import EPS, Probe, Rejected, Tensors, apart
from evaluator.operator import OperatorProcess

DRAWS = 16


def another_way(operator: OperatorProcess, probe: Probe, x: Tensors, o: Tensor) -> float:
    """Where the same is computed in another way: thirty times the answer to inputs moved by the operator's own precision."""
    eps = max(EPS[probe.precision], EPS["float32"] if x["q"].dtype != torch.float64 else 0.0)
    return _answer(operator, probe, x, o, 30, eps)


def another_shape(operator: OperatorProcess, probe: Probe, x: Tensors, o: Tensor) -> float:
    """Where the same is computed at another shape: sums are those of float32, whatever is rounded between them."""
    return max(_answer(operator, probe, x, o, 10, EPS["float32"]) for _ in range(2))


def _answer(operator: OperatorProcess, probe: Probe, x: Tensors, o: Tensor, times: int, eps: float) -> float:
    eps = max(eps, torch.finfo(x["q"].dtype).eps)
    shaken = probe.legal({n: v * (1 + 2 * eps * probe.randn(*v.shape, dtype=v.dtype)) for n, v in x.items()})
    moved = operator.forward(shaken, chunk_size=probe.chunk_size)[:, :, : o.shape[2]]
    if not math.isfinite(answer := apart(moved, o)):  # else it would allow everything
        raise Rejected("outputs are not finite where inputs are moved by rounding alone; betas from 0 to 1 are legal, and any q, k and v")
    return times * answer + 50 * eps


def little(length: int) -> float:
    """Relative differences up to this may be the rounding of a sum over `length` tokens, as in an FFT; what is more is not.

    Squares of roundings add up: the figure was met at a length of 64 with room, and passed by 2 % in one of 150 draws at 400.
    """
    return 64 * EPS["float32"] * math.sqrt(max(1.0, length / 64))


def is_noise(difference: Callable[[int], Tensor], allowed: Tensor | float, largest: Tensor | float) -> bool:
    """Whether what differs by little is rounding: other inputs round otherwise, so that on average nothing is left.

    `difference` is of the inputs `stretched` by a number's factors; what depends on them differs the same way each time.
    Less than the last bit of the `largest` number may be left, as the factors of an FFT are rounded too.
    """
    draws = torch.stack([difference(number).double() for number in range(1, DRAWS + 1)])
    spread = draws.var(0)
    typical = spread.mean(tuple(range(max(1, spread.dim() - 1))), keepdim=True)  # of a channel: a loud one hides none
    by_chance = 8 * ((spread + typical) / DRAWS).sqrt()
    return bool((draws.mean(0).abs() <= allowed + EPS["float32"] / 2 * largest + by_chance).all())


def stretched(x: Tensors, number: int) -> Tensors:
    """All inputs but beta times a factor for each channel, none for number 0: what is equal stays so, and signs do."""

    def factors(width: int) -> Tensor:
        return 1 - 0.2 * torch.rand(width, generator=torch.Generator().manual_seed(1000 * number + width))

    return {n: v if n == "beta" or not number else v * factors(v.shape[-1]).to(v.dtype) for n, v in x.items()}
