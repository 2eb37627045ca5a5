"""RWKV-7's generalised delta rule, one token after the other.

S <- diag(w) S - (a kappa)(kappa^T S) + k v^T, with a vector decay w = exp(-0.606 sigmoid(.)), a vector write strength
a, and a bonus for the present token. Blocks of chunk_size tokens only bound how much is stacked at once.
"""

import torch
import torch.nn.functional as F

def projections(num_heads, head_dim):
    return {"w": head_dim}


def parameters(num_heads, head_dim, generator):
    return {
        "w_bias": torch.linspace(-6.0, 1.0, head_dim).repeat(num_heads, 1),
        "a_bias": torch.zeros(num_heads, head_dim),
        "bonus": torch.full((num_heads, head_dim), 0.1),
        "k_scale": torch.ones(num_heads, head_dim),
    }


def step(S, q, k, kappa, v, w, a):
    S = w[..., None] * S - (a * kappa)[..., None] * torch.einsum("bhk,bhkv->bhv", kappa, S)[..., None, :]
    S = S + k[..., None] * v[..., None, :]
    return S, torch.einsum("bhk,bhkv->bhv", q, S)


def features(q, k, v, beta, w, w_bias, a_bias, bonus, k_scale):
    """All [B, H, T, .]; learned tensors with their time axis put in."""
    q, k, v, beta = q.float(), k.float(), v.float(), beta.float()[..., None]
    w = torch.exp(-0.606531 * torch.sigmoid(w.float() + w_bias))
    a = torch.sigmoid(a_bias + torch.logit(beta.clamp(1e-4, 1 - 1e-4)))
    kappa = F.normalize(k * k_scale, dim=-1, eps=1e-3)
    k = kappa * a
    q = F.normalize(q, dim=-1, eps=1e-3)
    extra = (q * bonus * k).sum(-1, keepdim=True) * v
    return q, k, kappa, v, w, a, extra


def delta_rule(q, k, v, beta, *, chunk_size, w, w_bias, a_bias, bonus, k_scale):
    dtype = q.dtype
    learned = (x.float()[:, :, None] for x in (w_bias, a_bias, bonus, k_scale))
    *columns, extra = features(q, k, v, beta, w, *learned)
    S = torch.zeros(*columns[0].shape[:2], q.shape[-1], v.shape[-1], device=q.device)
    blocks = []
    for block in zip(*(x.split(chunk_size, dim=2) for x in columns), strict=True):
        rows = []
        for row in zip(*(x.unbind(2) for x in block), strict=True):
            S, o = step(S, *row)
            rows.append(o)
        blocks.append(torch.stack(rows, dim=2))
    return (torch.cat(blocks, dim=2) + extra).to(dtype)


def recurrence(q_t, k_t, v_t, beta_t, state, w, w_bias, a_bias, bonus, k_scale):
    one = (x[:, :, None] for x in (q_t, k_t, v_t, beta_t, w))
    learned = (x.float()[:, :, None] for x in (w_bias, a_bias, bonus, k_scale))
    *columns, extra = features(*one, *learned)
    S = torch.zeros(*q_t.shape, v_t.shape[-1], device=q_t.device) if state is None else state
    S, o = step(S, *(x[:, :, 0] for x in columns))
    return (o + extra[:, :, 0]).to(q_t.dtype), S
