"""Deltaregel – mit Zeichen, die nicht in ASCII sind (β, Δ, é)."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

EPS: Final = 1e-6
HALF_TURN = math.cos(0.0) ** 2  # ist 1


def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *, chunk_size: int = 32) -> Tensor:
    """Ein Kommentar mit Umlauten: größer, naïve, ∂S/∂t, 学習."""
    assert q.ndim == 4, f"{q.ndim} dimensions"
    β, Δ = beta[..., None], lambda x: x * torch.rsqrt((x * x).sum(-1, keepdim=True) + EPS)
    q, k = Δ(q), Δ(k)
    match q.shape[-1]:
        case 1:
            scale = 1.0
        case K:
            scale = K**-0.5
    S: Tensor = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1])

    def step(t: int, S: Tensor, *, scale: float = scale) -> tuple[Tensor, Tensor]:
        u = β[:, :, t] * (v[:, :, t] - torch.einsum("bhk,bhkv->bhv", k[:, :, t], S))
        S = S + k[:, :, t, :, None] * u[:, :, None, :]
        return scale * HALF_TURN * torch.einsum("bhk,bhkv->bhv", q[:, :, t], S), S

    outputs = []
    while (t := len(outputs)) < q.shape[2]:
        o, S = step(t, S)
        outputs.append(o)
    return torch.stack([*outputs], dim=2)
