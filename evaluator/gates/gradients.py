"""Gates on the backward pass: gradients that reach everything and are the derivative."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluator.gates.led import led
from evaluator.gates.linearity import UNFELT, linear
from evaluator.gates.precision import takes_float64
from evaluator.gates.probe import STANDARD, Probe, Rejected, Tensors, felt, gap, loudness, size
from evaluator.operator import OperatorProcess

STEPS = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 0.6)
ALIGNED = 0.4
"""A cosine over some hundred directions: 0.62 for signs with a straight-through gradient, 0 +- 0.1 by chance."""
SPREAD = 0.2
"""Slopes over three steps that differ by more than this part of the largest are none."""
LONG_ALLOWED = 0.05
"""Of a long sequence, in which rounding grows too."""
DRAWS = 13
"""Of which all must fail: spikes narrower than any step, as of m / (|m| + 1e-8), fail two of three of honest operators, rounding half."""
MANY = 0.15
"""Of all checks, of which more may not fail; at most 0.11 did of honest operators, and 0.21 of hard choices with a gradient past them."""
NEAR = 1e-2
"""What is far is told from rounding where it is so large a part of what is near."""
IGNORED = 3e-5
"""The same of q, k, v and beta, of which the least was 4e-4."""
BY_MODE = 1e-3
"""Of the largest output, where the same was asked with and without gradients: rounding is far less."""
ALL = "all inputs"


def reach(operator: OperatorProcess, probe: Probe) -> None:
    """A gradient reaches q, k, v, beta, every projection and every declared parameter, else it can't be trained.

    A bound may wait for larger or smaller inputs, or for a parameter that has moved: one kind of inputs must reach it, with
    more than what rounding leaves of a factor that cancels.
    """
    T = 4 * probe.chunk_size + 1
    dead: set[str] | None = None
    share = dict[str, float]()  # of the largest gradient, the most of all draws
    for scale, far, calm in ((1.0, 0.0, False), (1.0, 0.0, True), (10.0, 0.0, False), (1.0, -4.0, False), (60.0, 4.0, False)):
        x = probe.inputs(operator, 2, T, scale=scale, calm=calm)
        x = {n: v if n in probe.over_time(x) else v + far for n, v in x.items()}
        _, grads = operator.vjp(x, probe.randn(2, probe.num_heads, T, probe.head_dim), chunk_size=probe.chunk_size)
        by_input = felt(x, grads)
        most = max(by_input.values(), default=0.0)
        least = {n: max((IGNORED if n in STANDARD else UNFELT) * most, 1e-300) for n in grads}
        unreached = {n for n in grads if not by_input.get(n, 0.0) >= least[n]}
        dead = unreached if dead is None else dead & unreached
        share |= {n: max(share.get(n, 0.0), by_input.get(n, 0.0) / max(most, 1e-300)) for n in unreached}
        if not dead:
            return
    told = ", ".join(f"{n} (but for {share[n]:.1g} of the largest)" if share[n] > 0 else n for n in sorted(dead or ()))
    raise Rejected(
        f"no gradient reaches {told} at T = {T}, with small inputs or large ones; use each input, without detach(), or a "
        "factor that cancels, on the way"
    )


@dataclass(frozen=True)
class Check:
    """The derivative along one direction: what backward says, and what differences of forward say at each step."""

    name: str
    claimed: float
    slopes: tuple[float, ...]
    scale: float  # size of a typical derivative along a random direction
    long: bool  # a sequence in which small changes may grow from chunk to chunk

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Neighbouring steps at which forward moved at all."""
        return [(a, b) for a, b in zip(self.slopes, self.slopes[1:], strict=False) if a and b]

    @property
    def error(self) -> float:
        """Distance to the claim where it fits best, over a step and the next."""
        return min(
            (max(abs(a - self.claimed), abs(b - self.claimed)) / self.scale for a, b in self.pairs), default=math.inf
        )

    @property
    def doubt(self) -> float:
        """How well differences agree among themselves, at their best."""
        return min((abs(a - b) / self.scale for a, b in self.pairs), default=math.inf)

    @property
    def steady(self) -> bool:
        """Whether three steps agree on a slope; where small changes grow with every chunk, none do."""
        triples = zip(self.slopes, self.slopes[1:], self.slopes[2:], strict=False)
        return not min((max(t) - min(t)) / max(1e-30, *map(abs, t)) for t in triples) > SPREAD

    def wrong(self, allowed: float) -> bool:
        """Whether the claim is none of the slopes; of a long sequence only where there is one."""
        if self.long:
            allowed = max(allowed, LONG_ALLOWED)
        return self.error > max(allowed, 8 * self.doubt) and (self.steady or not self.long)

    @property
    def measured(self) -> float:
        """The slope that differences agree on best."""
        return min(self.pairs, key=lambda pair: abs(pair[0] - pair[1]), default=(math.nan, 0.0))[0]


def derivative(operator: OperatorProcess, probe: Probe) -> None:
    """Backward is the derivative of forward, a custom one too, and linear in what is sent back."""
    _along_directions(operator, probe)
    _where_parameters_are_led(operator, probe)
    _far_back(operator, probe)
    linear(operator, probe)


