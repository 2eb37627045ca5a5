"""The delta rule with a row-wise forgetting at chunk ends, parallel over chunks as well.

A chunk acts on the state as an affine map S -> M S + b. All maps are found at once, and their prefix compositions by
recursive doubling, (M2, b2) o (M1, b1) = (M2 M1, M2 b1 + b2), in log2(T / chunk_size) rounds instead of a loop over
chunks. After each chunk the state is multiplied by a learned diagonal. State: K V.
"""

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"row_keep": torch.full((num_heads, head_dim), 3.0)}


def compose(M1, b1, M2, b2):
    """First (M1, b1), then (M2, b2)."""
    return M2 @ M1, M2 @ b1 + b2


def prefixes(M, b):
    """Inclusive prefix compositions over dim 0."""
    distance = 1
    while distance < M.shape[0]:
        M_new, b_new = compose(M[:-distance], b[:-distance], M[distance:], b[distance:])
        M, b = torch.cat([M[:distance], M_new]), torch.cat([b[:distance], b_new])
        distance += distance
    return M, b


def delta_rule(q, k, v, beta, *, chunk_size, row_keep):
    B, H, T, K = q.shape
    V, C = v.shape[-1], chunk_size
    length = -(-T // C) * C
    q_n, k_n = (x.float() * torch.rsqrt(x.float().pow(2).sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    b_ = beta.float()[..., None]
    parts = []
    for x in (q_n * K**-0.5, k_n, b_ * k_n, b_ * v.float()):
        parts.append(F.pad(x, (0, 0, 0, length - T)).reshape(B, H, length // C, C, -1).permute(2, 0, 1, 3, 4))
    qs, ks, bk, bv = parts
    lower = (bk @ ks.mT).tril(-1) + torch.eye(C, device=q.device)
    WU = torch.linalg.solve_triangular(lower, torch.cat((bk, bv), -1), upper=False, unitriangular=True)
    W, U = WU[..., :K], WU[..., K:]
    keep = torch.sigmoid(row_keep.float())[..., None]
    M = keep * (torch.eye(K, device=q.device) - ks.mT @ W)
    b = keep * (ks.mT @ U)
    _, S = prefixes(M, b)
    S = torch.cat((torch.zeros_like(S[:1]), S[:-1]))  # before each chunk
    o = qs @ S + (qs @ ks.mT).tril() @ (U - W @ S)
    return o.permute(1, 2, 0, 3, 4).reshape(B, H, length, V)[:, :, :T].to(q.dtype)
