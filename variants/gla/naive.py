"""Gated linear attention.

S <- diag(exp(g)) S + k (beta v)^T, o = q S, with a log-decay g for every key feature from a projection of
the input: a linear attention that forgets by itself, and never looks at what it has stored.

Source: Yang et al., Gated Linear Attention Transformers, arXiv 2312.06635; a reference row. Readings built:
g = logsigmoid(x) / 16 as there, but not below -1 (so that exp of minus its sum over a chunk stays finite);
the layer's beta as input gate; no output gate, which together with g would exceed the allowance of
parameters.
Recurrent form: yes, one token at a time.
"""

import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"g": head_dim}


def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def delta_rule(q, k, v, beta, *, chunk_size, g):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    g = (F.logsigmoid(g.float()) / 16).clamp(min=-1)
    q, k, v, beta, g = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None], g))  # [B * H, N, C, .]

    # What does not depend on the state, for all chunks at once.
    g = g.cumsum(-2)
    v = v * beta
    q = q * g.exp() * K**-0.5
    A = (q @ (k * (-g).exp()).mT).tril()  # intra-chunk weights
    k = k * (g[..., -1:, :] - g).exp()
    decay = g[..., -1:, :].mT.exp()  # [B * H, N, K, 1]

    S = v.new_zeros(B * H, K, V)  # state
    outputs = []
    for q_i, k_i, v_i, A_i, decay_i in zip(*(x.unbind(1) for x in (q, k, v, A, decay)), strict=True):
        o_i = q_i @ S + A_i @ v_i  # output
        S = S * decay_i + k_i.mT @ v_i  # state update
        outputs.append(o_i)
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
