"""Exponential keys with a stabiliser per block.

exp(k - m), m the maximum of the block, is rescaled by exp(m) again, so nothing overflows.
"""
import torch
import torch.nn.functional as F


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    V = v.shape[-1]
    fq = torch.softmax(q.float(), -1)
    score = k.float().clamp(-20, 20)
    pad = -T % chunk_size
    sc = F.pad(score, (0, 0, 0, pad), value=-20.0).unflatten(2, (-1, chunk_size))
    vv = F.pad(v.float() * beta.float()[..., None], (0, 0, 0, pad)).unflatten(2, (-1, chunk_size))
    fq = F.pad(fq, (0, 0, 0, pad)).unflatten(2, (-1, chunk_size))
    S = torch.zeros(B, H, K, V, device=q.device)
    Z = torch.zeros(B, H, K, 1, device=q.device)
    out = []
    for n in range(sc.shape[2]):
        m = sc[:, :, n].amax(-2, keepdim=True).detach()
        e = torch.exp(sc[:, :, n] - m)
        Q = fq[:, :, n] * m.exp()
        num = torch.tril(Q @ e.mT) @ vv[:, :, n] + fq[:, :, n] @ S
        den = torch.tril(Q @ e.mT).sum(-1, keepdim=True) + fq[:, :, n] @ Z
        out.append(num / (den + 1e-3))
        S = S + (e.mT @ vv[:, :, n]) * m.exp().mT
        Z = Z + e.sum(-2)[..., None] * m.exp().mT
    return torch.cat(out, 2)[:, :, :T].to(q.dtype)
