"""Whole numbers in a graph: how large they can become, as kernels compute them in 32 bits."""

from typing import Any

import torch
from torch.fx import Node

from evaluator.fusion.views import is_view

aten = torch.ops.aten

MOST = 2**31 - 1


def fits(node: Node) -> bool:
    """Whether a value that is no float is known to stay within 32 bits: made from counts and masks, not from data."""
    if node.meta["val"].is_floating_point():
        return True
    most = _largest(node)
    return most is not None and most <= MOST


def _largest(node: Any) -> int | None:
    """The largest magnitude that a node's values can have, None where that is not known."""
    if not isinstance(node, Node):
        return abs(node) if isinstance(node, int) else None
    if "largest" not in node.meta:
        node.meta["largest"] = _found(node)
    known: int | None = node.meta["largest"]
    return known


def _found(node: Node) -> int | None:
    value, target = node.meta.get("val"), node.target
    if not isinstance(value, torch.Tensor) or value.is_floating_point() or value.is_complex():
        return None
    if value.dtype == torch.bool or target is aten.ones.default:
        return 1
    if target is aten.zeros.default:
        return 0
    arguments: list[Any] = list(node.args)
    if target is aten.arange.start_step:
        ends = [_largest(x) for x in arguments[:2]]
        return None if None in ends else max(x for x in ends if x is not None)
    if target in (aten.full.default, aten.scalar_tensor.default):
        return _largest(arguments[1 if target is aten.full.default else 0])
    if is_view(node) or target is aten._to_copy.default:
        return _largest(arguments[0])
    bounds = [_largest(x) for x in (arguments[1:] if target is aten.where.self else arguments)]
    known = [x for x in bounds if x is not None]
    rule = _RULES.get(target)
    return None if rule is None or len(known) < len(bounds) else rule(known)


def _bits(bounds: list[int]) -> int:
    return (1 << max(bounds).bit_length()) - 1


_RULES: dict[Any, Any] = {
    aten.mul.Tensor: lambda b: b[0] * b[1], aten.mul.Scalar: lambda b: b[0] * b[1], aten.square.default: lambda b: b[0] ** 2,
    aten.neg.default: max, aten.abs.default: max, aten.sign.default: lambda b: 1, aten.relu.default: max,
    aten.where.self: max, aten.maximum.default: max, aten.minimum.default: max, aten.clamp.default: max,
    aten.clamp_min.default: max, aten.clamp_max.default: max,
    aten.bitwise_and.Tensor: _bits, aten.bitwise_or.Tensor: _bits, aten.bitwise_xor.Tensor: _bits,
    aten.__rshift__.Scalar: lambda b: b[0], aten.__lshift__.Scalar: lambda b: b[0] << min(b[1], 64),
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Scalar), sum),
}  # fmt: skip
