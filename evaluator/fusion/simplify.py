"""Rewrites of a graph before it is grouped: products with zeros go, parts of a `cat` are stored into place."""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Graph, GraphModule, Node

from evaluator.fusion.pointwise import identity
from evaluator.fusion.views import is_view, shape_of

aten = torch.ops.aten


def write_out_numbers(module: GraphModule) -> None:
    """Tensors of one number that the traced code made, as `torch.tensor(0.5)`, become part of the graph.

    Others it can't have, as kernels take a graph's inputs and what is computed from them.
    """
    for node in list(module.graph.nodes):
        value = getattr(module, str(node.target), None) if node.op == "get_attr" else None
        if not isinstance(value, Tensor) or value.numel() != 1:
            continue
        with unset_fake_temporarily():
            number = value.item()
        for copy in [node, *(user for user in node.users if user.target in (aten.lift_fresh_copy.default, aten.detach.default))]:
            _write_out(module.graph, copy, number)
        module.graph.erase_node(node)
        delattr(module, str(node.target))


def _write_out(graph: Graph, node: Node, number: float) -> None:
    shape = node.meta.get("val")
    if shape is None or not node.users:
        return
    with graph.inserting_before(node):
        node.replace_all_uses_with(_full(graph, shape, number))


def _made(graph: Graph, target: Any, args: tuple[Any, ...], value: Tensor, **options: Any) -> Node:
    """A new node, whose value is like that one."""
    node = graph.call_function(target, args, options)
    node.meta["val"] = value
    return node


def _full(graph: Graph, value: Tensor, number: float) -> Node:
    return _made(graph, aten.full.default, (list(value.shape), number), value, dtype=value.dtype, device=value.device)


def fold_permutes(graph: Graph) -> None:
    """A permutation of a permutation is one, or none."""
    for node in list(graph.nodes):
        inner: Any = node.args[0] if node.target is aten.permute.default else None
        if inner is None or inner.target is not aten.permute.default:
            continue
        dims: list[int] = [inner.args[1][d] for d in node.args[1]]
        node.args = (inner.args[0], dims)
        if [d % len(dims) for d in dims] == list(range(len(dims))):
            node.replace_all_uses_with(inner.args[0])
    graph.eliminate_dead_code()


def simplify(graph: Graph) -> None:
    _drop_zeros(graph)
    graph.eliminate_dead_code()
    _write_at_once(graph)
    for node in list(graph.nodes):
        if node.target is aten.cat.default:
            _store_in_place(graph, node)
    graph.eliminate_dead_code()


def _drop_zeros(graph: Graph) -> None:
    zero: set[Node] = set()
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        reads = node.all_input_nodes
        if node.target in (aten.full.default, aten.zeros.default):
            if node.target is aten.zeros.default or node.args[1] == 0:
                zero.add(node)
        elif is_view(node) and node.target is not aten.constant_pad_nd.default and reads[0] in zero:
            zero.add(node)
        elif node.target in (aten.bmm.default, aten.mul.Tensor) and any(x in zero for x in reads):
            with graph.inserting_before(node):
                full = _full(graph, node.meta["val"], 0)
            node.replace_all_uses_with(full)
            zero.add(full)
        elif node.target is aten.slice_scatter.default:
            _write_instead(graph, node, over_zeros=reads[0] in zero)
        elif node.target in (aten.add.Tensor, aten.sub.Tensor):
            _drop_term(node, zero)


