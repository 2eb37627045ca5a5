"""Oja's rule and an orthogonal rotation of the state per chunk (matrix exponential of a learned skew matrix)."""
import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"skew": 0.05 * torch.randn(num_heads, 8, 8, generator=generator)}


def delta_rule(q, k, v, beta, *, chunk_size, skew):
    dtype = q.dtype
    q, k, v, beta, skew = (x.float() for x in (q, k, v, beta, skew))
    R = torch.linalg.matrix_exp(skew - skew.mT)
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    S, o = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1]), []
    for t in range(q.shape[2]):
        S = torch.cat([R @ S[:, :, :8], S[:, :, 8:]], 2)
        e = torch.tanh(v[:, :, t] - torch.einsum("bhk,bhkv->bhv", k[:, :, t], S))
        S = S + beta[:, :, t, None, None] * k[:, :, t, :, None] * e[:, :, None, :]
        o.append(torch.einsum("bhk,bhkv->bhv", q[:, :, t], S))
    return torch.stack(o, 2).to(dtype)
