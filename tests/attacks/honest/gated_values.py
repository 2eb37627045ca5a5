import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"gate": head_dim}


def parameters(num_heads, head_dim, generator):
    return {"decay": 3 + torch.rand(num_heads, generator=generator)}


def delta_rule(q, k, v, beta, *, chunk_size, gate, decay):
    a = torch.sigmoid(decay)[..., None, None]
    v = v * torch.sigmoid(gate)
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    S = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1])
    outputs = []
    for t in range(q.shape[2]):
        S = S * a
        u = beta[:, :, t, None] * (v[:, :, t] - torch.einsum("bhk,bhkv->bhv", k[:, :, t], S))
        S = S + k[:, :, t, :, None] * u[:, :, None, :]
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, :, t], S))
    return torch.stack(outputs, 2)
