"""A forget gate from a cumulative product, bounded so that its ratios are safe.

The gate is 0.9 + 0.1 sigmoid(a + 6): it can take at most a tenth of the state per token, and starts by taking a
four-thousandth. Within a chunk the product of gates stays above 0.03, so decays between tokens are plain
quotients of a cumprod and no logarithm is needed.
"""
import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"a": 1}


def parameters(num_heads, head_dim, generator):
    return {"a_bias": torch.full((num_heads,), 6.0)}


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

def delta_rule(q, k, v, beta, *, chunk_size, a, a_bias):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    gate = 0.9 + 0.1 * torch.sigmoid(a.float() + a_bias.float()[..., None, None])
    q, k, v, beta, gate = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None], gate - 1))
    gate = (gate + 1).cumprod(-2)  # padding does not decay
    q = l2norm(q) * K**-0.5
    k = l2norm(k)
    between = (gate / gate.mT).tril()
    k_beta = k * beta
    T_inv = invert_unit_lower((k_beta @ k.mT * between).tril(-1))
    U, W = T_inv @ (v * beta), T_inv @ (k_beta * gate)
    A = q @ k.mT * between
    q, k, end = q * gate, k * (gate[..., -1:, :] / gate), gate[..., -1:, :]

    S = v.new_zeros(B * H, K, V)  # state
    outputs = []
    for q_i, k_i, U_i, W_i, A_i, end_i in zip(*(x.unbind(1) for x in (q, k, U, W, A, end)), strict=True):
        u_i = U_i - W_i @ S  # error
        outputs.append(q_i @ S + A_i @ u_i)
        S = end_i * S + k_i.mT @ u_i  # state update
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
