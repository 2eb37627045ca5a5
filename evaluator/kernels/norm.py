"""RMS norms: of the residual stream with its addition, and of each head with its gate."""

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
def _add_norm_forward(
    X, Y, W, SUM, OUT, rows, w_row, eps, HAS_Y: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr
):
    replica = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, D)
    at = replica * rows * D + row[:, None] * D + col[None, :]
    mask = row[:, None] < rows
    x = tl.load(X + at, mask=mask, other=0.0).to(tl.float32)
    if HAS_Y:
        x += tl.load(Y + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(SUM + at, x, mask=mask)
    scale = tl.rsqrt(tl.sum(x * x, 1) / D + eps)
    w = tl.load(W + replica * w_row + col)
    tl.store(OUT + at, (x * scale[:, None] * w[None, :]).to(OUT.dtype.element_ty), mask=mask)


@triton.jit
def _add_norm_backward(
    SUM, W, DSUM, DOUT, DX, DY, DW, rows, w_row, eps,
    HAS_DSUM: tl.constexpr, HAS_Y: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr,
):
    replica = tl.program_id(1).to(tl.int64)
    col = tl.arange(0, D)
    w = tl.load(W + replica * w_row + col)
    dw = tl.zeros([D], tl.float32)
    for tile in range(TILES):
        row = (tl.program_id(0) * TILES + tile) * ROWS + tl.arange(0, ROWS)
        at = replica * rows * D + row[:, None] * D + col[None, :]
        mask = row[:, None] < rows
        x = tl.load(SUM + at, mask=mask, other=0.0)
        dout = tl.load(DOUT + at, mask=mask, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(x * x, 1) / D + eps)[:, None]
        unit = x * scale
        dw += tl.sum(dout * unit, 0)
        dunit = dout * w[None, :]
        dx = scale * (dunit - unit * (tl.sum(dunit * unit, 1) / D)[:, None])
        if HAS_DSUM:
            dx += tl.load(DSUM + at, mask=mask, other=0.0)
        tl.store(DX + at, dx, mask=mask)
        if HAS_Y:
            tl.store(DY + at, dx.to(DY.dtype.element_ty), mask=mask)
    tl.store(DW + (replica * tl.num_programs(0) + tl.program_id(0)) * D + col, dw)


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor | None, weight: Tensor, dtype: torch.dtype) -> Any:
        R, D = weight.shape
        rows = x.numel() // (R * D)
        total = x if y is None else torch.empty_like(x)
        out = torch.empty_like(x, dtype=dtype)
        grid = (triton.cdiv(rows, ROWS), R)
        _add_norm_forward[grid](x, y, weight, total, out, rows, weight.stride(0), EPS, y is not None, D, ROWS, num_warps=4)
        ctx.save_for_backward(total, weight)
        ctx.y_dtype = None if y is None else y.dtype
        ctx.set_materialize_grads(False)
        return (x.view_as(x) if y is None else total), out

    @staticmethod
    def backward(ctx: Any, dsum: Tensor | None, dout: Tensor) -> Any:
        total, weight = ctx.saved_tensors
        R, D = weight.shape
        rows = total.numel() // (R * D)
        dx = torch.empty_like(total)
        dy = None if ctx.y_dtype is None else torch.empty_like(total, dtype=ctx.y_dtype)
        grid = (triton.cdiv(rows, ROWS * TILES), R)
        dw = torch.empty(R, grid[0], D, device=dx.device, dtype=torch.float32)
        dsum = None if dsum is None else dsum.contiguous()
        _add_norm_backward[grid](
            total, weight, dsum, dout.contiguous(), dx, dy, dw, rows, weight.stride(0), EPS,
            dsum is not None, dy is not None, D, ROWS, TILES, num_warps=4,
        )
        return dx, dy, sum_rows(dw, weight.dtype), None


