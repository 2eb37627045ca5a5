"""Gated linear attention as an associative scan by doubling.

Within a chunk the affine maps S -> a S + k v^T are composed by Hillis and Steele's doubling, without any division by a
decay: nothing over- or underflows, however strong the gate. The state of every token of one chunk stands in memory.
"""

import torch
import torch.nn.functional as F

def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def projections(num_heads, head_dim):
    return {"gate": head_dim}


def scan(a, b):
    """Inclusive scan over dim 1 of the maps S -> a S + b."""
    C, shift = b.shape[1], 1
    while shift < C:
        a_before, b_before = a[:, :-shift], b[:, :-shift]
        b = torch.cat((b[:, :shift], b[:, shift:] + a[:, shift:] * b_before), dim=1)
        a = torch.cat((a[:, :shift], a[:, shift:] * a_before), dim=1)
        shift *= 2
    return a, b


def delta_rule(q, k, v, beta, *, chunk_size, gate):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    q, k, v, beta, gate = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None], gate))
    a = torch.sigmoid(gate + 4.0)
    k = l2norm(k) * torch.sqrt(torch.sigmoid(-gate - 4.0) + 1e-6) * beta
    q = l2norm(q)
    S = v.new_zeros(B * H, 1, K, V)
    outputs = []
    for q_i, k_i, v_i, a_i in zip(*(x.unbind(1) for x in (q, k, v, a)), strict=True):
        decay, added = scan(a_i[..., None], k_i[..., :, None] * v_i[..., None, :])
        states = decay * S + added
        outputs.append(torch.einsum("bik,bikv->biv", q_i, states))
        S = states[:, -1:]
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
