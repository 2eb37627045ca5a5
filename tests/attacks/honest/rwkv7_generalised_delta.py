"""RWKV-7 style generalised delta rule with separate removal and replacement keys.

S <- S (diag(w) + a^T b) + v^T k with a = -kappa, b = kappa * icl_rate: the key that is removed (kappa) is not the
one that is written, w is a per-channel decay exp(-exp(-0.5) sigmoid(d)), and the in-context rate is a vector.
"""

import math

import torch
import torch.nn.functional as F

LOG_DECAY_SCALE = -math.exp(-0.5)


def projections(num_heads, head_dim):
    return {"w": head_dim}


def parameters(num_heads, head_dim, generator):
    ramp = torch.linspace(-6.0, 1.0, head_dim).expand(num_heads, head_dim).clone()
    return {
        "w0": ramp,
        "k_k": torch.full((num_heads, head_dim), 0.85),
        "k_a": torch.ones(num_heads, head_dim),
        "r_k": 0.1 * torch.randn(num_heads, head_dim, generator=generator),
    }


def delta_rule(q, k, v, beta, *, chunk_size, w, w0, k_k, k_a, r_k):
    dtype = q.dtype
    B, H, T, K = q.shape
    w0, k_k, k_a, r_k = (p.float().unsqueeze(2) for p in (w0, k_k, k_a, r_k))
    r, k, v = q.float(), k.float(), v.float()
    r = F.normalize(r, dim=-1, eps=1e-6)
    k = F.normalize(k, dim=-1, eps=1e-6)
    a = beta.float().unsqueeze(-1)  # in-context learning rate
    w = torch.exp(LOG_DECAY_SCALE * torch.sigmoid(w0 + w.float()))
    kappa = F.normalize(k * k_k, dim=-1, eps=1e-6)
    k = k * (1 + (a - 1) * k_a.sigmoid())

    S = v.new_zeros(B, H, v.shape[-1], K)
    out = []
    for t in range(T):
        sa = torch.einsum("bhvk,bhk->bhv", S, -kappa[:, :, t])
        S = (
            S * w[:, :, t, None, :]
            + sa[..., :, None] * (kappa[:, :, t] * a[:, :, t])[..., None, :]
            + v[:, :, t, :, None] * k[:, :, t, None, :]
        )
        y = torch.einsum("bhvk,bhk->bhv", S, r[:, :, t])
        out.append(y)
    y = torch.stack(out, dim=2)
    bonus = (r * k * r_k).sum(-1, keepdim=True) * v
    return (y * K**-0.5 + bonus).to(dtype)
