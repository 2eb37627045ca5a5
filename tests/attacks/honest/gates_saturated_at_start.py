"""Gates that start shut: a decay of one minus 6e-6 and a tiny learned write boost.

A gated delta rule whose forgetting is off until training opens it (bias 12 in front of the sigmoid), and a second
write strength behind exp(-9). The start is the baseline up to rounding.
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


def projections(num_heads, head_dim):
    return {"forget": 1, "boost": 1}


def delta_rule(q, k, v, beta, *, chunk_size, forget, boost):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    g = F.logsigmoid(forget.float() + 12)
    beta = beta.float() + torch.exp(boost.float().clamp(max=4).squeeze(-1) - 9)
    q, k, v, beta, g = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None], g))
    q = l2norm(q) * K**-0.5
    k = l2norm(k)
    g = g.cumsum(-2)
    between = (g - g.mT).tril().exp()
    T_inv = invert_unit_lower((beta * k @ k.mT * between).tril(-1))
    U = T_inv @ (v * beta)
    W = T_inv @ (k * beta * g.exp())
    A = (q @ k.mT * between).tril()
    q = q * g.exp()
    k = k * (g[..., -1:, :] - g).exp()
    fade = g[..., -1:, :].exp()
    S = v.new_zeros(B * H, K, V)
    outputs = []
    for q_i, k_i, U_i, W_i, A_i, fade_i in zip(*(x.unbind(1) for x in (q, k, U, W, A, fade)), strict=True):
        u_i = U_i - W_i @ S
        outputs.append(q_i @ S + A_i @ u_i)
        S = S * fade_i + k_i.mT @ u_i
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
