"""Forget gate from the error norm, clipped errors.

A chunk whose errors are large compared with its values tells that the state is stale: the state is multiplied by
exp(-rate * relative error) when the chunk ends. Errors are clipped to a norm of three before they are written.
"""

import torch
import torch.nn.functional as F

MAX_NORM = 3.0


def parameters(num_heads, head_dim, generator):
    return {"rate": torch.full((num_heads,), -2.0)}


def _chunk(x, C):
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % C)).reshape(B, H, -1, C, D)


def _wy(q, k, v, beta, C):
    """Chunked q, k and the WY factors U, W and the intra-chunk weights A."""
    q = F.normalize(q.float(), dim=-1, eps=1e-6) * q.shape[-1] ** -0.5
    k = F.normalize(k.float(), dim=-1, eps=1e-6)
    q, k, v, b = _chunk(q, C), _chunk(k, C), _chunk(v, C), _chunk(beta[..., None], C)
    L = (b * k @ k.mT).tril(-1) + torch.eye(C, device=q.device)
    U = torch.linalg.solve_triangular(L, b * v, upper=False, unitriangular=True)
    W = torch.linalg.solve_triangular(L, b * k, upper=False, unitriangular=True)
    return q, k, U, W, (q @ k.mT).tril()


def delta_rule(q, k, v, beta, *, chunk_size, rate):
    T, dtype = q.shape[2], q.dtype
    size = _chunk(v, chunk_size).pow(2).mean(dim=(-2, -1), keepdim=True)
    q, k, U, W, A = _wy(q, k, v, beta, chunk_size)
    rate = F.softplus(rate.float())[:, :, None, None]
    S = torch.zeros(*q.shape[:2], q.shape[-1], U.shape[-1], device=q.device)
    outs = []
    for i in range(q.shape[2]):
        u = U[:, :, i] - W[:, :, i] @ S
        norm = torch.sqrt(u.pow(2).sum(-1, keepdim=True) + 1e-6)
        u = u * (MAX_NORM / norm).clamp(max=1.0)
        outs.append(q[:, :, i] @ S + A[:, :, i] @ u)
        rel = u.pow(2).mean(dim=(-2, -1), keepdim=True) / (size[:, :, i] + 1e-3)
        S = S * torch.exp(-rate * rel.clamp(max=4.0)) + k[:, :, i].mT @ u
    return torch.cat(outs, dim=2)[:, :, :T].to(dtype)
