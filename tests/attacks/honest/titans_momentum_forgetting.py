"""Titans: surprise with momentum and forgetting, token by token.

M <- eta M + theta k (v - k S)^T, S <- (1 - alpha) S + M with eta, theta, alpha from a projection of the input and beta.
A surprise goes on being written for some tokens after it: what follows a key is tied to it.
"""

import torch
import torch.nn.functional as F

def projections(num_heads, head_dim):
    return {"gates": 3}


def parameters(num_heads, head_dim, generator):
    return {"bias": torch.tensor([0.0, 2.0, -5.0]).repeat(num_heads, 1)}


def delta_rule(q, k, v, beta, *, chunk_size, gates, bias):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    q = F.normalize(q.float(), dim=-1, eps=1e-6) * K**-0.5
    k = F.normalize(k.float(), dim=-1, eps=1e-6)
    eta, theta, alpha = torch.sigmoid(gates.float() + bias.float()[:, :, None]).unbind(-1)
    theta = theta * beta.float()
    S = M = torch.zeros(B, H, K, V, device=q.device)
    outputs = []
    for start in range(0, T, chunk_size):
        for t in range(start, min(start + chunk_size, T)):
            k_t, q_t = k[:, :, t, :, None], q[:, :, t, None]
            surprise = v[:, :, t, None].float() - k_t.mT @ S
            M = eta[:, :, t, None, None] * M * 0.9 + theta[:, :, t, None, None] * (k_t * surprise)
            S = (1 - alpha[:, :, t, None, None]) * S + M
            outputs.append(q_t @ S)
    return torch.cat(outputs, dim=2).to(dtype)
