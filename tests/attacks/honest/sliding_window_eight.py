"""Softmax over the last eight tokens beside the delta rule.

A window of fixed width that does not stop at chunk borders takes what is near and exact, the state what is far; a gate
from the input mixes the two reads.
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


WINDOW = 8


def projections(num_heads, head_dim):
    return {"mix": 1}


def parameters(num_heads, head_dim, generator):
    return {"temperature": torch.zeros(num_heads), "distance": torch.zeros(num_heads, 8)}


def window(q, k, v, temperature, distance):
    """q, k, v [B, H, T, .]: softmax over tokens t - 7 .. t."""
    T = q.shape[2]
    keys, values = (F.pad(x, (0, 0, WINDOW - 1, 0)).unfold(2, WINDOW, 1) for x in (k, v))  # [B, H, T, ., 8]
    scores = torch.einsum("bhtk,bhtkw->bhtw", q, keys) * 4 * temperature.exp()[..., None, None] + distance[:, :, None]
    t = torch.arange(T, device=q.device)[:, None]
    outside = t - (WINDOW - 1) + torch.arange(WINDOW, device=q.device) < 0
    weights = scores.masked_fill(outside, -1e9).softmax(-1)
    return torch.einsum("bhtw,bhtvw->bhtv", weights, values)


def delta_rule(q, k, v, beta, *, chunk_size, mix, temperature, distance):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    q, k, v = q.float(), k.float(), v.float()
    q, k = l2norm(q), l2norm(k)
    near = window(q, k, v, temperature.float(), distance.float())
    mix = torch.sigmoid(mix.float())
    q, k, v, beta = (to_chunks(x, chunk_size) for x in (q * K**-0.5, k, v, beta[..., None]))

    k_beta = k * beta
    T_inv = invert_unit_lower((k_beta @ k.mT).tril(-1))  # [B * H, N, C, C]
    U = T_inv @ (v * beta)
    W = T_inv @ k_beta
    A = (q @ k.mT).tril()  # intra-chunk weights

    S = v.new_zeros(B * H, k.shape[-1], V)  # state
    outputs = []
    for q_i, k_i, U_i, W_i, A_i in zip(*(x.unbind(1) for x in (q, k, U, W, A)), strict=True):
        u_i = U_i - W_i @ S  # error
        o_i = q_i @ S + A_i @ u_i  # output
        S = S + k_i.mT @ u_i  # state update
        outputs.append(o_i)
    far = torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T]
    return (mix * near + (1 - mix) * far).to(dtype)
