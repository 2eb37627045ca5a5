"""From one mixer's output to the next layer's input: both residual additions, both norms, and SwiGLU between them.

A program holds its rows from end to end: of what lies between, nothing is kept on the way forward, and on the way
back only what the weights' gradients are products of.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from evaluator.kernels.beside import beside
from evaluator.kernels.linear import sum_rows
from evaluator.kernels.norm import EPS, through_norm, unit_rows
from evaluator.kernels.ptx import rounded, sigmoid
from evaluator.kernels.tile import load, plain, store

# Tokens of a program, as many of them at a time around the products, and inner columns at a time.
FORWARD = {"ROWS": 64, "STEP": 16, "BLOCK": 32, "num_warps": 4, "num_stages": 2}
BACKWARD = {"ROWS": 64, "STEP": 32, "BLOCK": 16, "num_warps": 4, "num_stages": 3, "maxnreg": 168}


@triton.jit
def _weights(UP, DOWN, first, N, D: tl.constexpr, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    """BLOCK rows of either half of `up`, and columns of `down`: [BLOCK, D], [BLOCK, D], [D, BLOCK]."""
    inner, col = first + tl.arange(0, BLOCK), tl.arange(0, D)
    mask = inner < N
    a = load(UP + inner[:, None] * D + col[None, :], mask[:, None], EVEN)
    b = load(UP + (N + inner[:, None]) * D + col[None, :], mask[:, None], EVEN)
    down = load(DOWN + col[:, None] * N + inner[None, :], mask[None, :], EVEN)
    return a, b, down, inner, mask


@triton.jit
def _product(a, b, PTX: tl.constexpr):
    """a @ b, rounded to their type as a product of its own would be, then wide again."""
    return rounded(tl.dot(a, b, input_precision="ieee"), a.dtype, PTX)


@triton.jit
def _rows(start, step, rows, D: tl.constexpr, STEP: tl.constexpr):
    """A few of a program's rows at a time: what goes on in their registers leaves those of the products alone."""
    row, col = step + tl.arange(0, STEP)[:, None], tl.arange(0, D)[None, :]
    return row * D + col, start + row < rows


@triton.jit
def _sum(X, Y, at, inside, EVEN: tl.constexpr):
    """The residual stream with the mixer's output: reading both again costs less than keeping the sum."""
    return load(X + at, inside, EVEN) + load(Y + at, inside, EVEN).to(tl.float32)


@triton.jit
def _forward(
    X, Y, NORM, UP, DOWN, AFTER, OUT, NEXT, rows, norm_row, up_row, down_row, after_row, N, eps,
    HAS_AFTER: tl.constexpr, EVEN: tl.constexpr, PTX: tl.constexpr,
    D: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, BLOCK: tl.constexpr,
):
    """OUT and NEXT [R, rows, D]; NEXT holds the norm, then SwiGLU's output, before what belongs there."""
    replica, start, col = tl.program_id(1).to(tl.int64), tl.program_id(0) * ROWS, tl.arange(0, D)
    first_row = (replica * rows + start) * D
    X, Y, OUT, NEXT = X + first_row, Y + first_row, OUT + first_row, NEXT + first_row
    UP, DOWN = UP + replica * up_row, DOWN + replica * down_row
    w = tl.load(NORM + replica * norm_row + col)[None, :]
    for step in range(0, ROWS, STEP):
        at, inside = _rows(start, step, rows, D, STEP)
        unit, _scale = unit_rows(_sum(X, Y, at, inside, EVEN), eps, D)
        store(NEXT + at, unit * w, inside, EVEN)
    tl.debug_barrier()  # what one thread of a program wrote another will read

    whole, within = _rows(start, 0, rows, D, ROWS)
    normed = load(NEXT + whole, within, EVEN)
    y = tl.zeros([ROWS, D], tl.float32)
    for first in range(0, N, BLOCK):
        up_a, up_b, down, _inner, _mask = _weights(UP, DOWN, first, N, D, BLOCK, EVEN)
        a, b = _product(normed, tl.trans(up_a), PTX), _product(normed, tl.trans(up_b), PTX)
        h = (a * sigmoid(a, PTX) * b).to(normed.dtype)
        y = tl.dot(h, tl.trans(down), y, input_precision="ieee")
    tl.debug_barrier()
    store(NEXT + whole, y, within, EVEN)
    tl.debug_barrier()

    for step in range(0, ROWS, STEP):
        at, inside = _rows(start, step, rows, D, STEP)
        out = _sum(X, Y, at, inside, EVEN) + load(NEXT + at, inside, EVEN).to(tl.float32)
        store(OUT + at, out, inside, EVEN)
        if HAS_AFTER:
            unit, _scale = unit_rows(out, eps, D)
            after = tl.load(AFTER + replica * after_row + col)[None, :]
            store(NEXT + at, unit * after, inside, EVEN)


