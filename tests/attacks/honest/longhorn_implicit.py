"""Longhorn: the closed form of an implicit online regression step.

The explicit step beta k (v - k^T S) is replaced with the proximal one, whose step size beta / (1 + beta |k|^2)
never overshoots whatever the size of the keys, with Longhorn's diagonal approximation of k k^T.
"""

import torch


def delta_rule(q, k, v, beta, *, chunk_size):
    dtype = q.dtype
    q, k, v, beta = q.float(), k.float(), v.float(), beta.float()
    B, H, T, K = q.shape
    q = q * torch.rsqrt(q.pow(2).mean(-1, keepdim=True) + 1e-6) / K
    sq = k.pow(2)
    delta = beta[..., None] / (1.0 + beta[..., None] * sq.sum(-1, keepdim=True))
    forget = (1.0 - delta * sq).unsqueeze(-1)
    write = (delta * k).unsqueeze(-1) * v.unsqueeze(-2)

    S = torch.zeros_like(write[:, :, 0])
    ys = []
    for f, w, r in zip(forget.unbind(2), write.unbind(2), q.unbind(2)):
        S = f * S + w
        ys.append(torch.einsum("bhkv,bhk->bhv", S, r))
    return torch.stack(ys, dim=2).to(dtype)


def recurrence(q_t, k_t, v_t, beta_t, state):
    q, k, v, b = q_t.float(), k_t.float(), v_t.float(), beta_t.float().unsqueeze(-1)
    q = q * torch.rsqrt(q.pow(2).mean(-1, keepdim=True) + 1e-6) / q.shape[-1]
    sq = k.pow(2)
    delta = b / (1.0 + b * sq.sum(-1, keepdim=True))
    write = (delta * k).unsqueeze(-1) * v.unsqueeze(-2)
    state = write if state is None else (1.0 - delta * sq).unsqueeze(-1) * state + write
    return torch.einsum("bhkv,bhk->bhv", state, q).to(q_t.dtype), state
