"""Linear attention with softmax feature maps and a running normaliser.

phi(x) = [softmax(x W), softmax(-x W)] with a learned map per head and a learned temperature: spiky positive features
that imitate softmax attention. Written with beta, divided by the running sum of what was written.
"""

import torch
import torch.nn.functional as F

def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def parameters(num_heads, head_dim, generator):
    eye = torch.eye(head_dim).repeat(num_heads, 1, 1)
    return {"map": eye + 0.1 * torch.randn(num_heads, head_dim, head_dim, generator=generator), "log_temperature": torch.full((num_heads,), 1.0)}


def phi(x, weight, temperature):
    y = torch.einsum("bhtk,bhkj->bhtj", l2norm(x.float()), weight) * temperature
    return torch.cat((y.softmax(-1), (-y).softmax(-1)), dim=-1)


def delta_rule(q, k, v, beta, *, chunk_size, map, log_temperature):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    temperature = log_temperature.float().exp().clamp(max=30)[..., None, None]
    q, k = (phi(x, map.float(), temperature) for x in (q, k))
    k = k * beta.float()[..., None]
    v = torch.cat((v.float(), torch.ones_like(v[..., :1], dtype=torch.float32)), dim=-1)
    q, k, v = (to_chunks(x, chunk_size) for x in (q, k, v))
    inside = (q @ k.mT).tril() @ v
    S = v.new_zeros(B * H, q.shape[-1], V + 1)
    outputs = []
    for n in range(q.shape[1]):
        o, total = (inside[:, n] + q[:, n] @ S).split((V, 1), dim=-1)
        outputs.append(o / (total + 1e-3))
        S = S + k[:, n].mT @ v[:, n]
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
