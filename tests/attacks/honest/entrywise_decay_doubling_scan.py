"""Every entry of the state has a decay of its own, scaled by a step size from the input: Mamba-1 on outer products.

S_kv <- exp(-step_t rate_kv) S_kv + step_t k (beta v), a diagonal linear recurrence over K V channels. It is solved by
recursive doubling over time: log2(T) passes, each of which composes every affine map with the one `shift` tokens before.
"""

import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"step": 1}


def parameters(num_heads, head_dim, generator):
    rate = torch.rand(num_heads, head_dim, head_dim, generator=generator)
    return {"log_rate": torch.log(0.01 + 0.5 * rate), "step_bias": torch.zeros(num_heads)}


def scan(log_a, b):
    """b_t <- b_t + exp(log_a_t) b_{t-1}, dim 0 is time. Hillis and Steele's doubling."""
    shift = 1
    while shift < len(b):
        head_a, head_b = log_a[:shift], b[:shift]
        b = torch.cat((head_b, torch.addcmul(b[shift:], log_a[shift:].exp(), b[:-shift])))
        log_a = torch.cat((head_a, log_a[shift:] + log_a[:-shift]))
        shift *= 2
    return b


def delta_rule(q, k, v, beta, *, chunk_size, step, log_rate, step_bias):
    dtype = q.dtype
    q, k, v, beta, step = (x.movedim(2, 0).float() for x in (q, k, v, beta, step))
    q, k = (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    step = F.softplus(step + step_bias.float()[..., None])[..., None]  # [T, B, H, 1, 1]
    written = (step * beta[..., None, None]) * k[..., :, None] * v[..., None, :]
    states = scan(-step * log_rate.float().exp(), written)
    return (q[..., None, :] @ states).squeeze(-2).movedim(0, 2).to(dtype)
