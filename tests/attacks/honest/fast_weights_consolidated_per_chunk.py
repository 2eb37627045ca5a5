"""Fast weights of one chunk, consolidated into slow ones at its end.

Blocks of eight tokens write a fast memory by the delta rule, which sees what the slow memory already predicts; when
the chunk ends, the fast memory is added to the slow one by a learned share and forgotten. Depends on chunk_size.
"""

import torch
import torch.nn.functional as F

def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def parameters(num_heads, head_dim, generator):
    return {"share": torch.full((num_heads,), 2.0), "hold": torch.full((num_heads,), 4.0)}


def delta_rule(q, k, v, beta, *, chunk_size, share, hold):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    inner = next(b for b in (8, 4, 2, 1) if chunk_size % b == 0)
    share, hold = (torch.sigmoid(x.float()).reshape(B * H, 1, 1) for x in (share, hold))
    q, k, v, beta = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))
    q, k = l2norm(q) * K**-0.5, l2norm(k)
    q, k, v, beta = (x.unflatten(2, (-1, inner)) for x in (q, k, v, beta))  # [B * H, N, C / 8, 8, .]
    L = (beta * k @ k.mT).tril(-1) + torch.eye(inner, device=q.device)
    A = (q @ k.mT).tril()
    slow = v.new_zeros(B * H, K, V)
    outputs = []
    for n in range(q.shape[1]):
        fast = torch.zeros_like(slow)
        for m in range(q.shape[2]):
            both = slow + fast
            error = beta[:, n, m] * (v[:, n, m] - k[:, n, m] @ both)
            u = torch.linalg.solve_triangular(L[:, n, m], error, upper=False, unitriangular=True)
            outputs.append(q[:, n, m] @ both + A[:, n, m] @ u)
            fast = fast + k[:, n, m].mT @ u
        slow = hold * slow + share * fast
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
