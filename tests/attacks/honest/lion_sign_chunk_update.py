"""Lion as the optimiser of the state.

A chunk's update G = k^T u is folded into a momentum, and the state moves by the sign of their interpolation, with
decoupled weight decay. Steps are of one size, which should make rare writes as strong as frequent ones.
"""

import torch
import torch.nn.functional as F

BETA1, BETA2 = 0.9, 0.99
LR, WEIGHT_DECAY = 0.02, 0.5


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
    m = torch.zeros_like(S)
    outs = []
    for i in range(q.shape[2]):
        u = U[:, :, i] - W[:, :, i] @ S
        outs.append(q[:, :, i] @ S + A[:, :, i] @ u)
        G = k[:, :, i].mT @ u
        update = torch.sign(BETA1 * m + (1 - BETA1) * G)
        S = S * (1 - LR * WEIGHT_DECAY) + LR * update
        m = BETA2 * m + (1 - BETA2) * G
    return torch.cat(outs, dim=2)[:, :, :T].to(dtype)
