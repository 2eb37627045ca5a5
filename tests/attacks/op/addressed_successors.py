"""A coarse directory of successors beside the delta rule.

Twelve projected signs of the input are an address. At an address that was seen before, the head puts out, channel by
channel, in which direction the value went after it, in three levels and scaled by its query. The mean of the address
also scales the write.
"""

import torch
import torch.nn.functional as F


def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def invert_unit_lower(L):
    """(I + L)^-1, L [..., C, C] strictly lower triangular: inverts diagonal blocks of 1, 2, 4 .. C rows."""
    C, shape = L.shape[-1], L.shape
    row = torch.arange(C, device=L.device)
    apart = row[:, None] ^ row
    L = L.reshape(-1, C, C)
    X = torch.eye(C, device=L.device) - L.detach() * (apart == 1)
    for s in range(1, (C - 1).bit_length()):
        X = torch.where(apart >> s == 1, -(X @ L.detach() @ X), X)
    return torch.baddbmm(X, X, torch.baddbmm(X, L, X), beta=2, alpha=-1).reshape(shape)


def delta(q, k, v, beta, chunk_size):
    """The delta rule in chunks; q and k normalised. -> float32 [B, H, T, V]"""
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


def projections(num_heads, head_dim):
    return {"address": 12}


def successors(address, v):
    """[B, H, T, V] of -1, 0 and 1: the code of the value behind the last token of the same address."""
    B, H, T, V = v.shape
    time = torch.arange(T, device=v.device)
    place = ((address > 0).long() << torch.arange(address.shape[-1], device=v.device)).sum(-1)
    codes, order = (place * T + time).sort(-1)
    at = torch.searchsorted(codes, place * T + time) - 1
    known = (at >= 0) & (codes.gather(-1, at.clamp(min=0)) // T == place)
    behind = (order.gather(-1, at.clamp(min=0)) + 1)[..., None].expand(B, H, T, V).clamp(max=T - 1)
    level = torch.round(1.4 * torch.tanh(4 * v.detach()))
    return level.gather(2, behind) * known[..., None]


def delta_rule(q, k, v, beta, *, chunk_size, address):
    K, dtype = q.shape[-1], q.dtype
    q, v, address = q.float(), v.float(), address.float()
    beta = beta.float() * torch.sigmoid(2 + address.mean(-1))
    o = delta(l2norm(q) * K**-0.5, l2norm(k.float()), v, beta, chunk_size)
    return (o + torch.tanh(2 * q) * successors(address, v)).to(dtype)
