"""What the mixer's projection is made into: q, k, v by a short convolution with SiLU, beta, all in the operator's layout.

A program of the convolution walks down a few stretches of sequences side by side, four rows at a time, with the
rows before them in registers: every row is read once, and the backward pass never writes the gradient between
the convolution and SiLU.
"""

from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from evaluator import layers
from evaluator.kernels.linear import sum_rows
from evaluator.kernels.ptx import sigmoid

STEPS = 32  # rows of a stretch, a multiple of four
FORWARD = {"ROWS": 8, "num_warps": 4}  # stretches of a program
BACKWARD = {"ROWS": 8, "num_warps": 4, "maxnreg": 128}
TOKENS = 256  # of a program that makes betas


@triton.jit
def _stretch(B, T, ROWS: tl.constexpr, STEPS: tl.constexpr):
    """Sequence and first row of each stretch of a program; a stretch past the last begins where nothing is read."""
    stretches = tl.cdiv(T, STEPS)
    index = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    sequence = tl.program_id(2).to(tl.int64) * B + tl.minimum(index // stretches, B - 1)
    return sequence, tl.where(index < B * stretches, index % stretches * STEPS, T + 3)


@triton.jit
def _taps(W, channel, w_row, col):
    at = W + tl.program_id(2).to(tl.int64) * w_row + (channel + col) * 4
    w0, w1 = tl.load(at).to(tl.float32)[None, :], tl.load(at + 1).to(tl.float32)[None, :]
    w2, w3 = tl.load(at + 2).to(tl.float32)[None, :], tl.load(at + 3).to(tl.float32)[None, :]
    return w0, w1, w2, w3


@triton.jit
def _row(pointer, t, T, STRIDE: tl.constexpr):
    """Row t of each stretch's sequence, zero outside it."""
    inside = (t >= 0) & (t < T)
    return tl.load(pointer + t[:, None] * STRIDE, mask=inside[:, None], other=0.0)


@triton.jit
def _four(pointer, t, T, STRIDE: tl.constexpr):
    a, b = _row(pointer, t, T, STRIDE), _row(pointer, t + 1, T, STRIDE)
    return a, b, _row(pointer, t + 2, T, STRIDE), _row(pointer, t + 3, T, STRIDE)


@triton.jit
def _silu_row(OUT, t, T, total, D: tl.constexpr, PTX: tl.constexpr):
    out = total * sigmoid(total, PTX)
    tl.store(OUT + t[:, None] * D, out.to(OUT.dtype.element_ty), mask=(t < T)[:, None])


@triton.jit
def _conv_silu_forward(
    X, W, OUT, B, T, S, w_row,
    X_ROW: tl.constexpr, H: tl.constexpr, D: tl.constexpr, PTX: tl.constexpr, STEPS: tl.constexpr, ROWS: tl.constexpr,
):
    channel, col = tl.program_id(0) * D, tl.arange(0, D)
    part, head = tl.program_id(0) // H, tl.program_id(0) % H
    sequence, start = _stretch(B, T, ROWS, STEPS)
    w0, w1, w2, w3 = _taps(W, channel, w_row, col)
    X += (sequence * T * X_ROW)[:, None] + channel + col[None, :]
    OUT += (((part * S + sequence) * H + head) * T * D)[:, None] + col[None, :]
    x0 = _row(X, start - 3, T, X_ROW).to(tl.float32)
    x1 = _row(X, start - 2, T, X_ROW).to(tl.float32)
    x2 = _row(X, start - 1, T, X_ROW).to(tl.float32)
    for step in range(0, tl.minimum(STEPS, T), 4):
        t = start + step
        x3, x4, x5, x6 = _four(X, t, T, X_ROW)
        x3, x4, x5, x6 = x3.to(tl.float32), x4.to(tl.float32), x5.to(tl.float32), x6.to(tl.float32)
        _silu_row(OUT, t, T, x0 * w0 + x1 * w1 + x2 * w2 + x3 * w3, D, PTX)
        _silu_row(OUT, t + 1, T, x1 * w0 + x2 * w1 + x3 * w2 + x4 * w3, D, PTX)
        _silu_row(OUT, t + 2, T, x2 * w0 + x3 * w1 + x4 * w2 + x5 * w3, D, PTX)
        _silu_row(OUT, t + 3, T, x3 * w0 + x4 * w1 + x5 * w2 + x6 * w3, D, PTX)
        x0, x1, x2 = x4, x5, x6


@triton.jit
def _through_silu(total, grad, PTX: tl.constexpr):
    s = sigmoid(total, PTX)
    return grad.to(tl.float32) * s * (1 + total * (1 - s))


@triton.jit
def _store_row(DX, t, start, stop, value, X_ROW: tl.constexpr):
    own = (t >= start) & (t < stop)
    tl.store(DX + t[:, None] * X_ROW, value.to(DX.dtype.element_ty), mask=own[:, None])


@triton.jit
def _conv_silu_backward(
    X, W, DQ, DK, DV, DX, DW, B, T, w_row,
    X_ROW: tl.constexpr, H: tl.constexpr, D: tl.constexpr, PTX: tl.constexpr, STEPS: tl.constexpr, ROWS: tl.constexpr,
):
    """The gradient of x [R, B, T, X_ROW] and, per program, a share of the weight's: DW [R, programs, 3 H D, 4]."""
    channel, col = tl.program_id(0) * D, tl.arange(0, D)
    part, head = tl.program_id(0) // H, tl.program_id(0) % H
    sequence, start = _stretch(B, T, ROWS, STEPS)
    stop = tl.minimum(start + STEPS, T)
    w0, w1, w2, w3 = _taps(W, channel, w_row, col)
    at = (sequence * T * X_ROW)[:, None] + channel + col[None, :]
    X += at
    DX += at
    G = DQ if part == 0 else (DK if part == 1 else DV)
    G += ((sequence * H + head) * T * D)[:, None] + col[None, :]
    x0 = _row(X, start - 3, T, X_ROW).to(tl.float32)
    x1 = _row(X, start - 2, T, X_ROW).to(tl.float32)
    x2 = _row(X, start - 1, T, X_ROW).to(tl.float32)
    # Gradients at the convolution's outputs three, two and one rows back, whose inputs are other programs'.
    c0 = tl.zeros([ROWS, D], tl.float32)
    c1, c2 = c0, c0
    # Added up over stretches only once, at the end: a sum over rows goes through shared memory.
    dw0, dw1, dw2, dw3 = c0, c0, c0, c0
    x3, x4, x5, x6 = _four(X, start, T, X_ROW)
    g3, g4, g5, g6 = _four(G, start, T, D)
    for step in range(0, tl.minimum(STEPS, T) + 3, 4):
        t = start + step
        # The next four rows are on their way while these are worked on.
        x7, x8, x9, x10 = _four(X, t + 4, T, X_ROW)
        g7, g8, g9, g10 = _four(G, t + 4, T, D)
        y3, y4, y5, y6 = x3.to(tl.float32), x4.to(tl.float32), x5.to(tl.float32), x6.to(tl.float32)
        c3 = _through_silu(x0 * w0 + x1 * w1 + x2 * w2 + y3 * w3, g3, PTX)
        c4 = _through_silu(x1 * w0 + x2 * w1 + y3 * w2 + y4 * w3, g4, PTX)
        c5 = _through_silu(x2 * w0 + y3 * w1 + y4 * w2 + y5 * w3, g5, PTX)
        c6 = _through_silu(y3 * w0 + y4 * w1 + y5 * w2 + y6 * w3, g6, PTX)
        # x at t enters the outputs t .. t + 3, of which the last three may be another stretch's.
        _store_row(DX, t - 3, start, stop, c0 * w3 + c1 * w2 + c2 * w1 + c3 * w0, X_ROW)
        _store_row(DX, t - 2, start, stop, c1 * w3 + c2 * w2 + c3 * w1 + c4 * w0, X_ROW)
        _store_row(DX, t - 1, start, stop, c2 * w3 + c3 * w2 + c4 * w1 + c5 * w0, X_ROW)
        _store_row(DX, t, start, stop, c3 * w3 + c4 * w2 + c5 * w1 + c6 * w0, X_ROW)
        if step < STEPS:
            dw0 = dw0 + c3 * x0 + c4 * x1 + c5 * x2 + c6 * y3
            dw1 = dw1 + c3 * x1 + c4 * x2 + c5 * y3 + c6 * y4
            dw2 = dw2 + c3 * x2 + c4 * y3 + c5 * y4 + c6 * y5
            dw3 = dw3 + c3 * y3 + c4 * y4 + c5 * y5 + c6 * y6
        x0, x1, x2 = y4, y5, y6
        c0, c1, c2 = c4, c5, c6
        x3, x4, x5, x6 = x7, x8, x9, x10
        g3, g4, g5, g6 = g7, g8, g9, g10
    share = tl.program_id(2).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    at_dw = DW + (share * tl.num_programs(0) * D + channel + col) * 4
    tl.store(at_dw, tl.sum(dw0, 0))
    tl.store(at_dw + 1, tl.sum(dw1, 0))
    tl.store(at_dw + 2, tl.sum(dw2, 0))
    tl.store(at_dw + 3, tl.sum(dw3, 0))


@triton.jit
def _beta_forward(X, BETA, tokens, T, X_ROW: tl.constexpr, H: tl.constexpr, WIDE: tl.constexpr, TOKENS: tl.constexpr):
    """BETA [R B, H, T], the sigmoid of the first H columns of X's rows."""
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)[:, None]
    head = tl.arange(0, WIDE)[None, :]
    mask = (token < tokens) & (head < H)
    x = tl.load(X + token * X_ROW + head, mask=mask, other=0.0).to(tl.float32)
    tl.store(BETA + (token // T * H + head) * T + token % T, tl.sigmoid(x).to(BETA.dtype.element_ty), mask=mask)


@triton.jit
def _beta_backward(
    X, DBETA, DX, tokens, T,
    PAD: tl.constexpr, PADS: tl.constexpr, X_ROW: tl.constexpr, H: tl.constexpr, WIDE: tl.constexpr, TOKENS: tl.constexpr,
):
    """The first H columns of DX's rows, and zeros in the PADS columns from PAD on."""
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)[:, None]
    index = tl.arange(0, WIDE)[None, :]
    mask = (token < tokens) & (index < H)
    s = tl.sigmoid(tl.load(X + token * X_ROW + index, mask=mask, other=0.0).to(tl.float32))
    grad = tl.load(DBETA + (token // T * H + index) * T + token % T, mask=mask, other=0.0).to(tl.float32)
    at = token * X_ROW + tl.where(index < H, index, index - H + PAD)
    tl.store(DX + at, (grad * s * (1 - s)).to(DX.dtype.element_ty), mask=(token < tokens) & (index < H + PADS))


class _MixerInputs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, num_heads: int, projections: Mapping[str, int]) -> Any:
        R, B, T, C = x.shape
        inner, D, H = weight.shape[1], weight.shape[1] // (3 * num_heads), num_heads
        if weight.shape[-1] != 4:
            raise ValueError(f"the convolution kernel is written for a width of 4, not {weight.shape[-1]}")
        qkv = torch.empty(3, R * B, H, T, D, device=x.device, dtype=x.dtype)
        beta = torch.empty(R * B, H, T, device=x.device, dtype=x.dtype)
        grid = (3 * H, triton.cdiv(B * triton.cdiv(T, STEPS), FORWARD["ROWS"]), R)
        _conv_silu_forward[grid](x, weight, qkv, B, T, R * B, weight.stride(0), C, H, D, x.is_cuda, STEPS, **FORWARD)
        wide = triton.next_power_of_2(H)
        _beta_forward[(triton.cdiv(R * B * T, TOKENS),)](x[..., inner:], beta, R * B * T, T, C, H, wide, TOKENS, num_warps=4)
        ctx.save_for_backward(x, weight)
        ctx.num_heads, ctx.projections = num_heads, projections
        gate = layers.OUTPUT_GATE
        declared = layers.projected(x, inner + H, H, projections)
        return *qkv, beta, *(v if name == gate else v.contiguous() for name, v in declared.items())

    @staticmethod
    def backward(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor, dbeta: Tensor, *declared: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        R, B, T, C = x.shape
        inner, D, H = weight.shape[1], dq.shape[3], ctx.num_heads
        dx = torch.empty_like(x)
        programs = triton.cdiv(B * triton.cdiv(T, STEPS), BACKWARD["ROWS"])
        dw = torch.empty(R, programs, *weight.shape[1:], device=x.device, dtype=torch.float32)
        _conv_silu_backward[(3 * H, programs, R)](
            x, weight, dq.contiguous(), dk.contiguous(), dv.contiguous(), dx, dw, B, T, weight.stride(0),
            C, H, D, x.is_cuda, STEPS, **BACKWARD,
        )
        pad = H + H * sum(ctx.projections.values())
        pads = C - inner - pad
        wide = triton.next_power_of_2(H + pads)
        _beta_backward[(triton.cdiv(R * B * T, TOKENS),)](
            x[..., inner:], dbeta.contiguous(), dx[..., inner:], R * B * T, T, pad, pads, C, H, wide, TOKENS, num_warps=4
        )
        for columns, grad in zip(layers.projected(dx, inner + H, H, ctx.projections).values(), declared, strict=True):
            columns.copy_(grad)
        return dx, sum_rows(dw, weight.dtype), None, None


def mixer_inputs(x: Tensor, weight: Tensor, num_heads: int, projections: Mapping[str, int]) -> dict[str, Tensor]:
    """As `layers.mixer_inputs`."""
    found = _MixerInputs.apply(x.contiguous(), weight, num_heads, projections)
    return dict(zip(("q", "k", "v", "beta", *projections), found, strict=True))
