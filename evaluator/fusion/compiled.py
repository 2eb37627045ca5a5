"""A compiled graph at work: kernels written at the first call, for the layout that its inputs have."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node, map_arg

from evaluator.fusion.emit import emit
from evaluator.fusion.grouping import Group, Plan, is_assembled, plan
from evaluator.fusion.index import contiguous
from evaluator.fusion.kernel import Kernel
from evaluator.fusion.library import Library
from evaluator.fusion.pointwise import identity
from evaluator.fusion.repeating import constants
from evaluator.fusion.simplify import simplify
from evaluator.fusion.tiles import operands
from evaluator.fusion.views import RESHAPES, SPLITS, is_view, shape_of, source

aten = torch.ops.aten

MAX_NODES = 96
MAX_DOTS = 12


class Compiled:
    """A callable of the graph's inputs, a list; inputs of other strides than at the first call raise ValueError."""

    def __init__(self, module: GraphModule, library: Library) -> None:
        self.graph, self.library = module.graph, library
        self.products = library.products if torch.backends.cuda.matmul.allow_tf32 else "ieee"
        simplify(self.graph)
        self.inputs = [n for n in self.graph.nodes if n.op == "placeholder"]
        self.plan: Plan = plan(self.graph, MAX_DOTS, MAX_NODES)
        self.output = next(n for n in self.graph.nodes if n.op == "output")
        assembled = [n for n in self.graph.nodes if is_assembled(n)]
        self.parts = {part: cat for cat in assembled for part in cat.args[0]}
        self.offsets = {part: start for cat in assembled for part, start in zip(cat.args[0], _offsets(cat), strict=True)}
        self.stored = self._stored()
        self.kernels: dict[int, Kernel] = {}
        self.strides: dict[Node, tuple[int, ...]] = {}
        self.last = self._last_uses()
        self.constants: dict[Node, Any] = {}

    @functools.cached_property
    def unchanging(self) -> set[Node]:
        """Nodes that depend on no input; only a graph that is called asks for them."""
        return constants(self.graph)

    # --- what has to be in memory

    def _outputs(self) -> list[Node]:
        return list(self.output.all_input_nodes)

    def _stored(self) -> set[Node]:
        """Values of kernels that something outside of their kernel reads."""
        found: set[Node] = set(self.parts)
        for position, step in enumerate(self.plan.steps):
            if isinstance(step, Node):
                found.update(self._behind(operands(step)))
                continue
            for node in step.nodes:
                found.update(x for x, _ in self.plan.reads[node] if self.plan.place.get(x) != position)
        found.update(self._behind(self._outputs()))
        return {x for x in found if x in self.plan.tiles}

    def _behind(self, nodes: Sequence[Node]) -> set[Node]:
        """The stored tensors that host-side views and casts of these nodes start from."""
        found: set[Node] = set()
        for x in nodes:
            base = source(x)
            found |= self._behind(operands(base)) if base in self.plan.inline else {base}
        return found

    def _reads(self, step: Group | Node) -> set[Node]:
        if isinstance(step, Node):
            return self._behind(operands(step))
        return {x for n in step.nodes for x, _ in self.plan.reads[n]}

    def _last_uses(self) -> dict[int, list[Node]]:
        """Per step: the tensors that nothing reads afterwards."""
        last: dict[Node, int] = {}
        for position, step in enumerate(self.plan.steps):
            for x in self._reads(step):
                last[x] = position
        kept = self._behind(self._outputs())
        found: dict[int, list[Node]] = {}
        for x, position in last.items():
            if x not in kept:
                found.setdefault(position, []).append(x)
        return found

    # --- a call

    def __call__(self, args: list[Tensor]) -> list[Any]:
        env: dict[Node, Any] = {**self.constants, **dict(zip(self.inputs, args, strict=True))}
        args.clear()
        for x in self.inputs:
            found = tuple(env[x].stride()) if isinstance(env[x], Tensor) else ()
            if self.strides.setdefault(x, found) != found:
                raise ValueError(f"{x} has strides {found}, and was compiled for {self.strides[x]}")
        device = next((x.device for x in env.values() if isinstance(x, Tensor)), None)
        if not self.kernels and device is not None and device.type == "cuda":
            self._prepare(device)
        for position, step in enumerate(self.plan.steps):
            if isinstance(step, Node):
                if step not in env:
                    self._call(step, env)
            else:
                self._launch(position, step, env)
            for x in self.last.get(position, ()):
                env.pop(x, None)
        return [self._value(x, env) if isinstance(x, Node) else x for x in self.output.args[0]]

    def _call(self, node: Node, env: dict[Node, Any]) -> None:
        if node.target is identity:
            self._buffer(node, env).copy_(self._value(operands(node)[0], env))
            return
        env[node] = self._applied(node, env)
        if isinstance(env[node], Tensor):
            self.strides[node] = tuple(env[node].stride())
        if node in self.unchanging:
            self.constants[node] = env[node]

    def _value(self, node: Node, env: dict[Node, Any]) -> Any:
        """A node's tensor: at hand, or a view or a cast of what is."""
        if node in env:
            return env[node]
        if node in self.parts:
            return self._buffer(node, env)
        assert is_view(node) or node in self.plan.inline or node.target in SPLITS, f"{node} was not computed"
        return self._applied(node, env)

    def _applied(self, node: Node, env: dict[Node, Any]) -> Any:
        """What a node's call gives."""
        args, kwargs = map_arg((node.args, node.kwargs), lambda x: self._value(x, env))
        target = aten.reshape.default if node.target in RESHAPES else node.target
        return target(*args, **kwargs)  # type: ignore[operator]

    def _buffer(self, node: Node, env: dict[Node, Any]) -> Tensor:
        """Memory for a stored value, within that of the `cat` which it is a part of."""
        cat = self.parts.get(node)
        owner = cat or node
        if owner not in env:
            value = owner.meta["val"]
            device = next(iter(x for x in env.values() if isinstance(x, Tensor))).device
            env[owner] = torch.empty(tuple(value.shape), dtype=value.dtype, device=device)
            self.strides[owner] = contiguous(shape_of(owner))
        if cat is None:
            whole: Tensor = env[owner]
            return whole
        dim, start = self.offsets[node]
        self.strides[node] = self.strides[owner]
        return env[owner].narrow(dim, start, shape_of(node)[dim])  # type: ignore[no-any-return]

    def _launch(self, position: int, group: Group, env: dict[Node, Any]) -> None:
        stored = [n for n in group.nodes if n in self.stored]
        buffers = {n: self._buffer(n, env) for n in stored}
        if position not in self.kernels:
            self.kernels[position] = emit(group, self.plan, stored, self.strides, self.products, next(iter(buffers.values())).is_cuda)
        kernel, tensors = self.kernels[position], []
        for pointer in kernel.pointers:
            x = buffers[pointer.tensor] if pointer.tensor in buffers else self._value(pointer.tensor, env)
            tensors.append(_shifted(x, pointer.offset) if pointer.offset else x)
        if not self.library.launch(kernel, tensors):
            self._without_kernel(group, env)

    def _without_kernel(self, group: Group, env: dict[Node, Any]) -> None:
        """What a kernel would have computed, by the calls that its nodes are."""
        here = dict(env)
        for node in group.nodes:
            here[node] = self._applied(node, here)
        for node in self.stored.intersection(group.nodes):
            self._buffer(node, env).copy_(here[node])

    # --- before the first call

    def _prepare(self, device: torch.device) -> None:
        """Has all kernels compiled side by side, for the strides that tensors should have; a wrong guess costs time alone."""
        values = {n: n.meta["val"] for n in self.graph.nodes if isinstance(n.meta.get("val"), Tensor)}
        strides = {n: tuple(x.stride()) for n, x in values.items()}
        strides |= {n: contiguous(shape_of(self.parts.get(n, n))) for n in self.stored} | self.strides
        wanted = []
        for group in (step for step in self.plan.steps if isinstance(step, Group)):
            kernel = emit(group, self.plan, [n for n in group.nodes if n in self.stored], strides, self.products, on_gpu=True)
            wanted.append((kernel, [_as_aligned(values[p.tensor].dtype, p.offset, device) for p in kernel.pointers]))
        self.library.prepare(wanted)


def _shifted(x: Tensor, offset: int) -> Tensor:
    """A tensor that begins `offset` elements later; its shape is of no account to a kernel."""
    return x.as_strided((1,), (1,), x.storage_offset() + offset)


def _as_aligned(dtype: torch.dtype, offset: int, device: torch.device) -> Tensor:
    """A tensor that lies in memory as one does that begins `offset` elements later than an allocation."""
    return torch.empty(32, dtype=dtype, device=device)[offset % 16 :]


def _offsets(cat: Node) -> list[tuple[int, int]]:
    """Where each part of a `cat` begins: dimension and place."""
    parts: Any = cat.args[0]
    dim: int = (cat.args[1] if len(cat.args) > 1 else 0) % len(shape_of(cat))  # type: ignore[operator,assignment]
    starts, at = [], 0
    for x in parts:
        starts.append((dim, at))
        at += shape_of(x)[dim]
    return starts
