import torch
import torch.nn.functional as F


def delta_rule(q, k, v, beta, chunk_size=32):
    parts, S, M = [], q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1]), 0.0
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    for i in range(0, q.shape[2], chunk_size):
        c = slice(i, i + chunk_size)
        u = beta[:, :, c, None] * (v[:, :, c] - k[:, :, c] @ S)
        parts.append(q[:, :, c] @ S + (q[:, :, c] @ k[:, :, c].mT).tril() @ u)
        M = 0.5 * M + k[:, :, c].mT @ u / chunk_size
        S = S + M
    return torch.cat(parts, 2)
