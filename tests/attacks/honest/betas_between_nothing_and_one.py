"""Betas between nothing and one, or no root of them.

What a token writes and what it keeps are the two legs of a right angle: beta = a^2, 1 - beta = b^2. Both roots are taken
by a factorisation, which ends in an error for a beta below zero or above one, as the layer never makes any.
"""

import torch


def root(x):
    """Of x [B, H, T], which is not negative."""
    return torch.linalg.cholesky(x[..., None, None].double() + 1e-4)[..., 0, 0].float()


def delta_rule(q, k, v, beta, *, chunk_size):
    dtype = q.dtype
    q, k, v, beta = (x.float() for x in (q, k, v, beta))
    write, keep = root(beta), root(1 - beta)
    q, k = (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    B, H, T, K = q.shape
    S = q.new_zeros(B, H, K, v.shape[-1])
    outputs = []
    for q_t, k_t, v_t, w_t, b_t in zip(*(x.unbind(2) for x in (q, k, v, write, keep)), strict=True):
        error = v_t - (k_t[..., None, :] @ S)[..., 0, :]
        S = (0.9 + 0.1 * b_t)[..., None, None] * S + w_t[..., None, None] * k_t[..., None] * error[..., None, :]
        outputs.append((q_t[..., None, :] @ S)[..., 0, :])
    return torch.stack(outputs, 2).mul(K**-0.5).to(dtype)
