"""The rank of the map from past inputs to future outputs: how many numbers an operator carries over."""

import functools

import torch
from torch import Tensor

from evaluator.gates.probe import Probe, Rejected, Tensors, loudness, row
from evaluator.operator import OperatorProcess

THRESHOLD = {"float64": 1e-9, "float32": 3e-6, "lower": 3e-2}
"""Singular values below this part of the largest are rounding; how much of it there is, is measured in between."""
ROWS = 72
"""Rows of a Jacobian that are asked for at once; more would only take more memory."""
AGAIN = 18
"""So many of them are asked for once more, to tell how they round."""
LOUD = 100.0
"""So many times may one channel or input be as large as another one, which it then does not hide."""
NOTHING = 1e-6
"""What moves outputs by less than this part of what the inputs beside them do is rounding."""


class Overflown(Rejected):
    """Of inputs that are NaN or infinite on the way, so that no rank is told."""


def carried(
    operator: OperatorProcess, probe: Probe, x: Tensors, past: int, C: int, most: int, head: int, channel: slice = slice(None), tokens: slice = slice(None)
) -> int:
    """Of d(outputs after `past`) / d(inputs before it) in a `head`, up to `most`; of all channels of the outputs or one.

    Of the inputs those of some `tokens` alone may be asked.

    x has ROWS rows with one past and a future of each one's own: what is carried over is the same for all of them, and
    what any of them asks for counts. What is rounding is told by rows that differ by a factor alone: the precision class
    doesn't tell it where an operator mixes precisions.
    """
    x, o = _finite(x, operator.forward(x, chunk_size=C)[:, head, past:])
    ask = functools.partial(_to_the_past, operator, probe, x, past, tokens, C, head)
    T, dim, dtype = x["v"].shape[2], x["v"].shape[3], x["v"].dtype
    weights = torch.zeros(ROWS, probe.num_heads, T, dim, dtype=dtype)
    weights[:, head, past:, channel] = 1 / loudness(o)
    found, beside = ask(torch.eye(dim, dtype=dtype)[:, None, None] * weights[:dim] * probe.randn(1, 1, T, 1, dtype=dtype))
    carries = {n: g for n, g in found.items() if float(g.norm()) > NOTHING * beside}
    if not carries:
        return 0
    by_channel, by_input = torch.cat(list(carries.values()), 1).norm(dim=1), {n: g.norm() for n, g in carries.items()}
    weights *= (by_channel.max() / by_channel.clamp_min(1e-30)).clamp_max(LOUD).to(dtype)
    scales = {n: (max(by_input.values()) / norm).clamp_max(LOUD) for n, norm in by_input.items()}

    def rows(combined: Tensor) -> Tensor:
        found, _ = ask(combined * weights[: len(combined)])
        return torch.cat([found[n] * scale for n, scale in scales.items()], 1)

    draws = [probe.randn(ROWS, probe.num_heads, T, dim, dtype=dtype) for _ in range(-(-most // ROWS))]
    jacobian = [rows(combined) for combined in draws]
    factors = 1 + torch.rand(AGAIN, generator=probe.rng, dtype=dtype)
    moved = rows(draws[0][:AGAIN] * factors.view(-1, 1, 1, 1)) / factors[:, None] - jacobian[0][:AGAIN]
    largest = torch.linalg.matrix_norm(jacobian[0], 2).clamp_min(1e-30)
    rounding = 4 * (ROWS / AGAIN) ** 0.5 * torch.linalg.matrix_norm(moved, 2) / largest
    finest = THRESHOLD["float64" if probe.precision == "float64" else "float32"]
    values = torch.linalg.svdvals(torch.cat(jacobian))
    return int((values > max(finest, min(float(rounding), THRESHOLD["lower"])) * values[0]).sum())


def _finite(x: Tensors, o: Tensor) -> tuple[Tensors, Tensor]:
    """As many rows, of those whose outputs o are finite: small heads far up may overflow in some."""
    sound = o.isfinite().flatten(1).all(1).nonzero().flatten()
    if 2 * len(sound) < len(o):
        raise Overflown(f"outputs are NaN or infinite in {len(o) - len(sound)} of {len(o)} rows at K = V = {o.shape[-1]}, T = {x['v'].shape[2]}")
    again = sound[torch.arange(len(o)) % len(sound)]
    return row(x, again), o[again]


def _to_the_past(
    operator: OperatorProcess, probe: Probe, x: Tensors, past: int, tokens: slice, C: int, head: int, grad_o: Tensor
) -> tuple[Tensors, float]:
    """Gradients of each row of outputs to the head's inputs of some `tokens` of the past, name -> [rows, numbers], and the size of those after it."""
    rows = {n: v[: len(grad_o)].contiguous() for n, v in x.items()}
    _, grads = operator.vjp(rows, grad_o, chunk_size=C, timeout=3 * operator.timeout)
    found = {n: g[:, head].double() for n in probe.over_time(x) if (g := grads[n]) is not None}
    if bad := [n for n, g in found.items() if not bool(g.isfinite().all())]:
        raise Overflown(f"gradients to {', '.join(bad)} are NaN or infinite at K = V = {x['v'].shape[3]}, T = {x['v'].shape[2]}")
    beside = max((float(g[:, past:].norm()) for g in found.values()), default=0.0)
    return {n: g[:, :past][:, tokens].flatten(1) for n, g in found.items()}, beside
