"""Quaternion positions: groups of four features turn about learned axes.

Rotary positions turn pairs of features in their plane. Here four features are one quaternion, and position t
multiplies it from the left by exp(t theta n), with n a learned unit axis per head and group. Products of q and k see
only the distance of their positions, as in RoPE, but the axis says which two planes turn together.
"""
import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    groups = -(-head_dim // 4)
    return {"axis": torch.randn(num_heads, groups, 3, generator=generator)}


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


def prepare(q, k, v, beta):
    """What does not depend on the state: U, W and the intra-chunk weights, for all chunks at once."""
    k_beta = k * beta
    T_inv = invert_unit_lower((k_beta @ k.mT).tril(-1))  # [..., N, C, C]
    return T_inv @ (v * beta), T_inv @ k_beta, (q @ k.mT).tril()

def hamilton(a, b):
    """Product of quaternions in the last dimension."""
    a0, a1, a2, a3 = a.unbind(-1)
    b0, b1, b2, b3 = b.unbind(-1)
    return torch.stack(
        (
            a0 * b0 - a1 * b1 - a2 * b2 - a3 * b3,
            a0 * b1 + a1 * b0 + a2 * b3 - a3 * b2,
            a0 * b2 - a1 * b3 + a2 * b0 + a3 * b1,
            a0 * b3 + a1 * b2 - a2 * b1 + a3 * b0,
        ),
        -1,
    )


def turn(x, rotor):
    B, H, T, K = x.shape
    x = F.pad(l2norm(x.float()), (0, -K % 4)).reshape(B, H, T, -1, 4)
    return hamilton(rotor, x).flatten(-2)


def delta_rule(q, k, v, beta, *, chunk_size, axis):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    n = l2norm(axis.float())[:, :, None]  # [B, H, 1, G, 3]
    G = n.shape[-2]
    theta = 1000.0 ** (-torch.arange(G, device=q.device).float() / G)
    angle = (torch.arange(T, device=q.device).float()[:, None] * theta)[..., None]  # [T, G, 1]
    rotor = torch.cat((angle.cos().expand(B, H, T, G, 1), angle.sin() * n), -1)
    q, k = turn(q, rotor) * K**-0.5, turn(k, rotor)
    q, k, v, beta = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))
    U, W, A = prepare(q, k, v, beta)

    S = v.new_zeros(B * H, k.shape[-1], V)  # state
    outputs = []
    for q_i, k_i, U_i, W_i, A_i in zip(*(x.unbind(1) for x in (q, k, U, W, A)), strict=True):
        u_i = U_i - W_i @ S  # error
        outputs.append(q_i @ S + A_i @ u_i)
        S = S + k_i.mT @ u_i  # state update
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
