"""Retention with rotary positions and a group norm, over the delta rule's write strength.

Decays fall off by head as ALiBi's slopes do, from 2^-1 to 2^-8; q and k are turned by the absolute token index; the
read is normalised per token and scaled by a learned vector.
"""

import torch
import torch.nn.functional as F

def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def parameters(num_heads, head_dim, generator):
    return {"gain": torch.ones(num_heads, head_dim)}


def turned(x, position):
    half = x.shape[-1] // 2
    angle = position[:, None] * 10000.0 ** (-torch.arange(half, device=x.device) / max(half, 1))
    a, b, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin(), rest), dim=-1)


def delta_rule(q, k, v, beta, *, chunk_size, gain):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    position = torch.arange(T, device=q.device, dtype=torch.float32)
    q, k = turned(q.float(), position) * K**-0.5, turned(k.float(), position)
    v = v.float() * beta.float()[..., None]
    q, k, v = (to_chunks(x, chunk_size).unflatten(0, (B, H)) for x in (q, k, v))
    slope = torch.exp2(-torch.linspace(1, 8, H, device=q.device))[:, None, None]
    i = torch.arange(chunk_size, device=q.device, dtype=torch.float32)[:, None]
    D = (-(i - i.mT).clamp(min=0) * slope).exp().tril()
    S = v.new_zeros(B, H, K, V)
    outputs = []
    for q_i, k_i, v_i in zip(*(x.unbind(2) for x in (q, k, v)), strict=True):
        outputs.append(((q_i @ k_i.mT) * D) @ v_i + (-(i + 1) * slope).exp() * (q_i @ S))
        S = S * (-chunk_size * slope).exp() + (k_i * (-(chunk_size - 1 - i) * slope).exp()).mT @ v_i
    o = torch.cat(outputs, dim=2)[:, :, :T]
    o = o * torch.rsqrt(o.square().mean(-1, keepdim=True) + 1e-5) * gain.float()[:, :, None]
    return o.to(dtype)
