"""Declared parameters where training may lead them."""

from dataclasses import replace

import torch

from evaluator.gates.probe import Probe, Tensors
from evaluator.gates.rank import ROWS
from evaluator.operator import OperatorProcess


def led(operator: OperatorProcess, probe: Probe, dim: int, C: int, dtype: torch.dtype, by: float) -> Tensors:
    """Declared parameters where Adam leads them, whose steps are of one size however small a gradient is.

    The same way each time in a check, so that another sign is the other way.
    """
    same = replace(probe, rng=torch.Generator().manual_seed(probe.rng.initial_seed()))
    x = same.inputs(operator, ROWS, 40, K=dim, dtype=dtype, calm=True)
    _, grads = operator.vjp(x, same.randn(ROWS, probe.num_heads, 40, dim, dtype=dtype), chunk_size=C)
    steps = {n: g.sum(0, keepdim=True).sign() for n, g in grads.items() if n not in probe.over_time(x) and g is not None}
    return {n: x[n] + by * step for n, step in steps.items()}
