"""MAD's model with a delta-rule operator as its mixer, for R replicas at once.

Sizes and initialisation follow the reference code (athms/mad-lab) with fla's DeltaNet layer: width 128,
mixer and SwiGLU twice, RMSNorm before each, an autoencoder around them for compression. Weights of all
replicas lie in one flat `[R, P]` buffer; the names of `Part` decide which random stream a tensor is drawn from.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluator import layers
from evaluator.protocol import Protocol, Setting

CONV_WIDTH = 4
ALIGN = 64  # every segment starts at a multiple of this many numbers: 16 bytes and more in either dtype

Operator = Callable[[dict[str, Tensor]], Tensor]
"""q, k, v, beta and all that the variant declares, by name -> o [R B, H, T, Dh]."""


@dataclass(frozen=True)
class Part:
    """One tensor of the model by its name, as it is initialised."""

    name: str
    shape: tuple[int, ...]
    init: str  # "ones", "zeros", "normal", "uniform", "declared"; "pad" is zero and no parameter


@dataclass(frozen=True)
class Segment:
    """Parts stacked along their first dimension, so that one matrix product serves them all."""

    name: str
    parts: tuple[Part, ...]
    matrix: bool  # used in bf16 on a GPU

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(p.shape[0] for p in self.parts), *self.parts[0].shape[1:])

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Architecture:
    """Everything that the shapes of a model depend on."""

    vocab_size: int
    seq_len: int
    autoencoder: bool
    width: int
    num_blocks: int
    num_heads: int
    head_dim: int
    chunk_size: int
    projections: Mapping[str, int]  # name -> width a head
    parameters: Mapping[str, tuple[int, ...]]  # name -> shape

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Matrices first, then what stays in float32, each in the order of its use."""
        found = list(_segments(self))
        return tuple(sorted(found, key=lambda s: not s.matrix))

    @property
    def num_parameters(self) -> int:
        """Learned numbers of one model."""
        parts = [p for s in self.segments for p in s.parts if p.init != "pad"]
        return sum(math.prod(p.shape) for p in parts)


def architecture(
    setting: Setting, protocol: Protocol, projections: Mapping[str, int], parameters: Mapping[str, tuple[int, ...]]
) -> Architecture:
    """The model for one setting, with what the variant declares for its operator."""
    return Architecture(
        vocab_size=setting.vocab_size, seq_len=setting.seq_len, autoencoder=setting.task == "compression",
        width=protocol.width, num_blocks=protocol.num_blocks, num_heads=protocol.num_heads,
        head_dim=protocol.head_dim, chunk_size=protocol.chunk_size, projections=projections, parameters=parameters,
    )


def _matrix(name: str, *parts: tuple[str, int, int], init: str = "uniform") -> Segment:
    return Segment(name, tuple(Part(f"{name}.{part}", (rows, cols), init) for part, rows, cols in parts), True)


def _vector(name: str, size: int, init: str, matrix: bool = False) -> Segment:
    return Segment(name, (Part(name, (size,), init),), matrix)


def swiglu_width(width: int) -> int:
    """Two thirds of four times the width, rounded up to a multiple of 16 (352 at 128)."""
    return 16 * math.ceil(int(2 * width * 4 / 3) / 16)


def _segments(arch: Architecture) -> Iterator[Segment]:
    linear = "normal" if arch.autoencoder else "uniform"
    width, inner = arch.width, arch.num_heads * arch.head_dim
    yield Segment("embedding", (Part("embedding", (arch.vocab_size, width), "normal"),), False)
    for b in range(arch.num_blocks):
        yield from _block(f"blocks.{b}", arch, linear, width, inner)
    if arch.autoencoder:
        for layer in ("decoder.0", "decoder.1"):
            yield _vector(f"{layer}.norm", width, "ones")
            yield _matrix(f"{layer}.linear", ("weight", width, width), init=linear)
            yield _vector(f"{layer}.bias", width, "zeros", matrix=True)
    yield _vector("head.norm", width, "ones")
    yield _matrix("head.linear", ("weight", arch.vocab_size, width), init=linear)
    yield _vector("head.bias", arch.vocab_size, "zeros", matrix=True)


