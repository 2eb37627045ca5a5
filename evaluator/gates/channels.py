"""The gate on the state at the trainer's own size, a value channel at a time."""

import torch
from torch import Tensor

from evaluator.gates.probe import ROOM, Probe, Rejected, Tensors, apart, loudness, row
from evaluator.gates.rank import ROWS, THRESHOLD, carried
from evaluator.gates.rounding import another_shape
from evaluator.gates.state import held, may_hold, of_one_past
from evaluator.operator import OperatorProcess

QUICK, SUSPECTED = 7.0, 30.0
"""Seconds for the rank of a channel, before and after several of them together were found to have more than their parts."""


def state_in_full(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """The state again at the trainer's own heads and chunk_size, so that no size is the exception: a value channel's part.

    Its part is 4 K + chunk_size (K + V) / V. All channels are asked at once where one map serves them all, else eight or
    one of them, whose values are so small that what they share with others doesn't move; one is asked
    about all inputs too, but for those of the last three chunks, whose keys all may share (of one where much memory is kept), and what it is at that very shape it
    must be a token shorter and in a row alone. Where channels share their parts even so, which smaller heads then show, or
    minutes would pass, nothing is told.
    """
    head = probe.a_head()
    kept = operator.kept_bytes(probe.inputs(operator, 1, 9 * probe.chunk_size), chunk_size=probe.chunk_size)
    back = 3 if ROWS * kept < ROOM else 1  # heads of 16 may have no window of three chunks
    first = probe.randint(0, (2 + back // 2) * probe.chunk_size)  # drawn, so that there is no token at which a state may be emptied
    tokens = slice(first, first + probe.randint(24, 40))
    future = probe.randint(24, 32)
    too_much, rank = _by_values(operator, probe, head)
    if not too_much and _by_all_inputs(operator, probe, 16, head, tokens, back, future):
        _whole(operator, probe, head)
    else:
        too_much = too_much or _by_all_inputs(operator, probe, probe.head_dim, head, tokens, back, future)
    if too_much and not _shared(operator, probe, head):
        raise Rejected(
            f"the state is larger than small heads show: with K = V = {probe.head_dim}, chunk_size = {probe.chunk_size} one value "
            f"channel alone has a rank of more than its part, which is {_part(probe, probe.head_dim)}"
        )
    return {"state_of_a_channel": rank}


def _part(probe: Probe, dim: int) -> int:
    """Of one value channel in the state."""
    return 4 * dim + 2 * (1 if probe.properties.get("chunk_invariant") else probe.chunk_size)


def _shared(operator: OperatorProcess, probe: Probe, head: int) -> bool:
    """Whether a channel has more than its part because all of them have it together, and the whole is not too large.

    Heads of 32 show it, where a chunk begins: what one channel takes after six chunks is then less than was asked for and
    little more after twelve, and a second channel adds little to it. At the trainer's heads, which are wider, it may have
    grown as a state does, by K V.
    """
    dim, C = probe.head_dim // 2, probe.chunk_size
    part = _part(probe, dim)

    def rank(dim: int, past: int, channels: int, most: int) -> int:
        x = of_one_past(operator, probe, dim, past, 24)
        return carried(operator, probe, x, past, C, most, head, slice(0, channels))

    one, later, two = (rank(dim, past, channels, 3 * part) for past, channels in ((6 * C, 1), (12 * C, 1), (6 * C, 2)))
    whole = one + (dim - 1) * (two - one)
    if not part // 2 < one < 3 * part or later > one + dim + dim // 2 or two >= 3 * part or whole > 4 * dim * dim + C * 2 * dim:
        return False
    most = int(4.5 * rank(dim, 3 * C, 1, 3 * part))
    return rank(probe.head_dim, 3 * C, 1, most + 8) <= most


def _whole(operator: OperatorProcess, probe: Probe, head: int) -> None:
    """Where a channel of heads of 16 has more than its part: all channels together must keep to the whole, as small heads do."""
    past, most = probe.randint(44, 60), may_hold(probe, 16, 4)
    if (rank := held(operator, probe, 16, 4, past, "as they come", head)) > most:
        raise Rejected(f"the state is too large: with K = V = 16, chunk_size = 4 its rank is {rank} after {past} tokens, at most {most} is allowed")


def _by_all_inputs(operator: OperatorProcess, probe: Probe, dim: int, head: int, tokens: slice, back: int, future: int) -> bool:
    """Whether what one output channel takes from all inputs of those tokens, in so many a few chunks behind them, is more than its part."""
    past = tokens.stop + back * probe.chunk_size
    x = of_one_past(operator, probe, dim, past, future)
    _as_elsewhere(operator, probe, x)
    channel = probe.randint(0, dim - 1)
    part = _part(probe, dim)
    return carried(operator, probe, x, past, probe.chunk_size, part + 8, head, slice(channel, channel + 1), tokens) > part


def _as_elsewhere(operator: OperatorProcess, probe: Probe, x: Tensors) -> None:
    """A row alone and without its last token is what it is in x, else no more is measured than one shape. Three rows must fail."""
    B, _, T = x["beta"].shape
    o = operator.forward(x, chunk_size=probe.chunk_size)
    for _ in range(3):
        at = probe.randint(0, B - 1)
        alone = probe.until(row(x, slice(at, at + 1)), T - 1)
        once_more = operator.forward(alone, chunk_size=probe.chunk_size)
        moved = apart(o[at : at + 1, :, : T - 1], once_more)
        if not moved or moved <= (allowed := another_shape(operator, probe, alone, once_more)):
            return
    raise Rejected(
        f"outputs depend on the shape: with B = {B}, T = {T}, K = V = {x['v'].shape[3]} a row differs by {moved:.3g} of the largest from what "
        f"it is alone and a token shorter, where rounding explains {allowed:.2g}"
    )


def _by_values(operator: OperatorProcess, probe: Probe, head: int) -> tuple[bool, int | None]:
    """Whether what output channels take from their own values before is more than their part; their rank where it is told."""
    wide, narrow = _part(probe, probe.head_dim), _part(probe, 16)
    most = 0
    for again in (False, True):  # what only tokens that come again ask for, wide heads tell apart where small ones can't
        seconds = QUICK
        for channels in (probe.head_dim, 8, 1):
            rank, alike = _of_channels(operator, probe, probe.head_dim, wide + 8, channels, head, seconds, again=again)
            if rank is None or rank <= wide or alike:
                break
            seconds = SUSPECTED
        if rank is None:
            return False, most or None
        if rank > wide:
            small = 0 if channels == probe.head_dim else _of_channels(operator, probe, 16, narrow + 8, channels, head, seconds)[0]
            return small is not None and small <= narrow, None
        most = max(most, rank)
    return False, most


def _of_channels(
    operator: OperatorProcess, probe: Probe, dim: int, count: int, channels: int, head: int, seconds: float, *, again: bool = False
) -> tuple[int | None, bool]:
    """Rank, up to `count`, of d(later outputs) / d(earlier values) in channels of a head, None where it is slow.

    A gradient serves them all at once, as if they had one map; the second answer is whether they do. With `again` each later
    token is another of the earlier ones, but for its value.
    """
    past = count + count // 4 + probe.randint(1, probe.chunk_size)
    T = past + count + probe.randint(0, 8)
    x, asked = probe.inputs(operator, 1, T, K=dim), torch.randperm(dim, generator=probe.rng)[:channels]
    x["beta"] = x["beta"] * 0.8 + 0.1
    if again:
        which = torch.randperm(past, generator=probe.rng)[:count]
        for name in (n for n in probe.over_time(x) if n != "v"):
            x[name][:, :, past : past + count] = x[name][:, :, which]
    if channels < dim:
        x["v"][..., asked] *= 1e-6
    kept = operator.kept_bytes(x, chunk_size=probe.chunk_size)
    size = max(2, min(-(-count // channels) + 2, 48, int(1.5e9 / kept)))
    rows = {n: v.expand(size, *v.shape[1:]).contiguous() for n, v in x.items()}
    _as_elsewhere(operator, probe, rows)
    weights = 1 / loudness(operator.forward(x, chunk_size=probe.chunk_size)[:, head, past : past + count])
    found, began = list[Tensor](), operator.clock()
    while (done := channels * sum(map(len, found))) < count:
        grad_o = torch.zeros(size, probe.num_heads, T, dim)
        combined = probe.randn(size, count, channels)
        if not done:  # one answer for all channels, and the same but for a factor
            combined[0] = combined[0, :, :1]
            combined[1] = 1.37 * combined[0]
        grad_o[:, head, past : past + count].index_copy_(2, asked, combined * weights)
        _, grads = operator.vjp(rows, grad_o, chunk_size=probe.chunk_size, timeout=3 * operator.timeout)
        if (grad := grads["v"]) is None:
            return None, False
        found.append(grad[:, head, :past].index_select(2, asked).double())
        if not bool(found[-1].isfinite().all()):
            raise Rejected(f"gradients to v are not finite at K = V = {dim}, T = {T}")
        if (operator.clock() - began) * count / (done + channels * len(found[-1])) > seconds:
            return None, False
    first, again = found[0][:2]
    scale = float(first.norm().clamp_min(1e-30))
    alike = float((first - first.mean(1, keepdim=True)).norm()) <= 1e-3 * scale
    zero = max(THRESHOLD["float32"], min(4 * float((again / 1.37 - first).norm()) / scale, THRESHOLD["lower"]))
    values = torch.linalg.svdvals(torch.cat([part.mT.flatten(0, 1) for part in found]))
    return int((values > zero * values[0]).sum()), alike
