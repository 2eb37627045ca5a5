"""The gate on what can be read back: a state that no gradient shows still answers when its keys come again."""

import functools
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluator.gates.probe import Probe, Rejected, Tensors
from evaluator.gates.state import BEGINNING, may_hold
from evaluator.operator import OperatorProcess

ROWS, NEAR, FAR = 16, 192, 128
"""Rows, fewer of wide heads, and questions in each: of the last 256 tokens of its past, then of those before."""
DRAWS = 3
"""Of what goes with a value, of which all must fail."""
CHANCE = 0.1
"""What a band is told of no more than this may be told by chance: outputs may have few directions."""
KEPT = 8
"""One value of so many is the same in two askings, few enough to tell nothing of each other."""
READ_BACK = ((False, False), (True, False), (True, True))
"""Whether values come again with their keys, and whether one query asks for all."""
OTHERWISE = "betas and projections"
ALONE = ("keys", OTHERWISE)
"""Inputs that come again by themselves: keys and the queries for them, or whatever else a token may be known by."""
NEARLY = 1e-5
"""What a token that nearly comes again is off by, of the size of its inputs."""
KNOWN = 3e-3
"""Of an output, that a token comes exactly must move it by more, and by KNOWN_FROM times what another that is nearly the same does."""
KNOWN_FROM = 10
BANDS = (0, 64, 128, 256, 512, 1024)
"""Tokens back: how well is asked of each band by itself, as what is far may be lost whole."""


Ask = Callable[..., tuple[float, int]]


