"""The rank of the map from past inputs to future outputs: how many numbers an operator carries over."""

import functools

import torch
from torch import Tensor

from evaluator.gates.probe import Probe, Tensors, loudness
from evaluator.operator import OperatorProcess

THRESHOLD = {"float64": 1e-9, "float32": 3e-6, "lower": 3e-2}
"""Singular values below this part of the largest are rounding; how much of it there is, is measured in between."""
ROWS = 96
"""Rows of a Jacobian that are asked for at once; more would only take more memory."""
LOUD = 100.0
"""So many times may one channel or input be as large as another one, which it then does not hide."""


def carried(operator: OperatorProcess, probe: Probe, x: Tensors, past: int, C: int, most: int) -> int:
    """Of d(outputs after `past`) / d(inputs before it) in the first head of one row, up to `most`.

    What is rounding is told by rows that differ by a factor alone: the precision class doesn't tell it where an operator
    mixes precisions.
    """
    ask = functools.partial(_to_the_past, operator, probe, x, past, C)
    T, dim, dtype = x["v"].shape[2], x["v"].shape[3], x["v"].dtype
    weights = torch.zeros(1, probe.num_heads, T, dim, dtype=dtype)
    weights[:, 0, past:] = 1 / loudness(operator.forward(x, chunk_size=C)[:, 0, past:])
    found = ask(torch.eye(dim, dtype=dtype)[:, None, None] * weights * probe.randn(1, 1, T, 1, dtype=dtype))
    by_channel, by_input = torch.cat(list(found.values()), 1).norm(dim=1), {n: g.norm() for n, g in found.items()}
    weights *= (by_channel.max() / by_channel.clamp_min(1e-30)).clamp_max(LOUD).to(dtype)
    scales = {n: (max(by_input.values()) / norm.clamp_min(1e-30)).clamp_max(LOUD) for n, norm in by_input.items()}

    def rows(combined: Tensor) -> Tensor:
        return torch.cat([g * scales[n] for n, g in ask(combined * weights).items()], 1)

    draws = [probe.randn(ROWS, probe.num_heads, T, dim, dtype=dtype) for _ in range(-(-most // ROWS))]
    jacobian = [rows(combined) for combined in draws]
    factors = 1 + torch.rand(ROWS, generator=probe.rng, dtype=dtype)
    again = rows(draws[0] * factors.view(-1, 1, 1, 1)) / factors[:, None]
    rounding = 4 * torch.linalg.matrix_norm(again - jacobian[0], 2) / torch.linalg.matrix_norm(jacobian[0], 2).clamp_min(1e-30)
    finest = THRESHOLD["float64" if probe.precision == "float64" else "float32"]
    values = torch.linalg.svdvals(torch.cat(jacobian))
    return int((values > max(finest, min(float(rounding), THRESHOLD["lower"])) * values[0]).sum())


def _to_the_past(operator: OperatorProcess, probe: Probe, x: Tensors, past: int, C: int, grad_o: Tensor) -> Tensors:
    """Gradients of each row of grad_o to the inputs of the first head before `past`: name -> [rows, numbers], float64."""
    rows = {n: v.expand(len(grad_o), *v.shape[1:]).contiguous() for n, v in x.items()}
    _, grads = operator.vjp(rows, grad_o, chunk_size=C, timeout=3 * operator.timeout)
    found = {n: g if (g := grads[n]) is not None else torch.zeros_like(rows[n]) for n in probe.over_time(x)}
    return {n: g[:, 0, :past].flatten(1).double() for n, g in found.items()}
