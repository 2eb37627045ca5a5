"""an associative scan by a tree over chunk states (log N levels), scalar decays, gated linear attention inside chunks"""
import math

import torch
import torch.nn.functional as F


from typing import NamedTuple

Pair = NamedTuple("Pair", (("decay", torch.Tensor), ("state", torch.Tensor)))


def combine(a: Pair, b: Pair) -> Pair:
    return Pair(a.decay * b.decay, b.decay[..., None, None] * a.state + b.state)


def inclusive(x: Pair) -> Pair:
    """Blelloch: pairs, the scan of the pairs, and back."""
    n = x.decay.shape[2]
    if n == 1:
        return x
    even, odd = (Pair(*(y[:, :, s : n // 2 * 2 : 2] for y in x)) for s in (0, 1))
    odds = inclusive(combine(even, odd))
    shifted = Pair(*(y[:, :, : (n - 1) // 2] for y in odds))
    evens = combine(shifted, Pair(*(y[:, :, 2::2] for y in x)))
    first = Pair(*(y[:, :, :1] for y in x))
    evens = Pair(*(torch.cat(p, 2) for p in zip(first, evens)))
    out = []
    for e, o in zip(evens, odds):
        both = e.new_zeros(*e.shape[:2], n, *e.shape[3:])
        both[:, :, 0::2], both[:, :, 1::2] = e, o
        out.append(both)
    return Pair(*out)


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, _ = q.shape
    dtype, C = q.dtype, chunk_size
    g = F.logsigmoid(4 * beta.float() + 1)[..., None]
    q, k, v, g = (F.pad(x.float(), (0, 0, 0, -T % C)).unflatten(2, (-1, C)) for x in (q, k, v, g))
    q, k, g = F.normalize(q, dim=-1, eps=1e-6), F.normalize(k, dim=-1, eps=1e-6), g.cumsum(-2)
    D = torch.exp((g - g.mT).masked_fill(torch.ones(C, C, dtype=torch.bool, device=q.device).triu(1), float("-inf")))
    last = g[:, :, :, -1:]
    scanned = inclusive(Pair(last[..., 0, 0].exp(), (k * (last - g).exp()).mT @ v))
    before = F.pad(scanned.state, (0, 0, 0, 0, 1, -1))
    return ((q @ k.mT * D) @ v + (q * g.exp()) @ before).flatten(2, 3)[:, :, :T].to(dtype)
