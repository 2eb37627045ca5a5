"""What ATen's operations are made of, down to what kernels can say."""

import math
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions

from evaluator.fusion.tiles import SMALLEST_SIDE

aten = torch.ops.aten

LARGEST_SYSTEM = 64
"""Equations of a triangular system that is solved in kernels; larger ones are left to ATen, as are those below a tile of products."""
_ELEMENTARY = (aten._softmax, aten._log_softmax, aten.linalg_vector_norm, aten.elu, aten.gelu, aten.hardtanh, aten.leaky_relu)
"""What ATen leaves whole for its own kernels, said by sums and exponentials."""


def decompositions() -> dict[Any, Any]:
    """ATen's own and ours, down to what kernels can say."""
    table = {**core_aten_decompositions(), **get_decompositions(list(_ELEMENTARY))}
    # Made for export: its logsumexp is empty, which the backward pass would read.
    table.pop(aten._scaled_dot_product_flash_attention_for_cpu.default, None)
    ours = {
        aten.native_layer_norm.default: _layer_norm, aten.var.correction: _var, aten.linalg_solve_triangular.default: _solve_triangular,
        aten.full_like.default: _full_like, aten.copy.default: _copy, aten.new_empty_strided.default: _new_empty_strided,
        aten.bitwise_not.default: _bitwise_not,
    }  # fmt: skip
    return {**table, **ours}


def _layer_norm(x: Tensor, shape: list[int], weight: Any, bias: Any, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    dims = list(range(-len(shape), 0))
    mean = x.mean(dims, keepdim=True)
    apart = x - mean
    scale = torch.rsqrt((apart * apart).mean(dims, keepdim=True) + eps)
    out = apart * scale
    out = out if weight is None else out * weight
    return out if bias is None else out + bias, mean, scale


def _solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    """By the inverse of A [.., C, C], which is made of products: a solver's batch of small systems takes as long as all else."""
    C = A.shape[-1]
    if not left or A.dtype != torch.float32 or not SMALLEST_SIDE <= C <= LARGEST_SYSTEM:
        return NotImplemented
    L = A.mT if upper else A
    row = torch.arange(C, device=A.device)
    if not unitriangular:
        scale = torch.where(row[:, None] == row, L, 0.0).sum(-1, keepdim=True)
        L = L / scale
    L = torch.where(row[:, None] > row, L, 0.0)
    apart = row[:, None] ^ row  # apart >> s == 1: in one block of 2^(s+1) rows, in different halves of it
    X = torch.where(row[:, None] == row, 1.0, torch.where(apart == 1, -L, 0.0))
    for s in range(1, (C - 1).bit_length()):
        X = torch.where(apart >> s == 1, -(X @ L @ X), X)
    X = 2 * X - X @ (X + L @ X)  # a step of Newton's, which sharpens it
    X = X if unitriangular else X / scale.mT
    return (X.mT if upper else X) @ B


def _var(x: Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    dims = list(range(x.dim())) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    apart = x - x.mean(dims, keepdim=True)
    freedom = math.prod(x.shape[d] for d in dims) - (1.0 if correction is None else correction)
    return (apart * apart).sum(dims, keepdim=keepdim) / max(freedom, 0.0)


def _bitwise_not(x: Tensor) -> Any:
    return torch.logical_not(x) if x.dtype == torch.bool else NotImplemented


def _full_like(x: Tensor, value: float, **options: Any) -> Tensor:
    return torch.full(x.shape, value, dtype=options.get("dtype") or x.dtype, device=x.device)


def _copy(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """What stands in `x` after `x.copy_(source)`."""
    return source.expand(x.shape).to(x.dtype)


def _new_empty_strided(x: Tensor, size: list[int], stride: list[int], **options: Any) -> Tensor:
    """Zeros where memory would be taken as it is: what is written over them is known to be all that counts."""
    return torch.zeros(size, dtype=options.get("dtype") or x.dtype, device=x.device)
