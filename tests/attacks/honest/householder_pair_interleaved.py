"""DeltaProduct with two factors a token: first a reflection, then an ordinary delta step along a second key.

The micro steps of a token are interleaved into a sequence of twice the length; the first factor I - 2 beta k k^T has
eigenvalues down to -1. A chunk of chunk_size tokens is solved by one triangular solve over its 2 chunk_size micro steps.
The result does not depend on the chunks.
"""

import torch
import torch.nn.functional as F
from einops import rearrange


def parameters(num_heads, head_dim, generator):
    return {
        "second_key": torch.randn(num_heads, head_dim, head_dim, generator=generator) * head_dim**-0.5,
        "second_value": torch.full((num_heads,), 0.5),
    }


def unit(x):
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)


def interleave(first, second, c):
    return rearrange([first, second], "two b h (n c) d -> n b h (c two) d", c=c)


def delta_rule(q, k, v, beta, *, chunk_size, second_key, second_value):
    T, K, C, dtype = q.shape[2], q.shape[3], chunk_size, q.dtype
    q, k, v, b = (F.pad(x.float(), (0, 0, 0, -T % C)) for x in (q, k, v, beta[..., None]))
    keys = interleave(unit(k), unit(k @ second_key.float()), C)
    values = interleave(v, v * second_value.float()[..., None, None], C)
    rates = interleave(2 * b, b, C)
    q = rearrange(unit(q) * K**-0.5, "b h (n c) d -> n b h c d", c=C)
    system = torch.eye(2 * C, device=q.device) + (rates * keys @ keys.mT).tril(-1)
    both = torch.cat((rates * values, rates * keys), -1)
    U, W = torch.linalg.solve_triangular(system, both, upper=False, unitriangular=True).split((v.shape[-1], K), -1)
    micro = torch.arange(2 * C, device=q.device)
    seen = micro <= 2 * torch.arange(C, device=q.device)[:, None] + 1  # a token reads after both of its micro steps
    A = torch.where(seen, q @ keys.mT, 0.0)
    S = torch.zeros(*q.shape[1:3], K, v.shape[-1], device=q.device)
    outputs = []
    for n in range(len(q)):
        error = U[n] - W[n] @ S
        outputs.append(q[n] @ S + A[n] @ error)
        S = S + keys[n].mT @ error
    return torch.cat(outputs, 2)[:, :, :T].to(dtype)
