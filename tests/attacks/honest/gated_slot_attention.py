"""Gated slot attention: eight slots, written by a gate and read by softmax.

Slot m keeps a running key and value; alpha_t decides per slot how much is kept. Reads are softmax over slots, so that
recall is as sharp as attention while the memory stays bounded. beta scales the write.
"""

import torch
import torch.nn.functional as F
from einops import einsum

NUM_SLOTS = 8
GATE_LOGIT_NORMALISER = 8.0


def projections(num_heads, head_dim):
    return {"slot_gate": NUM_SLOTS}


def delta_rule(q, k, v, beta, *, chunk_size, slot_gate):
    T, K = q.shape[-2:]
    qf = F.normalize(q.float(), dim=-1) * K**0.5
    kf = F.normalize(k.float(), dim=-1)
    vf = v.float()
    keep = torch.exp(F.logsigmoid(slot_gate.float()) / GATE_LOGIT_NORMALISER)
    write = (1.0 - keep) * beta.float().unsqueeze(-1)
    slots_k = kf.new_zeros(*kf.shape[:2], NUM_SLOTS, K)
    slots_v = vf.new_zeros(*vf.shape[:2], NUM_SLOTS, vf.shape[-1])
    o = []
    for t in range(T):
        a, w = keep[:, :, t, :, None], write[:, :, t, :, None]
        slots_k = a * slots_k + w * kf[:, :, t, None]
        slots_v = a * slots_v + w * vf[:, :, t, None]
        p = einsum(qf[:, :, t], slots_k, "b h d, b h m d -> b h m").softmax(dim=-1)
        o.append(einsum(p, slots_v, "b h m, b h m d -> b h d"))
    return torch.stack(o, dim=2).to(q.dtype)
