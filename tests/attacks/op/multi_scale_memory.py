"""Multi-scale linear memory.

The past is held at several time scales: small blocks of four tokens merge into larger ones as in a binary counter, and
each token weighs the scales by learned probes. Recent content is sharp, distant content is coarse.
"""

import torch
import torch.nn.functional as F


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
    return torch.baddbmm(X, X, torch.baddbmm(X, L, X), beta=2, alpha=-1).reshape(shape)


def delta_rule(q, k, v, beta, *, chunk_size, scale_probe):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    leaf = 4
    q, k, v, beta = (to_chunks(x, leaf) for x in (q, k, v, beta[..., None]))
    q = l2norm(q) * K**-0.5
    k = l2norm(k) * beta
    weight = F.softplus(4.0 * K**0.5 * q.flatten(1, 2) @ scale_probe.float().flatten(0, 1)).unflatten(1, (-1, leaf))
    levels, outputs = [], []  # of (level, state), the largest first
    for q_i, k_i, v_i, w_i in zip(q.unbind(1), k.unbind(1), v.unbind(1), weight.unbind(1), strict=True):
        o_i = (q_i @ k_i.mT).tril() @ v_i
        for level, S in levels:
            o_i = o_i + w_i[..., min(level, 11), None] * (q_i @ S)
        outputs.append(o_i)
        level, S = 0, k_i.mT @ v_i
        while levels and levels[-1][0] == level:
            S = S + levels.pop()[1]
            level += 1
        levels.append((level, S))
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)


def parameters(num_heads, head_dim, generator):
    probe = torch.randn(num_heads, head_dim, 12, generator=generator)
    return {"scale_probe": probe * head_dim**-0.5}
