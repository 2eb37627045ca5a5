"""Phasor keys: every feature is an angle, and the delta rule runs in complex numbers.

A key is exp(i pi tanh(g k)) / sqrt(K): all features have the same size, keys have length one without a norm, and
likeness is agreement of angles. The chunk's system is solved in complex64 and the output is the real part of the read.
The state holds 2 K V real numbers.
"""
import math

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"winding": torch.ones(num_heads, head_dim)}


def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)

def phasor(x, winding):
    angle = math.pi * torch.tanh(x.float() * winding.float().unsqueeze(-2))
    return torch.polar(torch.ones_like(angle), angle)


def delta_rule(q, k, v, beta, *, chunk_size, winding):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    q, k, v, beta = (F.pad(x, (0, 0, 0, -T % chunk_size)) for x in (q, k, v, beta[..., None]))
    q, k = phasor(q, winding) / K, phasor(k, winding) / K**0.5
    q, k = (x.reshape(B * H, -1, chunk_size, K) for x in (q, k))
    v, beta = to_chunks(v, chunk_size), to_chunks(beta, chunk_size)
    L = (beta * (k.conj() @ k.transpose(-1, -2))).tril(-1) + torch.eye(chunk_size, device=q.device)
    right = torch.cat((beta * v + 0j * v, beta * k.conj()), -1)
    U, W = torch.linalg.solve_triangular(L, right, upper=False, unitriangular=True).split((V, K), -1)
    A = (q.conj() @ k.transpose(-1, -2)).tril()

    S = U.new_zeros(B * H, K, V)  # complex state
    outputs = []
    for n in range(q.shape[1]):
        u = U[:, n] - W[:, n] @ S  # error
        outputs.append((q[:, n].conj() @ S + A[:, n] @ u).real)
        S = S + k[:, n].transpose(-1, -2) @ u  # state update
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
