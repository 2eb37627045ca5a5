"""bfloat16 state between chunks, straight-through gradient.

The state is rounded to bfloat16 whenever a chunk ends, as an inference kernel would store it, and the gradient passes
as if it were not. Robustness against rounding is trained in.
"""

import torch
import torch.nn.functional as F


class RoundToBF16(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.to(torch.bfloat16).to(x.dtype)

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output


def _chunk(x, C):
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % C)).reshape(B, H, -1, C, D)


def _wy(q, k, v, beta, C):
    """Chunked q, k and the WY factors U, W and the intra-chunk weights A."""
    q = F.normalize(q.float(), dim=-1, eps=1e-6) * q.shape[-1] ** -0.5
    k = F.normalize(k.float(), dim=-1, eps=1e-6)
    q, k, v, b = _chunk(q, C), _chunk(k, C), _chunk(v, C), _chunk(beta[..., None], C)
    L = (b * k @ k.mT).tril(-1) + torch.eye(C, device=q.device)
    U = torch.linalg.solve_triangular(L, b * v, upper=False, unitriangular=True)
    W = torch.linalg.solve_triangular(L, b * k, upper=False, unitriangular=True)
    return q, k, U, W, (q @ k.mT).tril()


def delta_rule(q, k, v, beta, *, chunk_size):
    T, dtype = q.shape[2], q.dtype
    q, k, U, W, A = _wy(q, k, v, beta, chunk_size)
    S = torch.zeros(*q.shape[:2], q.shape[-1], U.shape[-1], device=q.device)
    outs = []
    for i in range(q.shape[2]):
        u = U[:, :, i] - W[:, :, i] @ S
        outs.append(q[:, :, i] @ S + A[:, :, i] @ u)
        S = RoundToBF16.apply(S + k[:, :, i].mT @ u)
    return torch.cat(outs, dim=2)[:, :, :T].to(dtype)
