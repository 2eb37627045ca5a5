"""Gates on time: no output may depend on a later token, at any length that is trained."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from evaluator.gates.probe import EPS, Probe, Rejected, Tensors
from evaluator.gates.rounding import is_noise, little, stretched
from evaluator.operator import OperatorProcess

SIZES = (1.0, 50.0, 3000.0)
"""Magnitudes of what is put in place: a leak scaled down by 1e-5 must show, and one behind a normalisation too."""
SMALL = 32  # width of a head that `smoke` trains
FEW = 8
"""One row in FEW may overflow."""
PROTOCOL = (32, 64, 127, 128, 255, 256, 511, 512, 1023, 1024)
"""Lengths that the trainer uses, with and without the last token."""


def causal(operator: OperatorProcess, probe: Probe) -> None:
    """Outputs before a cut stay the same, bit for bit but for rounding, whatever comes after it."""
    for dtype in probe.dtypes:
        for grad in (False, True):
            x = probe.inputs(operator, 4, probe.randint(66, 140), dtype=dtype)
            for magnitude in SIZES:
                cut_off(operator, probe, x, probe.cuts(x), magnitude, grad=grad)
    _where_training_leads(operator, probe)
    _every_cut(operator, probe)
    _one_input_at_a_time(operator, probe)


def _where_training_leads(operator: OperatorProcess, probe: Probe) -> None:
    """A leak may wait for what training can steer to: magnitudes, saturation, a switch, a token that came before.

    Many short rows, as each has one cut, and long ones; in training's dtypes with gradients, and without.
    """
    wide, narrow, first, last = probe.head_dim, probe.small_dim, probe.dtypes[0], probe.dtypes[-1]
    for B, T, K, dtype, grad in (
        (256, probe.randint(16, 30), narrow, first, True),
        (96, probe.randint(16, 30), wide, last, True),
        (32, probe.randint(40, 60), wide, first, False),
        *([(32, probe.randint(40, 60), SMALL, first, True)] if narrow < wide else []),
        (128, probe.randint(200, 400), narrow, first, False),
        (64, probe.randint(270, 400), narrow, last, True),  # bfloat16 counts to 256
        (12, probe.randint(270, 400), wide, last, True),
    ):
        elsewhere(operator, probe, *probe.varied(operator, B, T, K, dtype), grad=grad)


def _every_cut(operator: OperatorProcess, probe: Probe) -> None:
    """A leak may stand at one place alone, as at the end of a chunk: one row for each cut."""
    longer, shorter = probe.randint(98, 130), probe.randint(66, 80)
    for T, K, magnitude, grad in ((longer, probe.small_dim, 1000.0, True), (shorter, probe.head_dim, 1.0, False)):
        x = probe.inputs(operator, 1, T, K=K)
        rows = {n: v.expand(T - 1, *v.shape[1:]).contiguous() for n, v in x.items()}
        cut_off(operator, probe, rows, torch.arange(1, T), magnitude, grad=grad)


def _one_input_at_a_time(operator: OperatorProcess, probe: Probe) -> None:
    """Small changes too, input by input: a sort or a top-k over time may not move for large ones."""
    x = probe.inputs(operator, 8, probe.randint(40, 100))
    for name in probe.over_time(x):
        cut_off(operator, probe, x, probe.cuts(x), 1.0, only=name)


def cut_off(
    operator: OperatorProcess,
    probe: Probe,
    x: Tensors,
    cuts: Tensor,
    magnitude: float,
    *,
    grad: bool = False,
    only: str | None = None,
    others: Tensor | None = None,
) -> Tensor:
    """Change each row from its own cut on, and the rows that `others` marks altogether; returns the outputs unchanged."""
    B, H, T = x["beta"].shape
    late = (torch.arange(T) >= cuts[:, None])[:, None].expand(B, H, T)
    everything = torch.zeros(B, dtype=torch.bool) if others is None else others
    changed = probe.replaced(x, late | everything[:, None, None], magnitude)
    changed = x | {only: changed[only]} if only else changed
    return elsewhere(operator, probe, x, changed, ~late & ~everything[:, None, None], grad=grad, what=only or "the inputs")


def elsewhere(
    operator: OperatorProcess, probe: Probe, x: Tensors, changed: Tensors, kept: Tensor, *, grad: bool, what: str = "the inputs"
) -> Tensor:
    """Outputs where `kept` [B, H, T] is true are the same for the inputs changed elsewhere; returns those of x."""

    def ask_of(y: Tensors, number: int = 0) -> Tensor:
        return operator.forward(stretched(y, number), chunk_size=probe.chunk_size, grad=grad)

    def ask(number: int = 0) -> tuple[Tensor, Tensor]:
        return ask_of(x, number), ask_of(changed, number)

    o, now = ask()
    if bool(_same(o, now, kept).all()):
        return o
    moved = _difference(o, now, kept).abs().nan_to_num(nan=torch.inf)
    # Sums of the same shape round the same way, so next to nothing may differ. An output rounds at its own size: a leak
    # that is small beside other tokens or channels may be large in its own.
    sizes = o.double().abs().nan_to_num(nan=0.0).amax(3, keepdim=True).clamp(1e-30, 1e30)
    allowed = (4 * EPS["float32"] * sizes).nan_to_num(nan=0.0, posinf=0.0)  # what is not finite is the same or is not
    if bool((moved <= allowed).all()):
        return o
    # A sum over time rounds at the size of the largest number in it, which may stand on either side: one future may be empty.
    # Inputs alone tell that size: outputs are the operator's own, and one that is loud would hide a leak in another.
    given = [y[n].double().abs().flatten(1).amax(1) for y in (x, changed) for n in probe.over_time(x)]
    largest = torch.maximum(sizes, torch.stack(given).amax(0).view(-1, 1, 1, 1))
    # The last bits of bfloat16 may flip, but not all one way: a leak can be as small, beside an offset.
    last_bits = (4 * torch.finfo(o.dtype).eps * o.double().abs()).nan_to_num(nan=0.0, posinf=0.0)
    flipped = (moved > allowed) & (moved <= last_bits)
    noisy = torch.where(flipped, sizes, largest)
    if bool((flipped | (moved <= torch.maximum(allowed, little(o.shape[2]) * largest))).all()) and is_noise(
        lambda number: _difference(*ask(number), kept), allowed, noisy
    ):
        return o
    raise Rejected(_cause(ask_of, x, changed, o, now, kept, allowed, what))


def _cause(ask_of: Callable[[Tensors], Tensor], x: Tensors, changed: Tensors, o: Tensor, now: Tensor, kept: Tensor, allowed: Tensor, what: str) -> str:
    """What moves an output that ought to stay: the call itself, other rows by themselves, or what comes later."""
    (row, head, token, _), (B, H, T) = (int(i) for i in torch.nonzero(_difference(o, now, kept).abs().nan_to_num(nan=torch.inf) > allowed)[0]), kept.shape
    where = f"(B = {B}, H = {H}, T = {T}, {str(o.dtype).removeprefix('torch.')})"

    def moved(found: Tensor) -> str | None:
        by = _difference(o, found, kept)[row, head, token].abs().nan_to_num(nan=torch.inf)
        if bool((by <= allowed[row, head, token]).all()):
            return None
        return f"by {by.max():.3g}" if math.isfinite(by.max()) else "to NaN or infinity, or back,"

    if by := moved(ask_of(x)):
        return (
            f"the same inputs give another output when they are asked again: that of token {token} moves {by} {where}; "
            "nothing may be drawn at random, kept between calls or read before it is written"
        )
    alone = {name: torch.cat((v[:row], x[name][row : row + 1], v[row + 1 :])) for name, v in changed.items()}
    if by := moved(ask_of(alone)):
        return (
            f"rows are not independent: changing {what} of other rows moves the output of token {token} of row {row} {by} {where}; "
            "an output may depend on its own row alone"
        )
    cut = int(kept[row, head].sum())
    since = f"from token {cut} on" if cut < T else "of other heads"
    return (
        f"not causal: changing {what} {since} moves the output of token {token} {moved(now)} {where}; "
        "an output may depend on its own and earlier tokens of its row and head alone"
    )


def _same(o: Tensor, now: Tensor, kept: Tensor) -> Tensor:
    return (o == now) | ~kept[..., None] | (o.isnan() & now.isnan())


def _difference(o: Tensor, now: Tensor, kept: Tensor) -> Tensor:
    return _without_overflow(torch.where(_same(o, now, kept), 0.0, now.double() - o.double()))


def _without_overflow(difference: Tensor) -> Tensor:
    """Zero in rows that are finite on one side alone, where they are few: at extremes a decay's rounding may be e^1000.

    NaN times zero is NaN in tokens before, too, but trains nothing. Of 256 rows up to six are such, in a scan by doubling.
    """
    broken = ~difference.isfinite().flatten(1).all(1)
    few = int(broken.sum()) <= len(broken) // FEW
    return difference.masked_fill(broken.view(-1, 1, 1, 1), 0.0) if few else difference


def lengths(operator: OperatorProcess, probe: Probe) -> None:
    """The same at the trainer's own heads, every length it uses and one beyond 1,024, so that no length is the exception."""
    often = [*range(2, 137), 160, 192, 200, 224, 257, 384, 513, 768, probe.randint(140, 1000)]
    began, allowed = operator.clock(), 7.0
    plain = [(T, False) for T in (*PROTOCOL, probe.randint(1025, 2100))]
    varied = [(probe.randint(600, 900), True), (1023, True)]  # a leak may wait for what stood there hundreds of tokens before
    for T, vary in [*plain, *varied, *((T, False) for T in often)]:
        if operator.clock() - began > allowed:  # a slow operator is asked at those that come first
            return
        if vary:
            elsewhere(operator, probe, *probe.varied(operator, 16, T, probe.head_dim, probe.dtype), grad=False)
            continue
        x = probe.inputs(operator, 2, T, calm=T % 4 > 1)
        last_chunk = max(1, (T - 1) // probe.chunk_size * probe.chunk_size)
        cuts = torch.tensor([probe.randint(1, T - 1), T - 1 if T % 3 else last_chunk])
        cut_off(operator, probe, x, cuts, 30.0, grad=bool(T % 2))
