"""Which nodes of a graph share a kernel: tiles of one grid, joined where values can stay in registers."""

import contextlib
from dataclasses import dataclass, field

import torch
from torch.fx import Graph, Node

from evaluator.fusion.index import NotAffine, largest
from evaluator.fusion.pointwise import identity
from evaluator.fusion.reads import in_registers, leaves
from evaluator.fusion.repeating import inlined
from evaluator.fusion.simplify import last_written
from evaluator.fusion.tiles import Tile, Tiling, boundaries_of, operands, tiles_of
from evaluator.fusion.views import SPLITS, is_view, shape_of, source

aten = torch.ops.aten

Reads = list[tuple[Node, Tile]]
"""Tensors in memory or in registers, and the tile of each that is read."""


@dataclass
class Group:
    """Nodes of one kernel, in order."""

    grid: int
    label: int | None
    nodes: list[Node] = field(default_factory=list)
    dots: int = 0


@dataclass
class Plan(Tiling):
    """Steps in order, a group or a node that is left to ATen; and at which step every node is computed."""

    steps: list[Group | Node]
    place: dict[Node, int]
    inline: set[Node]  # computed again wherever they are read
    reads: dict[Node, Reads]  # of every node that a kernel computes


def plan(graph: Graph, max_dots: int, max_nodes: int) -> Plan:
    """Every node that is no view, in a group or on its own; groups hold so many products and nodes at most."""
    found = Plan({}, {}, boundaries_of(graph), [], {}, inlined(graph), {})
    for node in graph.nodes:
        if node.op != "call_function" or is_view(node) or node in found.inline or is_assembled(node):
            continue
        if node.target in SPLITS and all(is_view(x) for x in node.users):
            continue
        choice = _choice(node, found)
        if choice:
            found.tiles[node], found.reads[node] = choice
            _join(node, found, max_dots, max_nodes)
        else:
            found.place[node] = len(found.steps)
            found.steps.append(node)
    return found


def _choice(node: Node, found: Plan) -> tuple[Tile, Reads] | None:
    """The tile of a node that has most of its operands at hand, and what it reads; None: no kernel can say it."""
    choices = []
    for tile in tiles_of(node, found):
        with contextlib.suppress(NotAffine):
            choices.append((tile, list(leaves(node, tile, found, found.inline))))
    return max(choices, key=lambda choice: _at_hand(choice[1], found), default=None)


def _at_hand(reads: Reads, found: Plan) -> int:
    """How many of these tiles a program of their grid has in registers."""
    return sum(x in found.tiles and in_registers(wanted, found.tiles[x]) is not None for x, wanted in reads)


def is_assembled(node: Node) -> bool:
    return node.target is aten.cat.default and all(x.target is identity for x in operands(node))


def _join(node: Node, found: Plan, max_dots: int, max_nodes: int) -> None:
    """Puts a node into the first group that it may share, or into a new one at the end."""
    tile, reads = found.tiles[node], found.reads[node]
    dots, label = int(node.target is aten.bmm.default), _label(reads, found)
    waits_for = [x for x, _ in reads] + [source(x) for x in operands(last_written(node))]
    after = max((_position(x, found) for x in waits_for), default=-1)
    for position in range(max(after, 0), len(found.steps)):
        group = found.steps[position]
        if not isinstance(group, Group) or group.grid != tile.grid:
            continue
        full = group.dots + dots > max_dots or len(group.nodes) >= max_nodes
        elsewhere = None not in (group.label, label) and group.label != label
        inside = [(x, wanted) for x, wanted in reads if found.place.get(x) == position]
        if full or elsewhere or any(not in_registers(wanted, found.tiles[x]) for x, wanted in inside):
            continue
        break
    else:
        position, group = len(found.steps), Group(tile.grid, label)
        found.steps.append(group)
    group.nodes.append(node)
    group.dots += dots
    group.label = label if group.label is None else group.label
    found.place[node] = position


def _position(node: Node, found: Plan) -> int:
    """After which step a tensor is there; a cat's is the last of its parts'."""
    if node.op == "placeholder":
        return -1
    if is_assembled(node):
        return max(found.place[x] for x in operands(node)) + 1
    if node.op == "call_function" and node in found.place:
        return found.place[node] + (0 if node in found.tiles else 1)
    return max((_position(source(x), found) for x in operands(node)), default=-1)


def _label(reads: Reads, found: Plan) -> int | None:
    """Which chunk is read, where a fixed part of a longer dimension is: every chunk gets a kernel of its own.

    Chunks are alike, so that their kernels have one source; kernels across chunks would each be compiled.
    """
    for x, tile in reads:
        extents = found.extents(tile)
        shape = shape_of(x)
        for dim, (index, size) in enumerate(zip(tile.at, shape, strict=True)):
            span = largest(index, extents) - index.const + 1
            if span < size and all(name == "i" for name, _ in index.terms) and (index.terms or dim < len(shape) - 2):
                return index.const // span
    return None

