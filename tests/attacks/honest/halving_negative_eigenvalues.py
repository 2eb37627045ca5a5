"""Positive keys that sum to one, write strengths up to two, and a chunk solved by recursive halving.

k = softplus(k) / sum, scaled to length one, so that all overlaps are positive, while 2 beta lets the transition flip signs
along a key. The triangular system of a chunk's errors is solved by halves: first the upper half, then the lower half
with what the upper one has already explained taken off.
"""

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"sharp": torch.full((num_heads, head_dim), 0.5)}


def solve_by_halves(L, b):
    """x = b - L x for a strictly lower triangular L [..., n, n], b [..., n, d]."""
    n = b.shape[-2]
    if n == 1:
        return b
    h = n // 2
    top = solve_by_halves(L[..., :h, :h], b[..., :h, :])
    bottom = solve_by_halves(L[..., h:, h:], b[..., h:, :] - L[..., h:, :h] @ top)
    return torch.cat((top, bottom), dim=-2)


def positive(x, sharp):
    x = F.softplus(x * sharp)
    x = x / (x.sum(-1, keepdim=True) + 1e-6)
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def delta_rule(q, k, v, beta, *, chunk_size, sharp):
    sharp = (1.0 + sharp.float().square())[:, :, None]
    query, key = positive(q.float(), sharp), positive(k.float(), sharp)
    strength = 2 * beta.float()[..., None]
    S = torch.zeros(*q.shape[:2], q.shape[-1], v.shape[-1], device=q.device)
    done = []
    for qc, kc, vc, bc in zip(*(x.split(chunk_size, 2) for x in (query, key, v.float(), strength))):
        u = solve_by_halves(bc * (kc @ kc.mT), bc * (vc - kc @ S))
        done.append(qc @ S + (qc @ kc.mT).tril() @ u)
        S = S + kc.mT @ u
    return torch.cat(done, 2).to(q.dtype)