def add_norm(x: Tensor, y: Tensor | None, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """As `layers.add_norm`."""
    total, out = _AddNorm.apply(x, y, weight, dtype)
    return total, out


@triton.jit
def _head_norm_forward(
    O, W, G, OUT, B, T, w_row, g_row, eps, HAS_G: tl.constexpr, H: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr
):
    sequence = tl.program_id(1).to(tl.int64)
    head = tl.program_id(2)
    t = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, D)
    mask = t[:, None] < T
    o = tl.load(O + (sequence * H + head) * T * D + t[:, None] * D + col[None, :], mask=mask, other=0.0)
    o = o.to(tl.float32)
    w = tl.load(W + (sequence // B) * w_row + col)
    out = o * tl.rsqrt(tl.sum(o * o, 1) / D + eps)[:, None] * w[None, :]
    if HAS_G:
        g = tl.load(G + (sequence * T + t[:, None]) * g_row + head * D + col[None, :], mask=mask, other=0.0)
        g = g.to(tl.float32)
        out *= g * tl.sigmoid(g)
    at = (sequence * T + t[:, None]) * (H * D) + head * D + col[None, :]
    tl.store(OUT + at, out.to(OUT.dtype.element_ty), mask=mask)


@triton.jit
def _head_norm_backward(
    O, W, G, DOUT, DO, DG, DW, B, T, w_row, g_row, eps,
    HAS_G: tl.constexpr, H: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr,
):
    sequence = tl.program_id(1).to(tl.int64)
    head = tl.program_id(2)
    col = tl.arange(0, D)
    w = tl.load(W + (sequence // B) * w_row + col)
    dw = tl.zeros([D], tl.float32)
    for tile in range(TILES):
        t = (tl.program_id(0) * TILES + tile) * ROWS + tl.arange(0, ROWS)
        mask = t[:, None] < T
        at_o = (sequence * H + head) * T * D + t[:, None] * D + col[None, :]
        at = (sequence * T + t[:, None]) * (H * D) + head * D + col[None, :]
        o = tl.load(O + at_o, mask=mask, other=0.0).to(tl.float32)
        dout = tl.load(DOUT + at, mask=mask, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(o * o, 1) / D + eps)[:, None]
        unit = o * scale
        if HAS_G:
            g = tl.load(G + (sequence * T + t[:, None]) * g_row + head * D + col[None, :], mask=mask, other=0.0)
            g = g.to(tl.float32)
            s = tl.sigmoid(g)
            dg = dout * unit * w[None, :] * s * (1 + g * (1 - s))
            tl.store(DG + at, dg.to(DG.dtype.element_ty), mask=mask)
            dout *= g * s
        dw += tl.sum(dout * unit, 0)
        dunit = dout * w[None, :]
        do = scale * (dunit - unit * (tl.sum(dunit * unit, 1) / D)[:, None])
        tl.store(DO + at_o, do.to(DO.dtype.element_ty), mask=mask)
    program = (sequence * H + head) * tl.num_programs(0) + tl.program_id(0)
    tl.store(DW + program * D + col, dw)


class _HeadNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, o: Tensor, weight: Tensor, gate: Tensor | None, batch: int) -> Tensor:
        RB, H, T, D = o.shape
        o = o.contiguous()
        out = torch.empty(RB // batch, batch, T, H * D, device=o.device, dtype=o.dtype)
        g_row = 0 if gate is None else gate.stride(-2)
        grid = (triton.cdiv(T, ROWS), RB, H)
        _head_norm_forward[grid](
            o, weight, gate, out, batch, T, weight.stride(0), g_row, EPS, gate is not None, H, D, ROWS, num_warps=2
        )
        ctx.save_for_backward(o, weight, gate)
        ctx.batch = batch
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> Any:
        o, weight, gate = ctx.saved_tensors
        RB, H, T, D = o.shape
        do = torch.empty_like(o)
        dgate = None if gate is None else torch.empty_like(dout, memory_format=torch.contiguous_format)
        grid = (triton.cdiv(T, ROWS * TILES), RB, H)
        dw = torch.empty(RB // ctx.batch, ctx.batch * H * grid[0], D, device=o.device, dtype=torch.float32)
        g_row = 0 if gate is None else gate.stride(-2)
        _head_norm_backward[grid](
            o, weight, gate, dout.contiguous(), do, dgate, dw, ctx.batch, T, weight.stride(0), g_row, EPS,
            gate is not None, H, D, ROWS, TILES, num_warps=2,
        )
        return do, sum_rows(dw, weight.dtype), dgate, None


def head_norm(o: Tensor, weight: Tensor, gate: Tensor | None, batch: int) -> Tensor:
    """As `layers.head_norm`; gate may be a strided view whose rows are `gate.stride(-2)` apart."""
    out: Tensor = _HeadNorm.apply(o, weight, gate, batch)
    return out
