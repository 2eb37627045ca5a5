"""A nonlinear cell: the state lives in a mirror space, is squashed by tanh each token and read through sinh.

L <- c tanh((lambda L + beta k e^T) / c), S = sinh(L), e = v - k S brought to a length below one. Steps in the mirror space
are multiplicative in S, as in the hypentropy variant of exponentiated gradient. No parallel form: one token after
another. |L| < c = 3, so that |S| < 10.
"""

import torch

C = 3.0


def parameters(num_heads, head_dim, generator):
    return {"keep": torch.full((num_heads, head_dim), 4.0), "gain": torch.ones(num_heads, head_dim)}


def delta_rule(q, k, v, beta, *, chunk_size, keep, gain):
    lengths = [torch.rsqrt(x.float().pow(2).sum(-1, keepdim=True) + 1e-6) for x in (q, k)]
    qs = (q.float() * lengths[0]).unbind(2)
    ks = (k.float() * lengths[1]).unbind(2)
    vs = v.float().unbind(2)
    bs = beta.float()[..., None, None].unbind(2)
    keep = torch.sigmoid(keep.float())[..., None]
    L = None
    read = []
    for q_t, k_t, v_t, b_t in zip(qs, ks, vs, bs):
        if L is None:
            L = k_t[..., None] * torch.zeros_like(v_t)[..., None, :]
        e = v_t - (k_t[..., None] * torch.sinh(L)).sum(-2)
        e = e / torch.sqrt(1.0 + e.square().sum(-1, keepdim=True))
        L = C * torch.tanh((keep * L + b_t * k_t[..., None] * e[..., None, :]) / C)
        read.append((q_t[..., None] * torch.sinh(L)).sum(-2))
    return (torch.stack(read, 2) * gain.float()[:, :, None]).to(q.dtype)
