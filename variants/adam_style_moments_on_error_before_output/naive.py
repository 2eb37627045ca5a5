"""Adam's moments on the error, before the output.

First and second moments of the error run over the tokens, per value feature, and their bias-corrected ratio
takes the place of the error both in the output and in the write: all errors become about one in size.
Within a chunk the two running means are products with lower triangular weights; between chunks only their
last row is kept.

Source: seed record of June 16-17. The other reading of adam_style_adaptive_state_update_after_output:
published as a collapse also where the state is never read (Memorize 0.051), so its moments may have acted
on u itself.
Recurrent form: yes, with the moments, and the keys and errors of the current chunk, kept beside the state.
"""

import math

import torch
import torch.nn.functional as F

MU_1, MU_2, EPS = 0.9, 0.999, 1e-8


def running_mean_weights(mu, num_chunks, chunk_size, device):
    """Weights [C, C] on a chunk's tokens and [C, 1] on the mean before it, and bias corrections [N, C, 1]."""
    t = torch.arange(chunk_size, device=device)
    within = (1 - mu) * mu ** (t[:, None] - t).clamp(min=0).float()
    n = torch.arange(1, num_chunks * chunk_size + 1, device=device).reshape(num_chunks, chunk_size, 1)
    return within.tril(), mu ** (t[:, None] + 1).float(), -1 / torch.expm1(n * math.log(mu))


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
    M_1, M_2 = v.new_zeros(2, B * H, 1, V)  # moments
    within_1, before_1, unbias_1 = running_mean_weights(MU_1, q.shape[1], chunk_size, q.device)
    within_2, before_2, unbias_2 = running_mean_weights(MU_2, q.shape[1], chunk_size, q.device)
    outputs = []
    chunks = zip(*(x.unbind(1) for x in (q, k, U, W, A)), unbias_1, unbias_2, strict=True)
    for q_i, k_i, U_i, W_i, A_i, unbias_1i, unbias_2i in chunks:
        u_i = U_i - W_i @ S  # error
        M_1 = within_1 @ u_i + before_1 * M_1[:, -1:]  # moments
        M_2 = within_2 @ (u_i * u_i) + before_2 * M_2[:, -1:]
        u_i = M_1 * unbias_1i * torch.rsqrt(M_2 * unbias_2i + EPS)
        o_i = q_i @ S + A_i @ u_i  # output
        S = S + k_i.mT @ u_i  # state update
        outputs.append(o_i)
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
