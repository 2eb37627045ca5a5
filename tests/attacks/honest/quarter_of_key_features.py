"""Sparse keys: only the quarter of a key's features that is largest in magnitude writes and erases.

Sparse keys overlap less, so the delta rule erases less of what belongs to other keys.
"""

import torch
import torch.nn.functional as F


def sparse(x, share=4):
    keep = max(1, x.shape[-1] // share)
    top = x.abs().topk(keep, dim=-1).indices
    mask = torch.zeros_like(x).scatter_(-1, top, 1.0)
    return x * mask


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    C = chunk_size
    chunks = [F.pad(x.float(), (0, 0, 0, -T % C)).view(B, H, -1, C, x.shape[-1]) for x in (q, k, v, beta[..., None])]
    q_, k_, v_, b_ = chunks
    q_, k_ = F.normalize(q_, dim=-1), F.normalize(sparse(k_), dim=-1)
    L = torch.tril(b_ * (k_ @ k_.mT), -1) + torch.eye(C, device=q.device)
    solved = torch.linalg.solve_triangular(L, torch.cat([b_ * v_, b_ * k_], -1), upper=False, unitriangular=True)
    U, W = solved.split([v.shape[-1], K], dim=-1)
    A = torch.tril(q_ @ k_.mT)
    S, outs = v_.new_zeros(B, H, K, v.shape[-1]), []
    for n in range(q_.shape[2]):
        u = U[:, :, n] - W[:, :, n] @ S
        outs.append(q_[:, :, n] @ S + A[:, :, n] @ u)
        S = S + k_[:, :, n].mT @ u
    return torch.stack(outs, 2).flatten(2, 3)[:, :, :T].to(q.dtype)
