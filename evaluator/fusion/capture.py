"""From an operator to a compiled function with the same outputs and gradients."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._functorch import config
from torch._functorch.aot_autograd import aot_function
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch.fx import GraphModule, Node
from torch.utils.checkpoint import CheckpointPolicy

from evaluator.fusion.compiled import Compiled
from evaluator.fusion.library import Library
from evaluator.fusion.pointwise import CONSTANTS, identity
from evaluator.fusion.repeating import is_kernel_work
from evaluator.fusion.simplify import fold_permutes, write_out_numbers
from evaluator.fusion.tiles import SMALLEST_SIDE
from evaluator.fusion.views import is_view
from evaluator.model import Operator

aten = torch.ops.aten

LARGEST_SYSTEM = 64
"""Equations of a triangular system that is solved in kernels; larger ones are left to ATen, as are those below a tile of products."""

# What is no matrix product is computed again in the backward pass, inside its kernels, instead of being kept.
RECOMPUTE = {
    "ban_recompute_used_far_apart": False, "ban_recompute_long_fusible_chains": False,
    "ban_recompute_materialized_backward": False, "ban_recompute_not_in_allowlist": False,
    "ban_recompute_reductions": False,
}


def fused_operator(operator: Operator, library: Library) -> Operator:
    """The operator compiled once for every set of shapes that it meets, with and without gradients."""
    known: dict[object, Callable[..., Tensor]] = {}

    def call(inputs: dict[str, Tensor]) -> Tensor:
        names = tuple(inputs)
        key = torch.is_grad_enabled(), shapes(inputs)
        if key not in known:
            known[key] = fused(lambda *tensors: operator(dict(zip(names, tensors, strict=True))), library)
        return known[key](*inputs.values())

    return call


def shapes(inputs: dict[str, Tensor]) -> tuple[object, ...]:
    """What a compiled operator is compiled for."""
    return tuple((name, x.shape, x.stride(), x.dtype) for name, x in inputs.items())


def fused(function: Callable[..., Tensor], library: Library) -> Callable[..., Tensor]:
    """`function` of tensors alone, traced and compiled at its first call for the shapes it is given then.

    Tracing raises whatever the function raises where it asks for values; compiling raises Triton's errors.
    """

    def compiler(gm: GraphModule, example_inputs: Any) -> Any:
        write_out_numbers(gm)
        return _boxed(Compiled(gm, library))

    def partition(joint: GraphModule, inputs: Any, **kwargs: Any) -> Any:
        write_out_numbers(joint)
        fold_permutes(joint.graph)  # so that a transposed inverse is seen to be the one that is there
        kept = {node.name for node in joint.graph.nodes if _costly(node)}
        while True:
            parts = _parted(copy.deepcopy(joint), kept, inputs, kwargs)
            found = _written_and_computed_again(*(Compiled(copy.deepcopy(part), library) for part in parts)) - kept
            if not found:
                return parts
            kept |= found

    return aot_function(
        function, fw_compiler=compiler, bw_compiler=compiler, partition_fn=partition, decompositions=_decompositions()
    )


def _parted(joint: GraphModule, kept: Iterable[str], inputs: Any, options: Any) -> Any:
    """The forward and the backward graph of both together, with as few bytes in between as `kept` and RECOMPUTE allow."""
    for node in joint.graph.nodes:
        if node.name in kept:
            node.meta["recompute"] = CheckpointPolicy.MUST_SAVE
    with config.patch(RECOMPUTE):
        return min_cut_rematerialization_partition(joint, inputs, compiler="inductor", **options)


def _written_and_computed_again(forward: Compiled, backward: Compiled) -> set[str]:
    """What the forward kernels write for one another, and backward kernels would make anew: a state, chunk after chunk.

    Kept, it is written no more often than it is already, and lives until the backward pass instead of being freed before.
    """
    return {x.name for x in forward.stored if x.target is not identity} & {x.name for x in backward.plan.tiles}


_ELEMENTARY = (aten._softmax, aten._log_softmax, aten.linalg_vector_norm, aten.elu, aten.gelu, aten.hardtanh, aten.leaky_relu)
"""What ATen leaves whole for its own kernels, said by sums and exponentials."""


def _decompositions() -> dict[Any, Any]:
    """ATen's own and ours, down to what kernels can say."""
    table = {**core_aten_decompositions(), **get_decompositions(list(_ELEMENTARY))}
    # Made for export: its logsumexp is empty, which the backward pass would read.
    table.pop(aten._scaled_dot_product_flash_attention_for_cpu.default, None)
    ours = {
        aten.native_layer_norm.default: _layer_norm, aten.var.correction: _var, aten.full_like.default: _full_like,
        aten.linalg_solve_triangular.default: _solve_triangular, aten.copy.default: _copy, aten.new_empty_strided.default: _new_empty_strided, aten.bitwise_not.default: _bitwise_not,
    }  # fmt: skip
    return {**table, **ours}


