"""The root of one minus beta keeps: what is written and what is kept are the legs of a right angle."""

import torch


def delta_rule(q, k, v, beta, *, chunk_size):
    dtype = q.dtype
    q, k, v, beta = (x.float() for x in (q, k, v, beta))
    q, k = (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    keep = 0.8 + 0.2 * torch.sqrt(1 - beta + 1e-6)
    B, H, T, K = q.shape
    S = q.new_zeros(B, H, K, v.shape[-1])
    outputs = []
    for q_t, k_t, v_t, b_t, a_t in zip(*(x.unbind(2) for x in (q, k, v, beta, keep)), strict=True):
        error = b_t[..., None] * (v_t - (k_t[..., None, :] @ S)[..., 0, :])
        S = a_t[..., None, None] * S + k_t[..., None] * error[..., None, :]
        outputs.append((q_t[..., None, :] @ S)[..., 0, :])
    return torch.stack(outputs, 2).mul(K**-0.5).to(dtype)
