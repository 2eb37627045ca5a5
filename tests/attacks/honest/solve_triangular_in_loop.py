"""The delta rule with a triangular solve per chunk.

The errors of a chunk solve (I + tril(beta k k^T)) u = beta (v - k S): no inverse is formed, which is the better
conditioned way where keys repeat. Arithmetic of the baseline otherwise.
"""

import torch
import torch.nn.functional as F

def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype

    q, k, v, beta = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))
    q = l2norm(q) * K**-0.5
    k = l2norm(k)
    L = torch.eye(chunk_size, device=q.device) + (beta * k @ k.mT).tril(-1)
    A = (q @ k.mT).tril()
    S = v.new_zeros(B * H, K, V)
    outputs = []
    for q_i, k_i, v_i, b_i, L_i, A_i in zip(*(x.unbind(1) for x in (q, k, v, beta, L, A)), strict=True):
        u_i = torch.linalg.solve_triangular(L_i, b_i * (v_i - k_i @ S), upper=False, unitriangular=True)
        outputs.append(q_i @ S + A_i @ u_i)
        S = S + k_i.mT @ u_i
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
