"""KDA: fine-grained per-channel decay inside the delta rule, UT transform by in-place forward substitution over rows."""
import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"g": head_dim}


def parameters(num_heads, head_dim, generator):
    return {"A_log": torch.log(1 + 3 * torch.rand(num_heads, generator=generator)), "dt_bias": torch.zeros(num_heads, head_dim)}


def delta_rule(q, k, v, beta, *, chunk_size, g, A_log, dt_bias):
    B, H, T, K = q.shape
    dtype, BT = q.dtype, chunk_size
    g = -A_log.float().exp()[:, :, None, None] * F.softplus(g.float() + dt_bias.float()[:, :, None])
    g = g.clamp(min=-1.5)
    pad = (BT - T % BT) % BT
    q, k, v, g = (F.pad(x.float(), (0, 0, 0, pad)).view(B, H, -1, BT, x.shape[-1]) for x in (q, k, v, g))
    beta = F.pad(beta.float(), (0, pad)).view(B, H, -1, BT)
    q, k = F.normalize(q, p=2, dim=-1, eps=1e-6) * K**-0.5, F.normalize(k, p=2, dim=-1, eps=1e-6)
    g = g.cumsum(-2)
    upper = torch.triu(torch.ones(BT, BT, dtype=torch.bool, device=q.device), diagonal=0)
    A = ((k * g.exp()) @ (k * (-g).exp()).transpose(-1, -2)) * beta[..., None]
    A = -A.masked_fill(upper, 0)
    for i in range(1, BT):
        A[..., i, :i] = A[..., i, :i].clone() + (A[..., i, :, None].clone() * A[..., :, :i].clone()).sum(-2)
    A = (A + torch.eye(BT, device=q.device)) * beta[..., None, :]
    w, u = A @ (g.exp() * k), A @ v
    S, o = q.new_zeros(B, H, K, v.shape[-1]), torch.zeros_like(v)
    strict = torch.triu(torch.ones(BT, BT, dtype=torch.bool, device=q.device), diagonal=1)
    for i in range(q.shape[2]):
        q_i, k_i, g_i = q[:, :, i], k[:, :, i], g[:, :, i]
        Aqk = ((q_i * g_i.exp()) @ (k_i * (-g_i).exp()).mT).masked_fill(strict, 0)
        v_i = u[:, :, i] - w[:, :, i] @ S
        o[:, :, i] = (q_i * g_i.exp()) @ S + Aqk @ v_i
        S = S * g_i[:, :, -1].exp()[..., None] + ((g_i[:, :, -1:] - g_i).exp() * k_i).mT @ v_i
    return o.flatten(2, 3)[:, :, :T].to(dtype)
