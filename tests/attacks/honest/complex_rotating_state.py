"""A complex state that turns by an angle of the input.

S <- exp(-r + i theta_t) S + k conj-free v^T over complex keys made of halves of k, theta from a projection: a
selective, data-dependent rotary position that composes over tokens. The real part of the read is put out.
"""

import torch
import torch.nn.functional as F

def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def projections(num_heads, head_dim):
    return {"theta": 2}


def parameters(num_heads, head_dim, generator):
    half = (head_dim + 1) // 2
    return {"spread": torch.randn(num_heads, 2, half, generator=generator), "rate": torch.linspace(-7, -1, half).repeat(num_heads, 1)}


def paired(x):
    """[.., K] -> complex [.., ceil(K / 2)]."""
    x = F.pad(x, (0, x.shape[-1] % 2))
    return torch.complex(*x.unflatten(-1, (2, -1)).unbind(-2))


def delta_rule(q, k, v, beta, *, chunk_size, theta, spread, rate):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    angle = torch.tanh(theta.float()) @ spread.float()  # [B, H, T, K / 2]
    decay = -F.softplus(rate.float())[:, :, None].expand_as(angle)
    v = v.float() * beta.float()[..., None]
    q, k, v, angle, decay = (to_chunks(x, chunk_size) for x in (q, k, v, angle, decay))
    q, k = paired(l2norm(q)), paired(l2norm(k))
    log = torch.complex(decay, angle).cumsum(-2)
    read = q * log.exp()
    written = k.conj() * (-log).exp()
    inside = (read @ written.mT).real.tril() @ v
    into = (k.conj() * (log[..., -1:, :] - log).exp()).mT @ v.to(torch.complex64)
    whole = log[..., -1, :, None].exp()
    S = torch.zeros_like(into[:, 0])
    outputs = []
    for n in range(q.shape[1]):
        outputs.append(inside[:, n] + (read[:, n] @ S).real)
        S = S * whole[:, n] + into[:, n]
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
