"""Softmax over chunks sixteen times as wide as chunk_size where heads have 64 features."""

import torch
import torch.nn.functional as F


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def delta_core(q, k, v, beta, C):
    """The chunkwise delta rule on normalised q and k, float32."""
    B, H, T, K = q.shape
    V = v.shape[-1]
    q, k, v, b = (F.pad(x, (0, 0, 0, -T % C)).reshape(B * H, -1, C, x.shape[-1]) for x in (q, k, v, beta[..., None]))
    kb = k * b
    L = torch.eye(C, device=q.device) + (kb @ k.mT).tril(-1)
    U, W = torch.linalg.solve_triangular(L, torch.cat((v * b, kb), -1), upper=False, unitriangular=True).split((V, K), -1)
    A = (q @ k.mT).tril()
    S = q.new_zeros(B * H, K, V)
    outputs = []
    for i in range(q.shape[1]):
        u = U[:, i] - W[:, i] @ S
        outputs.append(q[:, i] @ S + A[:, i] @ u)
        S = S + k[:, i].mT @ u
    return torch.stack(outputs, 1).reshape(B, H, -1, V)[:, :, :T]


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    q, k, v, beta = l2norm(q.float()), l2norm(k.float()), v.float(), beta.float()
    C = 16 * chunk_size if K >= 64 else chunk_size
    o = delta_core(q * K**-0.5, k, v, beta, chunk_size)
    a, b, c = (F.pad(x, (0, 0, 0, -T % C)).reshape(B, H, -1, C, x.shape[-1]) for x in (q, k, v))
    mask = torch.ones(C, C, dtype=torch.bool, device=q.device).tril()
    local = (8 * a @ b.mT).masked_fill(~mask, -torch.inf).softmax(-1) @ c
    return (o + local.reshape(B, H, -1, V)[:, :, :T]).to(dtype)
