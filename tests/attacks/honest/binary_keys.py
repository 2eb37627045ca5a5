"""Binary keys: the key that writes and predicts is sign(k) / sqrt(K), with a straight-through gradient (hard tanh)."""
import torch
import torch.nn.functional as F


class SignSTE(torch.autograd.Function):
    """sign forward, clipped identity backward (Courbariaux et al. 2016)."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1.5).to(grad.dtype)


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    dtype = q.dtype
    q = F.normalize(q.float(), dim=-1)
    k = F.layer_norm(k.float(), (K,))
    k = SignSTE.apply(k) * K ** -0.5
    v, b = v.float(), beta.float()[..., None]
    pad = -T % chunk_size
    q, k, v, b = (F.pad(x, (0, 0, 0, pad)).reshape(B, H, -1, chunk_size, x.shape[-1]) for x in (q, k, v, b))
    kb = k * b
    M = torch.eye(chunk_size, device=q.device) + (kb @ k.mT).tril(-1)
    U = torch.linalg.solve_triangular(M, v * b, upper=False, unitriangular=True)
    W = torch.linalg.solve_triangular(M, kb, upper=False, unitriangular=True)
    A = (q @ k.mT).tril()
    S = torch.zeros(B, H, K, v.shape[-1], device=q.device)
    o = torch.empty_like(U)
    for i in range(q.shape[2]):
        u = U[:, :, i] - W[:, :, i] @ S
        o[:, :, i] = q[:, :, i] @ S + A[:, :, i] @ u
        S = S + k[:, :, i].mT @ u
    return o.reshape(B, H, -1, v.shape[-1])[:, :, :T].to(dtype)
