"""Where an element of a view lies in the tensor that it is a view of."""

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch.fx import Node

from evaluator.fusion.index import ZERO, Index, contiguous, divide, linear, plus, times

aten = torch.ops.aten

PAD = aten.constant_pad_nd.default

Indices = tuple[Index, ...]


class Condition(NamedTuple):
    """0 <= place < bound; where it does not hold, the value is `other`."""

    place: Index
    bound: int
    other: float


SAME: set[Any] = {
    aten.alias.default, aten.detach.default, aten.clone.default, aten.lift_fresh_copy.default, aten.contiguous.default,
}
RESHAPES: set[Any] = {aten.view.default, aten._unsafe_view.default, aten.reshape.default}
SPLITS: set[Any] = {aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int}


def shape_of(node: Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def is_view(node: Node) -> bool:
    """Whether the node only says where its elements lie."""
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        whole = node.args[0]
        return isinstance(whole, Node) and whole.target in SPLITS
    return node.target in SAME or node.target in RESHAPES or node.target in _SIMPLE or node.target is PAD


def source(node: Node) -> Node:
    """What a chain of views ends at."""
    while is_view(node):
        node = _viewed(node)
    return node


def _viewed(node: Node) -> Node:
    first = node.args[0]
    assert isinstance(first, Node)
    if node.target is operator.getitem:
        first = first.args[0]
        assert isinstance(first, Node)
    return first


def resolve(node: Node, at: Indices, extents: Mapping[str, int]) -> tuple[Node, Indices, tuple[Condition, ...]]:
    """The source of a view, the indices there, and the conditions that padding puts on them.

    Raises NotAffine where a reshape cuts through a variable.
    """
    conditions: list[Condition] = []
    while is_view(node):
        inner = _viewed(node)
        at = _step(node, at, shape_of(inner), extents, conditions)
        node = inner
    return node, at, tuple(conditions)


def _step(
    node: Node, at: Indices, shape: tuple[int, ...], extents: Mapping[str, int], conditions: list[Condition]
) -> Indices:
    target, args = node.target, node.args
    if target in SAME:
        return at
    if target in RESHAPES:
        return _reshape(at, shape_of(node), shape, extents)
    if target is operator.getitem:
        return _part(node, at)
    if target is PAD:
        return _pad(node, at, shape, conditions)
    return _SIMPLE[target](args, at, shape)


def _reshape(at: Indices, new: tuple[int, ...], old: tuple[int, ...], extents: Mapping[str, int]) -> Indices:
    """Dimensions that both shapes end with are kept: only what differs has to be shown affine."""
    tail = 0
    while tail < min(len(new), len(old)) and new[len(new) - 1 - tail] == old[len(old) - 1 - tail]:
        tail += 1
    cut_new, cut_old = len(new) - tail, len(old) - tail
    rest = linear(at[:cut_new], contiguous(new[:cut_new]))
    found: list[Index] = []
    for position, size in reversed(list(enumerate(old[:cut_old]))):
        if position == 0:
            found.append(rest)
        else:
            rest, low = divide(rest, size, extents)
            found.append(low)
    return (*reversed(found), *at[cut_new:])


def _part(node: Node, at: Indices) -> Indices:
    """One of the parts of a split."""
    whole, number = node.args
    assert isinstance(whole, Node)
    assert isinstance(number, int)
    arguments: Any = whole.args
    if whole.target is aten.unbind.int:
        dim = (arguments[1] if len(arguments) > 1 else 0) % (len(at) + 1)
        return (*at[:dim], Index((), number), *at[dim:])
    dim = (arguments[2] if len(arguments) > 2 else 0) % len(at)
    sizes = arguments[1]
    start = number * sizes if isinstance(sizes, int) else sum(sizes[:number])
    return (*at[:dim], plus(at[dim], start), *at[dim + 1 :])


def _pad(node: Node, at: Indices, shape: tuple[int, ...], conditions: list[Condition]) -> Indices:
    arguments: Any = node.args
    pads, other = arguments[1], float(arguments[2]) if len(arguments) > 2 else 0.0
    found = list(at)
    for k in range(len(pads) // 2):
        dim, (left, right) = len(at) - 1 - k, pads[2 * k : 2 * k + 2]
        found[dim] = plus(found[dim], -left)
        if left > 0 or right > 0:
            conditions.append(Condition(found[dim], shape[dim], other))
    return tuple(found)


def _expand(args: Any, at: Indices, shape: tuple[int, ...]) -> Indices:
    own = at[len(at) - len(shape) :]
    return tuple(ZERO if size == 1 else index for index, size in zip(own, shape, strict=True))


def _permute(args: Any, at: Indices, shape: tuple[int, ...]) -> Indices:
    found = [ZERO] * len(shape)
    for index, dim in zip(at, args[1], strict=True):
        found[dim % len(shape)] = index
    return tuple(found)


def _transpose(args: Any, at: Indices, shape: tuple[int, ...]) -> Indices:
    found = list(at)
    a, b = (args[1] % len(at), args[2] % len(at)) if len(args) > 1 else (0, len(at) - 1)
    found[a], found[b] = found[b], found[a]
    return tuple(found)


def _unsqueeze(args: Any, at: Indices, shape: tuple[int, ...]) -> Indices:
    dim = args[1] % len(at)
    return at[:dim] + at[dim + 1 :]


def _squeeze(args: Any, at: Indices, shape: tuple[int, ...]) -> Indices:
    dims = args[1] if len(args) > 1 else range(len(shape))
    wanted = {d % len(shape) for d in ((dims,) if isinstance(dims, int) else dims)}
    left = iter(at)
    return tuple(ZERO if d in wanted and size == 1 else next(left) for d, size in enumerate(shape))


def _slice(args: Any, at: Indices, shape: tuple[int, ...]) -> Indices:
    dim = (args[1] if len(args) > 1 else 0) % len(shape)
    start = args[2] if len(args) > 2 and args[2] is not None else 0
    step = args[4] if len(args) > 4 else 1
    start = max(start + shape[dim], 0) if start < 0 else min(start, shape[dim])
    return (*at[:dim], plus(times(at[dim], step), start), *at[dim + 1 :])


def _flip(args: Any, at: Indices, shape: tuple[int, ...]) -> Indices:
    dims = {d % len(shape) for d in args[1]}
    return tuple(plus(times(index, -1), shape[d] - 1) if d in dims else index for d, index in enumerate(at))


def _select(args: Any, at: Indices, shape: tuple[int, ...]) -> Indices:
    dim = args[1] % len(shape)
    return (*at[:dim], Index((), args[2] % shape[dim]), *at[dim:])


_SIMPLE: dict[Any, Callable[[Any, Indices, tuple[int, ...]], Indices]] = {
    aten.expand.default: _expand, aten.permute.default: _permute, aten.transpose.int: _transpose,
    aten.t.default: _transpose, aten.unsqueeze.default: _unsqueeze, aten.squeeze.default: _squeeze,
    aten.squeeze.dim: _squeeze, aten.squeeze.dims: _squeeze, aten.slice.Tensor: _slice, aten.select.int: _select,
    aten.flip.default: _flip,
}
