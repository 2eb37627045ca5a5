"""Surprise-gated writes: of each chunk only the four most surprising tokens reach the state.

Within the chunk all errors are used; when it ends, the tokens whose error norm is among the top WRITES are written in
full and the others damped. Redundant tokens no longer wear out the state.
"""

import torch
import torch.nn.functional as F

WRITES = 4
DAMP = 0.1


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
    S = torch.zeros(*q.shape[:2], q.shape[-1], U.shape[-1], device=q.device)
    outs = []
    for i in range(q.shape[2]):
        u = U[:, :, i] - W[:, :, i] @ S
        outs.append(q[:, :, i] @ S + A[:, :, i] @ u)
        surprise = u.pow(2).sum(-1)
        top = surprise.topk(min(WRITES, surprise.shape[-1]), dim=-1).indices
        keep = torch.full_like(surprise, DAMP).scatter(-1, top, 1.0)
        S = S + k[:, :, i].mT @ (u * keep.unsqueeze(-1))
    return torch.cat(outs, dim=2)[:, :, :T].to(dtype)
