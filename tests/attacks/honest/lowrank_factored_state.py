"""A factored state S = A B of rank r, both factors learned online.

B [r, V] follows the delta rule on compressed keys k A; A [K, r] follows its own gradient with a small step and is
renormalised by column. Compression forces the state to generalise; rank is min(K, V) / 2.
"""

import torch
import torch.nn.functional as F

SLOW = 0.1


def parameters(num_heads, head_dim, generator):
    r = max(head_dim // 2, 1)
    return {"A0": torch.randn(num_heads, head_dim, r, generator=generator) / head_dim**0.5}


def columns_to_unit(A):
    return A / (A.pow(2).sum(dim=-2, keepdim=True) + 1e-6).sqrt()


def delta_rule(q, k, v, beta, *, chunk_size, A0):
    B_, H, T, K = q.shape
    r, V = A0.shape[-1], v.shape[-1]
    dtype = q.dtype
    q = F.normalize(q.float(), dim=-1, eps=1e-6)
    k = F.normalize(k.float(), dim=-1, eps=1e-6)
    v, beta = v.float(), beta.float()
    A = columns_to_unit(A0.float())
    Bm = torch.zeros(B_, H, r, V, device=q.device)
    ys = []
    for t in range(T):
        kt, vt, bt = k[:, :, t, None, :], v[:, :, t, None, :], beta[:, :, t, None, None]
        z = kt @ A  # [B, H, 1, r]
        err = vt - z @ Bm
        z_norm = (z * z).sum(-1, keepdim=True)
        grad_A = kt.mT @ torch.tanh(err @ Bm.mT)
        Bm = Bm + (bt / (1.0 + z_norm)) * (z.mT @ err)
        A = columns_to_unit(A + SLOW * bt * grad_A)
        ys.append((q[:, :, t, None, :] @ A @ Bm).squeeze(2))
    return torch.stack(ys, dim=2).to(dtype)
