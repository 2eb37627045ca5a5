"""The delta rule whose weights within a chunk are a softmax, as sharp as each head learns."""

import torch
import torch.nn.functional as F


def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def parameters(num_heads, head_dim, generator):
    return {"sharpness": torch.zeros(num_heads)}


def delta_rule(q, k, v, beta, *, chunk_size, sharpness):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    q, k, v, beta = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))
    q, k = l2norm(q), l2norm(k)
    eye = torch.eye(chunk_size, device=q.device)
    causal = torch.ones_like(eye).tril().bool()
    scale = 8 * sharpness.float().exp().reshape(B * H, 1, 1)
    S = v.new_zeros(B * H, K, V)
    outputs = []
    for i in range(q.shape[1]):
        L = eye + (beta[:, i] * (k[:, i] @ k[:, i].mT)).tril(-1)
        u = torch.linalg.solve_triangular(L, beta[:, i] * (v[:, i] - k[:, i] @ S), upper=False)
        A = (scale * (q[:, i] @ k[:, i].mT)).masked_fill(~causal, -torch.inf).softmax(-1)
        outputs.append(q[:, i] @ S * K**-0.5 + A @ u)
        S = S + k[:, i].mT @ u
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
