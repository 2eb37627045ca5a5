"""MesaNet: the output is the solution of a ridge regression over the past, by a few conjugate gradient steps.

Two decayed sums are kept, H = sum beta k k^T and G = sum beta k v^T. Each token solves (H + diag(lambda)) x = q with
five unrolled CG steps from zero and reads o = x G. Divisions carry a constant, so that a residual that has vanished
ends the iteration smoothly rather than by a quotient of two rounding errors.
"""

import torch
import torch.nn.functional as F

STEPS = 5
TINY = 1e-5


def projections(num_heads, head_dim):
    return {"forget": 1}


def parameters(num_heads, head_dim, generator):
    return {"ridge": torch.zeros(num_heads, head_dim)}


def dot(a, b):
    return (a * b).sum(-1, keepdim=True)


def conjugate_gradient(H, ridge, q):
    x, r = torch.zeros_like(q), q
    p, rr = r, dot(r, r)
    for _ in range(STEPS):
        Ap = torch.einsum("bhij,bhj->bhi", H, p) + ridge * p
        alpha = rr / (dot(p, Ap) + TINY)
        x, r = x + alpha * p, r - alpha * Ap
        rr_next = dot(r, r)
        p, rr = r + rr_next / (rr + TINY) * p, rr_next
    return x


def delta_rule(q, k, v, beta, *, chunk_size, forget, ridge):
    dtype = q.dtype
    q, k, v = q.float(), k.float(), v.float()
    q, k = (x * torch.rsqrt(dot(x, x) + 1e-6) for x in (q, k))
    keep = torch.sigmoid(forget.float() + 3.0)[..., None]  # [B, H, T, 1, 1]
    ridge = F.softplus(ridge.float()) + 0.25
    H = torch.zeros_like(k[:, :, 0, :, None] * k[:, :, 0, None, :])
    G = torch.zeros_like(k[:, :, 0, :, None] * v[:, :, 0, None, :])
    rows = []
    for t in range(q.shape[2]):
        weighted = (beta[:, :, t].float()[..., None] * k[:, :, t])[..., None]
        H = keep[:, :, t] * H + weighted * k[:, :, t, None, :]
        G = keep[:, :, t] * G + weighted * v[:, :, t, None, :]
        x = conjugate_gradient(H, ridge, q[:, :, t])
        rows.append(torch.einsum("bhk,bhkv->bhv", x, G))
    return torch.stack(rows, dim=2).to(dtype)
