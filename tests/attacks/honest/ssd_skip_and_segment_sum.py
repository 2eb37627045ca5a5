"""Mamba-2 (SSD): one scalar decay a head and token, written with segment sums.

S <- exp(a_t) S + dt_t k_t (beta_t v_t)^T, o = q S + D v, where a_t = -exp(A_log) dt_t and dt_t is a softplus of a
projection. Inside a chunk the mask of decays is the exponential of a segment sum; between chunks one state is carried.
"""

import torch
import torch.nn.functional as F
from einops import rearrange


def projections(num_heads, head_dim):
    return {"dt": 1}


def parameters(num_heads, head_dim, generator):
    return {
        "A_log": torch.linspace(-3.0, 0.5, num_heads),
        "dt_bias": torch.full((num_heads,), -1.0),
        "D": torch.ones(num_heads),
    }


def segsum(x):
    """[..., C] -> [..., C, C]: entry (i, j) is x_{j+1} + ... + x_i, minus infinity above the diagonal."""
    C = x.shape[-1]
    ones = torch.ones(C, C, dtype=torch.bool, device=x.device)
    x = x[..., :, None].expand(*x.shape, C).masked_fill(~ones.tril(-1), 0.0)
    return x.cumsum(-2).masked_fill(~ones.tril(), float("-inf"))


def delta_rule(q, k, v, beta, *, chunk_size, dt, A_log, dt_bias, D):
    T, K, dtype = q.shape[2], q.shape[3], q.dtype
    q, k, v, beta, dt = (x.float() for x in (q, k, v, beta, dt))
    step = F.softplus(dt[..., 0] + dt_bias.float()[..., None])
    a = -A_log.float().exp()[..., None] * step
    skip = D.float()[..., None, None] * v
    x = v * (beta * step)[..., None]
    pad = -T % chunk_size
    q, k, x = (rearrange(F.pad(y, (0, 0, 0, pad)), "b h (n c) d -> n b h c d", c=chunk_size) for y in (q * K**-0.5, k, x))
    a = rearrange(F.pad(a, (0, pad)), "b h (n c) -> n b h c", c=chunk_size)
    mask = segsum(a).exp()
    diagonal = torch.einsum("nbhik,nbhjk,nbhij,nbhjv->nbhiv", q, k, mask, x)
    total = a.cumsum(-1)
    written = torch.einsum("nbhck,nbhc,nbhcv->nbhkv", k, (total[..., -1:] - total).exp(), x)
    read = q * total.exp()[..., None]
    state, carried = torch.zeros_like(written[0]), []
    for n in range(q.shape[0]):
        carried.append(read[n] @ state)
        state = total[n, ..., -1].exp()[..., None, None] * state + written[n]
    y = rearrange(diagonal + torch.stack(carried), "n b h c v -> b h (n c) v")[:, :, :T]
    return (y + skip).to(dtype)
