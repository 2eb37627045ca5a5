"""Comba: closed-loop control of a gated delta rule, with feedback to the state and to the output.

S <- alpha S - b beta k (k S) + beta k v^T (the removal is weaker than the write by a learned factor b), and the output is
corrected by what the key itself would read: o = (q - d k) S. Within a chunk the errors solve a triangular system whose
decays are differences of cumulative logarithms.
"""

import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"gate": 1}


def parameters(num_heads, head_dim, generator):
    return {"feedback": torch.full((num_heads,), 2.0), "correction": torch.full((num_heads,), 0.02)}


def delta_rule(q, k, v, beta, *, chunk_size, gate, feedback, correction):
    (B, H, T, K), V, C = q.shape, v.shape[-1], chunk_size
    N = -(-T // C)
    g = F.logsigmoid(gate.float() + 4.0)
    chunked = []
    for x in (q, k, v, beta[..., None], g):
        chunked.append(F.pad(x.float(), [0, 0, 0, N * C - T]).view(B, H, N, C, -1))
    Q, Ks, Vs, b, g = chunked
    Q = Q / (Q.square().sum(-1, True) + 1e-6).sqrt() * K**-0.5
    Ks = Ks / (Ks.square().sum(-1, True) + 1e-6).sqrt()
    Q = Q - correction.float()[:, :, None, None, None] * Ks
    b_removed = b * torch.sigmoid(feedback.float())[:, :, None, None, None]
    after = g.cumsum(-2)
    before = after - g  # decay from the chunk's start up to just before a token
    KK = Ks @ Ks.transpose(-1, -2)
    low = (before - after.mT).tril(-1).exp().tril(-1)
    M = torch.eye(C, device=q.device) + b_removed * KK * low
    rhs = torch.cat([b * Vs, b_removed * Ks * before.exp()], dim=-1)
    X = torch.linalg.solve_triangular(M, rhs, upper=False)
    U, W = X[..., :V], X[..., V:]
    A = (Q @ Ks.mT) * (after - after.mT).tril().exp().tril()
    Qd = Q * after.exp()
    Kd = Ks * (after[..., -1:, :] - after).exp()
    whole = after[..., -1:, :].exp()
    S = Q.new_zeros(B, H, K, V)
    out = []
    for n in range(N):
        u = U[:, :, n] - W[:, :, n] @ S
        out += [Qd[:, :, n] @ S + A[:, :, n] @ u]
        S = whole[:, :, n] * S + Kd[:, :, n].mT @ u
    return torch.cat(out, dim=2).narrow(2, 0, T).to(q.dtype)
