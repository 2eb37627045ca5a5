"""Gated slot attention: the state is a product of two thin matrices, eight slots of a key and a value each.

Every token routes itself over the slots by a softmax against learned slot addresses, and each slot moves towards the token
by beta times its share. The read is a softmax over the slots' keys. All updates are convex combinations: nothing can
grow. State: 8 (K + V) numbers a head.
"""

import torch

SLOTS = 8


def parameters(num_heads, head_dim, generator):
    return {
        "address": torch.randn(num_heads, SLOTS, head_dim, generator=generator),
        "log_sharpness": torch.ones(num_heads),
    }


def delta_rule(q, k, v, beta, *, chunk_size, address, log_sharpness):
    def unit(x):
        return x.float() * (x.float().square().sum(-1, keepdim=True) + 1e-6).rsqrt()

    q_hat, k_hat, values = unit(q), unit(k), v.float()
    share = torch.softmax(k_hat @ address.float().transpose(-1, -2), dim=-1) * beta.float()[..., None]
    sharp = torch.exp(log_sharpness.float())[..., None, None]
    slot_keys = k_hat.new_zeros(*q.shape[:2], SLOTS, q.shape[-1])
    slot_values = k_hat.new_zeros(*q.shape[:2], SLOTS, v.shape[-1])
    outputs = []
    for t in range(q.shape[2]):
        w = share[:, :, t, :, None]
        slot_keys = torch.lerp(slot_keys, k_hat[:, :, t, None].expand_as(slot_keys), w.expand_as(slot_keys))
        slot_values = torch.lerp(slot_values, values[:, :, t, None].expand_as(slot_values), w.expand_as(slot_values))
        score = sharp * (q_hat[:, :, t, None] @ slot_keys.transpose(-1, -2))
        outputs.append(torch.softmax(score, dim=-1) @ slot_values)
    return torch.cat(outputs, dim=2).to(v.dtype)
