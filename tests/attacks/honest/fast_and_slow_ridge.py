"""Two time scales: a fast delta rule that fades, and a slow memory that is a ridge regression, solved at chunk ends.

Statistics G = sum beta k k^T and M = sum beta k v^T are added up once a chunk; the slow weights of a chunk are
(G + lambda I)^-1 M by a Cholesky solve. The fast state learns, token by token in chunk form, what the slow weights leave
unexplained, and shrinks by a learned factor after each chunk. A sequence of one chunk has no slow memory yet, and
takes a shorter way. State: K K + 2 K V, and the chunk.
"""

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"ridge": torch.zeros(num_heads), "shrink": torch.full((num_heads,), 1.0)}


def inverse(L):
    """(I + L)^-1, by doubling where the chunk is a power of two, else by a solve."""
    C = L.shape[-1]
    eye = torch.eye(C, device=L.device)
    if C & (C - 1):
        return torch.linalg.solve_triangular(eye + L, eye.expand_as(L), upper=False, unitriangular=True)
    X, i, half = eye.expand_as(L), torch.arange(C, device=L.device), 1
    while half < C:
        pair = (i[:, None] // (2 * half) == i // (2 * half)) & (i[:, None] // half > i // half)
        X = X - X @ (L * pair) @ X
        half *= 2
    return X


def fast_chunk(q, k, target, beta, S):
    u = inverse((beta * (k @ k.mT)).tril(-1)) @ (beta * (target - k @ S))
    return q @ S + (q @ k.mT).tril() @ u, S + k.mT @ u


def delta_rule(q, k, v, beta, *, chunk_size, ridge, shrink):
    B, H, T, K = q.shape
    dtype, V = q.dtype, v.shape[-1]
    q, k = (x.float() * torch.rsqrt(x.float().square().sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    v, beta = v.float(), beta.float()[..., None]
    S = torch.zeros(B, H, K, V, device=q.device)
    if T <= chunk_size:
        return fast_chunk(q, k, v, beta, S)[0].to(dtype)
    q, k, v, beta = (F.pad(x, (0, 0, 0, -T % chunk_size)).split(chunk_size, dim=2) for x in (q, k, v, beta))
    G = torch.zeros(B, H, K, K, device=q[0].device)
    G, M = G + torch.diag_embed((F.softplus(ridge.float()) + 0.1)[..., None].expand(B, H, K)), S
    out = []
    for n, (qc, kc, vc, bc) in enumerate(zip(q, k, v, beta)):
        slow = torch.cholesky_solve(M, torch.linalg.cholesky(G)) if n else M
        o, S = fast_chunk(qc, kc, vc - kc @ slow, bc, S)
        out.append(o + qc @ slow)
        S = S * torch.sigmoid(shrink.float())[..., None, None]
        G, M = G + kc.mT @ (bc * kc), M + kc.mT @ (bc * vc)
    return torch.cat(out, dim=2)[:, :, :T].to(dtype)
