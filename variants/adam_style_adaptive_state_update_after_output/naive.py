"""An Adam step as the state update, after the chunk's output.

First and second moments of the update k^T u are carried from chunk to chunk, and S moves by their
bias-corrected ratio: every entry of the state moves at one pace, whatever the size of its updates. Costs
two more states.

Source: seed record of June 16-17. Reading built: the name's, moments of k^T u, step STEP = 0.1 (ours). The
published row is a collapse on every task, which this reading cannot explain where T <= chunk_size: there
the state is never read. See adam_style_moments_on_error_before_output for the other reading.
Recurrent form: yes, with the keys and errors of the current chunk kept beside the state.
"""

import torch
import torch.nn.functional as F

MU_1, MU_2, STEP, EPS = 0.9, 0.999, 0.1, 1e-8


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
    M_1, M_2 = v.new_zeros(2, B * H, K, V)  # moments
    outputs = []
    chunks = zip(*(x.unbind(1) for x in (q, k, U, W, A)), strict=True)
    for n, (q_i, k_i, U_i, W_i, A_i) in enumerate(chunks, start=1):
        u_i = U_i - W_i @ S  # error
        o_i = q_i @ S + A_i @ u_i  # output
        G_i = k_i.mT @ u_i
        M_1 = MU_1 * M_1 + (1 - MU_1) * G_i  # moments
        M_2 = MU_2 * M_2 + (1 - MU_2) * G_i * G_i
        S = S + STEP / (1 - MU_1**n) * M_1 * torch.rsqrt(M_2 / (1 - MU_2**n) + EPS)  # state update
        outputs.append(o_i)
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
