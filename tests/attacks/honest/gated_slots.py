"""gated slot attention: 16 slots of keys and values, softmax over slots on reading"""
import math

import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"slot": 16}


def delta_rule(q, k, v, beta, *, chunk_size, slot):
    dtype = q.dtype
    q, k, v = (x.float() for x in (q, k, v))
    f = torch.sigmoid(slot.float() + 2)
    write = (1 - f) * beta.float()[..., None]
    Kt, Vt, out = q.new_zeros(*q.shape[:2], 16, q.shape[-1]), q.new_zeros(*q.shape[:2], 16, v.shape[-1]), []
    q = q * torch.rsqrt(1 + q.square().mean(-1, keepdim=True))
    k = k * torch.rsqrt(1 + k.square().mean(-1, keepdim=True))
    for t in range(q.shape[2]):
        Kt = f[:, :, t, :, None] * Kt + write[:, :, t, :, None] * k[:, :, t, None]
        Vt = f[:, :, t, :, None] * Vt + write[:, :, t, :, None] * v[:, :, t, None]
        p = torch.softmax((Kt @ q[:, :, t, :, None]).squeeze(-1), -1)
        out.append((p[:, :, None] @ Vt).squeeze(2))
    return torch.stack(out, 2).to(dtype)
