"""RMS norm of rows: what the kernels around it share, and the norm of the residual stream by itself."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from evaluator.kernels.linear import sum_rows

EPS = 1e-5
ROWS = 16  # rows of a tile
TILES = 4  # tiles of one program in a backward pass; each program writes one partial sum for the weight


@triton.jit
def unit_rows(x, eps, D: tl.constexpr):
    """Rows [ROWS, D] of mean square one, and the factors [ROWS, 1] that made them so."""
    scale = tl.rsqrt(tl.sum(x * x, 1) / D + eps)[:, None]
    return x * scale, scale


@triton.jit
def through_norm(unit, scale, w, dout, D: tl.constexpr):
    """The gradient of what `unit_rows` was given, from that of unit * w."""
    dunit = dout * w[None, :]
    return scale * (dunit - unit * (tl.sum(dunit * unit, 1) / D)[:, None])


@triton.jit
def _norm_forward(X, W, OUT, rows, w_row, eps, D: tl.constexpr, ROWS: tl.constexpr):
    replica = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, D)
    at = (replica * rows + row[:, None]) * D + col[None, :]
    mask = row[:, None] < rows
    unit, _ = unit_rows(tl.load(X + at, mask=mask, other=0.0).to(tl.float32), eps, D)
    w = tl.load(W + replica * w_row + col)
    tl.store(OUT + at, (unit * w[None, :]).to(OUT.dtype.element_ty), mask=mask)


@triton.jit
def _norm_backward(
    X, W, DSUM, DOUT, DX, DW, rows, w_row, eps,
    HAS_DSUM: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr,
):
    replica = tl.program_id(1).to(tl.int64)
    col = tl.arange(0, D)
    w = tl.load(W + replica * w_row + col)
    dw = tl.zeros([D], tl.float32)
    for tile in range(TILES):
        row = (tl.program_id(0) * TILES + tile) * ROWS + tl.arange(0, ROWS)
        at = (replica * rows + row[:, None]) * D + col[None, :]
        mask = row[:, None] < rows
        unit, scale = unit_rows(tl.load(X + at, mask=mask, other=0.0).to(tl.float32), eps, D)
        dout = tl.load(DOUT + at, mask=mask, other=0.0).to(tl.float32)
        dw += tl.sum(dout * unit, 0)
        dx = through_norm(unit, scale, w, dout, D)
        if HAS_DSUM:
            dx += tl.load(DSUM + at, mask=mask, other=0.0)
        tl.store(DX + at, dx.to(DX.dtype.element_ty), mask=mask)
    tl.store(DW + (replica * tl.num_programs(0) + tl.program_id(0)) * D + col, dw)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Any:
        R, D = weight.shape
        rows = x.numel() // (R * D)
        out = torch.empty_like(x, dtype=dtype)
        _norm_forward[(triton.cdiv(rows, ROWS), R)](x, weight, out, rows, weight.stride(0), EPS, D, ROWS, num_warps=4)
        ctx.save_for_backward(x, weight)
        ctx.set_materialize_grads(False)
        return x.view_as(x), out

    @staticmethod
    def backward(ctx: Any, dsum: Tensor | None, dout: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        R, D = weight.shape
        rows = x.numel() // (R * D)
        dx = torch.empty_like(x)
        grid = (triton.cdiv(rows, ROWS * TILES), R)
        dw = torch.empty(R, grid[0], D, device=dx.device, dtype=torch.float32)
        dsum = None if dsum is None else dsum.contiguous()
        _norm_backward[grid](
            x, weight, dsum, dout.contiguous(), dx, dw, rows, weight.stride(0), EPS,
            dsum is not None, D, ROWS, TILES, num_warps=4,
        )
        return dx, sum_rows(dw, weight.dtype), None


def norm(x: Tensor, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """As `layers.norm`."""
    same, out = _Norm.apply(x.contiguous(), weight, dtype)
    return same, out