def _layer_norm(x: Tensor, shape: list[int], weight: Any, bias: Any, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    dims = list(range(-len(shape), 0))
    mean = x.mean(dims, keepdim=True)
    apart = x - mean
    scale = torch.rsqrt((apart * apart).mean(dims, keepdim=True) + eps)
    out = apart * scale
    out = out if weight is None else out * weight
    return out if bias is None else out + bias, mean, scale


def _solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    """By the inverse of A [.., C, C], which is made of products: a solver's batch of small systems takes as long as all else."""
    C = A.shape[-1]
    if not left or A.dtype != torch.float32 or not SMALLEST_SIDE <= C <= LARGEST_SYSTEM:
        return NotImplemented
    L = A.mT if upper else A
    row = torch.arange(C, device=A.device)
    if not unitriangular:
        scale = torch.where(row[:, None] == row, L, 0.0).sum(-1, keepdim=True)
        L = L / scale
    L = torch.where(row[:, None] > row, L, 0.0)
    apart = row[:, None] ^ row  # apart >> s == 1: in one block of 2^(s+1) rows, in different halves of it
    X = torch.where(row[:, None] == row, 1.0, torch.where(apart == 1, -L, 0.0))
    for s in range(1, (C - 1).bit_length()):
        X = torch.where(apart >> s == 1, -(X @ L @ X), X)
    X = 2 * X - X @ (X + L @ X)  # a step of Newton's, which sharpens it
    X = X if unitriangular else X / scale.mT
    return (X.mT if upper else X) @ B


def _var(x: Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    dims = list(range(x.dim())) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    apart = x - x.mean(dims, keepdim=True)
    freedom = math.prod(x.shape[d] for d in dims) - (1.0 if correction is None else correction)
    return (apart * apart).sum(dims, keepdim=keepdim) / max(freedom, 0.0)


def _bitwise_not(x: Tensor) -> Any:
    return torch.logical_not(x) if x.dtype == torch.bool else NotImplemented


def _full_like(x: Tensor, value: float, **options: Any) -> Tensor:
    return torch.full(x.shape, value, dtype=options.get("dtype") or x.dtype, device=x.device)


def _copy(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """What stands in `x` after `x.copy_(source)`."""
    return source.expand(x.shape).to(x.dtype)


def _new_empty_strided(x: Tensor, size: list[int], stride: list[int], **options: Any) -> Tensor:
    """Zeros where memory would be taken as it is: what is written over them is known to be all that counts."""
    return torch.zeros(size, dtype=options.get("dtype") or x.dtype, device=x.device)


def _costly(node: Node) -> bool:
    """Whether a node is left to ATen, as a sort is: its result is kept for the backward pass."""
    if node.op != "call_function" or not isinstance(node.meta.get("val"), Tensor):
        return False
    plain = is_view(node) or is_kernel_work(node) or node.target in CONSTANTS
    return not plain and bool(node.all_input_nodes)


def _boxed(compiled: Compiled) -> Any:
    def call(args: list[Tensor]) -> list[Any]:
        return compiled(args)

    call._boxed_call = True  # type: ignore[attr-defined]
    return call
