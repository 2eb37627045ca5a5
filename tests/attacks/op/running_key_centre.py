"""Keys relative to a running centre.

Keys after SiLU share a mean, which makes all of them overlap. A centre per head is taken off before they are normalised;
it is learned, and also follows the mean of what is seen, as a codebook's entries follow their members.
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


class Centre(torch.autograd.Function):
    @staticmethod
    def forward(ctx, k, centre):
        ctx.save_for_backward(k, centre)
        return k - centre[:, :, None]

    @staticmethod
    def backward(ctx, grad):
        k, centre = ctx.saved_tensors
        centre.detach()[:1].lerp_(k.detach().mean((0, 2))[None], 0.02)
        return grad, -grad.sum(2)


def parameters(num_heads, head_dim, generator):
    return {"centre": torch.zeros(num_heads, head_dim)}


def delta_rule(q, k, v, beta, *, chunk_size, centre):
    K, dtype = q.shape[-1], q.dtype
    k = Centre.apply(k.to(centre.dtype), centre).float()
    return delta(l2norm(q.float()) * K**-0.5, l2norm(k), v, beta, chunk_size).to(dtype)
