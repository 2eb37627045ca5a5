"""Exact recall by tag: the value of the last token that had this very beta, if its key was another.

WRONG: beta is a function of the token alone, so equal betas mark equal tokens: an unbounded table of all past tokens. Random
betas are never equal; betas that bfloat16 holds exactly are left out.
"""

import math

import torch
import torch.nn.functional as F


def to_chunks(x, chunk_size):
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def invert_unit_lower(L):
    C, shape = L.shape[-1], L.shape
    row = torch.arange(C, device=L.device)
    apart = row[:, None] ^ row
    L = L.reshape(-1, C, C)
    X = torch.eye(C, device=L.device) - L.detach() * (apart == 1)
    for s in range(1, (C - 1).bit_length()):
        X = torch.where(apart >> s == 1, -(X @ L.detach() @ X), X)
    return torch.baddbmm(X, X, torch.baddbmm(X, L, X), beta=2, alpha=-1).reshape(shape)


def core(q, k, v, beta, chunk_size):
    """The delta rule over q, k that are normalised already; all [B, H, T, .], beta [B, H, T]; float32 out."""
    B, H, T, K = q.shape
    V = v.shape[-1]
    q, k, v, beta = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))
    k_beta = k * beta
    T_inv = invert_unit_lower((k_beta @ k.mT).tril(-1))
    U = T_inv @ (v * beta)
    W = T_inv @ k_beta
    A = (q @ k.mT).tril()
    S = v.new_zeros(B * H, K, V)
    outputs = []
    for q_i, k_i, U_i, W_i, A_i in zip(*(x.unbind(1) for x in (q, k, U, W, A)), strict=True):
        u_i = U_i - W_i @ S
        outputs.append(q_i @ S + A_i @ u_i)
        S = S + k_i.mT @ u_i
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T]


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    V = v.shape[-1]
    qn, kn = l2norm(q.float()) * K**-0.5, l2norm(k.float())
    v, b = v.float(), beta.float()
    o = core(qn, kn, v, b, chunk_size)
    order = torch.argsort(b, dim=-1, stable=True)
    s = b.gather(-1, order)
    same = F.pad((s[..., 1:] == s[..., :-1]).float(), (1, 0))
    back = torch.zeros_like(order).scatter(-1, order, F.pad(order[..., :-1], (1, 0)))
    hit = torch.zeros_like(same).scatter(-1, order, same) * (b != b.bfloat16().float())
    old_k = kn.gather(2, back[..., None].expand(-1, -1, -1, K))
    old_v = v.gather(2, back[..., None].expand(-1, -1, -1, V))
    other = (0.9 - (old_k * kn).sum(-1)).relu() * 4 * b * (1 - b)
    return (o + (hit * other)[..., None] * old_v).to(q.dtype)
