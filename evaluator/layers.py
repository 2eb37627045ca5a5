"""The layer's own parts in plain PyTorch: the path of the CPU, and the reference for the kernels.

R replicas are trained as one model: weights are `[R, ...]`, activations `[R, B, T, D]`.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5
OUTPUT_GATE = "output_gate"  # the projection that is the layer's, not the operator's


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [R, ..., D], weight [R, N, D], bias [R, N] -> [R, ..., N]: one batched product for all replicas."""
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    transposed = weight.transpose(1, 2)
    out = torch.bmm(flat, transposed) if bias is None else torch.baddbmm(bias[:, None], flat, transposed)
    return out.view(*x.shape[:-1], -1)


def embed(tokens: Tensor, table: Tensor) -> Tensor:
    """tokens [R, B, T], table [R, V, D] -> [R, B, T, D]."""
    replicas = torch.arange(table.shape[0], device=table.device)[:, None, None]
    return table[replicas, tokens.long()]


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """x [R, ..., D], weight [R, D] -> [R, ..., D] in x's dtype; eps 1e-5, computed in float32."""
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPS)
    weight = weight.view(weight.shape[0], *[1] * (x.dim() - 2), -1)
    return (wide * scale * weight).to(x.dtype)


def norm(x: Tensor, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The residual stream x [R, B, T, D] as it is, and its RMS norm in `dtype`."""
    return x, rms_norm(x, weight).to(dtype)


def conv_silu(x: Tensor, weight: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Causal depthwise convolution, then SiLU, then split into heads.

    x [R, B, T, 3 H Dh] (q, k, v side by side), weight [R, 3 H Dh, W] -> three of [R B, H, T, Dh].
    """
    R, B, T, _ = x.shape
    width = weight.shape[-1]
    padded = F.pad(x, (0, 0, width - 1, 0))
    taps = [padded[:, :, j : j + T] * weight[:, None, None, :, j].to(x.dtype) for j in range(width)]
    out = F.silu(sum(taps[1:], taps[0])).view(R * B, T, 3, num_heads, -1)
    q, k, v = out.permute(2, 0, 3, 1, 4).contiguous()
    return q, k, v


def projected(x: Tensor, start: int, num_heads: int, projections: Mapping[str, int]) -> dict[str, Tensor]:
    """Views of x's columns [R, B, T, *] from `start` on, as they are used: the gate as it lies, others [R B, H, T, width]."""
    found = {}
    for name, width in projections.items():
        stop = start + num_heads * width
        columns = x[..., start:stop]
        found[name] = columns if name == OUTPUT_GATE else columns.flatten(0, 1).unflatten(-1, (num_heads, width)).transpose(1, 2)
        start = stop
    return found


def mixer_inputs(x: Tensor, weight: Tensor, num_heads: int, projections: Mapping[str, int]) -> dict[str, Tensor]:
    """What a mixer works on, from one product of the layer's input.

    x [R, B, T, 3 H Dh + H + ...]: q, k, v, beta, the declared projections (name -> width a head), unused columns;
    weight [R, 3 H Dh, 4]. Gives q, k, v [R B, H, T, Dh] after the convolution, beta [R B, H, T] after the sigmoid, and
    each projection [R B, H, T, width], the output gate [R, B, T, H width].
    """
    inner = weight.shape[1]
    q, k, v = conv_silu(x[..., :inner], weight, num_heads)
    beta = torch.sigmoid(x[..., inner : inner + num_heads]).flatten(0, 1).transpose(1, 2).contiguous()
    declared = projected(x, inner + num_heads, num_heads, projections)
    declared = {name: v if name == OUTPUT_GATE else v.contiguous() for name, v in declared.items()}
    return {"q": q, "k": k, "v": v, "beta": beta, **declared}


def mixer_output(o: Tensor, norm: Tensor, gate: Tensor | None, weight: Tensor, batch: int) -> Tensor:
    """RMS norm of each head, times SiLU(gate) where there is one; then the projection of all heads side by side.

    o [R B, H, T, Dh], norm [R, Dh], gate [R, B, T, H Dh], weight [R, D, H Dh] -> [R, B, T, D].
    """
    RB, H, T, Dh = o.shape
    out = rms_norm(o.reshape(RB // batch, batch, H, T, Dh), norm)
    out = out.transpose(2, 3).reshape(RB // batch, batch, T, H * Dh)
    return linear(out if gate is None else out * F.silu(gate), weight)


def swiglu(x: Tensor) -> Tensor:
    """x [..., 2 D] -> SiLU(first half) * second half, [..., D]."""
    first, second = x.chunk(2, -1)
    return F.silu(first) * second


def feed_forward(
    x: Tensor, y: Tensor, norm: Tensor, up: Tensor, down: Tensor, after: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The residual stream x [R, B, T, D] plus a mixer's y, plus SwiGLU of their RMS norm; and the norm of that for what follows.

    norm, after [R, D], up [R, 2 N, D], down [R, D, N]; without `after` there is no norm of the whole.
    """
    x = x + y
    x = x + linear(swiglu(linear(rms_norm(x, norm).to(y.dtype), up)), down)
    return x, None if after is None else rms_norm(x, after).to(y.dtype)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the targets that are not -100, per replica: logits [R, N, V], targets [R, N] -> [R]."""
    R, N, V = logits.shape
    losses = F.cross_entropy(
        logits.float().reshape(R * N, V), targets.long().reshape(R * N), ignore_index=-100, reduction="none"
    )
    return losses.view(R, N).sum(1) / (targets != -100).sum(1)


def gradients(loss: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of loss by each of the leaves, zeros for one that it does not depend on."""
    return torch.autograd.grad(loss, leaves, materialize_grads=True)


def adamw(
    weights: Tensor, matrices: Tensor, low: Tensor, high: Tensor,
    mean: Tensor, square: Tensor, lr: Tensor, weight_decay: Tensor, step: Tensor,
) -> None:
    """One AdamW step in place (betas 0.9, 0.999, eps 1e-8) on flat weights [R, P]; lr, weight_decay [R]; step >= 1.

    `low` [R, P16] are the gradients of the first P16 columns, of which `matrices` is kept as a copy in its own
    dtype; `high` are those of the others.
    """
    grads, lr, weight_decay = torch.cat([low.float(), high], 1), lr[:, None], weight_decay[:, None]
    mean.lerp_(grads, 0.1)
    square.mul_(0.999).addcmul_(grads, grads, value=0.001)
    t = step.float()
    denominator = (square / (1 - 0.999**t)).sqrt_().add_(1e-8)
    weights.mul_(1 - lr * weight_decay).sub_(lr / (1 - 0.9**t) * mean / denominator)
    matrices.copy_(weights[:, : matrices.shape[1]])
