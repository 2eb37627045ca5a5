"""Gates on what an operator carries from the past into the future: how much, and that it does not grow."""

import contextlib
from collections.abc import Sequence

import torch

from evaluator.gates.jumps import jumps
from evaluator.gates.led import led
from evaluator.gates.probe import ODD, Probe, Rejected, Tensors, row
from evaluator.gates.rank import ROWS, Overflown, carried
from evaluator.operator import OperatorProcess

DECLARED = "with parameters as declared"
LEVELS = "that fill levels of memory"
"""510 tokens: of memory that has a level more with every doubling, seven of blocks of four tokens are in use then, and eight of pairs."""
CALM = "with calm betas and small values"
BEGINNING = "as when training begins"
LED = {
    "where their gradients lead parameters": -2.0, "where they lead them the other way": 2.0,
    "where their gradients lead parameters a little": -0.3, "where they lead them a little the other way": 0.3,
}  # fmt: skip
NEAR_ONE = "of the sizes that training gives, with betas nearer to one"
TRAINED = {NEAR_ONE: 1.0, "of the sizes that training gives, with small betas": -1.0}
RARE = ("that come again", "in runs", "of odd kinds", "alike in all channels")
LONG = 2048
"""Tokens after which whatever fills late is full."""
DRAWS = 8
"""Of inputs at the most, before what overflows is a verdict."""
ALONE = 0.1
"""Of a gradient's norm: rounding at another shape is far less, a hidden gradient all of it."""
SLOTS = 16
"""So many keys and values an operator may hold whatever the size of its heads."""


