"""Gates on what an operator carries from the past into the future: how much, and that it does not grow."""

import contextlib

import torch
from torch import Tensor

from evaluator.gates.probe import ODD, Probe, Rejected, Tensors, apart, gap, loudness, normed, size
from evaluator.gates.rank import ROWS, THRESHOLD, carried
from evaluator.gates.rounding import another_shape, another_way
from evaluator.operator import OperatorError, OperatorProcess

DECLARED = "with parameters as declared"
CALM = "with calm betas and small values"
RARE = ("that come again", "of odd kinds", "alike in all channels")
SLOTS = 16
"""So many keys and values an operator may hold whatever the size of its heads."""


def chunk(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """chunk_size is part of the protocol: an operator whose function has chunks uses the ones it is given."""
    x = probe.inputs(operator, 2, 256)
    # None is larger than the trainer's: what may grow by a factor in every token of a chunk ends there.
    o = {c: operator.forward(x, chunk_size=c) for c in (8, 16, 32)}
    allowed = another_shape(operator, probe, x, o[32])
    invariant = all(apart(o[c], o[32]) <= allowed for c in o)
    if not invariant and _wider(operator, probe, x, o[32]):
        raise Rejected(
            "the first 64 tokens are the same with chunk_size 32 and 64, and 32 empty tokens in front change what follows "
            "while a larger number of them does not: chunks are wider than chunk_size"
        )
    return {"chunk_invariant": invariant}


def _wider(operator: OperatorProcess, probe: Probe, x: Tensors, o: Tensor) -> bool:
    """Whether chunks of 32 act as chunks of 64 or more: o, the outputs for x, then begins anew every so many tokens."""
    over_time = probe.over_time(x)
    start = {n: v[:, :, :64].contiguous() if n in over_time else v for n, v in x.items()}
    first, second = (operator.forward(start, chunk_size=c) for c in (32, 64))
    if apart(second, first) > another_shape(operator, probe, start, first):
        return False

    def unmoved_by(count: int) -> bool:
        """By `count` tokens of nothing in front."""
        empty = {n: torch.zeros(*v.shape[:2], count, *v.shape[3:], dtype=v.dtype) for n, v in x.items() if n in over_time}
        later = {n: torch.cat((empty[n], v), 2) if n in over_time else v for n, v in x.items()}
        return apart(operator.forward(later, chunk_size=32)[:, :, count:], o) <= another_shape(operator, probe, x, o)

    return not unmoved_by(32) and any(unmoved_by(count) for count in (64, 128, 256))


def state(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """The rank of the map from past inputs to future outputs is the state: at most 4 K V + chunk_size (K + V), not growing.

    Small heads make it measurable, with 16 keys and values allowed where that is more, and many futures of one past. A
    window or cache shows at K = V = 4, what waits for the trainer's chunk_size too, an expanded key at K = V = 10. Where
    the outputs are the same for every chunk_size, nothing is allowed for a chunk.
    """
    quick = probe.properties["milliseconds_a_token"] < 1
    small, larger = _width(operator, probe, 4), _width(operator, probe, 10)
    far_back = probe.randint(850, 960) if quick else 108
    plan = (
        (small, 8, "as they come", (27, far_back)),
        (small, probe.chunk_size, DECLARED, (108,)),
        (larger, 4, "as they come", (2 * larger + 14,)),
        (small, 8, CALM, (27, 108)),
        (small, 8, "with saturated betas", (108,)),
        (small, 8, "far up", (108,)),
        (small, 8, "far down", (108,)),
        *((small, 8, kind, (108,)) for kind in RARE),
    )
    found = dict[str, dict[str, int]]()
    for dim, C, kind, pasts in plan:
        allowed = _allowed(probe, dim, C)
        ranks = [_rank(operator, probe, dim, C, past, kind) for past in pasts]
        told = ", ".join(f"{rank} after {past} tokens" for rank, past in zip(ranks, pasts, strict=True))
        where = f"with K = V = {dim}, chunk_size = {C} and inputs {kind} its rank is {told}"
        if max(ranks) > 1.25 * ranks[0] + dim * dim:
            raise Rejected(f"the state grows with the past: {where}")
        if max(ranks) > allowed:
            nothing = "; nothing for a chunk, as the outputs are the same for every chunk_size" * probe.properties.get("chunk_invariant", False)
            raise Rejected(f"the state is too large: {where}, at most {allowed} is allowed ({SLOTS} keys and values, or 4 K V{nothing})")
        key = f"{dim}x{dim}, chunks of {C}"
        found[key] = {"rank": max(max(ranks), found.get(key, {"rank": 0})["rank"]), "allowed": allowed}
    part = _allowed(probe, larger, 4) // larger
    if any(_jumps(operator, probe, larger, 4, part, erasing) > part + part // 2 for erasing in (False, True)):
        raise Rejected(
            f"the state is too large in what passes no gradient, as signs do: with K = V = {larger}, chunk_size = 4 one value channel "
            f"holds more than {part + part // 2} numbers, where its part is {part}"
        )
    return {"state": found}


def _jumps(operator: OperatorProcess, probe: Probe, dim: int, C: int, part: int, erasing: bool) -> int:
    """How many directions later outputs of a value channel take, for signs of its past values: what is small has no other part.

    After the past betas are zero, or with `erasing` values are, so that outputs are linear in the state, however it came about.
    A state that goes on moving by itself, as by moments, makes them a little more: 60 where 48 is its part; a cache takes nearly all.
    """
    past, future = 108, 2 * part
    x = {n: v.expand(2 * part, *v.shape[1:]).contiguous() for n, v in probe.inputs(operator, 1, past + future, K=dim).items()}
    x["v"][:, 0, :past, 0] = 1e-6 * probe.randn(2 * part, past)
    x["v" if erasing else "beta"][:, :, past:] = 0
    o = normed(operator.forward(x, chunk_size=C)[:, 0, past:])
    values = torch.linalg.svdvals(o[..., 0] - o[..., 0].mean(0))
    return int((values > 1e-4 * o.norm() / dim**0.5).sum())


def _allowed(probe: Probe, dim: int, C: int) -> int:
    """Numbers in a state; a few slots or last tokens, which small heads make look large, are few at the trainer's."""
    return max(4 * dim * dim, SLOTS * 2 * dim) + (1 if probe.properties.get("chunk_invariant") else C) * 2 * dim


def _width(operator: OperatorProcess, probe: Probe, wanted: int) -> int:
    """The narrowest heads from `wanted` on that are answered: some operators need a power of two, or eight features."""
    for dim in (d for d in (wanted, 8, 16) if d >= wanted):
        with contextlib.suppress(OperatorError):
            operator.forward(probe.inputs(operator, 1, 9, K=dim), chunk_size=4)
            return dim
    raise Rejected("delta_rule fails for heads of 16 features and less; it must work for any head_dim from 16 on")


def _rank(operator: OperatorProcess, probe: Probe, dim: int, C: int, past: int, kind: str) -> int:
    """Up to a little more than is allowed, to much more of what only some tokens may ask for."""
    most = _allowed(probe, dim, C) + (ROWS if kind in RARE else 8)
    past += C // 2 - past % C  # in the middle of a chunk
    future = past if kind == "that come again" else max(66, 5 * most // (4 * dim))
    dtype = torch.float64 if probe.precision == "float64" else torch.float32
    x = probe.inputs(operator, ROWS, past + future, K=dim, dtype=dtype, as_declared=kind in (DECLARED, CALM))
    # Once before, as what comes later may be what came earlier, and once after, as magnitudes are drawn for each row.
    x = _with_one_past(probe, _as_training_may(probe, _with_one_past(probe, x, past), past, kind), past)
    return carried(operator, probe, x, past, C, most)


def _with_one_past(probe: Probe, x: Tensors, past: int) -> Tensors:
    for name, value in x.items():
        before = value[:, :, :past] if name in probe.over_time(x) else value
        before.copy_(before[:1].clone())
    return x


def _as_training_may(probe: Probe, x: Tensors, past: int, kind: str) -> Tensors:
    """Where training begins betas are calm and values small; later betas saturate, and learned parameters are far up or down.

    Then vectors of a token have a magnitude of their own. Upwards queries and projections have, and betas are next to
    nothing; downwards keys and values have, and later tokens look like earlier ones. Tokens that come again are half
    of those before, and a piece of them once more whose queries are its keys. Of the odd kinds are later queries and
    keys and half of those before, with queries of any magnitude.
    """
    b, over_time = x["beta"], probe.over_time(x)
    betas = {"with saturated betas": (2 * b - 0.5).clamp(0, 1), CALM: 0.2 * b + 0.4, "far up": 0.02 * b}
    x["beta"] = betas.get(kind, 0.8 * b + 0.1)
    if kind == CALM:
        x["v"] = 0.1 * x["v"]
    if kind == "that come again":
        return _again(probe, x, past)
    if kind in ("of odd kinds", *ODD):
        number = torch.tensor(ODD.index(kind)) if kind in ODD else (len(ODD) * probe.uniform(*b.shape)).long()
        as_it_is = (torch.arange(b.shape[2]) < past) & (probe.uniform(*b.shape) < 0.5)
        x["q"], x["k"] = (probe.odd(x[n], x["k"], torch.where(as_it_is, len(ODD), number)) for n in ("q", "k"))
        x["q"] = x["q"] * 10 ** (2 * probe.uniform(*b.shape, 1)).to(b.dtype)
        return {name: value.to(b.dtype) for name, value in x.items()}
    if kind not in ("far up", "far down"):
        return x
    for name in (n for n in x if n != "beta"):
        sizes = torch.rand(b.shape, generator=probe.rng, dtype=b.dtype).unsqueeze(-1)
        if name not in over_time:
            x[name] = x[name] + (6 if kind == "far up" else -6)
        elif (name in ("k", "v")) == (kind == "far down"):  # large keys hide the others, so not both at once
            x[name] = x[name] * 10 ** (2 * sizes)
    if kind == "far down":
        again = torch.randint(past, (b.shape[2] - past,), generator=probe.rng)
        x = _with_one_past(probe, x, past)
        for name in (n for n in over_time if n != "v"):
            x[name][:, :, past:] = x[name][:, :, again]
    return x


def _again(probe: Probe, x: Tensors, past: int) -> Tensors:
    rows, T, tokens = torch.arange(ROWS)[:, None], x["beta"].shape[2], torch.arange(past)
    earlier = torch.where(probe.uniform(past) < 0.5, (probe.uniform(past) * tokens).long(), tokens)
    start = (probe.uniform(ROWS, 1) * past).long()
    which = torch.cat((earlier.expand(ROWS, past), earlier[(torch.arange(past, T) + start) % past]), 1)
    x = {n: v[rows, :, which].movedim(1, 2).contiguous() if n in probe.over_time(x) else v for n, v in x.items()}
    x["q"][:, :, past:] = x["k"][:, :, past:]
    return x


def state_in_full(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """The state again at the trainer's own heads and chunk_size, so that no size is the exception: a value channel's part.

    Its part is 4 K + chunk_size (K + V) / V. All channels are asked at once where one map serves them all, else eight or
    one of them, whose values are so small that what they share with others doesn't move; one is asked
    about all inputs too. Where channels share their parts even so, which small heads then show, or minutes would pass,
    nothing is told.
    """
    too_much, rank = _by_values(operator, probe)
    if too_much or (not _by_all_inputs(operator, probe, 16) and _by_all_inputs(operator, probe, probe.head_dim)):
        raise Rejected(
            f"the state is larger than small heads show: with K = V = {probe.head_dim}, chunk_size = {probe.chunk_size} one value "
            f"channel alone has a rank of more than its part, which is {_part(probe, probe.head_dim)}"
        )
    return {"state_of_a_channel": rank}


def _part(probe: Probe, dim: int) -> int:
    """Of one value channel in the state."""
    return 4 * dim + 2 * (1 if probe.properties.get("chunk_invariant") else probe.chunk_size)


def _by_all_inputs(operator: OperatorProcess, probe: Probe, dim: int) -> bool:
    """Whether what one output channel takes from all inputs before is more than its part."""
    past = probe.chunk_size + probe.chunk_size // 2
    x = _with_one_past(probe, probe.inputs(operator, ROWS, past + 24, K=dim, as_declared=True), past)
    channel = probe.randint(0, dim - 1)
    part = _part(probe, dim)
    return carried(operator, probe, x, past, probe.chunk_size, part + 8, slice(channel, channel + 1)) > part


def _by_values(operator: OperatorProcess, probe: Probe) -> tuple[bool, int | None]:
    """Whether what output channels take from their own values before is more than their part; their rank where it is told."""
    wide, narrow = _part(probe, probe.head_dim), _part(probe, 16)
    for channels in (probe.head_dim, 8, 1):
        rank, alike = _of_channels(operator, probe, probe.head_dim, wide + 8, channels)
        if rank is None or rank <= wide:
            return False, rank
        if alike:
            break
    small = 0 if channels == probe.head_dim else _of_channels(operator, probe, 16, narrow + 8, channels)[0]
    return small is not None and small <= narrow, None


def _of_channels(operator: OperatorProcess, probe: Probe, dim: int, count: int, channels: int) -> tuple[int | None, bool]:
    """Rank, up to `count`, of d(later outputs) / d(earlier values) in channels of the first head, None where it is slow.

    A gradient serves them all at once, as if they had one map; the second answer is whether they do.
    """
    past = count + count // 4 + probe.chunk_size // 2
    x, asked = probe.inputs(operator, 1, past + count, K=dim), torch.randperm(dim, generator=probe.rng)[:channels]
    x["beta"] = x["beta"] * 0.8 + 0.1
    if channels < dim:
        x["v"][..., asked] *= 1e-6
    kept = operator.measure(x, chunk_size=probe.chunk_size, repeat=1, memory=True)[1]
    size = max(2, min(-(-count // channels) + 2, 48, int(1.5e9 / max(kept, 1))))
    weights = 1 / loudness(operator.forward(x, chunk_size=probe.chunk_size)[:, :1, past:])
    found, began = list[Tensor](), operator.clock()
    while (done := channels * sum(map(len, found))) < count:
        grad_o = torch.zeros(size, probe.num_heads, past + count, dim)
        combined = probe.randn(size, count, channels)
        if not done:  # one answer for all channels, and the same but for a factor
            combined[0] = combined[0, :, :1]
            combined[1] = 1.37 * combined[0]
        grad_o[:, 0, past:].index_copy_(2, asked, combined * weights[0])
        rows = {n: v.expand(size, *v.shape[1:]).contiguous() for n, v in x.items()}
        _, grads = operator.vjp(rows, grad_o, chunk_size=probe.chunk_size, timeout=3 * operator.timeout)
        if (grad := grads["v"]) is None:
            return None, False
        found.append(grad[:, 0, :past].index_select(2, asked).double())
        if not bool(found[-1].isfinite().all()):
            raise Rejected(f"gradients to v are not finite at K = V = {dim}, T = {past + count}")
        if (operator.clock() - began) * count / (done + channels * len(found[-1])) > 7:
            return None, False
    first, again = found[0][:2]
    scale = float(first.norm().clamp_min(1e-30))
    alike = float((first - first.mean(1, keepdim=True)).norm()) <= 1e-3 * scale
    zero = max(THRESHOLD["float32"], min(4 * float((again / 1.37 - first).norm()) / scale, THRESHOLD["lower"]))
    values = torch.linalg.svdvals(torch.cat([part.mT.flatten(0, 1) for part in found]))
    return int((values > zero * values[0]).sum()), alike


def recurrence(operator: OperatorProcess, probe: Probe) -> dict[str, object] | None:
    """A recurrent form, where there is one, says the same token by token with a state of constant size."""
    if not operator.description.has_recurrence:
        return None
    T = 2 * probe.chunk_size + 9
    x = probe.inputs(operator, 2, T)
    grad_o = probe.randn(2, probe.num_heads, T, probe.head_dim)
    found = operator.recurrence(x, grad_o)
    o, grads = operator.vjp(x, grad_o, chunk_size=probe.chunk_size)
    if (moved := apart(found.o, o)) > another_way(operator, probe, x, o):
        raise Rejected(f"recurrence and delta_rule differ by {moved:.3g} of the largest output")
    for name, grad in grads.items():
        other = found.grads[name]
        if grad is not None and (other is None or _far(grad, other, probe)):
            raise Rejected(f"recurrence and delta_rule differ in the gradient to {name}")
    _constant(found.state_sizes, probe)
    return {"recurrent_state": found.state_sizes[-1]}


def _far(grad: Tensor, other: Tensor, probe: Probe) -> bool:
    distance = float((grad - other).double().norm())
    return distance > {"float64": 1e-3, "float32": 1e-3, "lower": 0.1}[probe.precision] * float(grad.double().norm())


def _constant(sizes: list[int], probe: Probe) -> None:
    limit = 4 * probe.head_dim**2 + probe.chunk_size * 2 * probe.head_dim
    if len(set(sizes)) > 1 or sizes[-1] > limit:
        raise Rejected(
            f"the state of recurrence has {sizes[0]} to {max(sizes)} numbers a head; it must be constant, at most {limit}"
        )


def forms(operator: OperatorProcess, probe: Probe, other: OperatorProcess) -> dict[str, object]:
    """A kernel says the same as naive.py, in outputs and gradients, at every kind of length, also on poisoned memory.

    In bfloat16, as it is trained, and at two lengths in float32, whose kernels take long to compile.
    """
    worst = 0.0
    for T in (1, 31, 32, 33, 127, 128, probe.randint(129, 300)):
        for dtype in (torch.float32, torch.bfloat16) if T in (33, 127) else (torch.bfloat16,):
            x = probe.inputs(operator, 3, T, dtype=dtype)
            grad_o = probe.randn(3, probe.num_heads, T, probe.head_dim, dtype=dtype)
            o, grads = operator.vjp(x, grad_o, chunk_size=probe.chunk_size)
            theirs, their_grads = other.vjp(x, grad_o, chunk_size=probe.chunk_size)
            _same_output(o, theirs, T, dtype)
            _same_gradients(grads, their_grads, T, dtype)
            _same_output(theirs, other.forward(x, chunk_size=probe.chunk_size, poison=True), T, dtype)
            worst = max(worst, gap(o, theirs) / size(o))
    return {"forms_differ": worst}


def _same_output(o: Tensor, other: Tensor, T: int, dtype: torch.dtype) -> None:
    if gap(o, other) > {torch.float32: 5e-3, torch.bfloat16: 4e-2}[dtype] * size(o):  # TF32 inside is allowed
        raise Rejected(
            f"triton.py and naive.py differ by {gap(o, other):.3g} in outputs of magnitude {size(o):.3g} at T = {T}, {dtype}"
        )


def _same_gradients(
    grads: Tensors | dict[str, Tensor | None], other: dict[str, Tensor | None], T: int, dtype: torch.dtype
) -> None:
    for name, grad in grads.items():
        theirs = other[name]
        if grad is None or not bool(grad.any()):
            continue
        if theirs is None:
            raise Rejected(f"triton.py gives no gradient to {name}")
        distance = float((grad - theirs).double().norm() / grad.double().norm())
        if not distance <= {torch.float32: 2e-2, torch.bfloat16: 6e-2}[dtype]:
            raise Rejected(
                f"triton.py and naive.py differ by {distance:.3g} of its norm in the gradient to {name} at T = {T}, {dtype}"
            )
