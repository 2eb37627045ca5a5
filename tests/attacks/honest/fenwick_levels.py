"""Log-linear attention with a bounded Fenwick tree: three levels of state, each with a weight of its own.

The current chunk is attended to directly. Finished chunks are kept like a binary counter: level 0 holds one chunk, level 1
two, and what level 1 would carry over falls into level 2, which holds all the rest. Every token weighs the levels by a
softplus of a projection, so that what is near and what is far can be told apart. State: 3 K V and the chunk.
"""

import torch
import torch.nn.functional as F

LEVELS = 3


def projections(num_heads, head_dim):
    return {"level": LEVELS + 1}


def parameters(num_heads, head_dim, generator):
    return {"level_bias": torch.linspace(1.0, 0.0, LEVELS + 1).repeat(num_heads, 1)}


def insert(levels, carry, count):
    """Adds a chunk's state to a counter that already holds `count` chunks."""
    levels = list(levels)
    for i in range(LEVELS - 1):
        if not count >> i & 1:
            levels[i] = carry
            return levels
        carry, levels[i] = carry + levels[i], torch.zeros_like(carry)
    levels[-1] = levels[-1] + carry
    return levels


def delta_rule(q, k, v, beta, *, chunk_size, level, level_bias):
    K, T = q.shape[-1], q.shape[-2]
    weight = F.softplus(level.float() + level_bias.float()[:, :, None])
    normal = [x.float() * torch.rsqrt((x.float() ** 2).sum(-1, keepdim=True) + 1e-6) for x in (q, k)]
    q_chunks, k_chunks = (x.split(chunk_size, dim=2) for x in normal)
    v_chunks = (v.float() * beta.float()[..., None]).split(chunk_size, dim=2)
    levels = [torch.zeros(*q.shape[:2], K, v.shape[-1], device=q.device) for _ in range(LEVELS)]
    outputs = []
    for count, (qc, kc, vc, wc) in enumerate(zip(q_chunks, k_chunks, v_chunks, weight.split(chunk_size, 2))):
        o = wc[..., :1] * ((qc @ kc.mT).tril() @ vc)
        for i, S in enumerate(levels):
            o = o + wc[..., i + 1, None] * (qc @ S)
        outputs.append(o * K**-0.5)
        levels = insert(levels, kc.mT @ vc, count)
    assert sum(o.shape[2] for o in outputs) == T
    return torch.cat(outputs, dim=2).to(q.dtype)
