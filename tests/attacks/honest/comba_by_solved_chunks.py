"""Comba: closed-loop control of the state.

The feedback key is scaled apart from the input, and the output is corrected: o = (q - d k) S.
"""
import torch
from torch.nn.functional import softplus, pad


def projections(num_heads, head_dim):
    return dict(alpha=1)


def parameters(num_heads, head_dim, generator):
    return dict(b=torch.zeros(num_heads), d=torch.full([num_heads], 0.02), dtb=torch.full([num_heads], -4.0))


def delta_rule(q, k, v, beta, *, chunk_size, alpha, b, d, dtb):
    B, H, T, K = q.shape
    V = v.shape[3]
    norm = lambda x: x.float() / x.float().pow(2).sum(-1, True).add(1e-6).sqrt()
    k = norm(k)
    q = norm(q) * K ** -.5 - d.float().view(B, H, 1, 1) * k
    p = k * torch.sigmoid(b.float()).view(B, H, 1, 1)
    g = -softplus(alpha.float() + dtb.float().view(B, H, 1, 1))
    bt = beta.float().unsqueeze(-1)
    r = -T % chunk_size
    N = (T + r) // chunk_size
    q, k, p, v_, g, bt = (pad(x, (0, 0, 0, r)).view(B * H, N, chunk_size, -1) for x in (q, k, p, v.float(), g, bt))
    gc = g.cumsum(2)
    D = (gc - gc.transpose(2, 3)).masked_fill(torch.ones(chunk_size, chunk_size, device=q.device).triu(1).bool(), float('-inf')).exp()
    Dprev = (gc - g - gc.transpose(2, 3))
    # prediction is read before the decay of its own token
    Dprev = Dprev.masked_fill(torch.ones(chunk_size, chunk_size, device=q.device).triu(0).bool(), float('-inf')).exp()
    M = bt * (p @ k.transpose(2, 3)) * Dprev
    I = torch.eye(chunk_size, device=q.device)
    S = torch.zeros(B * H, K, V, device=q.device)
    o = []
    for n in range(N):
        rhs = bt[:, n] * (v_[:, n] - (p[:, n] * (gc[:, n] - g[:, n]).exp()) @ S)
        u = torch.linalg.solve(I + M[:, n], rhs)
        o.append((q[:, n] * gc[:, n].exp()) @ S + ((q[:, n] @ k[:, n].transpose(1, 2)) * D[:, n]) @ u)
        end = gc[:, n, -1:]
        S = S * end.exp() + (k[:, n] * (end - gc[:, n]).exp()).transpose(1, 2) @ u
    return torch.stack(o, 1).reshape(B, H, -1, V)[:, :, :T].to(v.dtype)
