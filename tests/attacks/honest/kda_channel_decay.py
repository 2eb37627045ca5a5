"""Kimi Delta Attention style per-channel decay.

The scalar forget gate of Gated DeltaNet becomes a vector: each key feature has a decay of its own, set by the
token. S_t = (I - beta k k^T) Diag(alpha_t) S_{t-1} + beta k v^T. Channels that hold stale content can be cleared
while others keep it, which should help selective copying and noisy recall.
"""

import torch
import torch.nn.functional as F
from einops import rearrange


def projections(num_heads, head_dim):
    return {"decay": head_dim}


def parameters(num_heads, head_dim, generator):
    return {"A_log": torch.zeros(num_heads), "dt_bias": torch.full((num_heads, 1), -3.0)}


def channel_gate(decay, A_log, dt_bias):
    """Log decay per key channel, in [-1, 0]."""
    rate = A_log.float().exp()[:, :, None, None] * F.softplus(decay.float() + dt_bias.float()[:, :, None])
    return -rate.clamp(max=1.0)


def delta_rule(q, k, v, beta, *, chunk_size, decay, A_log, dt_bias):
    T, K = q.shape[2], q.shape[3]
    out_dtype = q.dtype
    q = F.normalize(q.float(), dim=-1, eps=1e-6) * K ** -0.5
    k = F.normalize(k.float(), dim=-1, eps=1e-6)
    v, beta = v.float(), beta.float().unsqueeze(-1)
    g = channel_gate(decay, A_log, dt_bias)

    pad = (chunk_size - T % chunk_size) % chunk_size
    q, k, v, beta, g = [F.pad(x, (0, 0, 0, pad)) for x in (q, k, v, beta, g)]
    q, k, v, beta, g = [rearrange(x, "b h (n c) d -> b h n c d", c=chunk_size) for x in (q, k, v, beta, g)]
    G = g.cumsum(dim=-2)
    k_in = k * G.exp()
    k_out = k * (-G).exp()
    q_in = q * G.exp()

    M = torch.tril(torch.einsum("bhncd,bhnsd->bhncs", beta * k_in, k_out), diagonal=-1)
    eye = torch.eye(chunk_size, device=q.device, dtype=torch.float32)
    rhs = torch.cat([beta * v, beta * k_in], dim=-1)
    sol = torch.linalg.solve_triangular(M + eye, rhs, upper=False, unitriangular=True)
    U, W = sol.split([v.shape[-1], K], dim=-1)
    attn = torch.tril(torch.einsum("bhncd,bhnsd->bhncs", q_in, k_out))
    k_end = k * (G[..., -1:, :] - G).exp()
    end = G[..., -1, :].exp()

    S = torch.zeros(q.shape[0], q.shape[1], K, v.shape[-1], device=q.device, dtype=torch.float32)
    outs = []
    for i in range(q.shape[2]):
        u = U[:, :, i] - W[:, :, i] @ S
        outs.append(q_in[:, :, i] @ S + attn[:, :, i] @ u)
        S = end[:, :, i].unsqueeze(-1) * S + k_end[:, :, i].transpose(-1, -2) @ u
    o = torch.stack(outs, dim=2)
    return rearrange(o, "b h n c d -> b h (n c) d")[:, :, :T].to(out_dtype)


def recurrence(q_t, k_t, v_t, beta_t, state, decay, A_log, dt_bias):
    K = q_t.shape[-1]
    q = F.normalize(q_t.float(), dim=-1, eps=1e-6) * K ** -0.5
    k = F.normalize(k_t.float(), dim=-1, eps=1e-6)
    v = v_t.float()
    if state is None:
        state = torch.zeros(*k.shape, v.shape[-1], device=k.device)
    alpha = channel_gate(decay.unsqueeze(2), A_log, dt_bias).squeeze(2).exp()
    state = state * alpha.unsqueeze(-1)
    pred = torch.einsum("bhk,bhkv->bhv", k, state)
    state = state + torch.einsum("bhk,bhv->bhkv", k, beta_t.float().unsqueeze(-1) * (v - pred))
    return torch.einsum("bhk,bhkv->bhv", q, state).to(q_t.dtype), state
