"""Keys on the hyperboloid, read by the Lorentz product.

The length of a key, which the L2 norm throws away, becomes its distance from the origin of hyperbolic space: features
are (sinh(r) k / |k|, cosh(r)), one more than K. The write normalises them in the Euclidean sense, so that the delta
rule stays a contraction, and the query reads with the signature of the Lorentz product, -cosh of the distance.
"""
import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"curvature": torch.zeros(num_heads)}


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

def lift(x, curvature):
    r = torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)
    rho = 2 * torch.tanh(r * F.softplus(curvature)[..., None, None] / 2)
    return torch.cat((torch.sinh(rho) * x / r, torch.cosh(rho)), -1)


def delta_rule(q, k, v, beta, *, chunk_size, curvature):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    q = lift(q.float(), curvature.float())
    k = lift(k.float(), curvature.float())
    q = torch.cat((q[..., :-1], -q[..., -1:]), -1)
    q, k, v, beta = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))
    q = l2norm(q) * K**-0.5
    k = l2norm(k)
    U, W, A = prepare(q, k, v, beta)

    S = v.new_zeros(B * H, K + 1, V)  # state
    outputs = []
    for q_i, k_i, U_i, W_i, A_i in zip(*(x.unbind(1) for x in (q, k, U, W, A)), strict=True):
        u_i = U_i - W_i @ S  # error
        outputs.append(q_i @ S + A_i @ u_i)
        S = S + k_i.mT @ u_i  # state update
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