def _along_directions(operator: OperatorProcess, probe: Probe) -> None:
    """Along random ones; a kink may lie on one of them, and of what rounds or nearly jumps on most.

    Of an input that is rounded to a few values, signs for one, there is none: a straight-through gradient must then point
    where long steps lead.
    """
    coarse = set(probe.properties.get("coarse_inputs") or ())
    allowed = {"float64": 1e-5, "float32": 1e-2, "lower": 0.05}[probe.precision]
    if coarse:
        allowed = 0.4  # rounded values with a straight-through gradient agree over long steps alone
    seen, failed = list[Check](), list[Check]()
    wrong: set[str] | None = None
    for draw in range(DRAWS):
        checks = _checks(operator, probe)
        now = [c for c in checks if c.wrong(allowed)]
        names = {c.name for c in now}
        wrong = names if wrong is None else wrong & names
        seen, failed = seen + checks, failed + now
        share = len(failed) / len(seen)
        if not wrong and (coarse or share <= MANY):
            return
        if draw >= 2 and (share > 2 * MANY or coarse):
            break
    if coarse and wrong and wrong <= coarse | {ALL}:
        seen += [c for _ in range(10) for c in _checks(operator, probe)]
        parameters = set(probe.described(operator, probe.num_heads, 16).parameters)  # of a step size no step of forward tells
        if _alignment([c for c in seen if c.name in (coarse - parameters) | {ALL}]) > ALIGNED:
            return
    name = min(wrong or {c.name for c in failed})
    check = next(c for c in reversed(failed) if c.name == name)
    through = "; a straight-through gradient must point where long steps lead" if coarse else ""
    raise Rejected(
        f"the gradient is not the derivative: along a random direction of {check.name} backward says {check.claimed:.4g} and differences "
        f"of forward say {check.measured:.4g}, where a typical one is {check.scale:.3g}{through}{_by_mode(operator, probe)}"
    )


def _by_mode(operator: OperatorProcess, probe: Probe) -> str:
    """What may be why: outputs that are others where a gradient is wanted, as no derivative of the ones says anything of the others."""
    x = probe.inputs(operator, 2, 4 * probe.chunk_size + 1)
    o = operator.forward(x, chunk_size=probe.chunk_size)
    wanted, _ = operator.vjp(x, torch.ones_like(o), chunk_size=probe.chunk_size)
    moved = gap(wanted, o) / size(o)
    return f"; the outputs themselves differ by {moved:.2g} of the largest where gradients are wanted" if moved > BY_MODE else ""


def _alignment(checks: list[Check]) -> float:
    """The cosine, over many directions, between what backward says and what the two longest steps say."""
    said = torch.tensor([c.claimed / c.scale for c in checks])
    moved = torch.tensor([(c.slopes[-2] + c.slopes[-1]) / c.scale for c in checks])
    return float(torch.cosine_similarity(said, moved, dim=0))


def _where_parameters_are_led(operator: OperatorProcess, probe: Probe) -> None:
    """The derivative where training leads declared parameters, as what is nothing at first may open there; six draws must fail."""
    if probe.properties.get("coarse_inputs") or not probe.described(operator, probe.num_heads, 16).parameters:
        return  # of rounded inputs there is no derivative
    dtype = torch.float64 if takes_float64(operator, probe) else torch.float32
    T = 4 * probe.chunk_size + 1
    for by in (-2.0, 2.0):
        steps = led(operator, probe, 16, probe.chunk_size, dtype, by)
        for _ in range(6):
            checks = _checks_at(operator, probe, T, 16, dtype, lambda names: [names] * 3, long=True, moved=steps)
            wrong = [c for c in checks if c.wrong(LONG_ALLOWED)]
            if not wrong:
                break
        else:
            raise Rejected(
                f"the gradient is not the derivative where gradients lead parameters: along a random direction of all inputs backward says "
                f"{wrong[0].claimed:.4g} and differences of forward say {wrong[0].measured:.4g}, where a typical one is {wrong[0].scale:.3g}"
            )


def _far_back(operator: OperatorProcess, probe: Probe) -> None:
    """The derivative along tokens far back, over which little is written: a state may be detached once; six draws must fail."""
    if probe.properties.get("coarse_inputs") or probe.properties.get("milliseconds_a_token", 0.0) >= 1:
        return
    dtype = torch.float64 if takes_float64(operator, probe) else torch.float32

    def wrong(T: int, dim: int, across: int, along: int) -> Check | None:
        checks = _checks_at(operator, probe, T, dim, dtype, lambda names: [names] * along, long=True, across=across, faint=True)
        return next((c for c in checks if c.wrong(LONG_ALLOWED)), None)

    for T, dim, across, along in ((1023, 16, 640, 3), (511, probe.head_dim, 320, 1)):
        found = [wrong(T, dim, across, along)]
        while found[-1] and len(found) < 6:
            found.append(wrong(T, dim, across, along))
        if check := found[-1]:
            raise Rejected(
                f"the gradient is not the derivative: along a random direction of inputs {across} tokens back, where betas are small, backward says "
                f"{check.claimed:.4g} and differences of forward say {check.measured:.4g}, where a typical one is {check.scale:.3g}"
            )


