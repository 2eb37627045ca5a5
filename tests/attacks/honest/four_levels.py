"""Log-linear memory with a bounded number of levels: four states of 1, 4, 16 and all older chunks.

Level l holds up to 4^l chunks; when a level is full it is merged into the next one. Every token weighs the
levels by a softplus of a projection. State: 4 K V, whatever the length.
"""
import torch
import torch.nn.functional as F

LEVELS, BASE = 4, 4


def projections(num_heads, head_dim):
    return {"level": LEVELS}


def parameters(num_heads, head_dim, generator):
    return {"level_bias": torch.zeros(num_heads, LEVELS)}


def delta_rule(q, k, v, beta, *, chunk_size, level, level_bias):
    B, H, T, K = q.shape
    dtype = q.dtype
    lam = F.softplus(level.float() + level_bias.float()[:, :, None])
    q = F.normalize(q.float(), dim=-1, eps=1e-6)
    k = F.normalize(k.float(), dim=-1, eps=1e-6)
    v, beta = v.float(), beta.float()[..., None]
    pad = -T % chunk_size
    q, k, v, beta, lam = (
        F.pad(x, (0, 0, 0, pad)).reshape(B, H, -1, chunk_size, x.shape[-1]) for x in (q, k, v, beta, lam)
    )
    local = (q @ k.mT).tril() @ (beta * v)
    states = [torch.zeros(B, H, K, v.shape[-1], device=q.device) for _ in range(LEVELS)]
    out = []
    for n in range(q.shape[2]):
        o = local[:, :, n]
        for l, S in enumerate(states):
            o = o + lam[:, :, n, :, l : l + 1] * (q[:, :, n] @ S)
        out.append(o)
        states[0] = states[0] + k[:, :, n].mT @ (beta[:, :, n] * v[:, :, n])
        for l in range(LEVELS - 1):  # carry, as in a counter to the base 4
            if (n + 1) % BASE ** (l + 1) == 0:
                states[l + 1] = states[l + 1] + states[l]
                states[l] = torch.zeros_like(states[l])
    return torch.stack(out, 2).reshape(B, H, -1, v.shape[-1])[:, :, :T].to(dtype)
