"""MesaNet: the query is preconditioned by the inverse of the keys' decayed covariance.

Two states, G = sum of gamma k (beta v)^T and H = sum of gamma beta k k^T. o_t = G_t^T (H_t + Lambda)^-1 q_t, where the
linear system is solved by a few conjugate gradient steps for all tokens of a chunk at once; H_t p is never formed,
only (state) p plus the chunk's masked keys.
"""

import torch
import torch.nn.functional as F

CG_STEPS = 4


def projections(num_heads, head_dim):
    return {"gamma": 1}


def parameters(num_heads, head_dim, generator):
    return {"ridge": torch.zeros(num_heads, head_dim)}


def delta_rule(q, k, v, beta, *, chunk_size, gamma, ridge):
    B, H, T, K = q.shape
    V = v.shape[-1]
    dtype = q.dtype
    q = F.normalize(q.float(), dim=-1, eps=1e-6)
    k = F.normalize(k.float(), dim=-1, eps=1e-6)
    w = beta.float().unsqueeze(-1)
    g = F.logsigmoid(gamma.float() + 4.0)
    lam = 0.25 + F.softplus(ridge.float()).unsqueeze(2)

    def chunks(x):
        return F.pad(x, (0, 0, 0, -T % chunk_size)).unflatten(2, (-1, chunk_size)).unbind(2)

    Hs = torch.zeros(B, H, K, K, device=q.device)
    Gs = torch.zeros(B, H, K, V, device=q.device)
    outs = []
    for qc, kc, vc, wc, gc in zip(chunks(q), chunks(k), chunks(v.float()), chunks(w), chunks(g)):
        a = gc.cumsum(dim=2)
        from_start = a.exp()
        mask = torch.tril(torch.exp((a - a.transpose(-1, -2)).clamp(max=0.0))) * wc.transpose(-1, -2)

        def matvec(p):
            return from_start * (p @ Hs) + ((p @ kc.transpose(-1, -2)) * mask) @ kc + lam * p

        x = qc / (lam + 1.0)
        r = qc - matvec(x)
        p = r
        rs = (r * r).sum(-1, keepdim=True)
        for _ in range(CG_STEPS):
            Ap = matvec(p)
            alpha = rs / ((p * Ap).sum(-1, keepdim=True) + 1e-6)
            x = x + alpha * p
            r = r - alpha * Ap
            rs_new = (r * r).sum(-1, keepdim=True)
            p = r + rs_new / (rs + 1e-6) * p
            rs = rs_new

        outs.append(from_start * (x @ Gs) + ((x @ kc.transpose(-1, -2)) * mask) @ vc)
        to_end = (a[:, :, -1:] - a).exp() * wc
        whole = a[:, :, -1:].exp()
        Hs = whole * Hs + (kc * to_end).transpose(-1, -2) @ kc
        Gs = whole * Gs + (kc * to_end).transpose(-1, -2) @ vc
    return torch.cat(outs, dim=2)[:, :, :T].to(dtype)
