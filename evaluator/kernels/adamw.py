"""AdamW over all weights of all replicas as one flat buffer, with a rate for each replica."""

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _adamw(
    W, W16, G16, G32, M, S, LR, DECAY, STEP, P, P16, BLOCK: tl.constexpr
):
    replica = tl.program_id(1).to(tl.int64)
    col = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = col < P
    at = replica * P + col
    low = col < P16
    grad = tl.load(G16 + replica * P16 + col, mask=mask & low, other=0.0).to(tl.float32)
    grad += tl.load(G32 + replica * (P - P16) + col - P16, mask=mask & (col >= P16), other=0.0)
    lr = tl.load(LR + replica)
    t = tl.load(STEP).to(tl.float32)
    mean = tl.load(M + at, mask=mask, other=0.0)
    mean += 0.1 * (grad - mean)
    square = 0.999 * tl.load(S + at, mask=mask, other=0.0) + 0.001 * grad * grad
    correction = 1 - tl.exp(t * -0.10536051565782628)  # 1 - 0.9 ** t
    correction2 = 1 - tl.exp(t * -0.0010005003335835335)  # 1 - 0.999 ** t
    w = tl.load(W + at, mask=mask, other=0.0) * (1 - lr * tl.load(DECAY + replica))
    w -= lr / correction * mean / (tl.sqrt(square / correction2) + 1e-8)
    tl.store(M + at, mean, mask=mask)
    tl.store(S + at, square, mask=mask)
    tl.store(W + at, w, mask=mask)
    tl.store(W16 + replica * P16 + col, w.to(W16.dtype.element_ty), mask=mask & low)


def adamw(
    weights: Tensor, weights16: Tensor, grads16: Tensor, grads32: Tensor,
    mean: Tensor, square: Tensor, lr: Tensor, weight_decay: Tensor, step: Tensor,
) -> None:
    """As `layers.adamw`; the first P16 columns' gradients come in bf16, and so does their fresh copy go out."""
    R, P = weights.shape
    _adamw[(triton.cdiv(P, BLOCK), R)](
        weights, weights16, grads16, grads32, mean, square, lr, weight_decay, step, P, weights16.shape[1],
        BLOCK, num_warps=4,
    )
