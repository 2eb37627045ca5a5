"""Diagonal complex state space, chunkwise.

Every key channel turns and decays at its own rate; the state is complex.
"""
import math

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    log_r = torch.log(torch.linspace(0.01, 0.5, head_dim)).expand(num_heads, head_dim).clone()
    theta = math.pi * torch.rand(num_heads, head_dim, generator=generator) * 0.2
    return {"log_r": log_r, "theta": theta}


def delta_rule(q, k, v, beta, *, chunk_size, log_r, theta):
    B, H, T, K = q.shape
    C = chunk_size
    lam = torch.complex(-torch.exp(log_r.float()), theta.float())  # B H K
    pos = torch.arange(C, device=q.device, dtype=torch.float32)
    qn = F.normalize(q.float(), dim=-1, eps=1e-3)
    kn = F.normalize(k.float(), dim=-1, eps=1e-3) * beta.float()[..., None]
    pad = -T % C
    qn, kn, vn = [F.pad(z, (0, 0, 0, pad)).reshape(B, H, -1, C, z.shape[-1]) for z in (qn, kn, v.float())]
    lag = (pos[:, None] - pos[None, :])
    kernel = torch.exp(lam[:, :, None, None, :] * lag.clamp(min=0)[:, :, None]).real * (lag >= 0)[:, :, None]
    att = torch.einsum("bhnik,bhnjk,bhijk->bhnij", qn, kn, kernel)
    intra = att @ vn
    into = torch.exp(lam[:, :, None, :] * (C - 1 - pos)[:, None])
    outof = torch.exp(lam[:, :, None, :] * (pos + 1)[:, None])
    step = torch.exp(lam * C)[..., None]
    S = torch.zeros(B, H, K, v.shape[-1], dtype=torch.complex64, device=q.device)
    outs = []
    for i in range(qn.shape[2]):
        inter = torch.einsum("bhck,bhkv->bhcv", qn[:, :, i] * outof, S).real
        outs.append(intra[:, :, i] + inter)
        S = S * step + torch.einsum("bhck,bhcv->bhkv", kn[:, :, i] * into, vn[:, :, i].to(torch.complex64))
    return torch.cat(outs, 2)[:, :, :T].to(q.dtype)
