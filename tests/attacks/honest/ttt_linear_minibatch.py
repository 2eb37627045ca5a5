"""TTT-Linear: gradient steps in mini-batches of half a chunk, and a normalised read.

All tokens of a mini-batch take the gradient of their reconstruction at the state the mini-batch began with (the dual
form), with a rate of beta / (position + 1) as in the published code; the reader adds a normalised read to q's residual.
"""

import torch
import torch.nn.functional as F

def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def parameters(num_heads, head_dim, generator):
    return {
        "S_0": torch.randn(num_heads, head_dim, head_dim, generator=generator) * 0.02,
        "scale": torch.ones(num_heads, head_dim),
        "shift": torch.zeros(num_heads, head_dim),
        "rate": torch.zeros(num_heads),
    }


def delta_rule(q, k, v, beta, *, chunk_size, S_0, scale, shift, rate):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    b = max(chunk_size // 2, 1)
    eta = beta.float() * F.softplus(rate.float())[..., None]
    q, k, v, eta = (to_chunks(x, b) for x in (q, k, v, eta[..., None]))
    q, k = l2norm(q), l2norm(k)
    place = 1 / torch.arange(1, b + 1, device=q.device, dtype=torch.float32)
    A = (q @ k.mT).tril() * place[:, None] * eta.mT  # what token i takes of the gradient of j <= i

    S = S_0.float().flatten(0, 1)
    outputs = []
    for n in range(q.shape[1]):
        gradient = k[:, n] @ S - v[:, n]
        z = q[:, n] @ S - A[:, n] @ gradient
        outputs.append(z)
        S = S - (k[:, n] * eta[:, n]).mT @ gradient / b
    o = torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T]
    o = F.layer_norm(o, (V,), eps=1e-5) * scale.float()[:, :, None] + shift.float()[:, :, None]
    return o.to(dtype)
