"""Delta rule of a pseudo-Huber loss: a large error is written with a bounded length.

e = v - k S is scaled by delta / sqrt(delta^2 + |e|^2), with delta learned per head; the direction of the error stays.
The outlier that would overwrite a whole row of the state can change it by beta delta at most.
"""

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"width": torch.linspace(0.5, 3.0, num_heads) if num_heads > 1 else torch.ones(1)}


def recurrence(q_t, k_t, v_t, beta_t, state, width):
    q, k, v = q_t.float(), k_t.float(), v_t.float()
    k = k * (k.pow(2).sum(-1, True) + 1e-6).rsqrt()
    q = q * (q.pow(2).sum(-1, True) + 1e-6).rsqrt()
    if state is None:
        state = torch.zeros(*k.shape, v.shape[-1], device=k.device)
    error = v - torch.einsum("bhk,bhkv->bhv", k, state)
    delta = F.softplus(width.float())[..., None]
    robust = error * delta * (delta.square() + error.square().sum(-1, True)).rsqrt()
    state = state + torch.einsum("bh,bhk,bhv->bhkv", beta_t.float(), k, robust)
    return torch.einsum("bhk,bhkv->bhv", q, state).to(q_t.dtype), state


def delta_rule(q, k, v, beta, *, chunk_size, width):
    state = None
    out = [None] * q.shape[2]
    for t in range(len(out)):
        out[t], state = recurrence(q[:, :, t], k[:, :, t], v[:, :, t], beta[:, :, t], state, width)
    return torch.stack(out, dim=-2)
