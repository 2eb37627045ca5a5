"""Tiles: what one program of a kernel computes of a node, and where in memory that lies."""

import math
from dataclasses import dataclass

import torch
from torch.fx import Graph, Node

from evaluator.fusion.index import ZERO, padded, plus, times, variable
from evaluator.fusion.pointwise import REDUCTIONS, SCANS, is_pointwise, reduced_dims, scanned_axis
from evaluator.fusion.views import Indices, shape_of

aten = torch.ops.aten

MAX_TILE = 8192  # numbers of a tile
MAX_SIDE = 128
SMALLEST_SIDE = 16  # of a product on matrix units
ROWS = 32  # of a tile cut out of a taller matrix


@dataclass(frozen=True)
class Tile:
    """What one program computes of a node: where it lies, and its rows and columns (variables i and j)."""

    at: Indices
    rows: int
    cols: int
    grid: int  # programs


@dataclass
class Tiling:
    """The tiles of a graph's nodes so far, and how the programs of each grid are numbered."""

    tiles: dict[Node, Tile]
    factors: dict[int, dict[str, int]]  # grid -> loop variables of its programs and their extents
    boundaries: dict[int, set[int]]  # product of leading dimensions -> where an index may be cut

    def extents(self, tile: Tile) -> dict[str, int]:
        """How far every variable of a tile's indices runs."""
        return {**self.factors[tile.grid], "i": tile.rows, "j": tile.cols}


def operands(node: Node) -> list[Node]:
    """The tensors that a node reads."""
    return list(node.all_input_nodes)


def boundaries_of(graph: Graph) -> dict[int, set[int]]:
    """For every product of leading dimensions: the products of their last ones, where an index may be cut."""
    found: dict[int, set[int]] = {}
    for node in graph.nodes:
        if isinstance(node.meta.get("val"), torch.Tensor):
            shape = shape_of(node)
            for end in range(1, len(shape) + 1):
                cuts = found.setdefault(math.prod(shape[:end]), set())
                cuts.update(math.prod(shape[k:end]) for k in range(1, end))
    return found


def _factors(grid: int, boundaries: dict[int, set[int]], depth: int = 0) -> list[int]:
    """Extents of nested loops over `grid`, outermost first, as fine as the graph's shapes ask for."""
    chain = [1]
    for cut in sorted(boundaries.get(grid, ())):
        if cut % chain[-1] == 0 and grid % cut == 0 and chain[-1] < cut < grid:
            chain.append(cut)
    sizes = [b // a for a, b in zip(chain, [*chain[1:], grid], strict=True)][::-1]
    if len(sizes) == 1 or depth > 4:
        return sizes
    return [x for size in sizes for x in _factors(size, boundaries, depth + 1)]


def tiles_of(node: Node, found: Tiling) -> list[Tile]:
    """The tiles in which a kernel could compute a node; none for one that is left to ATen."""
    if node.target is aten.bmm.default:
        return [tile for tile in [_bmm_tile(node, found)] if tile]
    if node.target in REDUCTIONS:
        return [tile for tile in [_reduction_tile(node, found)] if tile]
    if node.target in SCANS:
        axis = scanned_axis(node) if _plain(node) else None
        return [tile for tile in [_default(shape_of(node), found, whole=axis == 0)] if tile and axis is not None]
    if not is_pointwise(node) or not _plain(node):
        return []
    same = [found.tiles[x] for x in operands(node) if x in found.tiles and shape_of(x) == shape_of(node)]
    cuts = (_default(shape_of(node), found), _default(shape_of(node), found, cut=True))
    return [*same[:1], *(tile for tile in cuts if tile)]


def _plain(node: Node) -> bool:
    values = [node.meta["val"], *(x.meta["val"] for x in operands(node))]
    allowed = (torch.float32, torch.bfloat16, torch.bool, torch.int64, torch.int32)
    return all(v.dtype in allowed for v in values)


def _default(
    shape: tuple[int, ...], found: Tiling, whole: bool = False, cut: bool = False
) -> Tile | None:
    """Rows and columns are the last two dimensions; a tall matrix is cut into blocks of rows unless `whole`."""
    if len(shape) < 3 or 0 in shape or shape[-1] > 1024:
        return None
    lead, rows, cols = shape[:-2], shape[-2], shape[-1]
    fits = rows <= MAX_SIDE and cols <= MAX_SIDE and rows * cols <= MAX_TILE and not (cut and rows > ROWS)
    if whole and not fits:
        return None
    height = rows if fits else min(ROWS, max(1, 4096 // padded(cols)))
    blocks = 1 if fits else -(-rows // height)
    grid = math.prod(lead) * blocks
    where = _lead((*lead, blocks), found)
    if where is None:
        return None
    row = variable("i") if height > 1 else ZERO
    row = row if fits else plus(row, times(where[-1], height))
    return Tile((*where[:-1], row, variable("j") if cols > 1 else ZERO), height, cols, grid)


def _lead(sizes: tuple[int, ...], found: Tiling) -> Indices | None:
    """Indices of the leading dimensions in terms of the grid's loop variables."""
    grid = math.prod(sizes)
    if grid not in found.factors:
        for end in range(1, len(sizes) + 1):
            cuts = found.boundaries.setdefault(math.prod(sizes[:end]), set())
            cuts.update(math.prod(sizes[k:end]) for k in range(1, end))
        extents = _factors(grid, found.boundaries)
        found.factors[grid] = {f"f{k}": size for k, size in enumerate(extents)}
    names = list(reversed(found.factors[grid].items()))
    indices = []
    for size in reversed(sizes):
        index, covered = ZERO, 1
        while covered < size:
            if not names:
                return None
            name, extent = names.pop(0)
            index = plus(index, times(variable(name), covered)) if extent > 1 else index
            covered *= extent
        if covered != size:
            return None
        indices.append(index)
    return tuple(reversed(indices))


def _bmm_tile(node: Node, found: Tiling) -> Tile | None:
    a, b = (shape_of(x) for x in operands(node)) if len(operands(node)) == 2 else (shape_of(operands(node)[0]),) * 2
    M, K, N = a[1], a[2], b[2]
    if not _plain(node) or not product_form(M, K, N):
        return None
    for shape in (a, b):
        if _default(shape, found, whole=True) is None:
            return None
    return _default(shape_of(node), found, whole=True)


def product_form(M: int, K: int, N: int) -> str | None:
    """How a kernel multiplies [M, K] by [K, N]: on matrix units, as a sum or as an outer product."""
    if K == 1:
        return "outer"
    if M == 1:
        return "row"
    if N == 1:
        return "column"
    return "dot" if min(M, K, N) >= SMALLEST_SIDE else None


def _reduction_tile(node: Node, found: Tiling) -> Tile | None:
    x = operands(node)[0]
    shape = shape_of(x)
    dims, keep = reduced_dims(node)
    inner = found.tiles.get(x) if len(shape) >= 3 else None
    inner = inner or _default(shape, found, whole=len(shape) - 2 in dims)
    if inner is None or len(shape) < 3 or any(d < len(shape) - 2 for d in dims) or not _plain(node):
        return None
    rows, cols = len(shape) - 2 in dims, len(shape) - 1 in dims
    at = [ZERO if d in dims else index for d, index in enumerate(inner.at) if keep or d not in dims]
    if rows and any(n != "i" for n, _ in inner.at[-2].terms):
        return None  # a tall matrix cut into blocks
    return Tile(tuple(at), 1 if rows else inner.rows, 1 if cols else inner.cols, inner.grid)
