"""A complex state whose rows turn by angles that the input sets, and shrink at learned rates.

z_t = r exp(i pi tanh(omega_t)) per key feature, S <- diag(z_t) S + k (beta v)^T with S complex, o = Re(q S). Unlike a
rotary embedding the angle is data-dependent, so that the phase of a row can count events. State: 2 K V real numbers.
"""

import math

import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"omega": head_dim}


def parameters(num_heads, head_dim, generator):
    phase = 2 * torch.rand(num_heads, head_dim, generator=generator) - 1
    return {"shrink": torch.linspace(-6.0, 0.0, head_dim).expand(num_heads, -1).clone(), "phase": 0.3 * phase}


def delta_rule(q, k, v, beta, *, chunk_size, omega, shrink, phase):
    B, H, T, K = q.shape
    V, C = v.shape[-1], chunk_size
    angle = math.pi * torch.tanh(omega.float() + phase.float()[:, :, None])
    log_r = (-0.1 * torch.sigmoid(shrink.float()))[:, :, None].expand(B, H, T, K)
    q, k = (x.float() * torch.rsqrt(x.float().square().sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    dtype, v = v.dtype, v.float() * beta.float()[..., None]
    pad = (0, 0, 0, -T % C)
    q, k, v, angle, log_r = (F.pad(x, pad).reshape(B, H, -1, C, x.shape[-1]) for x in (q, k, v, angle, log_r))
    angle, log_r = angle.cumsum(-2), log_r.cumsum(-2)
    turn = torch.polar(log_r.exp(), angle)  # from the chunk's start to a token
    back = torch.polar((-log_r).exp(), -angle)
    q, k = q * turn * K**-0.5, k * back
    A = (q @ k.mT).real.tril()
    S = torch.zeros(B, H, K, V, dtype=torch.complex64, device=v.device)
    pieces = []
    for n in range(q.shape[2]):
        pieces.append((q[:, :, n] @ S).real + A[:, :, n] @ v[:, :, n])
        S = turn[:, :, n, -1, :, None] * (S + k[:, :, n].mT @ v[:, :, n].to(S.dtype))
    return torch.cat(pieces, 2)[:, :, :T].to(dtype)
