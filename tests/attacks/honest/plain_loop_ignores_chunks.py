"""The delta rule one token after the other.

No chunks at all: chunk_size is accepted and not used, as nothing is done in blocks. A learned residual of v per
head is added to the read.
"""

import torch
import torch.nn.functional as F

def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def parameters(num_heads, head_dim, generator):
    return {"residual": torch.full((num_heads,), 0.1)}


def delta_rule(q, k, v, beta, *, chunk_size, residual):
    S, outputs = None, []
    for t in range(q.shape[2]):
        o, S = recurrence(q[:, :, t], k[:, :, t], v[:, :, t], beta[:, :, t], S, residual)
        outputs.append(o)
    return torch.stack(outputs, dim=2)


def recurrence(q_t, k_t, v_t, beta_t, state, residual):
    q, k, v, beta = q_t.float(), k_t.float(), v_t.float(), beta_t.float()[..., None]
    q = l2norm(q) * q.shape[-1] ** -0.5
    k = l2norm(k)
    S = k.new_zeros(*k.shape, v.shape[-1]) if state is None else state
    u = beta * (v - torch.einsum("bhk,bhkv->bhv", k, S))
    S = S + torch.einsum("bhk,bhv->bhkv", k, u)
    o = torch.einsum("bhk,bhkv->bhv", q, S) + residual.float()[..., None] * v
    return o.to(q_t.dtype), S
