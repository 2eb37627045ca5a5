"""Muon: the chunk's update is orthogonalised by Newton-Schulz before it is written.

All singular values of k^T u are pushed towards one, so that no direction of a chunk dominates the state. Scaled by the
update's root mean square singular value, so that empty chunks write nothing.
"""

import torch
import torch.nn.functional as F

NS_COEFFS = (3.4445, -4.7750, 2.0315)
NS_STEPS = 5
KEEP = 0.95


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


def zeropower_via_newtonschulz(G, steps=NS_STEPS):
    a, b, c = NS_COEFFS
    transposed = G.size(-2) > G.size(-1)
    X = G.mT if transposed else G
    norm = torch.sqrt((X * X).sum(dim=(-2, -1), keepdim=True) + 1e-6)
    X = X / norm
    for _ in range(steps):
        XXt = X @ X.mT
        X = a * X + (b * XXt + c * XXt @ XXt) @ X
    X = X.mT if transposed else X
    return X * norm / min(G.size(-2), G.size(-1)) ** 0.5


def delta_rule(q, k, v, beta, *, chunk_size):
    T, dtype = q.shape[2], q.dtype
    q, k, U, W, A = _wy(q, k, v, beta, chunk_size)
    S = torch.zeros(*q.shape[:2], q.shape[-1], U.shape[-1], device=q.device)
    outs = []
    for q_i, k_i, U_i, W_i, A_i in zip(*(x.unbind(2) for x in (q, k, U, W, A))):
        u = U_i - W_i @ S
        outs.append(q_i @ S + A_i @ u)
        S = KEEP * S + zeropower_via_newtonschulz(k_i.mT @ u)
    return torch.cat(outs, dim=2)[:, :, :T].to(dtype)
