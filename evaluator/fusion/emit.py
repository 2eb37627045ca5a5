"""The Triton source of one group: every program computes its tiles in registers, from loads to stores."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.fx import Node

from evaluator.fusion.grouping import Group, Plan
from evaluator.fusion.index import Index, largest, linear, padded, smallest
from evaluator.fusion.kernel import Kernel, Pointer
from evaluator.fusion.nearest import NEAREST, nearest
from evaluator.fusion.pointwise import (
    CONSTANTS,
    REDUCTIONS,
    SCANS,
    expression,
    identity,
    literal,
    neutral,
    reduced_dims,
    scanned_axis,
)
from evaluator.fusion.reads import frames, in_registers, repeated, turned
from evaluator.fusion.tiles import Tile, operands, product_form
from evaluator.fusion.views import Condition, resolve, shape_of

aten = torch.ops.aten

HEADER = "import triton\nimport triton.language as tl\n\n\n"
TYPES = {torch.float32: "tl.float32", torch.bfloat16: "tl.bfloat16", torch.bool: "tl.int1", torch.int64: "tl.int64", torch.int32: "tl.int32"}


Strides = Mapping[Node, tuple[int, ...]]


def emit(group: Group, plan: Plan, stored: Iterable[Node], strides: Strides, products: str, on_gpu: bool) -> Kernel:
    """Writes the kernel of a group that stores the nodes `stored`; `strides` tells how tensors lie in memory.

    products: how those of float32 are made, as Triton names it: tf32 (rounded to nearest), tf32x3 or ieee.
    """
    writer = _Writer(plan, strides, products, on_gpu)
    wanted = set(stored)
    for node in group.nodes:
        writer.compute(node)
        if node in wanted:
            writer.store(node)
    return writer.kernel(group)


class _Writer:
    """Lines of one kernel, and the names of what they compute."""

    def __init__(self, plan: Plan, strides: Strides, products: str, on_gpu: bool) -> None:
        self.plan, self.strides, self.products, self.on_gpu = plan, strides, products, on_gpu
        self.lines: list[str] = []
        self.names: dict[Node, str] = {}
        self.texts: dict[str, str] = {}  # text of a line -> its name: nothing is loaded twice
        self.pointers: dict[Pointer, str] = {}
        self.aranges: set[tuple[str, int]] = set()
        self.loops: set[str] = set()

    # --- names and indices

    def name(self, text: str) -> str:
        if text not in self.texts:
            self.texts[text] = f"x{len(self.texts)}"
            self.lines.append(f"{self.texts[text]} = {text}")
        return self.texts[text]

    def pointer(self, tensor: Node, offset: int) -> str:
        return self.pointers.setdefault(Pointer(tensor, offset), f"p{len(self.pointers)}")

    def index(self, index: Index, tile: Tile) -> str:
        """An index as text, over the rows and columns of a tile."""
        parts = []
        for name, coefficient in index.terms:
            text = self.variable(name, tile)
            parts.append(text if coefficient == 1 else f"{text} * {coefficient}")
        if index.const or not parts:
            parts.append(str(index.const))
        return " + ".join(parts)

    def variable(self, name: str, tile: Tile) -> str:
        if name not in ("i", "j"):
            self.loops.add(name)
            return name
        size = padded(tile.rows if name == "i" else tile.cols)
        self.aranges.add((name, size))
        return f"{name}{size}"

    def extents(self, tile: Tile) -> dict[str, int]:
        return {**self.plan.factors[tile.grid], "i": padded(tile.rows), "j": padded(tile.cols)}

    def inside(self, index: Index, bound: int, tile: Tile) -> list[str]:
        """What has to be asked for 0 <= index < bound to hold."""
        extents, text = self.extents(tile), None
        asked = []
        if largest(index, extents) >= bound:
            text = self.index(index, tile)
            asked.append(f"({text} < {bound})")
        if smallest(index, extents) < 0:
            asked.append(f"({text or self.index(index, tile)} >= 0)")
        return asked

    def bounds(self, tensor: Node, tile: Tile) -> list[str]:
        """What has to be asked for a tile to lie inside of its tensor."""
        pairs = zip(tile.at, shape_of(tensor), strict=True)
        return [text for index, size in pairs for text in self.inside(index, size, tile)]

    # --- reading

    def read(self, x: Node, wanted: Tile) -> str:
        """The name or text of a tile of a tensor."""
        real = self.plan.extents(wanted)
        base, at, conditions = resolve(x, wanted.at, real)
        there = Tile(at, wanted.rows, wanted.cols, wanted.grid)
        if base in self.names:
            how = in_registers(there, self.plan.tiles[base])
            assert how, f"{base} is not at hand"
            text = self.names[base] if how == "same" else self.name(f"tl.trans({self.names[base]})")
            return self.choose(text, conditions, there)
        if base in self.plan.inline:
            return self.choose(self.again(base, there), conditions, there)
        return self.load(base, there, conditions)

    def choose(self, text: str, conditions: tuple[Condition, ...], tile: Tile) -> str:
        for condition in conditions:
            asked = self.inside(condition.place, condition.bound, tile)
            if asked:
                text = self.name(f"tl.where({' & '.join(asked)}, {text}, {literal(condition.other)})")
        return text

    def again(self, node: Node, tile: Tile) -> str:
        """A constant, or a cast of an input, computed where it is read."""
        if node.target in REDUCTIONS:
            text = self.name(self.reduction(node, repeated(node, tile)[0]))
            return self.name(f"tl.trans({text})") if turned(tile) else text
        if node.target not in CONSTANTS:
            text = self.pointwise(node, repeated(node, tile))
            return text if _number(text) else self.name(text)
        if node.target is aten.arange.start_step:
            start, _, step = (*node.args, 1)[:3]
            return self.name(f"({self.index(tile.at[0], tile)}) * {step} + {start}")
        value: Any = 0.0 if node.target is aten.zeros.default else 1.0
        if node.target in (aten.full.default, aten.scalar_tensor.default):
            value = node.args[1 if node.target is aten.full.default else 0]
        return literal(float(value) if node.meta["val"].is_floating_point() else value)

    def where(self, tensor: Node, address: Index, tile: Tile) -> str:
        """An address; what is constant in it moves into the pointer, so that chunks share one source."""
        before = max(address.const, 0)
        rest = Index(address.terms, address.const - before)
        return f"{self.pointer(tensor, before)} + {self.index(rest, tile)}"

    def load(self, base: Node, tile: Tile, conditions: tuple[Condition, ...]) -> str:
        address = linear(tile.at, self.strides[base])
        where = self.where(base, address, tile)
        asked = self.bounds(base, tile)
        other = [c for c in conditions if c.other != 0.0]
        asked += [text for c in conditions if c.other == 0.0 for text in self.inside(c.place, c.bound, tile)]
        mask = f", mask={' & '.join(dict.fromkeys(asked))}, other=0" if asked else ""
        cast = "tl.float32" if base.meta["val"].is_floating_point() else TYPES[base.meta["val"].dtype]
        return self.choose(self.name(f"tl.load({where}{mask}).to({cast})"), tuple(other), tile)

    # --- computing

    def compute(self, node: Node) -> None:
        tile = self.plan.tiles[node]
        reads = frames(node, tile, self.plan)
        if node.target is aten.bmm.default:
            text = self.product(node, reads)
        elif node.target in REDUCTIONS:
            text = self.reduction(node, reads[0])
        elif node.target in SCANS:
            text = self.rounded(node, self.scan(node, reads[0]))
        else:
            text = self.pointwise(node, reads)
        self.names[node] = self.name(text)

    def pointwise(self, node: Node, reads: list[tuple[Node, Tile]]) -> str:
        wanted = dict(reads)
        floating = node.meta["val"].is_floating_point() and node.target is not aten.where.self
        args = []
        for x in node.args:
            if not isinstance(x, Node):
                args.append(literal(x))
                continue
            text = self.read(x, wanted[x])
            whole = floating and not x.meta["val"].is_floating_point() and not _number(text)
            args.append(f"{text}.to(tl.float32)" if whole else text)
        return self.rounded(node, f"({expression(node, args)})")

    def rounded(self, node: Node, text: str) -> str:
        dtype = node.meta["val"].dtype
        copied = node.target in (aten._to_copy.default, identity)
        if dtype == torch.bfloat16 and (not copied or operands(node)[0].meta["val"].dtype != dtype):
            text = self.name(text)
            return text if _number(text) else f"{text}.to(tl.bfloat16).to(tl.float32)"
        if copied and not dtype.is_floating_point and not _number(text):
            return f"({text} != 0)" if dtype == torch.bool else f"{text}.to(tl.int32)"
        return text

    def reduction(self, node: Node, read: tuple[Node, Tile]) -> str:
        x, tile = read
        kind, (dims, _) = REDUCTIONS[node.target], reduced_dims(node)
        last = len(shape_of(x)) - 1
        text = self.whole(self.read(x, tile), tile.rows, tile.cols)
        text = self.masked(text, tile, last - 1 in dims, last in dims, neutral(kind, x.meta["val"].is_floating_point()))
        call = "max" if kind == "max" else "min" if kind == "min" else "sum"
        count = 1
        if last in dims:
            text, count = self.name(f"tl.{call}({text}, 1)[:, None]"), count * tile.cols
        if last - 1 in dims:
            text, count = self.name(f"tl.{call}({text}, 0)[None, :]"), count * tile.rows
        return self.rounded(node, f"{text} / {count}" if kind == "mean" else text)

    def scan(self, node: Node, read: tuple[Node, Tile]) -> str:
        x, tile = read
        text, axis = self.whole(self.read(x, tile), tile.rows, tile.cols), int(scanned_axis(node) == 1)
        length, others = (tile.rows, tile.cols) if axis == 0 else (tile.cols, tile.rows)
        if others > 1:
            return self.name(f"tl.{SCANS[node.target]}({text}, {axis})")
        # A single column or row: Triton 3.6 fails to compile some of its scans beside products, but no sum over a triangle.
        later, earlier = (self.variable(name, replace(tile, rows=length, cols=length)) for name in ("ij" if axis == 0 else "ji"))
        triangle = self.name(f"tl.where({earlier} <= {later}, tl.trans({text}), 0.0)")
        return self.name(f"tl.sum({triangle}, {1 - axis}){'[:, None]' if axis == 0 else '[None, :]'}")

    def whole(self, text: str, rows: int, cols: int) -> str:
        shape = f"[{padded(rows)}, {padded(cols)}]"
        return self.name(f"tl.full({shape}, {text}, tl.float32)" if _number(text) else f"tl.broadcast_to({text}, {shape})")

    def masked(self, text: str, tile: Tile, rows: bool, cols: bool, other: str) -> str:
        """Other than what lies beyond the tile's own rows or columns, where their number is no power of two."""
        for wanted, name, size in ((rows, "i", tile.rows), (cols, "j", tile.cols)):
            if wanted and padded(size) != size:
                text = self.name(f"tl.where({self.variable(name, tile)} < {size}, {text}, {other})")
        return text

    def product(self, node: Node, reads: list[tuple[Node, Tile]]) -> str:
        (a, a_tile), (b, b_tile) = reads
        M, K, N = a_tile.rows, a_tile.cols, b_tile.cols
        left = self.masked(self.whole(self.read(a, a_tile), M, K), a_tile, False, True, "0.0")
        right = self.masked(self.whole(self.read(b, b_tile), K, N), b_tile, True, False, "0.0")
        form = product_form(M, K, N)
        if form == "outer":
            text = f"{left} * {right}"
        elif form == "row":
            text = f"tl.sum(tl.trans({left}) * {right}, 0)[None, :]"
        elif form == "column":
            text = f"tl.sum({left} * tl.trans({right}), 1)[:, None]"
        elif node.meta["val"].dtype == torch.bfloat16:
            text = f"tl.dot({left}.to(tl.bfloat16), {right}.to(tl.bfloat16))"
        elif self.products == "tf32":
            text = f'tl.dot({self.nearest(left)}, {self.nearest(right)}, input_precision="tf32")'
        else:
            text = f'tl.dot({left}, {right}, input_precision="{self.products}")'
        return self.rounded(node, self.name(text))

    def nearest(self, text: str) -> str:
        return self.name(nearest(text, self.on_gpu))

    # --- writing

    def store(self, node: Node) -> None:
        tile = self.plan.tiles[node]
        address = linear(tile.at, self.strides[node])
        where = self.where(node, address, tile)
        asked = self.bounds(node, tile)
        uses = {n for index in tile.at for n, _ in index.terms}
        shape = f"[{padded(tile.rows) if 'i' in uses else 1}, {padded(tile.cols) if 'j' in uses else 1}]"
        value = self.names[node]
        value = f"tl.full({shape}, {value}, tl.float32)" if _number(value) else f"tl.broadcast_to({value}, {shape})"
        address_text = f"tl.broadcast_to({where}, {shape})"
        mask = f", mask=tl.broadcast_to({' & '.join(dict.fromkeys(asked))}, {shape})" if asked else ""
        self.lines.append(f"tl.store({address_text}, {value}{mask})")

    def kernel(self, group: Group) -> Kernel:
        first = ["g = tl.program_id(0).to(tl.int64)"]
        inner = 1
        names = list(self.plan.factors[group.grid].items())
        for position, (name, extent) in reversed(list(enumerate(names))):
            if name in self.loops:
                text = "g" if inner == 1 else f"g // {inner}"
                first.append(f"{name} = {text}" if position == 0 else f"{name} = ({text}) % {extent}")
            inner *= extent
        for name, size in sorted(self.aranges):
            first.append(f"{name}{size} = tl.arange(0, {size}){'[:, None]' if name == 'i' else '[None, :]'}")
        body = "\n".join(f"    {line}" for line in [*first, *self.lines])
        tiles = [self.plan.tiles[n] for n in group.nodes]
        helper = NEAREST if any("nearest(" in line for line in self.lines) else ""
        text = f"{HEADER}{helper}@triton.jit\ndef kernel({', '.join(self.pointers.values())}):\n{body}\n"
        return Kernel(text, tuple(self.pointers), group.grid, max(padded(t.rows) * padded(t.cols) for t in tiles))


def _number(text: str) -> bool:
    return not any(c.isidentifier() and c != "e" for c in text)
