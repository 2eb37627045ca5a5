"""Comba: closed-loop control of the state, with output correction.

Scalar-plus-low-rank transition: S <- alpha S - b~ k (k^T S) + b k v^T with feedback strength b~ = b * sigmoid(fb),
and the query is corrected by the key, o = (q - d k) S.
"""

import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"forget": 1}


def parameters(num_heads, head_dim, generator):
    return {"feedback": torch.full((num_heads,), 2.0), "d": torch.full((num_heads,), 0.02)}


def delta_rule(q, k, v, beta, *, chunk_size, forget, feedback, d):
    batch, heads, seq_len, d_k = q.shape
    d_v = v.shape[-1]
    orig_dtype = q.dtype
    q, k, v, beta, forget = [x.to(torch.float32) for x in (q, k, v, beta, forget)]

    q = F.normalize(q, dim=-1, eps=1e-6)
    k = F.normalize(k, dim=-1, eps=1e-6)
    q = (q - d.float()[:, :, None, None] * k) * (d_k ** -0.5)
    log_alpha = F.logsigmoid(forget + 5.0).squeeze(-1)
    beta_tilde = beta * torch.sigmoid(feedback.float())[:, :, None]

    remainder = seq_len % chunk_size
    if remainder != 0:
        n_pad = chunk_size - remainder
        q, k, v = (F.pad(x, (0, 0, 0, n_pad)) for x in (q, k, v))
        beta, beta_tilde, log_alpha = (F.pad(x, (0, n_pad)) for x in (beta, beta_tilde, log_alpha))
    n = q.shape[2] // chunk_size
    shape4 = (batch, heads, n, chunk_size)
    q, k, v = q.reshape(*shape4, d_k), k.reshape(*shape4, d_k), v.reshape(*shape4, d_v)
    beta, beta_tilde, g = beta.reshape(shape4), beta_tilde.reshape(shape4), log_alpha.reshape(shape4).cumsum(-1)

    causal = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=q.device).tril()
    strict = causal.tril(-1)
    gap = g.unsqueeze(-1) - g.unsqueeze(-2)
    decay = torch.where(causal, torch.exp(torch.where(causal, gap, 0.0)), 0.0)

    kk = torch.einsum("bhnik,bhnjk->bhnij", k * beta_tilde.unsqueeze(-1), k) * decay
    T = torch.where(strict, -kk, 0.0)
    # forward substitution, a row at a time
    rows = [T[..., 0, :]]
    for i in range(1, chunk_size):
        row = T[..., i, :]
        rows.append(row + (row[..., :i].unsqueeze(-1) * torch.stack(rows, dim=-2)).sum(-2))
    T = torch.stack(rows, dim=-2) + torch.eye(chunk_size, device=q.device)

    u = T @ (v * beta.unsqueeze(-1))
    w = T @ (k * (beta_tilde * g.exp()).unsqueeze(-1))
    attn = (q @ k.transpose(-1, -2)) * decay

    S = torch.zeros(batch, heads, d_k, d_v, device=q.device)
    o = torch.zeros_like(v)
    for i in range(n):
        err = u[:, :, i] - w[:, :, i] @ S
        o[:, :, i] = (q[:, :, i] * g[:, :, i].exp().unsqueeze(-1)) @ S + attn[:, :, i] @ err
        last = g[:, :, i, -1:]
        S = S * last.exp().unsqueeze(-1) + (k[:, :, i] * (last - g[:, :, i]).exp().unsqueeze(-1)).transpose(-1, -2) @ err
    return o.reshape(batch, heads, -1, d_v)[:, :, :seq_len].to(orig_dtype)
