"""The state is let go where neighbouring keys stop being alike; chunks are computed in float64.

A steep sigmoid of the cosine of a key with the one before it, against a learned level, is the forget gate: at a
boundary between segments most of the state leaves. Such gates are products of very different sizes, so the algebra of
a chunk runs in float64 and only the output is rounded.
"""
import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"level": torch.full((num_heads,), 0.0)}


def delta_rule(q, k, v, beta, *, chunk_size, level):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    q, k, v, beta = (F.pad(x.double(), (0, 0, 0, -T % chunk_size)) for x in (q, k, v, beta[..., None]))
    q, k = (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    alike = (k[:, :, 1:] * k[:, :, :-1]).sum(-1, keepdim=True)
    g = F.logsigmoid(30 * (alike - level.double()[..., None, None]))
    g = F.pad(g, (0, 0, 1, 0))  # the first token has nothing to forget
    q, k, v, beta, g = (x.reshape(B, H, -1, chunk_size, x.shape[-1]) for x in (q * K**-0.5, k, v, beta, g))
    g = g.cumsum(-2)
    between = (g - g.mT).tril().exp()
    I = torch.eye(chunk_size, device=q.device, dtype=q.dtype)
    L = I + (beta * k @ k.mT * between).tril(-1)
    U, W = torch.linalg.solve_triangular(L, torch.cat((beta * v, beta * g.exp() * k), -1), upper=False).split((V, K), -1)
    A = (q @ k.mT * between).tril()
    end = g[..., -1:, :]

    S = v.new_zeros(B, H, K, V)  # state
    o = torch.empty_like(v)
    for n in range(v.shape[2]):
        u = U[:, :, n] - W[:, :, n] @ S  # error
        o[:, :, n] = (q[:, :, n] * g[:, :, n].exp()) @ S + A[:, :, n] @ u
        S = end[:, :, n].exp() * S + (k[:, :, n] * (end - g)[:, :, n].exp()).mT @ u  # state update
    return o.flatten(2, 3)[:, :, :T].to(dtype)
