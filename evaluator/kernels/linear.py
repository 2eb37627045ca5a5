"""Sums over rows in a fixed order, and the linear layer whose weight's gradient comes out as the weight lies."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from evaluator import layers
from evaluator.kernels.beside import beside

ROWS, COLUMNS = 64, 32  # of a tile
MANY = 1024  # rows that one program adds up; more are added up in two steps


@triton.jit
def _sum_rows(X, OUT, rows, part, size, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """OUT [R, parts, size], each the sum of `part` rows of X [R, rows, size]."""
    replica = tl.program_id(2).to(tl.int64)
    col = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.program_id(1) * part
    stop = tl.minimum(first + part, rows)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(first, stop, ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row < stop)[:, None] & (col < size)[None, :]
        total += tl.load(X + (replica * rows + row[:, None]) * size + col[None, :], mask=mask, other=0.0).to(tl.float32)
    at = (replica * tl.num_programs(1) + tl.program_id(1)) * size + col
    tl.store(OUT + at, tl.sum(total, 0).to(OUT.dtype.element_ty), mask=col < size)


def sum_rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x [R, rows, ...], contiguous -> [R, ...] in `dtype`, added up in float32."""
    R, rows, size = x.shape[0], x.shape[1], x[0, 0].numel()
    parts = 1 if rows <= MANY else 64
    out = torch.empty(R, parts, *x.shape[2:], device=x.device, dtype=torch.float32 if parts > 1 else dtype)
    _sum_rows[(triton.cdiv(size, COLUMNS), parts, R)](x, out, rows, triton.cdiv(rows, parts), size, ROWS, COLUMNS, num_warps=4)
    return sum_rows(out, dtype) if parts > 1 else out[:, 0]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias = bias is not None
        return layers.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        flat = dout.reshape(x.shape[0], -1, dout.shape[-1])
        dx = torch.bmm(flat, weight).view(x.shape)
        dweight = beside(torch.bmm, flat.mT, x.reshape(*flat.shape[:2], -1))
        return dx, dweight, sum_rows(flat.contiguous(), dout.dtype) if ctx.bias else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `layers.linear`."""
    out: Tensor = _Linear.apply(x, weight, bias)
    return out