def _block(name: str, arch: Architecture, linear: str, width: int, inner: int) -> Iterator[Segment]:
    yield _vector(f"{name}.mixer.norm", width, "ones")
    qkv = _matrix(f"{name}.mixer.qkv", *((p, inner, width) for p in "qkv"), init=linear).parts
    rest = [("beta", arch.num_heads, width)]
    rest += [(p, arch.num_heads * w, width) for p, w in arch.projections.items()]
    drawn = _matrix(f"{name}.mixer.rest", *rest, init=linear)
    pad = -drawn.shape[0] % 8  # rows of the product stay 16-byte aligned
    pads = (Part("pad", (pad, width), "pad"),) if pad else ()
    yield Segment(f"{name}.mixer.in", (*qkv, *drawn.parts, *pads), True)
    yield Segment(f"{name}.mixer.conv", tuple(Part(f"{name}.mixer.conv.{p}", (inner, CONV_WIDTH), "uniform") for p in "qkv"), True)
    for p, shape in arch.parameters.items():
        yield Segment(f"{name}.mixer.parameters.{p}", (Part(f"{name}.mixer.parameters.{p}", shape, "declared"),), False)
    yield _vector(f"{name}.mixer.head_norm", arch.head_dim, "ones")
    yield _matrix(f"{name}.mixer.out", ("weight", width, inner), init=linear)
    yield _vector(f"{name}.mlp.norm", width, "ones")
    hidden = swiglu_width(width)
    yield _matrix(f"{name}.mlp.up", ("gate", hidden, width), ("value", hidden, width), init=linear)
    yield _matrix(f"{name}.mlp.down", ("weight", width, hidden), init=linear)


@dataclass(frozen=True)
class Layout:
    """Where each segment lies in the flat buffer of one replica."""

    offsets: Mapping[str, int]
    size: int
    matrix_size: int  # the first so many numbers are matrices


def layout(arch: Architecture) -> Layout:
    offsets, at, matrix_size = {}, 0, 0
    for segment in arch.segments:
        offsets[segment.name] = at
        at += -(-segment.size // ALIGN) * ALIGN
        matrix_size = at if segment.matrix else matrix_size
    return Layout(offsets, at, matrix_size)


def views(flat: Tensor, arch: Architecture, segments: Sequence[Segment], start: int = 0) -> dict[str, Tensor]:
    """The named tensors `[R, *shape]` inside a flat buffer [R, P] whose first column is column `start`."""
    offsets = layout(arch).offsets
    return {
        s.name: flat[:, offsets[s.name] - start : offsets[s.name] - start + s.size].view(-1, *s.shape)
        for s in segments
    }


def named(low: Tensor, flat: Tensor, arch: Architecture) -> dict[str, Tensor]:
    """Every segment by name: matrices out of `low` [R, P16], all others out of the float32 weights `flat` [R, P]."""
    start = layout(arch).matrix_size
    matrices, rest = ([s for s in arch.segments if s.matrix is kind] for kind in (True, False))
    return views(low, arch, matrices) | views(flat[:, start:], arch, rest, start)


Declare = Callable[[str], Mapping[str, np.ndarray]]
"""Name of a random stream -> the variant's declared parameters drawn from it."""


def initial_weights(arch: Architecture, stream: str, declare: Declare) -> np.ndarray:
    """One replica's flat float32 weights [P]; each tensor is drawn from a stream of its own name."""
    where = layout(arch)
    flat = np.zeros(where.size, np.float32)
    for segment in arch.segments:
        at = where.offsets[segment.name]
        for part in segment.parts:
            size = math.prod(part.shape)
            flat[at : at + size] = _draw(part, f"{stream}/{part.name}", declare).reshape(-1)
            at += size
    return flat


def _draw(part: Part, stream: str, declare: Declare) -> np.ndarray:
    if part.init in ("ones", "zeros", "pad"):
        return np.full(part.shape, float(part.init == "ones"), np.float32)
    if part.init == "declared":
        return declare(stream)[part.name.rsplit(".", 1)[1]]
    rng = np.random.Generator(np.random.PCG64(stream_seed(stream)))
    if part.init == "normal":
        return (0.02 * rng.standard_normal(part.shape)).astype(np.float32)
    bound = part.shape[1] ** -0.5  # PyTorch's default for linear layers and depthwise convolutions
    return rng.uniform(-bound, bound, part.shape).astype(np.float32)


def stream_seed(stream: str) -> int:
    """A random seed from the name of a stream, the same on every machine."""
    return int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "big")


