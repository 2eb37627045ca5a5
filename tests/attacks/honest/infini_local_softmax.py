"""Infini-attention: softmax inside the chunk, a compressive memory of everything before it, one learned gate a head.

The memory M and its normaliser z are touched only at chunk ends, by a delta rule over positive features elu(x) + 1.
Inside a chunk tokens attend to each other by a causal softmax. State: K V + K numbers and the chunk's keys and values.
"""

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"mix": torch.zeros(num_heads), "temperature": torch.full((num_heads,), 1.5)}


def feature(x):
    return F.elu(x) + 1.0


def delta_rule(q, k, v, beta, *, chunk_size, mix, temperature):
    B, H, T, K = q.shape
    V = v.shape[-1]
    gate = torch.sigmoid(mix.float()).view(B, H, 1, 1)
    scale = F.softplus(temperature.float()).view(B, H, 1, 1) * K**0.5
    M = torch.zeros(B, H, K, V, device=q.device, dtype=torch.float32)
    z = torch.zeros(B, H, K, 1, device=q.device, dtype=torch.float32)
    result = []
    for first in range(0, T, chunk_size):
        last = min(T, first + chunk_size)
        qs, ks, vs = (x[:, :, first:last].float() for x in (q, k, v))
        b = beta[:, :, first:last, None].float()
        qs = qs / torch.sqrt(torch.linalg.vecdot(qs, qs)[..., None] + 1e-4)
        ks = ks / torch.sqrt(torch.linalg.vecdot(ks, ks)[..., None] + 1e-4)
        n = last - first
        future = torch.triu(torch.full((n, n), float("-inf"), device=q.device), diagonal=1)
        local = torch.softmax(qs @ ks.transpose(2, 3) * scale + future, dim=-1) @ (b * vs)
        fq, fk = feature(qs), feature(ks)
        recalled = fq @ M / (fq @ z + 1.0)
        result.append(gate * recalled + (1 - gate) * local)
        known = fk @ M / (fk @ z + 1.0)
        M = M + fk.transpose(2, 3) @ (b * (vs - known))
        z = z + fk.transpose(2, 3) @ b
    return torch.cat(result, dim=2).to(q.dtype)
