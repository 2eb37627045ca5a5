"""From an operator to a compiled function with the same outputs and gradients."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._functorch import config
from torch._functorch.aot_autograd import aot_function
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch.fx import GraphModule, Node
from torch.utils.checkpoint import CheckpointPolicy

from evaluator.fusion.compiled import Compiled
from evaluator.fusion.decompositions import decompositions
from evaluator.fusion.library import Library
from evaluator.fusion.pointwise import CONSTANTS, identity
from evaluator.fusion.repeating import is_kernel_work
from evaluator.fusion.simplify import fold_permutes, write_out_numbers
from evaluator.fusion.views import is_view
from evaluator.model import Operator

aten = torch.ops.aten

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
        function, fw_compiler=compiler, bw_compiler=compiler, partition_fn=partition, decompositions=decompositions()
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
