"""SwiGLU with its two products: what lies between them never leaves a program on the way forward, and is made again on the way back."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

FORWARD = {"ROWS": 64, "BLOCK": 32, "num_warps": 4, "num_stages": 2}  # tokens of a program, inner columns at a time
BACKWARD = {"ROWS": 64, "BLOCK": 16, "num_warps": 4, "num_stages": 3}


@triton.jit
def _weights(UP, DOWN, up_row, down_row, replica, first, N, D: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK rows of either half of `up`, and columns of `down`: [BLOCK, D], [BLOCK, D], [D, BLOCK]."""
    inner, col = first + tl.arange(0, BLOCK), tl.arange(0, D)
    mask = inner < N
    UP += replica * up_row
    a = tl.load(UP + inner[:, None] * D + col[None, :], mask=mask[:, None], other=0.0)
    b = tl.load(UP + (N + inner[:, None]) * D + col[None, :], mask=mask[:, None], other=0.0)
    down = tl.load(DOWN + replica * down_row + col[:, None] * N + inner[None, :], mask=mask[None, :], other=0.0)
    return a, b, down, inner, mask


@triton.jit
def _product(a, b):
    """a @ b, rounded to their type as a product of its own would be, then wide again."""
    return tl.dot(a, b, input_precision="ieee").to(a.dtype).to(tl.float32)


@triton.jit
def _mlp_forward(X, UP, DOWN, Y, rows, up_row, down_row, N, D: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    replica = tl.program_id(1).to(tl.int64)
    row, col = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    at = (replica * rows + row[:, None]) * D + col[None, :]
    x = tl.load(X + at, mask=row[:, None] < rows, other=0.0)
    y = tl.zeros([ROWS, D], tl.float32)
    for first in range(0, N, BLOCK):
        up_a, up_b, down, _, _ = _weights(UP, DOWN, up_row, down_row, replica, first, N, D, BLOCK)
        a, b = _product(x, tl.trans(up_a)), _product(x, tl.trans(up_b))
        h = (a * tl.sigmoid(a) * b).to(x.dtype)
        y = tl.dot(h, tl.trans(down), y, input_precision="ieee")
    tl.store(Y + at, y.to(Y.dtype.element_ty), mask=row[:, None] < rows)


@triton.jit
def _mlp_backward(
    X, UP, DOWN, DY, DX, DU, INNER, rows, up_row, down_row, N, D: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """DX, and what the weights' gradients are products of: DU [R, rows, 2 N] after `up`, INNER [R, rows, N] before `down`."""
    replica = tl.program_id(1).to(tl.int64)
    row, col = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    at = (replica * rows + row[:, None]) * D + col[None, :]
    inside = row[:, None] < rows
    x, dy = tl.load(X + at, mask=inside, other=0.0), tl.load(DY + at, mask=inside, other=0.0)
    dx = tl.zeros([ROWS, D], tl.float32)
    for first in range(0, N, BLOCK):
        up_a, up_b, down, inner, mask = _weights(UP, DOWN, up_row, down_row, replica, first, N, D, BLOCK)
        a, b, dh = _product(x, tl.trans(up_a)), _product(x, tl.trans(up_b)), _product(dy, down)
        s = tl.sigmoid(a)
        da = (dh * b * s * (1 + a * (1 - s))).to(x.dtype)
        db = (dh * a * s).to(x.dtype)
        both = inside & mask[None, :]
        at_h = (replica * rows + row[:, None]) * N + inner[None, :]
        at_u = (replica * rows + row[:, None]) * 2 * N + inner[None, :]
        tl.store(INNER + at_h, (a * s * b).to(x.dtype), mask=both)
        tl.store(DU + at_u, da, mask=both)
        tl.store(DU + at_u + N, db, mask=both)
        dx = tl.dot(da, up_a, dx, input_precision="ieee")
        dx = tl.dot(db, up_b, dx, input_precision="ieee")
    tl.store(DX + at, dx.to(DX.dtype.element_ty), mask=inside)


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        R, D, N = down.shape
        y, rows = torch.empty_like(x), x.numel() // (R * D)
        grid = (triton.cdiv(rows, FORWARD["ROWS"]), R)
        _mlp_forward[grid](x, up, down, y, rows, up.stride(0), down.stride(0), N, D, **FORWARD)
        ctx.save_for_backward(x, up, down)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, up, down = ctx.saved_tensors
        R, D, N = down.shape
        dx, dy, rows = torch.empty_like(x), dy.contiguous(), x.numel() // (R * D)
        du, inner = x.new_empty(R, rows, 2 * N), x.new_empty(R, rows, N)
        grid = (triton.cdiv(rows, BACKWARD["ROWS"]), R)
        _mlp_backward[grid](
            x, up, down, dy, dx, du, inner, rows, up.stride(0), down.stride(0), N, D, **BACKWARD
        )
        return dx, torch.bmm(du.mT, x.view(R, rows, D)), torch.bmm(dy.view(R, rows, D).mT, inner)


def mlp(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """As `layers.mlp`; D a power of two, x, up and down of one dtype."""
    y: Tensor = _MLP.apply(x.contiguous(), up, down)
    return y