def state(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """The rank of the map from past inputs to future outputs is the state: at most 4 K V + chunk_size (K + V), not growing.

    Small heads make it measurable, with 16 keys and values allowed where that is more, and many futures of one past. A
    window or cache shows at K = V = 4, levels of memory at 7, what waits for the trainer's chunk_size too, an expanded key
    at K = V = 10. The heads take turns, as they need not be alike; where parameters are led, each its own way, all are asked. Where the outputs
    are the same for every chunk_size, nothing is allowed for a chunk.
    """
    # Of what `cost` rejected it is only asked whether what it keeps may be why: not at lengths that then take minutes.
    quick = "exponents" in probe.properties and probe.properties["milliseconds_a_token"] < 1
    small, larger = probe.width(operator, 4), probe.width(operator, 10)
    with_parameters = bool(probe.described(operator, probe.num_heads, small).parameters)
    wide = ("as they come", BEGINNING, NEAR_ONE, *(kind for kind, by in LED.items() if with_parameters and abs(by) > 1))
    plan = (
        (small, 8, "as they come", (27, probe.randint(150, 960) if quick else 108)),
        *([(probe.width(operator, 7), 4, LEVELS, (510,))] if quick else []),
        (small, probe.chunk_size, DECLARED, (108,)),
        *((larger, 4, kind, (2 * larger + 14,)) for kind in wide),
        (small, 8, CALM, (27, 108)),
        (small, 8, BEGINNING, (108,)),
        (small, 8, "with saturated betas", (108,)),
        (small, 8, "far up", (108,)),
        (small, 8, "far down", (108,)),
        *((small, 8, kind, (108,)) for kind in TRAINED),
        *((small, 8, kind, (108,)) for kind in RARE),
        *((small, 8, kind, (108,)) for kind in LED if with_parameters),
    )
    found = dict[str, dict[str, int]]()
    first = probe.a_head()
    for number, (dim, C, kind, pasts) in enumerate(plan):
        allowed = may_hold(probe, dim, C, kind)
        heads = range(probe.num_heads) if kind in LED else ((first + number) % probe.num_heads,)
        ranks = [max(held(operator, probe, dim, C, past, kind, head) for head in heads) for past in pasts]
        told = ", ".join(f"{rank} after {past} tokens" for rank, past in zip(ranks, pasts, strict=True))
        where = f"with K = V = {dim}, chunk_size = {C} and inputs {kind} its rank is {told}"
        if _grown(ranks, dim) and _goes_on(operator, probe, dim, C, kind, pasts, ranks, heads[0]):
            raise Rejected(f"the state grows with the past: {where}")
        if max(ranks) > allowed:
            nothing = "; nothing for a chunk, as the outputs are the same for every chunk_size" * probe.properties.get("chunk_invariant", False)
            raise Rejected(f"the state is too large: {where}, at most {allowed} is allowed ({SLOTS} keys and values, or 4 K V{nothing})")
        key = f"{dim}x{dim}, chunks of {C}"
        found[key] = {"rank": max(max(ranks), found.get(key, {"rank": 0})["rank"]), "allowed": allowed}
    _rows_alone(operator, probe, small)
    part = may_hold(probe, larger, 4) // larger
    if jumps(operator, probe, larger, 4, part):
        raise Rejected(
            f"the state is too large in what passes no gradient, as signs do: with K = V = {larger}, chunk_size = 4 one value channel "
            f"holds more than its part, {part} numbers"
        )
    return {"state": found}


def _rows_alone(operator: OperatorProcess, probe: Probe, dim: int) -> None:
    """A row's gradient is its own, whatever its neighbours have in common: the rank is asked of rows with one past. Two draws must fail."""
    for _ in range(2):
        past = probe.randint(60, 120)
        x = of_one_past(operator, probe, dim, past, 66)
        grad_o = probe.randn(ROWS, probe.num_heads, past + 66, dim)
        grad_o[:, :, :past] = 0
        _, together = operator.vjp(x, grad_o, chunk_size=8)
        number = probe.randint(0, ROWS - 1)
        at = slice(number, number + 1)
        _, alone = operator.vjp(row(x, at), grad_o[at].contiguous(), chunk_size=8)
        pairs = [(n, g[at], alone[n]) for n, g in together.items() if g is not None]
        wrong = [n for n, a, b in pairs if b is None or float((a - b).norm()) > ALONE * float(torch.maximum(a.norm(), b.norm()))]
        if not wrong:
            return
    raise Rejected(
        f"the gradient of a row depends on the other rows: that to {wrong[0]} of one of {ROWS} rows with the same {past} tokens "
        "behind them is another where the row is alone"
    )


def _grown(ranks: Sequence[int], dim: int) -> bool:
    return max(ranks) > 1.25 * ranks[0] + dim * dim


def _goes_on(
    operator: OperatorProcess, probe: Probe, dim: int, C: int, kind: str, pasts: Sequence[int], ranks: Sequence[int], head: int
) -> bool:
    """What fills late, as slots and levels of memory do, ends within what may be held; what grows goes on growing.

    It is little after the shortest past in every draw: in a single one, a direction that is much larger can hide the others.
    """
    if any(not _grown((held(operator, probe, dim, C, pasts[0], kind, head), *ranks), dim) for _ in range(2)):
        return False
    return held(operator, probe, dim, C, min(4 * max(pasts), LONG), kind, head) > max(ranks) + dim


def may_hold(probe: Probe, dim: int, C: int, kind: str = "") -> int:
    """Numbers in a state; a few slots or last tokens, which small heads make look large, are few at the trainer's.

    Where levels are looked for they may stand beside K V, which levels exceed all the same.
    """
    slots = SLOTS * 2 * dim + (dim * dim if kind == LEVELS else 0)
    return max(4 * dim * dim, slots) + (1 if probe.properties.get("chunk_invariant") else C) * 2 * dim


def held(operator: OperatorProcess, probe: Probe, dim: int, C: int, past: int, kind: str, head: int) -> int:
    """The rank, of inputs of a kind; what small heads far from the usual make NaN is drawn anew, as larger ones need not."""
    for _ in range(DRAWS - 1):
        with contextlib.suppress(Overflown):
            return _rank_once(operator, probe, dim, C, past, kind, head)
    return _rank_once(operator, probe, dim, C, past, kind, head)


def _rank_once(operator: OperatorProcess, probe: Probe, dim: int, C: int, past: int, kind: str, head: int) -> int:
    """Up to a little more than is allowed, to much more of what only some tokens may ask for."""
    most = may_hold(probe, dim, C, kind) + (ROWS if kind in RARE else 8)
    past += C // 2 - past % C  # in the middle of a chunk
    future = past if kind == "that come again" else max(66, 5 * most // (4 * dim))
    dtype = torch.float64 if probe.precision == "float64" else torch.float32
    x = probe.inputs(operator, ROWS, past + future, K=dim, dtype=dtype, as_declared=kind in (DECLARED, CALM, *TRAINED), calm=kind == BEGINNING)
    if kind in LED:
        x |= led(operator, probe, dim, C, dtype, LED[kind])
    # Once before, as what comes later may be what came earlier, and once after, as magnitudes are drawn for each row.
    x = _with_one_past(probe, _as_training_may(probe, _with_one_past(probe, x, past), past, kind), past)
    return carried(operator, probe, x, past, C, most, head)


def of_one_past(operator: OperatorProcess, probe: Probe, dim: int, past: int, future: int) -> Tensors:
    """As many rows as a rank is asked of, with parameters as declared: one past, and a future of each one's own."""
    return _with_one_past(probe, probe.inputs(operator, ROWS, past + future, K=dim, as_declared=True), past)


def _with_one_past(probe: Probe, x: Tensors, past: int) -> Tensors:
    for name, value in x.items():
        before = value[:, :, :past] if name in probe.over_time(x) else value
        before.copy_(before[:1].clone())
    return x


def _as_training_may(probe: Probe, x: Tensors, past: int, kind: str) -> Tensors:
    """Where training begins betas are calm and values small; later betas saturate, and learned parameters are far up or down.

    Then vectors of a token have a magnitude of their own. Upwards queries and projections have, and betas are next to
    nothing; downwards keys and values have, and later tokens look like earlier ones. Tokens that come again are half
    of those before, and a piece of them once more whose queries are its keys; those in runs are the same from the past
    on. Of the odd kinds are later queries and keys and half of those before, with queries of any magnitude.
    """
    b, over_time = x["beta"], probe.over_time(x)
    betas = {"with saturated betas": (2 * b - 0.5).clamp(0, 1), CALM: 0.2 * b + 0.4, "far up": 0.02 * b}
    x["beta"] = betas.get(kind, 0.8 * b + 0.1)
    if kind == CALM:
        x["v"] = 0.1 * x["v"]
    if kind in TRAINED:
        return probe.trained(x | {"beta": b}, TRAINED[kind])
    if kind == "that come again":
        return _again(probe, x, past)
    if kind == "in runs":
        return _in_runs(probe, x, past)
    if kind in ("of odd kinds", *ODD):
        number = torch.tensor(ODD.index(kind)) if kind in ODD else (len(ODD) * probe.uniform(*b.shape)).long()
        as_it_is = (torch.arange(b.shape[2]) < past) & (probe.uniform(*b.shape) < 0.5)
        for name in (n for n in probe.oddly(x) if n != "v"):
            x[name] = probe.odd(x[name], probe.like(x, name), torch.where(as_it_is, len(ODD), number))
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


def _in_runs(probe: Probe, x: Tensors, past: int) -> Tensors:
    """Later tokens are one and the same in each row, but for their values and betas, in half of the rows those too."""
    alike = probe.uniform(ROWS) < 0.5
    for name in probe.over_time(x):
        rows = alike if name in ("v", "beta") else slice(None)
        x[name][rows, :, past:] = x[name][rows, :, past : past + 1].clone()
    return x


def _again(probe: Probe, x: Tensors, past: int) -> Tensors:
    rows, T, tokens = torch.arange(ROWS)[:, None], x["beta"].shape[2], torch.arange(past)
    earlier = torch.where(probe.uniform(past) < 0.5, (probe.uniform(past) * tokens).long(), tokens)
    start = (probe.uniform(ROWS, 1) * past).long()
    which = torch.cat((earlier.expand(ROWS, past), earlier[(torch.arange(past, T) + start) % past]), 1)
    x = {n: v[rows, :, which].movedim(1, 2).contiguous() if n in probe.over_time(x) else v for n, v in x.items()}
    x["q"][:, :, past:] = x["k"][:, :, past:]
    return x
