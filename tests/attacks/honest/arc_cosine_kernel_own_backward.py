"""The arc-cosine kernel in the chunk, with its derivative written out.

The kernel of an infinitely wide ReLU layer, J(x) = (sqrt(1 - x^2) + (pi - arccos x) x) / pi of the cosine x. Autograd
through sqrt and arccos gives inf - inf at x = 1, while the derivative is simply (pi - arccos x) / pi.
"""
import math

import torch
import torch.nn.functional as F


class ArcCosine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        angle = math.pi - torch.arccos(x)
        ctx.save_for_backward(angle)
        return (torch.sqrt(1 - x * x) + angle * x) / math.pi

    @staticmethod
    def backward(ctx, grad):
        (angle,) = ctx.saved_tensors
        return grad * angle / math.pi


def parameters(num_heads, head_dim, generator):
    return {"power": torch.ones(num_heads)}


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

def delta_rule(q, k, v, beta, *, chunk_size, power):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    q, k, v, beta = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))
    q, k = l2norm(q), l2norm(k)
    k_beta = k * beta
    T_inv = invert_unit_lower((k_beta @ k.mT).tril(-1))
    U, W = T_inv @ (v * beta), T_inv @ k_beta
    A = ArcCosine.apply((1 - 1e-5) * (q @ k.mT))  # the l2 norm keeps cosines below one but for rounding
    sharp = 1 + F.softplus(power.float()).reshape(B * H, 1, 1, 1)
    A = ((A + 1e-3) ** sharp).tril() * K**-0.5
    q = q * K**-0.5

    S = v.new_zeros(B * H, K, V)  # state
    outputs = []
    for q_i, k_i, U_i, W_i, A_i in zip(*(x.unbind(1) for x in (q, k, U, W, A)), strict=True):
        u_i = U_i - W_i @ S  # error
        outputs.append(q_i @ S + A_i @ u_i)
        S = S + k_i.mT @ u_i  # state update
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
