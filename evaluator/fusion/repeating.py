"""What is computed again wherever it is read, because that costs less than to keep it."""

import math

import torch
from torch.fx import Graph, Node

from evaluator.fusion.pointwise import CONSTANTS, REDUCTIONS, SCANS, identity, is_pointwise, reduced_dims
from evaluator.fusion.tiles import MAX_SIDE, operands
from evaluator.fusion.views import is_view, shape_of, source

aten = torch.ops.aten

MAX_REPEATED = 16  # steps of what is computed again instead of kept


def inlined(graph: Graph) -> set[Node]:
    """Nodes that are computed again wherever they are read, because that costs less than to keep them.

    Constants; and what takes no product and no more bytes to make from the graph's inputs than it has itself.
    """
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op != "call_function" or node.target is identity:
            continue
        if node.target in CONSTANTS or (_repeatable(node) and _light(node, found)):
            found.add(node)
    unchanging = constants(graph)
    for node in graph.nodes:  # ATen would make them again from the start
        if node.op == "output" or not (is_view(node) or node in found or is_kernel_work(node)):
            for x in operands(node):
                if source(x) not in unchanging and source(x).target is not aten._to_copy.default:
                    found.discard(source(x))
    return found


def is_kernel_work(node: Node) -> bool:
    """Whether a kernel may compute the node, as far as its kind tells."""
    return is_pointwise(node) or node.target in REDUCTIONS or node.target in SCANS or node.target is aten.bmm.default


def _repeatable(node: Node) -> bool:
    if node.target in REDUCTIONS and isinstance(node.meta.get("val"), torch.Tensor):
        shape = shape_of(operands(node)[0])
        return reduced_dims(node)[0] == (len(shape) - 1,) and shape[-1] <= MAX_SIDE
    return is_pointwise(node)


def _light(node: Node, found: set[Node]) -> bool:
    reads = [source(x) for x in operands(node)]
    if any(x.op != "placeholder" and x not in found for x in reads):
        return False
    inputs, steps = _origins(node, found)
    return steps <= MAX_REPEATED and sum(x.meta["val"].nbytes for x in inputs) <= 1.1 * _bytes(node)


def _origins(node: Node, found: set[Node]) -> tuple[set[Node], int]:
    """The inputs that a light node is made from, and in how many steps."""
    inputs: set[Node] = set()
    steps = 1
    for x in operands(node):
        base = source(x)
        if base.op == "placeholder":
            inputs.add(base)
        elif base in found:
            more, count = _origins(base, found)
            inputs |= more
            steps += count
    return inputs, steps


def _bytes(node: Node) -> float:
    """Of a node; without bound for one number a row, whose reader mostly needs the row too."""
    value = node.meta["val"]
    return math.inf if shape_of(node)[-1:] == (1,) or node.target in REDUCTIONS else value.numel() * value.element_size()


def constants(graph: Graph) -> set[Node]:
    """Nodes that depend on no input."""
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op == "call_function" and all(source(x) in found for x in operands(node)):
            found.add(node)
    return found
