"""What a mixer's heads are made into: the RMS norm of each, its gate, and the output projection, in one kernel each way."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from evaluator.kernels.linear import sum_rows
from evaluator.kernels.norm import EPS, through_norm, unit_rows
from evaluator.kernels.ptx import rounded, sigmoid
from evaluator.kernels.tile import load, plain, store

FORWARD = {"ROWS": 64, "num_warps": 4, "num_stages": 2}  # tokens of a program
BACKWARD = {"ROWS": 64, "num_warps": 4, "num_stages": 3}  # tokens at a time
SHARES = 22  # programs that share a replica's tokens in a backward pass, each with sums of its own for the weights


@triton.jit
def _head(O, row, rows, T, o_sequence, o_row, col):
    """Where one head's rows lie: tokens of a replica, whose sequences are `o_sequence` apart."""
    sequence = tl.program_id(2).to(tl.int64) * (rows // T) + row // T
    return O + (sequence * o_sequence + row % T * o_row)[:, None] + col[None, :]


@triton.jit
def _gate(G, row, rows, g_row, col, inside, EVEN: tl.constexpr):
    token = tl.program_id(2).to(tl.int64) * rows + row
    return load(G + token[:, None] * g_row + col[None, :], inside, EVEN).to(tl.float32)


@triton.jit
def _forward(
    O, NORM, G, W, Y, rows, T, o_sequence, o_head, o_row, norm_row, g_row, w_row, eps,
    HAS_G: tl.constexpr, EVEN: tl.constexpr, PTX: tl.constexpr, H: tl.constexpr, HEAD: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
):
    replica = tl.program_id(2).to(tl.int64)
    row, col, out = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, HEAD), tl.arange(0, D)
    inside = row[:, None] < rows
    at = _head(O, row, rows, T, o_sequence, o_row, col)
    w = tl.load(NORM + replica * norm_row + col)
    y = tl.zeros([ROWS, D], tl.float32)
    for head in tl.static_range(H):
        unit, _scale = unit_rows(load(at + head * o_head, inside, EVEN).to(tl.float32), eps, HEAD)
        h = unit * w[None, :]
        if HAS_G:
            g = _gate(G, row, rows, g_row, head * HEAD + col, inside, EVEN)
            h *= g * sigmoid(g, PTX)
        matrix = tl.load(W + replica * w_row + out[None, :] * (H * HEAD) + head * HEAD + col[:, None])
        y = tl.dot(h.to(Y.dtype.element_ty), matrix, y, input_precision="ieee")
    store(Y + (replica * rows + row[:, None]) * D + out[None, :], y, inside, EVEN)


