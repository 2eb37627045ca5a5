"""The short convolutions of q, k and v with SiLU, from the projection's layout into the operator's."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 32  # time steps of a tile
SEQUENCES = 4  # whose share of the weight's gradient one program adds up


@triton.jit
def _tap(X, base, t, col, shift, row, T):
    """Rows t - shift of one head's channels; zero outside the sequence."""
    at = t - shift
    mask = (at >= 0) & (at < T)
    return tl.load(X + base + at[:, None] * row + col[None, :], mask=mask[:, None], other=0.0).to(tl.float32)


@triton.jit
def _conv_silu_forward(
    X, W, OUT, B, T, S, x_row, w_row, C: tl.constexpr, H: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    sequence = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(2) * D  # q, k and v side by side, H heads of each
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    col = tl.arange(0, D)
    base = sequence * T * x_row + channel
    total = tl.zeros([BLOCK, D], tl.float32)
    for j in tl.static_range(WIDTH):
        w = tl.load(W + (sequence // B) * w_row + (channel + col) * WIDTH + j).to(tl.float32)
        total += _tap(X, base, t, col, WIDTH - 1 - j, x_row, T) * w[None, :]
    out = total * tl.sigmoid(total)
    part, head = tl.program_id(2) // H, tl.program_id(2) % H
    at = ((part * S + sequence) * H + head) * T * D + t[:, None] * D + col[None, :]
    tl.store(OUT + at, out.to(OUT.dtype.element_ty), mask=t[:, None] < T)


@triton.jit
def _conv_silu_backward(
    X, W, DQ, DK, DV, DC, DW, B, T, x_row, w_row,
    C: tl.constexpr, H: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, SEQUENCES: tl.constexpr,
):
    """Gradient at the convolution's output, and of its weight over a few sequences of one replica; four taps."""
    replica = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * D
    part, head = tl.program_id(1) // H, tl.program_id(1) % H
    DOUT = DQ if part == 0 else (DK if part == 1 else DV)
    col = tl.arange(0, D)
    at_w = W + replica * w_row + (channel + col) * 4
    w0, w1 = tl.load(at_w).to(tl.float32), tl.load(at_w + 1).to(tl.float32)
    w2, w3 = tl.load(at_w + 2).to(tl.float32), tl.load(at_w + 3).to(tl.float32)
    # Added up over rows only once, at the end: a sum over rows goes through shared memory.
    dw0 = tl.zeros([BLOCK, D], tl.float32)
    dw1 = tl.zeros([BLOCK, D], tl.float32)
    dw2 = tl.zeros([BLOCK, D], tl.float32)
    dw3 = tl.zeros([BLOCK, D], tl.float32)
    first = tl.program_id(0) * SEQUENCES
    for b in range(first, tl.minimum(first + SEQUENCES, B)):
        sequence = replica * B + b
        base = sequence * T * x_row + channel
        base_out = (sequence * H + head) * T * D
        for start in range(0, T, BLOCK):
            t = start + tl.arange(0, BLOCK)
            x0 = _tap(X, base, t, col, 3, x_row, T)
            x1 = _tap(X, base, t, col, 2, x_row, T)
            x2 = _tap(X, base, t, col, 1, x_row, T)
            x3 = _tap(X, base, t, col, 0, x_row, T)
            total = x0 * w0[None, :] + x1 * w1[None, :] + x2 * w2[None, :] + x3 * w3[None, :]
            s = tl.sigmoid(total)
            dc = _tap(DOUT, base_out, t, col, 0, D, T) * s * (1 + total * (1 - s))
            dw0 += dc * x0
            dw1 += dc * x1
            dw2 += dc * x2
            dw3 += dc * x3
            at = sequence * T * C + channel + t[:, None] * C + col[None, :]
            tl.store(DC + at, dc.to(DC.dtype.element_ty), mask=t[:, None] < T)
    at_dw = DW + ((replica * tl.num_programs(0) + tl.program_id(0)) * C + channel + col) * 4
    tl.store(at_dw, tl.sum(dw0, 0))
    tl.store(at_dw + 1, tl.sum(dw1, 0))
    tl.store(at_dw + 2, tl.sum(dw2, 0))
    tl.store(at_dw + 3, tl.sum(dw3, 0))


@triton.jit
def _conv_transposed(DC, W, DX, B, T, w_row, C: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """x at t enters the outputs t .. t + WIDTH - 1."""
    sequence = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(2) * D
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    col = tl.arange(0, D)
    base = sequence * T * C + channel
    dx = tl.zeros([BLOCK, D], tl.float32)
    for shift in tl.static_range(WIDTH):
        w = tl.load(W + (sequence // B) * w_row + (channel + col) * WIDTH + WIDTH - 1 - shift).to(tl.float32)
        dx += _tap(DC, base, t, col, -shift, C, T) * w[None, :]
    tl.store(DX + base + t[:, None] * C + col[None, :], dx.to(DX.dtype.element_ty), mask=t[:, None] < T)


class _ConvSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, num_heads: int) -> Any:
        R, B, T, C = x.shape
        if weight.shape[-1] != 4:
            raise ValueError(f"the convolution kernel is written for a width of 4, not {weight.shape[-1]}")
        D = C // (3 * num_heads)
        out = torch.empty(3, R * B, num_heads, T, D, device=x.device, dtype=x.dtype)
        grid = (triton.cdiv(T, BLOCK), R * B, 3 * num_heads)
        _conv_silu_forward[grid](x, weight, out, B, T, R * B, x.stride(2), weight.stride(0), C, num_heads, D, 4, BLOCK, num_warps=4)
        ctx.save_for_backward(x, weight)
        return out[0], out[1], out[2]

    @staticmethod
    def backward(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        R, B, T, C = x.shape
        H, D = dq.shape[1], dq.shape[3]
        dc = torch.empty(R, B, T, C, device=x.device, dtype=x.dtype)
        dx = torch.empty_like(dc)
        shares = triton.cdiv(B, SEQUENCES)
        dw = torch.empty(R, shares, C, 4, device=x.device, dtype=torch.float32)
        _conv_silu_backward[(shares, 3 * H, R)](
            x, weight, dq.contiguous(), dk.contiguous(), dv.contiguous(), dc, dw, B, T, x.stride(2), weight.stride(0),
            C, H, D, BLOCK, SEQUENCES, num_warps=4,
        )
        grid = (triton.cdiv(T, BLOCK), R * B, 3 * H)
        _conv_transposed[grid](dc, weight, dx, B, T, weight.stride(0), C, D, 4, BLOCK, num_warps=4)
        return dx, dw.sum(1).to(weight.dtype), None


def conv_silu(x: Tensor, weight: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `layers.conv_silu`; x may be a strided view whose rows are `x.stride(2)` apart."""
    q, k, v = _ConvSilu.apply(x, weight, num_heads)
    return q, k, v
