"""Spectral norm constraint on the state.

After each chunk the largest singular value of S is estimated by three steps of power iteration from the last chunk's
vector, and S is scaled back where it exceeds a learned bound: a trust region for the memory.
"""

import torch
import torch.nn.functional as F

POWER_STEPS = 3


def parameters(num_heads, head_dim, generator):
    return {"log_bound": torch.full((num_heads,), 0.0)}


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


def delta_rule(q, k, v, beta, *, chunk_size, log_bound):
    T, dtype = q.shape[2], q.dtype
    q, k, U, W, A = _wy(q, k, v, beta, chunk_size)
    B, H, N, C, K = q.shape
    V = U.shape[-1]
    bound = log_bound.float().exp()[..., None, None]
    S = torch.zeros(B, H, K, V, device=q.device)
    x = torch.full((B, H, V, 1), V**-0.5, device=q.device)
    out = torch.zeros(B, H, N, C, V, device=q.device)
    for n in range(N):
        u = U[:, :, n] - W[:, :, n] @ S
        out[:, :, n] = q[:, :, n] @ S + A[:, :, n] @ u
        S = S + k[:, :, n].mT @ u
        for _ in range(POWER_STEPS):
            y = F.normalize(S @ x, dim=-2, eps=1e-6)
            x = F.normalize(S.mT @ y + 1e-3 * x, dim=-2, eps=1e-6)
        sigma = torch.linalg.vector_norm(S @ x, dim=-2, keepdim=True)
        S = S * torch.clamp(bound / (sigma + 1e-6), max=1.0)
    return out.reshape(B, H, N * C, V)[:, :, :T].to(dtype)
