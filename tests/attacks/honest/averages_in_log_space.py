"""RWKV-4 style weighted mean with torch.logcumsumexp.

Positive and negative parts of the value are summed in log space.
"""
import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"w": torch.linspace(-5, -1, num_heads), "probe": torch.randn(num_heads, head_dim, generator=generator) / head_dim ** 0.5}


def delta_rule(q, k, v, beta, *, chunk_size, w, probe):
    T = q.shape[2]
    pos = torch.arange(T, device=q.device).float()
    rate = torch.exp(w.float())[..., None]
    score = torch.einsum("bhtk,bhk->bht", k.float(), probe.float()) + torch.log(beta.float().clamp(min=1e-4))
    score = (score + rate * pos).unsqueeze(-1)
    up = torch.logcumsumexp(score + torch.log(F.softplus(v.float()) + 1e-6), dim=2)
    dn = torch.logcumsumexp(score + torch.log(F.softplus(-v.float()) + 1e-6), dim=2)
    den = torch.logcumsumexp(score, dim=2)
    out = torch.exp(up - den) - torch.exp(dn - den)
    recept = torch.sigmoid(torch.einsum("bhtk,bhk->bht", q.float(), probe.float()))
    return (out * recept.unsqueeze(-1)).to(q.dtype)
