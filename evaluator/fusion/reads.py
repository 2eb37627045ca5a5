"""Which tile of every operand a node reads, and whether that is at hand in the registers of its program."""

from collections.abc import Iterable

import torch
from torch.fx import Node

from evaluator.fusion.index import ZERO, Index, variable
from evaluator.fusion.pointwise import REDUCTIONS, reduced_dims
from evaluator.fusion.tiles import Tile, Tiling, operands
from evaluator.fusion.views import Indices, resolve, shape_of

aten = torch.ops.aten


def frames(node: Node, tile: Tile, found: Tiling) -> list[tuple[Node, Tile]]:
    """Every operand with the tile of it that the node reads."""
    reads = operands(node)
    if node.target is aten.bmm.default:
        a, b = node.args
        assert isinstance(a, Node)
        assert isinstance(b, Node)
        lead, K = tile.at[:1], shape_of(a)[2]
        return [(a, _matrix(lead, tile.rows, K, tile.grid)), (b, _matrix(lead, K, tile.cols, tile.grid))]
    if node.target in REDUCTIONS:
        return [(reads[0], reduced_tile(node, tile, found))]
    return [(x, broadcast(x, node, tile)) for x in reads]


def _matrix(lead: Indices, rows: int, cols: int, grid: int) -> Tile:
    at = (*lead, variable("i") if rows > 1 else ZERO, variable("j") if cols > 1 else ZERO)
    return Tile(at, rows, cols, grid)


def reduced_tile(node: Node, tile: Tile, found: Tiling) -> Tile:
    """The tile that a reduction reads, from the one that it leaves."""
    x = operands(node)[0]
    if x in found.tiles:
        return found.tiles[x]
    dims, keep = reduced_dims(node)
    shape, left = shape_of(x), list(tile.at)
    at, rows, cols = [], tile.rows, tile.cols
    for d, size in enumerate(shape):
        if d not in dims:
            at.append(left.pop(0))
            continue
        if keep:
            left.pop(0)
        name = "i" if d == len(shape) - 2 else "j"
        rows, cols = (size, cols) if name == "i" else (rows, size)
        at.append(variable(name) if size > 1 else ZERO)
    return Tile(tuple(at), rows, cols, tile.grid)


def broadcast(x: Node, node: Node, tile: Tile) -> Tile:
    """The tile of an operand that is broadcast as ATen does."""
    shape = shape_of(x)
    own = tile.at[len(tile.at) - len(shape) :]
    at = tuple(ZERO if size == 1 else index for index, size in zip(own, shape, strict=True))
    return Tile(at, tile.rows, tile.cols, tile.grid)


def leaves(node: Node, tile: Tile, found: Tiling, inline: set[Node]) -> Iterable[tuple[Node, Tile]]:
    """What a node reads in the end: sources behind views and behind what is computed again, with their tiles."""
    for x, wanted in frames(node, tile, found):
        yield from _leaf(x, wanted, found, inline)


def _leaf(x: Node, wanted: Tile, found: Tiling, inline: set[Node]) -> Iterable[tuple[Node, Tile]]:
    base, at, _ = resolve(x, wanted.at, found.extents(wanted))
    there = Tile(at, wanted.rows, wanted.cols, wanted.grid)
    if base not in inline:
        yield base, there
        return
    for y, tile in repeated(base, there):
        yield from _leaf(y, tile, found, inline)


def repeated(node: Node, tile: Tile) -> list[tuple[Node, Tile]]:
    """What a node reads that is computed again for any tile of it."""
    if node.target not in REDUCTIONS:
        return [(x, broadcast(x, node, tile)) for x in operands(node)]
    if turned(tile):
        tile = Tile(swapped(tile.at), tile.cols, tile.rows, tile.grid)
    x = operands(node)[0]
    size = shape_of(x)[-1]
    rows = tile.at[:-1] if reduced_dims(node)[1] else tile.at
    return [(x, Tile((*rows, variable("j") if size > 1 else ZERO), tile.rows, size, tile.grid))]


def turned(tile: Tile) -> bool:
    """Whether a column of results is asked for as a row."""
    return any(name == "j" for index in tile.at for name, _ in index.terms)


def swapped(at: Indices) -> Indices:
    """The same place with rows for columns."""
    names = {"i": "j", "j": "i"}
    return tuple(Index(tuple(sorted((names.get(n, n), c) for n, c in x.terms)), x.const) for x in at)


def in_registers(wanted: Tile, own: Tile) -> str | None:
    """How a tile of the same kernel serves a reader: as it is, transposed, or not at all."""
    if wanted.grid != own.grid:
        return None
    uses = {n for x in own.at for n, _ in x.terms}

    def same(rows: int, cols: int) -> bool:
        return ("i" not in uses or rows == own.rows) and ("j" not in uses or cols == own.cols)

    if wanted.at == own.at and same(wanted.rows, wanted.cols):
        return "same"
    if swapped(wanted.at) == own.at and same(wanted.cols, wanted.rows):
        return "transposed"
    return None
