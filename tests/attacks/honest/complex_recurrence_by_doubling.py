"""LRU: complex numbers seen as pairs.

Pairs of value channels are one complex number with an input-dependent gate.
"""
import torch


def parameters(num_heads, head_dim, generator):
    u1 = torch.rand(num_heads, generator=generator)
    u2 = torch.rand(num_heads, generator=generator)
    nu = torch.log(-0.5 * torch.log(u1 * (0.999 ** 2 - 0.9 ** 2) + 0.9 ** 2))
    return {"nu": nu, "phase": torch.log(0.3 * u2 + 1e-3)}


def delta_rule(q, k, v, beta, *, chunk_size, nu, phase):
    B, H, T, V = v.shape
    odd = V % 2
    x = torch.nn.functional.pad(v.float(), (0, odd))
    z = torch.view_as_complex(x.reshape(B, H, T, -1, 2).contiguous())
    mag = torch.exp(-torch.exp(nu.float()))
    lam = torch.polar(mag, torch.exp(phase.float()))[:, :, None]
    gamma = torch.sqrt(1 - mag * mag)[:, :, None]
    inp = torch.tanh(k.float().mean(-1)) + 1.0
    h = torch.zeros_like(z[:, :, 0])
    hs = []
    for t in range(T):
        b = beta[:, :, t, None].float()
        h = lam * (1 - 0.5 * b) * h + gamma * (b * inp[:, :, t, None]) * z[:, :, t]
        hs.append(h)
    y = torch.view_as_real(torch.stack(hs, 2)).flatten(-2)[..., :V]
    y = y * torch.sigmoid(q.float().sum(-1, keepdim=True))
    return y.to(q.dtype)
