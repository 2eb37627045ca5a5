"""The gate on chunks: they are as wide as the protocol says, at the beginning and far on."""

import torch

from evaluator.gates.probe import Probe, Rejected, Tensors, apart
from evaluator.gates.rank import carried
from evaluator.gates.rounding import another_shape
from evaluator.gates.state import of_one_past
from evaluator.operator import OperatorProcess

FEW_BITS = 0.05
"""Of the largest output: what is kept in few bits differs by less between chunk sizes, what looks at other tokens by more."""


def chunk(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """chunk_size is part of the protocol: an operator whose function has chunks uses the ones it is given, whatever the size of its heads.

    Far on too, behind tokens of nothing. As wider chunks may begin anywhere there, two places half a chunk of 64 apart are asked.
    """
    x, width = probe.inputs(operator, 2, 256), probe.width(operator, 8)
    invariant = _invariant(operator, probe, x)
    small = [probe.inputs(operator, 2, 256, K=width) for _ in range(2)]  # two draws must fail
    if invariant and all(_only_here(operator, probe, y) for y in small):
        raise Rejected(
            f"the outputs are the same for every chunk_size where heads have {probe.head_dim} features, and not where they have "
            f"{width}: the width of a chunk is chunk_size, whatever the size of the heads"
        )
    quick = probe.properties.get("milliseconds_a_token", 0.0) < 1
    far = [64 * probe.randint(low, high) + at for low, high in ((5, 8), (14, 15)) for at in (0, 32)] if quick else []
    invariant = invariant and all(_invariant(operator, probe, _behind(probe, x, before)) for before in far[-1:])
    for before in () if invariant else (0, *far):
        wider = _wider(operator, probe, x, before)
        if wider and (_holds_a_wider_chunk(operator, probe, before) or not any(_wider(operator, probe, y, before) for y in small)):
            raise Rejected(
                f"64 tokens {f'behind {before} of nothing' if before else 'at the beginning'} are the same with chunk_size 32 and 64, and 32 empty "
                "tokens in front change what follows while a larger number of them does not: chunks are wider than chunk_size"
            )
    return {"chunk_invariant": invariant}


def _invariant(operator: OperatorProcess, probe: Probe, x: Tensors) -> bool:
    moved, allowed = _by_chunk_size(operator, probe, x)
    return moved <= allowed


def _only_here(operator: OperatorProcess, probe: Probe, small: Tensors) -> bool:
    """Whether outputs for these inputs of small heads go with chunk_size, and not for the same tiled to the trainer's, as alike as those."""
    moved, allowed = _by_chunk_size(operator, probe, small)
    if moved <= max(FEW_BITS, allowed):
        return False
    tiled = probe.inputs(operator, 2, 256) | {"beta": small["beta"]}
    tiled |= {n: small[n].repeat(1, 1, 1, -(-probe.head_dim // small[n].shape[3]))[..., : probe.head_dim] for n in ("q", "k", "v")}
    return _invariant(operator, probe, tiled)


def _by_chunk_size(operator: OperatorProcess, probe: Probe, x: Tensors) -> tuple[float, float]:
    """How far outputs for other chunk sizes are from those for 32 tokens, and how far rounding takes them."""
    # None is larger than the trainer's: what may grow by a factor in every token of a chunk ends there.
    o = {c: operator.forward(x, chunk_size=c) for c in (8, 16, 32)}
    return max(apart(o[c], o[32]) for c in o), another_shape(operator, probe, x, o[32])


def _behind(probe: Probe, x: Tensors, count: int) -> Tensors:
    """The same behind `count` tokens of nothing."""
    return {n: torch.cat((v.new_zeros(*v.shape[:2], count, *v.shape[3:]), v), 2) if n in probe.over_time(x) else v for n, v in x.items()}


def _wider(operator: OperatorProcess, probe: Probe, x: Tensors, before: int) -> bool:
    """Whether chunks of 32 act as chunks of 64 or more for x behind so many tokens of nothing: it then begins anew every so many tokens."""
    start, whole = (_behind(probe, y, before) for y in (probe.until(x, 64), x))
    first, second = (operator.forward(start, chunk_size=c) for c in (32, 64))
    if apart(second, first) > another_shape(operator, probe, start, first):
        return False
    o = operator.forward(whole, chunk_size=32)
    allowed = another_shape(operator, probe, whole, o)

    def unmoved_by(count: int) -> bool:
        """By so many more of them."""
        return apart(operator.forward(_behind(probe, whole, count), chunk_size=32)[:, :, before + count :], o[:, :, before:]) <= allowed

    return not unmoved_by(32) and any(unmoved_by(count) for count in (64, 128, 256, 512))


def _holds_a_wider_chunk(operator: OperatorProcess, probe: Probe, before: int) -> bool:
    """Whether more is held in the middle of a second chunk than 4 K V and its own tokens: a clock over chunks alone holds no more."""
    dim, C = probe.width(operator, 4), 32
    past, most = before + C + C // 2, 4 * dim * dim + C // 2 * 2 * dim
    x = of_one_past(operator, probe, dim, past, 80)
    return carried(operator, probe, x, past, C, most + 8, probe.a_head(), tokens=slice(before, None)) > most