def recall(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """No more past values can be read back by their keys than a state may hold, whatever passes no gradient.

    Tokens come again behind a long past, as they were or with other values; which part of the variance of the values
    that they had, or of those right behind them, their outputs tell by a linear map is counted in tokens; once with one query
    for all, so that none multiplies what is told, and once where keys alone come again, or what is no key. Whatever else may be told of values, as codes of them: which part of the variance of an
    output goes with the value at its key alone is counted alike. No more tokens of a past may be known for the same, either.
    """
    _known_again(operator, probe)
    milliseconds = probe.properties["milliseconds_a_token"]
    quick, past = milliseconds < 0.03, 1000 if milliseconds < 0.5 else 400
    found = dict[str, float]()
    for dim in (16, probe.head_dim) if quick else (16,):
        allowed = may_hold(probe, dim, probe.chunk_size) // dim
        for kind in ("as they come", BEGINNING) if quick else ("as they come",):
            calm = kind == BEGINNING
            asks: list[tuple[str, Ask, int]] = [("keys", functools.partial(_read_back, whole=whole, alike=alike), 1) for whole, alike in READ_BACK]
            asks += [(alone, functools.partial(_read_back, alone=alone), 1) for alone in ALONE if dim == 16 and not calm]
            for what, ask, draws in (*asks, ("keys", _goes_with_its_value, DRAWS)):
                tokens, back = ask(operator, probe, dim, past, calm=calm)
                for _ in range(draws - 1 if tokens > allowed else 0):
                    tokens, back = min((tokens, back), ask(operator, probe, dim, past, calm=calm))
                found[f"{dim}x{dim}"] = round(max(tokens, found.get(f"{dim}x{dim}", 0.0)), 1)
                if tokens > allowed:
                    raise Rejected(
                        f"the state is too large: with K = V = {dim} and inputs {kind}, {what} that come again give back the values of "
                        f"{tokens:.0f} tokens, up to {back} tokens back; its whole size is {allowed} values of so many numbers"
                    )
    return {"recall": found}


def _known_again(operator: OperatorProcess, probe: Probe) -> None:
    """Tokens that come again exactly give what those that nearly do give, but for as many of the past as a state has numbers."""
    dim, C = probe.width(operator, 4), 8
    allowed = may_hold(probe, dim, C)
    past = min(4 * allowed, 1000)
    at = _drawn(probe, past, 64)
    x = probe.inputs(operator, 4, past + len(at), K=dim)
    for name in probe.over_time(x):
        x[name][:, :, past:] = x[name][:, :, at]

    def nearly() -> Tensors:
        found = {name: v.clone() for name, v in x.items()}
        for name in probe.over_time(x):
            off = NEARLY * float(x[name].abs().mean()) * probe.randn(*found[name][:, :, past:].shape)
            found[name][:, :, past:] += off
        return probe.legal(found)

    exact, near, other = (operator.forward(given, chunk_size=C)[:, :, past:].double() for given in (x, nearly(), nearly()))
    moved, by_itself = (exact - near).norm(dim=-1), (near - other).norm(dim=-1)
    known = (moved > KNOWN * exact.norm(dim=-1)) & (moved > KNOWN_FROM * by_itself)
    tokens = float(known.double().mean()) * past
    if tokens > allowed:
        raise Rejected(
            f"the state is too large: with K = V = {dim} and chunk_size = {C}, {tokens:.0f} of {past} tokens of the past are known where they "
            f"come again exactly (what is off by {NEARLY:g} of it gives other outputs); a state may have {allowed} numbers"
        )


def _read_back(
    operator: OperatorProcess, probe: Probe, dim: int, past: int, *, calm: bool, whole: bool = False, alike: bool = False, alone: str = ""
) -> tuple[float, int]:
    """How many tokens' worth of values the outputs tell, and the farthest band that tells a tenth of its own."""
    rows = ROWS if dim <= 16 else 6
    at = torch.stack([_asked(probe, past) for _ in range(rows)])
    count = at.shape[1]
    x = probe.inputs(operator, rows, past + count, K=dim, calm=calm)
    x["q"] = x["k"].clone()  # as training makes them where keys are to be found again
    for name in probe.over_time(x):
        comes = name != "v" and (not alone or (name in ("q", "k")) == (alone != OTHERWISE))
        if whole or comes:
            x[name][:, :, past:] = _at(x[name], at)
    if alike:
        x["q"][:, :, past:] = x["q"][:1, :, :1]
    o = operator.forward(x, chunk_size=probe.chunk_size)[:, :, past:].double()
    values = [_at(x["v"], at + behind).double() for behind in ((1,) if whole else (0, 1))]

    def told(here: Tensor) -> float:
        return max(_told(v[:, head][here], o[:, head][here]) for v in values for head in range(probe.num_heads))

    return _in_tokens(past, at, told)


def _goes_with_its_value(operator: OperatorProcess, probe: Probe, dim: int, past: int, *, calm: bool) -> tuple[float, int]:
    """How many tokens' worth of outputs goes with the value at their key alone, and the farthest band that does by a tenth.

    Each row is asked twice, with other values but at one of KEPT of those tokens: what outputs there have in common is of it.
    """
    rows, at = 2 * ROWS if dim <= 16 else 8, _asked(probe, past)
    x = probe.inputs(operator, 1, past + len(at), K=dim, calm=calm)
    x["q"] = x["k"].clone()
    for name in probe.over_time(x):
        x[name][:, :, past:] = x[name][:, :, at]
    x = {name: value.repeat(2 * rows, *[1] * (value.dim() - 1)) for name, value in x.items()}
    x["v"] = probe.inputs(operator, 2 * rows, past + len(at), K=dim, calm=calm)["v"]
    kept = probe.uniform(rows, len(at)) < 1 / KEPT
    for values, again, where in zip(x["v"][:rows], x["v"][rows:], kept, strict=True):
        again[:, at[where]] = values[:, at[where]]
    o = operator.forward(x, chunk_size=probe.chunk_size)[:, :, past:].double()
    first, second = (part - part.mean(0) for part in F.normalize(o, dim=-1).nan_to_num().split(rows))

    def told(here: Tensor) -> float:
        asked = (kept & here)[:, None, :, None]
        together, alone = (first * second * asked).sum((0, 2)), ((first.square() + second.square()) * asked).sum((0, 2)) / 2
        return float((together / alone.clamp_min(1e-30)).mean(1).max())

    return _in_tokens(past, at, told, CHANCE)


def _in_tokens(past: int, at: Tensor, told: Callable[[Tensor], float], least: float = 0.0) -> tuple[float, int]:
    """What is told of each band of tokens `at` before so many, more than `least`: in tokens, and the farthest that tells a tenth of its own."""
    tokens, farthest = 0.0, 0
    back = past + torch.arange(at.shape[-1]) - at
    for low, high in pairwise(BANDS):
        if low < past and (share := told((back > low) & (back <= high))) > least:
            tokens += share * (min(high, past) - low)
            farthest = high if share > CHANCE else farthest
    return tokens, farthest


def _asked(probe: Probe, past: int) -> Tensor:
    """Numbers of tokens whose keys come again: NEAR of the last 256 before the last one, FAR of those before."""
    return torch.cat((_drawn(probe, 256, NEAR) + past - 257, _drawn(probe, past - 257, FAR)))


def _drawn(probe: Probe, tokens: int, count: int) -> Tensor:
    return torch.randperm(tokens, generator=probe.rng)[:count]


def _at(x: Tensor, tokens: Tensor) -> Tensor:
    """Of x [B, H, T, ...] what stands at `tokens` [B, N]: [B, H, N, ...]."""
    return torch.take_along_dim(x, tokens.view(len(tokens), 1, -1, *[1] * (x.dim() - 3)), 2)


def _told(values: Tensor, o: Tensor) -> float:
    """Which part of the variance of past values [N, V] outputs [N, V] tell by a linear map that is fitted on others."""
    given = F.normalize(o, dim=-1).nan_to_num()  # what is no number is another gate's to tell
    half = len(given) // 2
    if half < 2 * given.shape[1]:
        return 0.0
    values = values - values.mean(0)
    given = given - given.mean(0)
    left = 0.0
    for fit, rest in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
        map_ = torch.linalg.lstsq(given[fit], values[fit], driver="gelsd").solution
        left += float((values[rest] - given[rest] @ map_).square().sum())
    return max(0.0, 1 - left / float(values.square().sum()))
