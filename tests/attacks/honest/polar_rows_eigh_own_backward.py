"""The chunk's update made orthogonal in groups of four rows, by eigh with its own backward.

(G G^T + eps I)^(-1/2) G for four rows at a time: Muon in small. eigh gives the root at once; its own derivative divides
by differences of eigenvalues and fails where two are equal, so the root of the matrix has a backward by divided
differences (Daleckii and Krein), which for x^(-1/2) are -1 / (sqrt(a b) (sqrt(a) + sqrt(b))) and never singular.
"""
import torch
import torch.nn.functional as F


class InverseRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx, M):
        w, Q = torch.linalg.eigh(M)
        root = w.clamp(min=1e-12).sqrt()
        ctx.save_for_backward(root, Q)
        return (Q / root[..., None, :]) @ Q.mT

    @staticmethod
    def backward(ctx, grad):
        root, Q = ctx.saved_tensors
        a, b = root[..., :, None], root[..., None, :]
        inner = Q.mT @ grad @ Q
        return Q @ (inner * (-1 / (a * b * (a + b)))) @ Q.mT


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

def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    q, k, v, beta = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))
    q = F.pad(l2norm(q) * K**-0.5, (0, -K % 4))
    k = F.pad(l2norm(k), (0, -K % 4))
    U, W, A = prepare(q, k, v, beta)

    rows = k.shape[-1]
    I = torch.eye(4, device=q.device, dtype=k.dtype)
    S = v.new_zeros(B * H, rows, V)  # state
    outputs = []
    for q_i, k_i, U_i, W_i, A_i in zip(*(x.unbind(1) for x in (q, k, U, W, A)), strict=True):
        u_i = U_i - W_i @ S  # error
        outputs.append(q_i @ S + A_i @ u_i)
        G = (k_i.mT @ u_i).reshape(B * H, -1, 4, V)
        M = G @ G.mT
        M = 0.5 * (M + M.mT)
        trace = M.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        G = InverseRoot.apply(M + (1e-2 * trace + 1e-4) * I) @ G
        S = S + G.reshape(B * H, rows, V)  # state update
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
