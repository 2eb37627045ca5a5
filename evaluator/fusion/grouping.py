"""Which nodes of a graph share a kernel: tiles of one grid, joined where values can stay in registers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch.fx import Graph, Node

from evaluator.fusion.index import ZERO, Index, NotAffine, largest, plus, times, variable
from evaluator.fusion.pointwise import CONSTANTS, REDUCTIONS, identity, is_pointwise, reduced_dims
from evaluator.fusion.views import SPLITS, Indices, is_view, resolve, shape_of, source

aten = torch.ops.aten

MAX_TILE = 8192  # numbers of a tile
MAX_SIDE = 128
ROWS = 32  # of a tile cut out of a taller matrix
MAX_REPEATED = 16  # steps of what is computed again instead of kept


@dataclass(frozen=True)
class Tile:
    """What one program computes of a node: where it lies, and its rows and columns (variables i and j)."""

    at: Indices
    rows: int
    cols: int
    grid: int  # programs


@dataclass
class Group:
    """Nodes of one kernel, in order."""

    grid: int
    label: int | None
    nodes: list[Node] = field(default_factory=list)
    dots: int = 0


@dataclass
class Plan:
    """Steps in order, a group or a node that is left to ATen; and where every node ended up."""

    steps: list[Group | Node]
    place: dict[Node, int]
    tiles: dict[Node, Tile]
    factors: dict[int, dict[str, int]]  # grid -> loop variables of its programs and their extents

    def extents(self, tile: Tile) -> dict[str, int]:
        return {**self.factors[tile.grid], "i": tile.rows, "j": tile.cols}


def operands(node: Node) -> list[Node]:
    """The tensors that a node reads."""
    return list(node.all_input_nodes)


def plan(graph: Graph, max_dots: int, max_nodes: int) -> Plan:
    found = Plan([], {}, {}, {})
    boundaries = _boundaries(graph)
    inline = inlined(graph)
    for node in graph.nodes:
        if node.op != "call_function" or is_view(node) or node in inline or _is_cat_of_copies(node):
            continue
        if node.target in SPLITS and all(is_view(x) for x in node.users):
            continue
        tiles = [tile for tile in _tiles(node, found, boundaries) if _readable(node, tile, found, inline)]
        if tiles:
            found.tiles[node] = max(tiles, key=lambda tile: _at_hand(node, tile, found, inline))
            _join(node, found, inline, max_dots, max_nodes)
        else:
            found.place[node] = len(found.steps)
            found.steps.append(node)
    return found


def _readable(node: Node, tile: Tile, found: Plan, inline: set[Node]) -> bool:
    try:
        list(leaves(node, tile, found, inline))
    except NotAffine:
        return False
    return True


def _at_hand(node: Node, tile: Tile, found: Plan, inline: set[Node]) -> int:
    """How many of a node's operands are tiles that a program of its grid has in registers."""
    reads = leaves(node, tile, found, inline)
    return sum(x in found.tiles and in_registers(wanted, found.tiles[x]) is not None for x, wanted in reads)


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
    for node in graph.nodes:  # ATen would make them again from the start
        if node.op == "output" or not (is_view(node) or node in found or is_kernel_work(node)):
            for x in operands(node):
                _keep(source(x), found)
    return found


def _keep(node: Node, found: set[Node]) -> None:
    if node in found and not constant(node) and node.target is not aten._to_copy.default:
        found.discard(node)


def is_kernel_work(node: Node) -> bool:
    """Whether a kernel may compute the node, as far as its kind tells."""
    return is_pointwise(node) or node.target in REDUCTIONS or node.target is aten.bmm.default


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


def constant(node: Node) -> bool:
    """Whether a node depends on no input."""
    return node.op == "call_function" and all(constant(source(x)) for x in operands(node))


def _is_cat_of_copies(node: Node) -> bool:
    return node.target is aten.cat.default and all(x.target is identity for x in node.args[0])  # type: ignore[union-attr]


# --- tiles ----------------------------------------------------------------------------------------


def _boundaries(graph: Graph) -> dict[int, set[int]]:
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


def _tiles(node: Node, found: Plan, boundaries: dict[int, set[int]]) -> list[Tile]:
    """The tiles in which a kernel could compute a node; none for one that is left to ATen."""
    if node.target is aten.bmm.default:
        return [tile for tile in [_bmm_tile(node, found, boundaries)] if tile]
    if node.target in REDUCTIONS:
        return [tile for tile in [_reduction_tile(node, found, boundaries)] if tile]
    if not is_pointwise(node) or not _plain(node):
        return []
    same = [found.tiles[x] for x in operands(node) if x in found.tiles and shape_of(x) == shape_of(node)]
    cuts = (_default(shape_of(node), found, boundaries), _default(shape_of(node), found, boundaries, cut=True))
    return [*same[:1], *(tile for tile in cuts if tile)]


def _plain(node: Node) -> bool:
    values = [node.meta["val"], *(x.meta["val"] for x in operands(node))]
    allowed = (torch.float32, torch.bfloat16, torch.bool, torch.int64, torch.int32)
    return all(v.dtype in allowed for v in values)


