"""A WaveNet tower on the values before they are written.

Nine residual layers of two taps each, with dilations 1, 2, 4 .. 256 and a tanh, give every value a summary of its past on
all scales for nine weights per head. Depthwise and causal; work is linear in the length. The weights start small.
"""
import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"taps": 0.2 * torch.randn(num_heads, 9, generator=generator)}


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

def tower(x, taps):
    for n in range(taps.shape[2]):
        past = F.pad(x, (0, 0, 2**n, 0))[:, :, : x.shape[2]]
        x = x + taps[:, :, n, None, None] * torch.tanh(past)
    return x


def delta_rule(q, k, v, beta, *, chunk_size, taps):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    v = tower(v.float(), taps.float())
    q, k, v, beta = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))
    q = l2norm(q) * K**-0.5
    k = l2norm(k)
    U, W, A = prepare(q, k, v, beta)

    S = v.new_zeros(B * H, k.shape[-1], V)  # state
    outputs = []
    for q_i, k_i, U_i, W_i, A_i in zip(*(x.unbind(1) for x in (q, k, U, W, A)), strict=True):
        u_i = U_i - W_i @ S  # error
        outputs.append(q_i @ S + A_i @ u_i)
        S = S + k_i.mT @ u_i  # state update
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
