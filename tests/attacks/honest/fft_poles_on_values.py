"""Values smoothed by learned poles, convolved by FFT inside a chunk.

Each head has two real poles; v is filtered by their impulse response before the delta rule writes it, so that a write
holds a trace of its neighbourhood. Inside a chunk the filter is a product of spectra (zero padded to twice the
chunk), between chunks the poles' two states are carried.
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
    apart = row[:, None] ^ row  # apart >> s == 1: in one block of 2^(s+1) rows, in different halves of it
    L = L.reshape(-1, C, C)
    X = torch.eye(C, device=L.device) - L.detach() * (apart == 1)
    for s in range(1, (C - 1).bit_length()):
        X = torch.where(apart >> s == 1, -(X @ L.detach() @ X), X)
    # A last Newton step, X <- 2 X - X (I + L) X: it sharpens X and carries the gradient, in two products.
    return torch.baddbmm(X, X, torch.baddbmm(X, L, X), beta=2, alpha=-1).reshape(shape)


def parameters(num_heads, head_dim, generator):
    return {"poles": torch.tensor([1.0, -1.0]).repeat(num_heads, 1), "weights": torch.tensor([0.2, 0.1]).repeat(num_heads, 1)}


def filtered(v, poles, weights):
    """v [X, N, C, V], poles and weights [X, 2] -> v + its trace, causal over N * C."""
    C = v.shape[2]
    i = torch.arange(C, device=v.device, dtype=torch.float32)
    powers = poles[..., None] ** (i + 1)  # [X, 2, C]
    response = torch.einsum("xp,xpc->xc", weights, poles[..., None] ** i.clamp(min=0))
    spectrum = torch.fft.rfft(response, n=2 * C)[:, None, :, None]
    inside = torch.fft.irfft(torch.fft.rfft(v, n=2 * C, dim=2) * spectrum, n=2 * C, dim=2)[:, :, :C]
    left = torch.einsum("xpc,xncv->xnpv", poles[..., None] ** (C - 1 - i), v)
    carried = torch.zeros_like(left[:, 0])
    before = []
    for n in range(v.shape[1]):
        before.append(torch.einsum("xp,xpc,xpv->xcv", weights, powers, carried))
        carried = carried * poles[..., None] ** C + left[:, n]
    return v + inside + torch.stack(before, dim=1)


def delta_rule(q, k, v, beta, *, chunk_size, poles, weights):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    q, k, v, beta = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))
    q = l2norm(q) * K**-0.5
    k = l2norm(k)
    v = filtered(v, 0.98 * torch.sigmoid(poles.float()).flatten(0, 1), weights.float().flatten(0, 1))

    k_beta = k * beta
    T_inv = invert_unit_lower((k_beta @ k.mT).tril(-1))  # [B * H, N, C, C]
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
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
