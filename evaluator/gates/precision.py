"""The gate on the numbers inside: how exactly an operator computes, which sets what others allow."""

import math

import torch

from evaluator.gates.probe import Probe, Tensors
from evaluator.operator import OperatorError, OperatorProcess

SHAKES = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3)
COARSE = 3e-2
"""An input whose relative changes below this are not answered in proportion is held in less than bfloat16."""



def precision(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """Rounding inside shows as the smallest changes of an input that are answered in proportion; it sets tolerances.

    Three draws, the coarsest counts: by luck rounding can look finer than it is. Beside a coarse input a parameter may be one.
    """
    dtype = torch.float64 if takes_float64(operator, probe) else torch.float32
    finest, coarse = 0.0, set[str]()
    for _ in range(3):
        x = probe.inputs(operator, 1, 2 * probe.chunk_size + 1, K=16, dtype=dtype)
        curves = {name: _exponents(operator, probe, x, name) for name in probe.over_time(x)}
        finest = max(finest, *(_settles(curve) for curve in curves.values()))
        if any(map(_coarse, curves.values())):  # then a parameter may set the steps of that rounding
            curves |= {name: _exponents(operator, probe, x, name) for name in x if name not in curves}
        coarse |= {name for name, curve in curves.items() if _coarse(curve)}
    probe.precision = "float64" if finest <= 1e-8 else "float32" if finest <= 1e-4 else "lower"
    return {"precision": probe.precision, "coarse_inputs": sorted(coarse)}


def takes_float64(operator: OperatorProcess, probe: Probe) -> bool:
    """Whether inputs may come in float64."""
    try:
        several_chunks = probe.inputs(operator, 1, 2 * probe.chunk_size + 1, K=8, dtype=torch.float64)
        operator.forward(several_chunks, chunk_size=probe.chunk_size)
    except OperatorError as error:
        if error.kind != "raised":
            raise
        return False
    return True


Curve = dict[float, float]
"""Relative change of one input -> exponent with which the answer grows there: 1 is proportional."""


def _exponents(operator: OperatorProcess, probe: Probe, x: Tensors, name: str) -> Curve:
    R, dtype = 6, x[name].dtype
    steps = [s for s in SHAKES if dtype == torch.float64 or s >= 1e-6]
    sizes = torch.tensor([0.0, *steps], dtype=dtype).repeat_interleave(R)
    noise = probe.randn(R, *x[name].shape[1:], dtype=dtype).repeat(len(steps) + 1, *[1] * (x[name].dim() - 1))
    rows = {n: v.expand(len(sizes), *v.shape[1:]).contiguous() for n, v in x.items()}
    rows[name] = x[name] * (1 + sizes.view(-1, *[1] * (x[name].dim() - 1)) * noise)
    o = operator.forward(probe.legal(rows), chunk_size=probe.chunk_size).double()
    moved = (
        (o[R:] - o[:R].repeat(len(steps), 1, 1, 1)).flatten(1).norm(dim=1).view(len(steps), R).median(1).values.tolist()
    )
    pairs = zip(steps, steps[1:], moved, moved[1:], strict=False)
    return {a: math.log(n / m) / math.log(b / a) if m > 0 and n > 0 else math.nan for a, b, m, n in pairs}


def _linear(exponent: float) -> bool:
    return 0.8 <= exponent <= 1.2


def _first_linear(curve: Curve) -> float:
    return next((step for step, p in curve.items() if _linear(p)), 0.0 if all(map(math.isnan, curve.values())) else 1.0)


def _coarse(curve: Curve) -> bool:
    return _first_linear(curve) >= COARSE


def _settles(curve: Curve) -> float:
    """From where on it is proportional after the last jump, which is where rounding sets in."""
    jumps = [step for step, p in curve.items() if p > 1.5]
    return _first_linear({step: p for step, p in curve.items() if step > max(jumps, default=0.0)})
