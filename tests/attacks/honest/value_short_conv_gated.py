"""A causal depthwise convolution on the values, and a forget gate.

The value written for a key is a learned mix of the last four tokens' values, so that a key can be bound to what came
before it (an induction head inside the write). A scalar decay keeps the state fresh.
"""

import torch
import torch.nn.functional as F

KERNEL = 4


def projections(num_heads, head_dim):
    return {"f": 1}


def parameters(num_heads, head_dim, generator):
    taps = 0.1 * torch.randn(num_heads, head_dim, KERNEL, generator=generator)
    taps[..., -1] += 1.0
    return {"taps": taps}


def causal_conv(v, taps):
    B, H, T, V = v.shape
    x = F.pad(v.transpose(2, 3).reshape(1, B * H * V, T), (KERNEL - 1, 0))
    y = F.conv1d(x, taps.reshape(B * H * V, 1, KERNEL), groups=B * H * V)
    return y.reshape(B, H, V, T).transpose(2, 3)


def delta_rule(q, k, v, beta, *, chunk_size, f, taps):
    B, H, T, K = q.shape
    v_mixed = causal_conv(v.float(), taps.float())
    q_n = F.normalize(q.float(), dim=-1, eps=1e-6) * K**-0.5
    k_n = F.normalize(k.float(), dim=-1, eps=1e-6)
    decay = torch.sigmoid(f.float() + 4)
    b = beta.float()[..., None]
    S = q_n.new_zeros(B, H, K, v.shape[-1])
    o = torch.zeros_like(v_mixed)
    for t in range(T):
        S = S * decay[:, :, t, :, None]
        u = b[:, :, t] * (v_mixed[:, :, t] - (k_n[:, :, t, None] @ S).squeeze(2))
        S = torch.baddbmm(S.flatten(0, 1), k_n[:, :, t, :, None].flatten(0, 1), u[:, :, None].flatten(0, 1)).view_as(S)
        o[:, :, t] = (q_n[:, :, t, None] @ S).squeeze(2)
    return o.to(q.dtype)
