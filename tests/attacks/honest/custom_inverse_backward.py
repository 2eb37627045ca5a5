"""The triangular inverse with its own backward.

The baseline's arithmetic with d(X) = -X dL X written out, so that the backward takes two products and saves one
matrix. An output scale per head is learned beside it.
"""

import torch
import torch.nn.functional as F

def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


class UnitLowerInverse(torch.autograd.Function):
    """(I + L)^-1 of strictly lower triangular L; the gradient of L is -(X^T G X^T), strictly lower."""

    @staticmethod
    def forward(ctx, L):
        eye = torch.eye(L.shape[-1], device=L.device, dtype=L.dtype)
        X = torch.linalg.solve_triangular(eye + L, eye.expand_as(L), upper=False, unitriangular=True)
        ctx.save_for_backward(X)
        return X

    @staticmethod
    def backward(ctx, grad):
        (X,) = ctx.saved_tensors
        return -(X.mT @ grad @ X.mT).tril(-1)


def parameters(num_heads, head_dim, generator):
    return {"scale": torch.ones(num_heads)}


def delta_rule(q, k, v, beta, *, chunk_size, scale):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype

    q, k, v, beta = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))
    q = l2norm(q) * K**-0.5
    k = l2norm(k)

    k_beta = k * beta
    T_inv = UnitLowerInverse.apply((k_beta @ k.mT).tril(-1))  # [B * H, N, C, C]
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
    o = torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T]
    return (o * scale.float()[..., None, None]).to(dtype)
