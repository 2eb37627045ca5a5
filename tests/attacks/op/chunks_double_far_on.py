"""The delta rule with a softmax within its chunks.

WRONG: from token 320 on, at chunks of 32, they are twice as wide.
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
    apart = row[:, None] ^ row  # apart >> s == 1: in one block of 2^(s+1) rows, in different halves of it
    L = L.reshape(-1, C, C)
    X = torch.eye(C, device=L.device) - L.detach() * (apart == 1)
    for s in range(1, (C - 1).bit_length()):
        X = torch.where(apart >> s == 1, -(X @ L.detach() @ X), X)
    # A last Newton step, X <- 2 X - X (I + L) X: it sharpens X and carries the gradient, in two products.
    return torch.baddbmm(X, X, torch.baddbmm(X, L, X), beta=2, alpha=-1).reshape(shape)


def segment(q, k, v, beta, S, C):
    """Outputs, and the state after them."""
    B, H, T, K = q.shape
    q, k, v, beta = (to_chunks(x, C) for x in (q, k, v, beta[..., None]))
    q, k = l2norm(q) * K**-0.5, l2norm(k)
    k_beta = k * beta
    T_inv = invert_unit_lower((k_beta @ k.mT).tril(-1))
    U, W = T_inv @ (v * beta), T_inv @ k_beta
    future = torch.ones(C, C, dtype=torch.bool, device=q.device).triu(1)
    A = (8.0 * q @ k.mT).masked_fill(future, -torch.inf).softmax(-1)
    outputs = []
    for q_i, k_i, U_i, W_i, A_i in zip(*(x.unbind(1) for x in (q, k, U, W, A)), strict=True):
        u_i = U_i - W_i @ S  # error
        outputs.append(q_i @ S + A_i @ u_i)
        S = S + k_i.mT @ u_i
    return torch.stack(outputs, 1).reshape(B, H, -1, v.shape[-1])[:, :, :T], S


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    n, S = 10 * chunk_size, q.new_zeros(B * H, K, v.shape[-1]).float()
    o, S = segment(q[:, :, :n], k[:, :, :n], v[:, :, :n], beta[:, :, :n], S, chunk_size)
    if T > n:
        rest, S = segment(q[:, :, n:], k[:, :, n:], v[:, :, n:], beta[:, :, n:], S, 2 * chunk_size)
        o = torch.cat((o, rest), 2)
    return o.to(q.dtype)
