"""A second short convolution, of the keys alone and inside the operator, before an ordinary delta rule.

Every key feature of every head has four taps; the first is one at the start and the others are small. The triangular
inverse of a chunk is the product (I - L)(I + L^2)(I + L^4)..., which is finite since L is nilpotent, taken in float64
since its factors cancel. State: K V and the last three keys.
"""

import torch
import torch.nn.functional as F

TAPS = 4


def parameters(num_heads, head_dim, generator):
    taps = 0.1 * torch.randn(num_heads, head_dim, TAPS, generator=generator)
    taps[..., -1] = 1.0
    return {"taps": taps}


def convolve(k, taps):
    B, H, T, K = k.shape
    x = F.pad(k.transpose(2, 3).reshape(1, B * H * K, T), (TAPS - 1, 0))
    return F.conv1d(x, taps.reshape(B * H * K, 1, TAPS), groups=B * H * K).reshape(B, H, K, T).transpose(2, 3)


def nilpotent_inverse(L):
    """(I + L)^-1 for a strictly lower triangular L."""
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    total, power, reach = eye - L, L @ L, 2
    while reach < L.shape[-1]:
        total, power, reach = total + total @ power, power @ power, 2 * reach
    return total


def delta_rule(q, k, v, beta, *, chunk_size, taps):
    (B, H, T, K), V = q.shape, v.shape[-1]
    k = convolve(k.float(), taps.float())
    k = k * torch.rsqrt((k * k).sum(-1, keepdim=True) + 1e-6)
    q32 = q.float() * torch.rsqrt((q.float() ** 2).sum(-1, keepdim=True) + 1e-6)
    b = beta.float().unsqueeze(-1)
    tail = -T % chunk_size
    qs, ks, bk, bv = (F.pad(x, (0, 0, 0, tail)).view(B, H, -1, chunk_size, x.shape[-1]) for x in (q32, k, b * k, b * v.float()))
    inverse = nilpotent_inverse((bk @ ks.mT).tril(-1).double()).float()
    U, W, A = inverse @ bv, inverse @ bk, (qs @ ks.mT).tril()
    S = torch.zeros(B, H, K, V, device=q.device)
    o = []
    for n in range(qs.shape[2]):
        u = torch.baddbmm(U[:, :, n].flatten(0, 1), W[:, :, n].flatten(0, 1), S.flatten(0, 1), alpha=-1).view(B, H, -1, V)
        o.append(qs[:, :, n] @ S + A[:, :, n] @ u)
        S = S + ks[:, :, n].mT @ u
    return torch.cat(o, dim=2)[:, :, :T].to(q.dtype)
