"""HGRN2 with a learned lower bound on the forget gate.

Keys are tied to the forget gate, k = 1 - f, f = lb + (1 - lb) sigmoid(key), so that what is written is what is
forgotten. beta scales the input.
"""

import torch


def parameters(num_heads, head_dim, generator):
    return {"lower_bound": torch.linspace(0.0, 3.0, head_dim).repeat(num_heads, 1)}


def delta_rule(q, k, v, beta, *, chunk_size, lower_bound):
    B, H, T, K = q.shape
    lb = torch.sigmoid(lower_bound.float()).unsqueeze(2)
    f = lb + (1.0 - lb) * torch.sigmoid(k.float())
    i = 1.0 - f
    x = v.float() * beta.float().unsqueeze(-1)
    q_ = torch.softmax(q.float(), dim=-1)

    h = torch.zeros(B, H, K, v.size(-1), device=q.device, dtype=torch.float32)
    o = []
    for t in range(T):
        h = f[:, :, t, :, None] * h + i[:, :, t, :, None] * x[:, :, t, None, :]
        o.append((q_[:, :, t, None, :] @ h)[:, :, 0])
    return torch.stack(o, 2).to(q.dtype)
