"""Complex-valued decay: keys and queries rotate by accumulated, data-dependent angles.

Pairs of features are complex numbers; a token advances each pair's phase by a projected angle, as in Mamba-3 and in
selective RoPE, so that the state's transition is a decayed rotation. What is odd at the end stays as it is.
"""

import math

import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"theta": head_dim // 2, "rho": 1}


def rotate(x, angle):
    half = angle.shape[-1]
    x1, x2, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((x1 * cos - x2 * sin, x1 * sin + x2 * cos, rest), dim=-1)


def delta_rule(q, k, v, beta, *, chunk_size, theta, rho):
    B, H, T, K = q.shape
    V = v.shape[-1]
    phase = torch.cumsum(math.pi * torch.tanh(theta.float()) / 8, dim=2)
    phase = torch.remainder(phase, 2 * math.pi)
    q_ = rotate(F.normalize(q.float(), dim=-1, eps=1e-6), phase) / math.sqrt(K)
    k_ = rotate(F.normalize(k.float(), dim=-1, eps=1e-6), phase)
    g = F.logsigmoid(rho.float() + 5)

    C = chunk_size
    padded = lambda x: F.pad(x.float(), (0, 0, 0, -T % C)).view(B, H, -1, C, x.shape[-1])
    q_, k_, v_, b_, g = map(padded, (q_, k_, v, beta.unsqueeze(-1), g))
    G = torch.cumsum(g, dim=3)
    D = torch.exp((G - G.mT).masked_fill(torch.ones(C, C, device=q.device).triu(1).bool(), -math.inf))
    N = (b_ * (k_ @ k_.mT) * D).tril(-1)
    R = torch.linalg.solve_triangular(torch.eye(C, device=q.device) + N, torch.cat([b_ * v_, b_ * G.exp() * k_], -1), upper=False)
    U, W = torch.split(R, [V, K], dim=-1)
    A = (q_ @ k_.mT) * D
    Q, E = q_ * G.exp(), k_ * (G[..., -1:, :] - G).exp()
    S = torch.zeros(B, H, K, V, device=q.device)
    outs = []
    for n in range(Q.shape[2]):
        u = U[:, :, n] - W[:, :, n] @ S
        outs.append(Q[:, :, n] @ S + A[:, :, n] @ u)
        S = G[:, :, n, -1:].exp() * S + E[:, :, n].mT @ u
    return torch.cat(outs, 2)[:, :, :T].to(q.dtype)
