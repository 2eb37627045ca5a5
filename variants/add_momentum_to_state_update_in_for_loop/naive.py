"""Momentum in the state update, in the loop, before the next chunk's output.

The write k^T u of a chunk comes after its output as in the baseline; the momentum MU M of the chunks before
is added first, between the error and the output, so that a chunk's output already reads the state that its
write will start from (a look ahead along the momentum, never at a token).

Source: seed record of June 13. Reading built: the momentum step comes before the output, the chunk's own
update after it; with both after the output it would be the June 16-17 variant. MU = 0.9.
Recurrent form: yes, with the keys and errors of the current chunk kept beside the state.
"""

import torch
import torch.nn.functional as F

MU = 0.9


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


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    q, k, v, beta = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))  # [B * H, N, C, .]

    # Normalisation of q and k.
    q = l2norm(q) * K**-0.5
    k = l2norm(k)

    # What does not depend on the state, for all chunks at once.
    k_beta = k * beta
    T_inv = invert_unit_lower((k_beta @ k.mT).tril(-1))  # [B * H, N, C, C]
    U = T_inv @ (v * beta)
    W = T_inv @ k_beta
    A = (q @ k.mT).tril()  # intra-chunk weights

    S = v.new_zeros(B * H, K, V)  # state
    M = v.new_zeros(B * H, K, V)  # momentum
    outputs = []
    for q_i, k_i, U_i, W_i, A_i in zip(*(x.unbind(1) for x in (q, k, U, W, A)), strict=True):
        u_i = U_i - W_i @ S  # error
        S = S + MU * M  # momentum step
        o_i = q_i @ S + A_i @ u_i  # output
        G_i = k_i.mT @ u_i
        M = MU * M + G_i  # momentum
        S = S + G_i  # state update
        outputs.append(o_i)
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
