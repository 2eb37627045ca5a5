"""Delayed consolidation: what a chunk writes becomes visible two chunks later.

The update of chunk n waits in a buffer while chunk n + 1 is read, and enters the state before chunk n + 2. Recent
tokens are read within their chunk alone; the delay imitates hippocampal consolidation and decouples the two memories.
"""

import torch
import torch.nn.functional as F


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


def delta_rule(q, k, v, beta, *, chunk_size):
    T, dtype = q.shape[2], q.dtype
    q, k, U, W, A = _wy(q, k, v, beta, chunk_size)
    visible = torch.zeros(*q.shape[:2], q.shape[-1], U.shape[-1], device=q.device)
    pending = torch.zeros_like(visible)
    outs = []
    for i in range(q.shape[2]):
        u = U[:, :, i] - W[:, :, i] @ visible
        outs.append(q[:, :, i] @ visible + A[:, :, i] @ u)
        visible, pending = 0.98 * (visible + pending), 0.3 * (k[:, :, i].mT @ u)
    return torch.cat(outs, dim=2)[:, :, :T].to(dtype)
