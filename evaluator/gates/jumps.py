"""What a state holds that passes no gradient, as signs do: no rank of a Jacobian shows it."""

import torch
from torch import Tensor

from evaluator.gates.probe import Probe, loudness, normed
from evaluator.operator import OperatorProcess


def jumps(operator: OperatorProcess, probe: Probe, dim: int, C: int, part: int) -> bool:
    """Whether one value channel holds more than `part` numbers of it, at K = V = `dim` and chunks of C, whoever asks."""
    return _more_than_its_part(operator, probe, dim, C, part) and _reads_jumps(operator, probe, dim, C, part)


def _more_than_its_part(operator: OperatorProcess, probe: Probe, dim: int, C: int, part: int) -> bool:
    """Whether later outputs of a value channel take more directions than its part, for signs of its past values: what is small has no other part.

    After the past betas are zero, or values are, so that outputs are linear in the state, however it came about. A state
    that goes on moving by itself, as by moments, makes them more: `_reads_jumps` tells it.
    """
    past, future, head = 108, 2 * part, probe.a_head()
    for nothing in ("beta", "v"):
        x = {n: v.expand(2 * part, *v.shape[1:]).contiguous() for n, v in probe.inputs(operator, 1, past + future, K=dim).items()}
        x["v"][:, head, :past, 0] = 1e-6 * probe.randn(2 * part, past)
        x[nothing][:, :, past:] = 0
        o = normed(operator.forward(x, chunk_size=C)[:, head, past:])
        if _directions(o[..., 0], float(o.norm()), dim) > part + part // 2:
            return True
    return False


def _reads_jumps(operator: OperatorProcess, probe: Probe, dim: int, C: int, part: int) -> bool:
    """The same of one later token, which is another for each read, after none or some of nothing: no state moves between reads."""
    past, many = 108, part + part // 2
    return any(_read(operator, probe, dim, C, past, later, many) > part for later in (0, probe.randint(1, 3 * C)))


def _read(operator: OperatorProcess, probe: Probe, dim: int, C: int, past: int, later: int, many: int) -> int:
    """How many directions so many reads of a value channel take, `later` tokens after so many pasts."""
    at, x = past + later, probe.inputs(operator, many, past + later + 1, K=dim)
    for name in probe.over_time(x):
        x[name][:, :, :at] = x[name][:1, :, :at].clone()
    x["beta"][:, :, past:at], x["v"][:, :, past:] = 0, 0
    found, loud, head = list[Tensor](), None, probe.a_head()
    for signs in 1e-6 * probe.randn(many, past):
        x["v"][:, head, :past, 0] = signs
        o = operator.forward(x, chunk_size=C)[:, head, at].double()
        loud = loudness(o) if loud is None else loud  # of one past: by its own each would be divided by what it moves
        found.append(o / loud)
    o = torch.stack(found)
    return _directions(o[..., 0], float(o.norm()), dim)


def _directions(o: Tensor, all_channels: float, dim: int) -> int:
    """Of outputs [pasts, reads] of one channel, whose rounding goes with those of all."""
    values = torch.linalg.svdvals(o - o.mean(0))
    return int((values > 1e-4 * all_channels / dim**0.5).sum())
