"""SiLU(first half) * second half, and its backward."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _swiglu_forward(X, OUT, total, D, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < total
    row, col = at // D, at % D
    a = tl.load(X + row * 2 * D + col, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(X + row * 2 * D + D + col, mask=mask, other=0.0).to(tl.float32)
    tl.store(OUT + at, (a * tl.sigmoid(a) * b).to(OUT.dtype.element_ty), mask=mask)


@triton.jit
def _swiglu_backward(X, DOUT, DX, total, D, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < total
    row, col = at // D, at % D
    a = tl.load(X + row * 2 * D + col, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(X + row * 2 * D + D + col, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(DOUT + at, mask=mask, other=0.0).to(tl.float32)
    s = tl.sigmoid(a)
    tl.store(DX + row * 2 * D + col, (g * b * s * (1 + a * (1 - s))).to(DX.dtype.element_ty), mask=mask)
    tl.store(DX + row * 2 * D + D + col, (g * a * s).to(DX.dtype.element_ty), mask=mask)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        out = torch.empty(*x.shape[:-1], x.shape[-1] // 2, device=x.device, dtype=x.dtype)
        _swiglu_forward[(triton.cdiv(out.numel(), BLOCK),)](x, out, out.numel(), out.shape[-1], BLOCK, num_warps=4)
        ctx.save_for_backward(x)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        dx = torch.empty_like(x)
        grid = (triton.cdiv(dout.numel(), BLOCK),)
        _swiglu_backward[grid](x, dout.contiguous(), dx, dout.numel(), dout.shape[-1], BLOCK, num_warps=4)
        return dx


def swiglu(x: Tensor) -> Tensor:
    """As `layers.swiglu`."""
    out: Tensor = _SwiGLU.apply(x)
    return out
