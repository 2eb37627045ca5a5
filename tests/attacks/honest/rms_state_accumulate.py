"""The state is brought back to a bounded root mean square after every chunk.

S <- (S + K^T U) / sqrt(1 + mean((S + K^T U)^2) / cap^2), with a learned cap per head: a soft ball that the state cannot
leave, instead of a decay. The chunks are walked by itertools.accumulate, and all outputs are then computed at once from
the states before each chunk. State: K V numbers and the chunk.
"""

import functools
import itertools

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"cap": torch.full((num_heads,), 2.0)}


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def advance(S, chunk, cap):
    k, U, W = chunk
    S = S + k.mT @ (U - W @ S)
    return S * torch.rsqrt(1 + S.square().mean((-1, -2), keepdim=True) / cap.square())


def delta_rule(q, k, v, beta, *, chunk_size, cap):
    B, H, T, K = q.shape
    fold = functools.partial(F.pad, pad=(0, 0, 0, -T % chunk_size))
    q_, k_, v_, b_ = (fold(x.float()).unflatten(2, (-1, chunk_size)) for x in (q, k, v, beta.unsqueeze(-1)))
    q_, k_ = unit(q_) * K**-0.5, unit(k_)
    lower = torch.tril(b_ * (k_ @ k_.mT), -1)
    identity = torch.eye(chunk_size, device=q.device).expand_as(lower)
    inverse = torch.linalg.solve_triangular(identity + lower, identity, upper=False, unitriangular=True)
    U, W = inverse @ (b_ * v_), inverse @ (b_ * k_)
    cap = F.softplus(cap.float())[..., None, None]
    first = torch.zeros(B, H, K, v.shape[-1], device=q.device)
    chunks = zip(k_.unbind(2), U.unbind(2), W.unbind(2))
    states = itertools.accumulate(chunks, functools.partial(advance, cap=cap), initial=first)
    S = torch.stack(list(itertools.islice(states, q_.shape[2])), dim=2)  # before each chunk
    o = q_ @ S + (q_ @ k_.mT).tril() @ (U - W @ S)
    return o.flatten(2, 3)[:, :, :T].to(q.dtype)