@triton.jit
def _backward(
    X, Y, OUT, NORM, UP, DOWN, AFTER, DOUT, DNEXT, DX, DY, NORMED, DH, DU, INNER, DNORMS,
    rows, norm_row, up_row, down_row, after_row, N, eps,
    HAS_DOUT: tl.constexpr, HAS_AFTER: tl.constexpr, EVEN: tl.constexpr, PTX: tl.constexpr,
    D: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, BLOCK: tl.constexpr,
):
    """DX and DY [R, rows, D]. The weights' gradients are products of NORMED [R, rows, D] with DU [R, rows, 2 N], and of
    DH [R, rows, D] with INNER [R, rows, N]; the norms' are sums over the programs of DNORMS [R, programs, 1 or 2, D]."""
    replica, start, col = tl.program_id(1).to(tl.int64), tl.program_id(0) * ROWS, tl.arange(0, D)
    share = DNORMS + (replica * tl.num_programs(0) + tl.program_id(0)) * (D + D * HAS_AFTER) + col
    first_row = replica * rows + start
    X, Y, DX, DY = X + first_row * D, Y + first_row * D, DX + first_row * D, DY + first_row * D
    NORMED, DH = NORMED + first_row * D, DH + first_row * D
    DU, INNER = DU + first_row * 2 * N, INNER + first_row * N
    UP, DOWN = UP + replica * up_row, DOWN + replica * down_row
    w = tl.load(NORM + replica * norm_row + col)
    dw = tl.zeros([D], tl.float32)
    for step in range(0, ROWS, STEP):
        at, inside = _rows(start, step, rows, D, STEP)
        # To the sum of the stream and SwiGLU's output.
        total = tl.zeros([STEP, D], tl.float32)
        if HAS_DOUT:
            total += load(DOUT + first_row * D + at, inside, EVEN)
        if HAS_AFTER:
            dnext = load(DNEXT + first_row * D + at, inside, EVEN).to(tl.float32)
            unit, scale = unit_rows(load(OUT + first_row * D + at, inside, EVEN), eps, D)
            total += through_norm(unit, scale, tl.load(AFTER + replica * after_row + col), dnext, D)
            dw += tl.sum(dnext * unit, 0)
        store(DX + at, total, inside, EVEN)
        store(DH + at, total, inside, EVEN)
        unit, scale = unit_rows(_sum(X, Y, at, inside, EVEN), eps, D)
        store(NORMED + at, unit * w[None, :], inside, EVEN)
    if HAS_AFTER:
        tl.store(share + D, dw)
    tl.debug_barrier()  # what one thread of a program wrote another will read

    # Through SwiGLU; DY takes the gradient of the norm until its own comes.
    whole, within = _rows(start, 0, rows, D, ROWS)
    normed = load(NORMED + whole, within, EVEN)
    dh = load(DH + whole, within, EVEN)
    dnormed = tl.zeros([ROWS, D], tl.float32)
    row = tl.arange(0, ROWS)[:, None]
    for first in range(0, N, BLOCK):
        up_a, up_b, down, inner, mask = _weights(UP, DOWN, first, N, D, BLOCK, EVEN)
        a, b = _product(normed, tl.trans(up_a), PTX), _product(normed, tl.trans(up_b), PTX)
        di = _product(dh, down, PTX)
        s = sigmoid(a, PTX)
        da = (di * b * s * (1 + a * (1 - s))).to(normed.dtype)
        db = (di * a * s).to(normed.dtype)
        both = within & mask[None, :]
        at_u = row * 2 * N + inner[None, :]
        store(INNER + row * N + inner[None, :], a * s * b, both, EVEN)
        store(DU + at_u, da, both, EVEN)
        store(DU + at_u + N, db, both, EVEN)
        dnormed = tl.dot(da, up_a, dnormed, input_precision="ieee")
        dnormed = tl.dot(db, up_b, dnormed, input_precision="ieee")
    store(DY + whole, dnormed, within, EVEN)
    tl.debug_barrier()

    dw = tl.zeros([D], tl.float32)
    for step in range(0, ROWS, STEP):
        # To the stream and the mixer's output.
        at, inside = _rows(start, step, rows, D, STEP)
        unit, scale = unit_rows(_sum(X, Y, at, inside, EVEN), eps, D)
        grad = load(DY + at, inside, EVEN).to(tl.float32)
        dw += tl.sum(grad * unit, 0)
        dx = load(DX + at, inside, EVEN) + through_norm(unit, scale, w, grad, D)
        store(DX + at, dx, inside, EVEN)
        store(DY + at, dx, inside, EVEN)
    tl.store(share, dw)


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, norm: Tensor, up: Tensor, down: Tensor, after: Tensor | None) -> Any:
        R, D, N = down.shape
        rows = x.numel() // (R * D)
        out, following = torch.empty_like(x), torch.empty_like(y)
        after_row = 0 if after is None else after.stride(0)
        _forward[(triton.cdiv(rows, FORWARD["ROWS"]), R)](
            x, y, norm, up, down, after, out, following,
            rows, norm.stride(0), up.stride(0), down.stride(0), after_row, N, EPS, after is not None, *plain(y, FORWARD, ROWS=rows, BLOCK=N), D, **FORWARD,
        )
        ctx.save_for_backward(x, y, norm, up, down, after, None if after is None else out)
        ctx.set_materialize_grads(False)
        return out, None if after is None else following

    @staticmethod
    def backward(ctx: Any, dout: Tensor | None, dnext: Tensor | None) -> Any:
        x, y, norm, up, down, after, out = ctx.saved_tensors
        R, D, N = down.shape
        rows = x.numel() // (R * D)
        dx, dy, normed, dh = torch.empty_like(x), torch.empty_like(y), torch.empty_like(y), torch.empty_like(y)
        du, inner = y.new_empty(R, rows, 2 * N), y.new_empty(R, rows, N)
        grid = (triton.cdiv(rows, BACKWARD["ROWS"]), R)
        norms = torch.empty(R, grid[0], 1 if dnext is None else 2, D, device=x.device, dtype=torch.float32)
        dout, dnext = (None if g is None else g.contiguous() for g in (dout, dnext))
        after_row = 0 if after is None else after.stride(0)
        _backward[grid](
            x, y, out, norm, up, down, after, dout, dnext, dx, dy, normed, dh, du, inner, norms,
            rows, norm.stride(0), up.stride(0), down.stride(0), after_row, N, EPS,
            dout is not None, dnext is not None, *plain(y, BACKWARD, ROWS=rows, BLOCK=N), D, **BACKWARD,
        )
        dnorms = sum_rows(norms, norm.dtype)
        dup = beside(torch.bmm, du.mT, normed.view(R, rows, D))
        ddown = beside(torch.bmm, dh.view(R, rows, D).mT, inner)
        return dx, dy, dnorms[:, 0], dup, ddown, None if dnext is None else dnorms[:, 1]


def feed_forward(
    x: Tensor, y: Tensor, norm: Tensor, up: Tensor, down: Tensor, after: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """As `layers.feed_forward`; D a power of two, y, up and down of one dtype."""
    out, following = _FeedForward.apply(x.contiguous(), y.contiguous(), norm, up, down, after)
    return out, following