def _checks(operator: OperatorProcess, probe: Probe) -> list[Check]:
    """Along one direction of each input and three of all, one of each at the trainer's own heads, two of calm inputs and of trained ones, five far on."""
    dtype = torch.float64 if takes_float64(operator, probe) else torch.float32
    T, quick = 4 * probe.chunk_size + 1, probe.properties.get("milliseconds_a_token", 0.0) < 1
    coarse = bool(probe.properties.get("coarse_inputs"))  # which small inputs are lost in
    far_on = probe.randint(900, 1023)
    return [
        *_checks_at(operator, probe, T, 16, dtype, lambda names: [[name] for name in names] + [names] * 3),
        *([] if coarse else _checks_at(operator, probe, T, 16, dtype, lambda names: [names] * 2, trained=True)),
        *_checks_at(operator, probe, T, probe.head_dim, dtype, lambda names: [[name] for name in names]),
        *([] if coarse else _checks_at(operator, probe, T, 16, dtype, lambda names: [names] * 2, calm=True)),
        *(_checks_at(operator, probe, far_on, 16, dtype, lambda names: [names] * 3, long=True) if quick else []),
        *(_checks_at(operator, probe, far_on, 16, dtype, lambda names: [names] * 2, long=True, across=far_on // 2) if quick else []),
    ]


def _checks_at(
    operator: OperatorProcess, probe: Probe, T: int, dim: int, dtype: torch.dtype,
    directions: Callable[[list[str]], list[list[str]]], *, calm: bool = False, trained: bool = False, long: bool = False, across: int = 0, faint: bool = False, moved: Tensors | None = None,
) -> list[Check]:
    """Forward at x +- h d for every step in one batch, for each direction d, given as the inputs that it moves.

    Beta is moved as the sigmoid that it is: no step leaves what is legal.

    With `across` tokens between what is moved and what is looked at, nothing but what is carried so far answers: what is
    detached on the way is small beside all that is near. Where it is `faint` little is written over on the way.
    """
    x = probe.inputs(operator, 1, T, K=dim, dtype=dtype, calm=calm)
    x = probe.trained(x, 2.0 * probe.randint(0, 1) - 1) if trained else x
    x["beta"] = x["beta"] / 20 if faint else x["beta"]
    x = {n: v if n in probe.over_time(x) else v + 0.1 * probe.randn(*v.shape, dtype=dtype) for n, v in x.items()}  # off a kink
    x |= {n: v[:1].expand_as(x[n]).contiguous() for n, v in (moved or {}).items()}
    grad_o = probe.randn(1, probe.num_heads, T, dim, dtype=dtype) / loudness(operator.forward(x, chunk_size=probe.chunk_size))
    first = (T - across) // 2 if across else T
    grad_o[:, :, : T - first] = 0
    _, grads = operator.vjp(x, grad_o, chunk_size=probe.chunk_size)
    full = {n: g if g is not None else torch.zeros_like(x[n]) for n, g in grads.items()}
    full["beta"] = full["beta"] * x["beta"] * (1 - x["beta"])  # a step is one of what the sigmoid is taken of
    names = probe.over_time(x) if across else list(x)

    def direction(of: list[str]) -> Tensors:
        drawn = {n: probe.randn(*x[n].shape, dtype=dtype) for n in of}
        for name in set(of) & set(probe.over_time(x)):
            drawn[name][:, :, first:] = 0
        return drawn

    return [_check(operator, probe, x, full, grad_o, direction(of), long) for of in directions(names)]


def _check(
    operator: OperatorProcess, probe: Probe, x: Tensors, grads: Tensors, grad_o: Tensor, direction: Tensors, long: bool
) -> Check:
    steps = [h for h in STEPS if x["q"].dtype == torch.float64 or h >= 1e-3]
    signed = torch.tensor([s * h for h in steps for s in (1.0, -1.0)], dtype=x["q"].dtype)
    moved = {n: v.expand(len(signed), *v.shape[1:]).contiguous() for n, v in x.items()}
    for name, d in direction.items():
        step = signed.view(-1, *[1] * (d.dim() - 1)) * d
        moved[name] = torch.sigmoid(torch.logit(moved[name]) + step) if name == "beta" else moved[name] + step
    o = (
        operator.forward(moved, chunk_size=probe.chunk_size).double()
        - operator.forward(x, chunk_size=probe.chunk_size).double()
    )
    sums = (o * grad_o.double()).sum((1, 2, 3)).tolist()
    slopes = tuple((up - down) / (2 * h) for up, down, h in zip(sums[::2], sums[1::2], steps, strict=True))
    claimed = sum(float((grads[n] * d).double().sum()) for n, d in direction.items())
    scale = math.sqrt(sum(float((grads[n] * (d != 0)).double().square().sum()) for n, d in direction.items()))
    whole = math.sqrt(sum(float(grads[n].double().square().sum()) for n in direction))
    scale = max(scale, NEAR * whole)
    return Check(next(iter(direction)) if len(direction) == 1 else ALL, claimed, slopes, max(scale, 1e-12), long)