def _write_instead(graph: Graph, node: Node, *, over_zeros: bool) -> None:
    """A slice put into a tensor: the slice with zeros around it, which costs nothing, and where it is not, the tensor.

    Over zeros (a slice's gradient) that is all. Slice after slice written in place become one kernel's choices.
    """
    part, dim, start, step = _slice_of(node)
    shape, value = shape_of(node), node.meta["val"]
    dim, size = dim % len(shape), shape[dim]
    start = max(start + size, 0) if start < 0 else min(start, size)
    end = start + shape_of(part)[dim]
    if step != 1 or part.meta["val"].dtype != value.dtype:
        return
    pads = [0, 0] * (len(shape) - 1 - dim) + [start, size - end]

    with graph.inserting_before(node):
        result = _made(graph, aten.constant_pad_nd.default, (part, pads, 0.0), value)
        if not over_zeros:
            column = (size, *[1] * (len(shape) - 1 - dim))
            places, flags = value.new_empty(size, dtype=torch.int64), value.new_empty(column, dtype=torch.bool)
            place = _made(graph, aten.arange.start_step, (0, size), places, dtype=torch.int64, device=value.device)
            place = _made(graph, aten.view.default, (place, list(column)), places.view(column))
            after, before = (_made(graph, op, (place, bound), flags) for op, bound in ((aten.ge.Scalar, start), (aten.lt.Scalar, end)))
            inside = _made(graph, aten.logical_and.default, (after, before), flags)
            result = _made(graph, aten.where.self, (inside, result, node.args[0]), value)
            result.meta["written"] = True
    node.replace_all_uses_with(result)


def _write_at_once(graph: Graph) -> None:
    """Slices written one after the other wait for the last of them, so that one kernel can write all."""
    for node in reversed(list(graph.nodes)):
        if (reader := _written_over(node)) is not None:
            reader.prepend(node)


def _written_over(node: Node) -> Node | None:
    """What writes another slice where this one was written, and reads it alone."""
    reader = next(iter(node.users)) if "written" in node.meta and len(node.users) == 1 else None
    return reader if reader is not None and "written" in reader.meta else None


def last_written(node: Node) -> Node:
    """The last of the slices that are written after this one into the same tensor; the node itself where there is none."""
    while (reader := _written_over(node)) is not None:
        node = reader
    return node


def _slice_of(node: Node) -> tuple[Node, int, int, int]:
    """What a slice_scatter puts where: the part, dimension, start and step."""
    arguments: Any = node.args
    rest = (*arguments[2:], *(0, None, None, 1)[len(arguments) - 2 :])
    return arguments[1], rest[0] or 0, rest[1] or 0, rest[3]


def _drop_term(node: Node, zero: set[Node]) -> None:
    a, b = node.args[:2]
    kept = a if b in zero else b if a in zero and node.target is aten.add.Tensor else None
    if not isinstance(kept, Node) or node.kwargs or shape_of(kept) != shape_of(node):
        return
    if kept.meta["val"].dtype == node.meta["val"].dtype:
        node.replace_all_uses_with(kept)
        if kept in zero:
            zero.add(node)


def _store_in_place(graph: Graph, node: Node) -> None:
    """Puts a copy between a `cat` and each of its parts, which a kernel writes where it belongs."""
    parts: Any = node.args[0]
    if any(len(shape_of(x)) < 3 or shape_of(x)[-1] > 1024 or 0 in shape_of(x) for x in parts):
        return
    cast = _cast_behind(node)
    dtype = (cast or node).meta["val"].dtype
    copies = []
    for x in parts:
        with graph.inserting_before(node):
            copies.append(_made(graph, identity, (x,), x.meta["val"].to(dtype)))
    node.args = (copies, *node.args[1:])
    if cast is None:
        return
    before = cast.args[0]
    assert isinstance(before, Node)
    walked = before
    while True:
        walked.meta["val"] = walked.meta["val"].to(dtype)
        if walked is node:
            break
        walked = walked.args[0]  # type: ignore[assignment]
    cast.replace_all_uses_with(before)


def _cast_behind(node: Node) -> Node | None:
    """The cast to a narrower type which, through views alone, is all that a `cat` is made for."""
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node.target is aten._to_copy.default:
            old, new = node.args[0].meta["val"].dtype, node.meta["val"].dtype  # type: ignore[union-attr]
            return node if old == torch.float32 and new == torch.bfloat16 else None
        if not is_view(node) or node.target is aten.constant_pad_nd.default:
            return None
    return None
