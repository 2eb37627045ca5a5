"""Polar positional keys (PoPE): magnitudes from the content, phases from the position alone.

Every channel of q and k becomes a complex number whose modulus is softplus of the channel and whose phase is position times the channel's
frequency, plus a learned offset for k. What and where are thus separated, unlike in RoPE, where the content also turns the phase. Real
and imaginary parts make 2 K channels: state 2 K V and a counter.
"""

import typing

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"offset": torch.zeros(num_heads, head_dim)}


def polar(x, position, offset):
    K = x.shape[-1]
    modulus = F.softplus(x.float())
    modulus = modulus * torch.rsqrt((modulus * modulus).sum(-1, keepdim=True) + 1e-6)
    frequency = torch.exp2(-12 * torch.arange(K, device=x.device, dtype=torch.float64) / K)
    phase = (position.double()[..., None] * frequency).float() + offset
    z = torch.polar(modulus, phase.expand_as(modulus))
    return torch.cat((z.real, z.imag), -1)


def delta_rule(q, k, v, beta, *, chunk_size, offset):
    Chunk = typing.NamedTuple("Chunk", [("q", torch.Tensor), ("k", torch.Tensor), ("v", torch.Tensor), ("b", torch.Tensor)])
    B, H, T, K = q.shape
    position = torch.arange(T, device=q.device)
    fq = polar(q, position, torch.zeros((), device=q.device)) * K**-0.5
    fk = polar(k, position, 1.5 * torch.tanh(offset.float())[:, :, None])
    S = torch.zeros(B, H, 2 * K, v.shape[-1], device=q.device)
    reads = []
    for c in map(Chunk._make, zip(*(x.split(chunk_size, 2) for x in (fq, fk, v.float(), beta.float()[..., None])))):
        gram = torch.einsum("bhik,bhjk->bhij", c.k, c.k)
        u = torch.linalg.solve_triangular(c.b * gram.tril(-1), c.b * (c.v - c.k @ S), upper=False, unitriangular=True)
        reads.append(c.q @ S + torch.einsum("bhik,bhjk->bhij", c.q, c.k).tril() @ u)
        S = S + torch.einsum("bhck,bhcv->bhkv", c.k, u)
    return torch.cat(reads, 2).to(q.dtype)


def recurrence(q_t, k_t, v_t, beta_t, state, offset):
    v, b = v_t.float(), beta_t.float()[..., None]
    if state is None:
        B, H, K = k_t.shape
        state = torch.zeros(B, H, 2 * K, v.shape[-1], device=v.device), torch.zeros((), dtype=torch.int64, device=v.device)
    S, position = state
    fq = polar(q_t, position, torch.zeros((), device=v.device)) * q_t.shape[-1] ** -0.5
    fk = polar(k_t, position, 1.5 * torch.tanh(offset.float()))
    u = b * (v - torch.einsum("bhk,bhkv->bhv", fk, S))
    S = S + torch.einsum("bhk,bhv->bhkv", fk, u)
    return torch.einsum("bhk,bhkv->bhv", fq, S).to(q_t.dtype), (S, position + 1)
