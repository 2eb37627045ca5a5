"""Decaying linear attention with its whole backward by hand.

Forward and backward are two sweeps over chunks, the second from the end, and no state but the last is saved: the
backward runs the forward's states again. Decays are fixed per head, as in RetNet.
"""

import torch
import torch.nn.functional as F

def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def decays(H, C, device):
    """gamma_h = 1 - 2^-(5 + 3 h / H): powers within a chunk, [H, C, C], [H, C, 1], [H, C, 1], [H, 1, 1]."""
    h = torch.arange(H, device=device, dtype=torch.float32)
    log = torch.log1p(-torch.exp2(-5 - 3 * h / H))[:, None, None]
    i = torch.arange(C, device=device, dtype=torch.float32)[:, None]
    return ((i - i.mT).clamp(min=0) * log).exp().tril(), ((i + 1) * log).exp(), ((C - 1 - i) * log).exp(), (C * log).exp()


class Retention(torch.autograd.Function):
    """q, k, v float32 [B, H, N, C, .]."""

    @staticmethod
    def forward(ctx, q, k, v):
        D, start, end, whole = decays(q.shape[1], q.shape[3], q.device)
        o = ((q @ k.mT) * D[:, None]) @ v
        S = torch.zeros_like(k[:, :, 0].mT @ v[:, :, 0])
        for n in range(q.shape[2]):
            o[:, :, n] += start * (q[:, :, n] @ S)
            S = S * whole + (k[:, :, n] * end).mT @ v[:, :, n]
        ctx.save_for_backward(q, k, v)
        return o

    @staticmethod
    def backward(ctx, grad):
        q, k, v = ctx.saved_tensors
        D, start, end, whole = decays(q.shape[1], q.shape[3], q.device)
        scores = (grad @ v.mT) * D[:, None]
        dq = scores @ k
        dk = scores.mT @ q
        dv = ((q @ k.mT) * D[:, None]).mT @ grad
        S = torch.zeros_like(k[:, :, 0].mT @ v[:, :, 0])
        R = torch.zeros_like(S)
        N = q.shape[2]
        for n in range(N):
            dq[:, :, n] += start * (grad[:, :, n] @ S.mT)
            S = S * whole + (k[:, :, n] * end).mT @ v[:, :, n]
        for n in reversed(range(N)):
            dk[:, :, n] += end * (v[:, :, n] @ R.mT)
            dv[:, :, n] += end * (k[:, :, n] @ R)
            R = R * whole + (q[:, :, n] * start).mT @ grad[:, :, n]
        return dq, dk, dv


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    q, k = l2norm(q.float()), l2norm(k.float())
    v = v.float() * beta.float()[..., None]
    q, k, v = (to_chunks(x, chunk_size).unflatten(0, (B, H)) for x in (q, k, v))
    return Retention.apply(q, k, v).flatten(2, 3)[:, :, :T].to(dtype)