def operations(device: torch.device) -> ModuleType:
    """The layer's own parts for a device: the kernels on a GPU, plain PyTorch elsewhere."""
    if device.type != "cuda":
        return layers
    from evaluator.kernels import ops  # Triton is needed on a GPU alone

    return ops


def forward(
    weights: Mapping[str, Tensor], tokens: Tensor, operator: Operator, arch: Architecture, ops: ModuleType = layers
) -> Tensor:
    """tokens [R, B, T] -> logits [R, B T, V]; `ops` is `layers` or the kernels that say the same."""
    R, B, T = tokens.shape
    dtype = weights["head.linear"].dtype
    # The norm that follows each block; the decoder's comes after the positions are added.
    after = [weights[f"blocks.{b}.mixer.norm"] for b in range(1, arch.num_blocks)]
    norms = [*after, None if arch.autoencoder else weights["head.norm"]]
    x, normed = ops.norm(ops.embed(tokens, weights["embedding"]), weights["blocks.0.mixer.norm"], dtype)
    for b in range(arch.num_blocks):
        own = {k.removeprefix(f"blocks.{b}."): v for k, v in weights.items() if k.startswith(f"blocks.{b}.")}
        # The autoencoder reads the last position alone, so its last block needs no other after the operator.
        last_only = arch.autoencoder and b == arch.num_blocks - 1
        y = _mixer(own, normed, operator, arch, ops, last_only)
        x = x[:, :, -1:] if last_only else x
        x, normed = ops.feed_forward(x, y, own["mlp.norm"], own["mlp.up"], own["mlp.down"], norms[b])
    if arch.autoencoder:
        _, normed = ops.norm(_decode(weights, x, arch, ops, dtype), weights["head.norm"], dtype)
    logits: Tensor = ops.linear(normed.view(R, B * T, -1), weights["head.linear"], weights["head.bias"])
    return logits


def _mixer(
    w: Mapping[str, Tensor], x: Tensor, operator: Operator, arch: Architecture, ops: ModuleType, last_only: bool
) -> Tensor:
    R, B = x.shape[:2]
    inputs = ops.mixer_inputs(ops.linear(x, w["mixer.in"]), w["mixer.conv"], arch.num_heads, arch.projections)
    gate = inputs.pop(layers.OUTPUT_GATE, None)
    for name, shape in arch.parameters.items():
        inputs[name] = w[f"mixer.parameters.{name}"][:, None].expand(R, B, *shape).reshape(R * B, *shape).contiguous()
    o = operator(inputs)
    if last_only:
        o, gate = o[:, :, -1:], None if gate is None else gate[:, :, -1:].contiguous()
    out: Tensor = ops.mixer_output(o, w["mixer.head_norm"], gate, w["mixer.out"], B)
    return out


def _decode(w: Mapping[str, Tensor], x: Tensor, arch: Architecture, ops: ModuleType, dtype: torch.dtype) -> Tensor:
    """The last position's vector x [R, B, 1, D] plus fixed positions, through MAD's decoder -> [R, B, T, D]."""
    x = x + positions(arch.seq_len, arch.width, x.device)
    for layer in ("decoder.0", "decoder.1"):
        _, normed = ops.norm(x, w[f"{layer}.norm"], dtype)
        x = F.gelu(ops.linear(normed, w[f"{layer}.linear"], w[f"{layer}.bias"]))
    return x


def positions(length: int, width: int, device: torch.device) -> Tensor:
    """cat(sin, cos) of t * 10000^(-i / (width/2 - 1)), float32 [length, width]."""
    half = width // 2
    omega = 10000.0 ** (-torch.arange(half, device=device, dtype=torch.float32) / (half - 1))
    angle = torch.arange(length, device=device, dtype=torch.float32)[:, None] * omega
    return torch.cat([angle.sin(), angle.cos()], 1)
