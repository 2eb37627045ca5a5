"""A residual of two delta rules.

A first state predicts the values from the keys; a second, with keys and step sizes of its own, is taught what the
first got wrong, and the read-outs add up: boosting, in two levels.
"""

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {
        "key_scale": 1 + 0.3 * torch.randn(num_heads, head_dim, generator=generator),
        "second_step": torch.zeros(num_heads),
    }


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


def one_level(q, k, v, beta, C):
    """Read-outs and errors of a delta rule, [B, H, T, V] each."""
    T = q.shape[2]
    q, k, U, W, A = _wy(q, k, v, beta, C)
    S = torch.zeros(*q.shape[:2], q.shape[-1], U.shape[-1], device=q.device)
    reads, errors = [], []
    for i in range(q.shape[2]):
        u = U[:, :, i] - W[:, :, i] @ S
        reads.append(q[:, :, i] @ S + A[:, :, i] @ u)
        errors.append(u)
        S = S + k[:, :, i].mT @ u
    return torch.cat(reads, 2)[:, :, :T], torch.cat(errors, 2)[:, :, :T]


def delta_rule(q, k, v, beta, *, chunk_size, key_scale, second_step):
    first, error = one_level(q, k, v, beta, chunk_size)
    scale = key_scale.float()[:, :, None]
    step = beta.float() * torch.sigmoid(second_step.float())[..., None]
    second, _ = one_level(q.float() * scale, k.float() * scale, error, step, chunk_size)
    return (first + second).to(q.dtype)