@triton.jit
def _backward(
    O, NORM, G, W, DY, DO, DG, DW, DNORM, rows, part, T, o_sequence, o_head, o_row, norm_row, g_row, w_row, eps,
    HAS_G: tl.constexpr, EVEN: tl.constexpr, PTX: tl.constexpr, H: tl.constexpr, HEAD: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
):
    """DO [R B, H, T, HEAD], DG [R, rows, H HEAD], and of `part` rows each DW [R, shares, D, H HEAD], DNORM [R, shares, H, HEAD]."""
    replica, head = tl.program_id(2).to(tl.int64), tl.program_id(1)
    col, out = tl.arange(0, HEAD), tl.arange(0, D)
    share = replica * tl.num_programs(0) + tl.program_id(0)
    w = tl.load(NORM + replica * norm_row + col)
    matrix = tl.load(W + replica * w_row + out[:, None] * (H * HEAD) + head * HEAD + col[None, :])
    dw, dnorm = tl.zeros([D, HEAD], tl.float32), tl.zeros([HEAD], tl.float32)
    first = tl.program_id(0) * part
    stop = tl.minimum(first + part, rows)
    for start in range(first, stop, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = row[:, None] < stop
        dy = load(DY + (replica * rows + row[:, None]) * D + out[None, :], inside, EVEN)
        at = _head(O, row, rows, T, o_sequence, o_row, col) + head * o_head
        unit, scale = unit_rows(load(at, inside, EVEN).to(tl.float32), eps, HEAD)
        h = unit * w[None, :]
        dh = rounded(tl.dot(dy, matrix, input_precision="ieee"), dy.dtype, PTX)
        if HAS_G:
            g = _gate(G, row, rows, g_row, head * HEAD + col, inside, EVEN)
            s = sigmoid(g, PTX)
            dg = dh * h * s * (1 + g * (1 - s))
            token = replica * rows + row
            store(DG + token[:, None] * (H * HEAD) + head * HEAD + col[None, :], dg, inside, EVEN)
            h *= g * s
            dh *= g * s
        dw = tl.dot(tl.trans(dy), h.to(dy.dtype), dw, input_precision="ieee")
        dnorm += tl.sum(dh * unit, 0)
        do = through_norm(unit, scale, w, dh, HEAD)
        store(_head(DO, row, rows, T, H * T * HEAD, HEAD, col) + head * T * HEAD, do, inside, EVEN)
    tl.store(DW + (share * D + out[:, None]) * (H * HEAD) + head * HEAD + col[None, :], dw)
    tl.store(DNORM + (share * H + head) * HEAD + col, dnorm)


def _strides(o: Tensor, norm: Tensor, gate: Tensor | None, weight: Tensor) -> tuple[int, ...]:
    g_row = 0 if gate is None else gate.stride(-2)
    return *o.stride()[:3], norm.stride(0), g_row, weight.stride(0)


class _MixerOutput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, o: Tensor, norm: Tensor, gate: Tensor | None, weight: Tensor, batch: int) -> Tensor:
        RB, H, T, HEAD = o.shape
        R, D, rows = RB // batch, weight.shape[1], batch * T
        y = torch.empty(R, batch, T, D, device=o.device, dtype=o.dtype)
        _forward[(triton.cdiv(rows, FORWARD["ROWS"]), 1, R)](
            o, norm, gate, weight, y, rows, T, *_strides(o, norm, gate, weight), EPS, gate is not None,
            *plain(o, FORWARD, ROWS=rows), H, HEAD, D, **FORWARD,
        )
        ctx.save_for_backward(o, norm, gate, weight)
        ctx.batch = batch
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        o, norm, gate, weight = ctx.saved_tensors
        RB, H, T, HEAD = o.shape
        R, D, rows = RB // ctx.batch, weight.shape[1], ctx.batch * T
        do = torch.empty(o.shape, device=o.device, dtype=o.dtype)
        dgate = None if gate is None else torch.empty(gate.shape, device=o.device, dtype=gate.dtype)
        part = triton.cdiv(triton.cdiv(rows, SHARES), BACKWARD["ROWS"]) * BACKWARD["ROWS"]
        shares = triton.cdiv(rows, part)
        dw = torch.empty(R, shares, D, H * HEAD, device=o.device, dtype=torch.float32)
        dnorm = torch.empty(R, shares * H, HEAD, device=o.device, dtype=torch.float32)
        _backward[(shares, H, R)](
            o, norm, gate, weight, dy.contiguous(), do, dgate, dw, dnorm, rows, part, T,
            *_strides(o, norm, gate, weight), EPS, gate is not None,
            *plain(o, BACKWARD, ROWS=rows), H, HEAD, D, **BACKWARD,
        )
        return do, sum_rows(dnorm, norm.dtype), dgate, sum_rows(dw, weight.dtype), None


def mixer_output(o: Tensor, norm: Tensor, gate: Tensor | None, weight: Tensor, batch: int) -> Tensor:
    """As `layers.mixer_output`; rows of o and gate may lie apart, those of a gate `gate.stride(-2)`."""
    o = o if o.stride(-1) == 1 else o.contiguous()
    y: Tensor = _MixerOutput.apply(o, norm, gate, weight, batch)
    return y