def _default(
    shape: tuple[int, ...], found: Plan, boundaries: dict[int, set[int]], whole: bool = False, cut: bool = False
) -> Tile | None:
    """Rows and columns are the last two dimensions; a tall matrix is cut into blocks of rows unless `whole`."""
    if len(shape) < 3 or 0 in shape or shape[-1] > 1024:
        return None
    lead, rows, cols = shape[:-2], shape[-2], shape[-1]
    fits = rows <= MAX_SIDE and cols <= MAX_SIDE and rows * cols <= MAX_TILE and not (cut and rows > ROWS)
    if whole and not fits:
        return None
    height = rows if fits else min(ROWS, max(1, 4096 // _power_of_2(cols)))
    blocks = 1 if fits else -(-rows // height)
    grid = math.prod(lead) * blocks
    where = _lead((*lead, blocks), found, boundaries)
    if where is None:
        return None
    row = variable("i") if height > 1 else ZERO
    row = row if fits else plus(row, times(where[-1], height))
    return Tile((*where[:-1], row, variable("j") if cols > 1 else ZERO), height, cols, grid)


def _lead(sizes: tuple[int, ...], found: Plan, boundaries: dict[int, set[int]]) -> Indices | None:
    """Indices of the leading dimensions in terms of the grid's loop variables."""
    grid = math.prod(sizes)
    if grid not in found.factors:
        for end in range(1, len(sizes) + 1):
            cuts = boundaries.setdefault(math.prod(sizes[:end]), set())
            cuts.update(math.prod(sizes[k:end]) for k in range(1, end))
        extents = _factors(grid, boundaries)
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


def _power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _bmm_tile(node: Node, found: Plan, boundaries: dict[int, set[int]]) -> Tile | None:
    a, b = (shape_of(x) for x in operands(node)) if len(operands(node)) == 2 else (shape_of(operands(node)[0]),) * 2
    M, K, N = a[1], a[2], b[2]
    if not _plain(node) or not product_form(M, K, N):
        return None
    for shape in (a, b):
        if _default(shape, found, boundaries, whole=True) is None:
            return None
    return _default(shape_of(node), found, boundaries, whole=True)


def product_form(M: int, K: int, N: int) -> str | None:
    """How a kernel multiplies [M, K] by [K, N]: on matrix units, as a sum or as an outer product."""
    if K == 1:
        return "outer"
    if M == 1:
        return "row"
    if N == 1:
        return "column"
    return "dot" if min(M, K, N) >= 16 else None


def _reduction_tile(node: Node, found: Plan, boundaries: dict[int, set[int]]) -> Tile | None:
    x = operands(node)[0]
    shape = shape_of(x)
    dims, keep = reduced_dims(node)
    inner = found.tiles.get(x) if len(shape) >= 3 else None
    inner = inner or _default(shape, found, boundaries, whole=len(shape) - 2 in dims)
    if inner is None or len(shape) < 3 or any(d < len(shape) - 2 for d in dims) or not _plain(node):
        return None
    rows, cols = len(shape) - 2 in dims, len(shape) - 1 in dims
    at = [ZERO if d in dims else index for d, index in enumerate(inner.at) if keep or d not in dims]
    if rows and any(n != "i" for n, _ in inner.at[-2].terms):
        return None  # a tall matrix cut into blocks
    return Tile(tuple(at), 1 if rows else inner.rows, 1 if cols else inner.cols, inner.grid)


# --- groups ---------------------------------------------------------------------------------------


def frames(node: Node, tile: Tile, found: Plan) -> list[tuple[Node, Tile]]:
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


def reduced_tile(node: Node, tile: Tile, found: Plan) -> Tile:
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


def leaves(node: Node, tile: Tile, found: Plan, inline: set[Node]) -> Iterable[tuple[Node, Tile]]:
    """What a node reads in the end: sources behind views and behind what is computed again, with their tiles."""
    for x, wanted in frames(node, tile, found):
        yield from _leaf(x, wanted, found, inline)


def _leaf(x: Node, wanted: Tile, found: Plan, inline: set[Node]) -> Iterable[tuple[Node, Tile]]:
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


def _join(node: Node, found: Plan, inline: set[Node], max_dots: int, max_nodes: int) -> None:
    """Puts a node into the first group that it may share, or into a new one at the end."""
    tile = found.tiles[node]
    reads = list(leaves(node, tile, found, inline))
    dots, label = int(node.target is aten.bmm.default), _label(reads, found)
    after = max((_position(x, found) for x, _ in reads), default=-1)
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
    if _is_cat_of_copies(node):
        return max(found.place[x] for x in node.args[0]) + 1  # type: ignore[union-attr]
    if node.op == "call_function" and node in found.place:
        return found.place[node] + (0 if node in found.tiles else 1)
    return max((_position(source(x), found) for x in operands(node)), default=-1)


def _label(reads: list[tuple[Node, Tile]], found: Plan) -> int | None:
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
