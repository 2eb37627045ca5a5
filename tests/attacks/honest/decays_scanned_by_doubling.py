"""Gated delta rule whose cumulative decays come from a scan by doubling, as GPUs make them.

Sums of such a scan round on their own, so that one may exceed an earlier one: at a log decay of -1e10 a difference is
+1000, its exponential is infinite, and infinity times zero reaches tokens before. No size that trains comes near.
"""

import math

import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"a": 1, "output_gate": head_dim}


def parameters(num_heads, head_dim, generator):
    uniform = torch.rand(2, num_heads, generator=generator)
    dt = torch.exp(math.log(1e-3) + uniform[1] * math.log(1e-1 / 1e-3)).clamp(min=1e-4)
    return {"A_log": torch.log(16 * (1 - uniform[0])), "dt_bias": dt + torch.log(-torch.expm1(-dt))}


def log_decay(a, A_log, dt_bias):
    """a [B, H, T, 1], A_log and dt_bias [B, H] -> g <= 0, [B, H, T, 1]."""
    return -A_log.float().exp()[..., None, None] * F.softplus(a.float() + dt_bias.float()[..., None, None])


def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def invert_unit_lower(L):
    """(I + L)^-1, L [..., C, C] strictly lower triangular: inverts diagonal blocks of 1, 2, 4 .. C rows."""
    C, shape = L.shape[-1], L.shape
    row = torch.arange(C, device=L.device)
    apart = row[:, None] ^ row  # apart >> s == 1: in one block of 2^(s+1) rows, in different halves of it
    L = L.reshape(-1, C, C)
    X = torch.eye(C, device=L.device) - L.detach() * (apart == 1)
    for s in range(1, (C - 1).bit_length()):
        X = torch.where(apart >> s == 1, -(X @ L.detach() @ X), X)
    # A last Newton step, X <- 2 X - X (I + L) X: it sharpens X and carries the gradient, in two products.
    return torch.baddbmm(X, X, torch.baddbmm(X, L, X), beta=2, alpha=-1).reshape(shape)


def scan(g):
    """Cumulative sums over dim -2, by doubling."""
    step = 1
    while step < g.shape[-2]:
        g = torch.cat([g[..., :step, :], g[..., step:, :] + g[..., :-step, :]], dim=-2)
        step *= 2
    return g


def delta_rule(q, k, v, beta, *, chunk_size, a, A_log, dt_bias):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    g = log_decay(a, A_log, dt_bias)
    q, k, v, beta, g = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None], g))  # [B * H, N, C, .]

    # Normalisation of q and k.
    q = l2norm(q) * K**-0.5
    k = l2norm(k)

    # What does not depend on the state, for all chunks at once.
    g = scan(g)
    decay = g.exp()  # from the start of the chunk to a token
    decay_between = (g - g.mT).tril().exp()  # from token j to token i >= j
    decay_to_end = (g[..., -1:, :] - g).exp()
    k_beta = k * beta
    T_inv = invert_unit_lower((k_beta @ k.mT * decay_between).tril(-1))  # [B * H, N, C, C]
    U = T_inv @ (v * beta)
    W = T_inv @ (k_beta * decay)
    A = (q @ k.mT * decay_between).tril()  # intra-chunk weights
    q = q * decay
    k = k * decay_to_end
    decay = decay[..., -1:, :]  # of the whole chunk

    S = v.new_zeros(B * H, K, V)  # state
    outputs = []
    for q_i, k_i, U_i, W_i, A_i, decay_i in zip(*(x.unbind(1) for x in (q, k, U, W, A, decay)), strict=True):
        u_i = U_i - W_i @ S  # error
        o_i = q_i @ S + A_i @ u_i  # output
        S = S * decay_i + k_i.mT @ u_i  # state update
        outputs.append(o_i)
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
