"""Mamba-2 / SSD: scalar-identity state space duality, with a skip connection.

h_t = exp(dt A) h_{t-1} + dt B x^T, y = C h + D x, computed by the segment-sum form. The error term of the delta rule
is dropped: what it does for recall is what we want to see.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, einsum


def projections(num_heads, head_dim):
    return {"dt": 1}


def parameters(num_heads, head_dim, generator):
    A = 1 + 15 * torch.rand(num_heads, generator=generator)
    return {"A_log": A.log(), "D": torch.ones(num_heads), "dt_bias": torch.full((num_heads,), -4.0)}


def segsum(x):
    """Sums of x over (j, i] for i >= j, -inf above the diagonal."""
    T = x.size(-1)
    cs = torch.cumsum(x, dim=-1)
    out = cs[..., :, None] - cs[..., None, :]
    mask = torch.tril(torch.ones(T, T, device=x.device, dtype=torch.bool))
    return out.masked_fill(~mask, -torch.inf)


def delta_rule(q, k, v, beta, *, chunk_size, dt, A_log, D, dt_bias):
    b, h, T, K = q.shape
    dtype = q.dtype
    dt = F.softplus(dt.float().squeeze(-1) + dt_bias.float()[..., None])
    A = -A_log.float().exp()[..., None] * dt
    C = F.normalize(q.float(), dim=-1) * K**-0.5
    Bm = F.normalize(k.float(), dim=-1)
    x0 = v.float()
    x = x0 * (dt * beta.float()).unsqueeze(-1)

    pad = -T % chunk_size
    C, Bm, x = (rearrange(F.pad(z, (0, 0, 0, pad)), "b h (c l) n -> b h c l n", l=chunk_size) for z in (C, Bm, x))
    A = rearrange(F.pad(A, (0, pad)), "b h (c l) -> b h c l", l=chunk_size)
    A_cumsum = torch.cumsum(A, dim=-1)

    L = torch.exp(segsum(A))
    Y_diag = torch.einsum("bhcln,bhcsn,bhcls,bhcsp->bhclp", C, Bm, L, x)
    decay_states = torch.exp(A_cumsum[..., -1:] - A_cumsum)
    states = torch.einsum("bhcln,bhcl,bhclp->bhcnp", Bm, decay_states, x)

    h_state = torch.zeros_like(states[:, :, 0])
    prev = []
    for c in range(states.shape[2]):
        prev.append(h_state)
        h_state = h_state * torch.exp(A_cumsum[:, :, c, -1])[..., None, None] + states[:, :, c]
    prev = torch.stack(prev, dim=2)
    Y_off = einsum(C, prev, torch.exp(A_cumsum), "b h c l n, b h c n p, b h c l -> b h c l p")
    Y = rearrange(Y_diag + Y_off, "b h c l p -> b h (c l) p")[:, :, :T]
    return (Y + D.float()[..., None, None] * x0).to(dtype)
