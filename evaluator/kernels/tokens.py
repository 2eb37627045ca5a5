"""Where tokens meet the model: the embedding's gradient and the cross-entropy, per replica."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from evaluator.kernels.linear import sum_rows

TOKENS = 64  # tokens of a tile of the embedding's gradient
SPLITS = 32  # partial sums of the embedding's gradient, added up in a fixed order


@triton.jit
def _embed_forward(TOKEN, TABLE, OUT, rows, table_row, D: tl.constexpr, ROWS: tl.constexpr):
    replica = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, D)
    mask = row < rows
    token = tl.load(TOKEN + replica * rows + row, mask=mask, other=0)
    x = tl.load(TABLE + replica * table_row + token[:, None] * D + col[None, :])
    tl.store(OUT + (replica * rows + row[:, None]) * D + col[None, :], x, mask=mask[:, None])


@triton.jit
def _embed_backward(TOKEN, DOUT, DTABLE, rows, rows_split, V, D: tl.constexpr, BLOCK_V: tl.constexpr, TOKENS: tl.constexpr):
    replica = tl.program_id(2).to(tl.int64)
    split = tl.program_id(1)
    word = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    col = tl.arange(0, D)
    total = tl.zeros([BLOCK_V, D], tl.float32)
    first = split * rows_split
    for start in range(first, tl.minimum(first + rows_split, rows), TOKENS):
        row = start + tl.arange(0, TOKENS)
        mask = row < tl.minimum(first + rows_split, rows)
        token = tl.load(TOKEN + replica * rows + row, mask=mask, other=-1)
        grad = tl.load(DOUT + (replica * rows + row[:, None]) * D + col[None, :], mask=mask[:, None], other=0.0)
        # A one-hot product: exact selection, and a fixed order of addition that atomics would not have.
        hot = (word[:, None] == token[None, :]).to(tl.float32)
        total += tl.dot(hot, grad, input_precision="tf32")
    at = ((replica * tl.num_programs(1) + split) * V + word[:, None]) * D + col[None, :]
    tl.store(DTABLE + at, total, mask=word[:, None] < V)


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, table: Tensor) -> Tensor:
        R, V, D = table.shape
        rows = tokens.numel() // R
        out = torch.empty(*tokens.shape, D, device=table.device, dtype=table.dtype)
        _embed_forward[(triton.cdiv(rows, 16), R)](tokens, table, out, rows, table.stride(0), D, 16, num_warps=4)
        ctx.save_for_backward(tokens)
        ctx.vocab_size = V
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> Any:
        (tokens,) = ctx.saved_tensors
        R, D, V = tokens.shape[0], dout.shape[-1], ctx.vocab_size
        rows = tokens.numel() // R
        splits = min(SPLITS, triton.cdiv(rows, TOKENS)) if V <= 512 else 1
        rows_split = triton.cdiv(triton.cdiv(rows, splits), TOKENS) * TOKENS
        partial = torch.empty(R, splits, V, D, device=dout.device, dtype=torch.float32)
        block = 16 if V <= 16 else 64
        _embed_backward[(triton.cdiv(V, block), splits, R)](
            tokens, dout.contiguous(), partial, rows, rows_split, V, D, block, TOKENS, num_warps=4
        )
        return None, sum_rows(partial, torch.float32)


def embed(tokens: Tensor, table: Tensor) -> Tensor:
    """As `layers.embed`; tokens int32."""
    out: Tensor = _Embed.apply(tokens.contiguous(), table)
    return out


@triton.jit
def _cross_entropy(LOGITS, TARGET, COUNT, LOSS, DLOGITS, rows, V, ROWS: tl.constexpr, BLOCK_V: tl.constexpr):
    replica = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    word = tl.arange(0, BLOCK_V)
    inside = row < rows
    at = (replica * rows + row[:, None]) * V + word[None, :]
    mask = inside[:, None] & (word[None, :] < V)
    target = tl.load(TARGET + replica * rows + row, mask=inside, other=-100)
    logits = tl.load(LOGITS + at, mask=mask, other=-float("inf")).to(tl.float32)
    logits = tl.where(inside[:, None], logits, 0.0)
    peak = tl.max(logits, 1)
    weight = tl.exp(logits - peak[:, None])
    total = tl.sum(weight, 1)
    hot = word[None, :] == target[:, None]
    picked = tl.sum(tl.where(hot, logits, 0.0), 1)
    scored = target != -100
    tl.store(LOSS + replica * rows + row, tl.where(scored, tl.log(total) + peak - picked, 0.0), mask=inside)
    grad = (weight / total[:, None] - hot.to(tl.float32)) / tl.load(COUNT + replica).to(tl.float32)
    grad = tl.where(scored[:, None], grad, 0.0)
    tl.store(DLOGITS + at, grad.to(DLOGITS.dtype.element_ty), mask=mask)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        R, N, V = logits.shape
        count = (targets != -100).sum(1)
        losses = torch.empty(R, N, device=logits.device, dtype=torch.float32)
        dlogits = torch.empty_like(logits)
        block = max(16, triton.next_power_of_2(V))
        rows = max(1, 2048 // block)
        _cross_entropy[(triton.cdiv(N, rows), R)](logits, targets, count, losses, dlogits, N, V, rows, block, num_warps=4)
        ctx.save_for_backward(dlogits)
        return losses.sum(1) / count

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> Any:
        # The trainer adds the replicas' losses up, so that dloss is one: the product is left out on purpose.
        (dlogits,) = ctx.saved_tensors
        return dlogits, None


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """As `layers.cross_entropy`, whose sum over replicas is to be differentiated: targets int32."""
    loss: Tensor = _CrossEntropy.apply(logits.contiguous(), targets.contiguous())
    return loss
