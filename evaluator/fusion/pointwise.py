"""Element-wise ATen operations as Triton expressions; floats are computed in float32, as ATen does."""

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from evaluator.fusion.whole import fits

aten = torch.ops.aten

TANH = "tl.where(tl.abs({0}) < 0.05, {0} - {0} * {0} * {0} * (1 / 3 - {0} * {0} * (2 / 15)), 2 * tl.sigmoid(2 * {0}) - 1)"
LOG1P = "tl.where(1 + {0} == 1, {0}, tl.log(1 + {0}) * ({0} / (1 + {0} - 1)))"

EXPM1 = "tl.where(tl.abs({0}) < 0.1, {0} * (1 + {0} * (1 / 2 + {0} * (1 / 6 + {0} * (1 / 24 + {0} / 120)))), tl.exp({0}) - 1)"
# Of a negative base a whole power alone is a number; what is odd has its sign.
_ODD = "({1} - 2 * tl.floor({1} / 2))"
_SIGN = f"tl.where({{0}} >= 0, 1.0, tl.where(tl.floor({{1}}) == {{1}}, 1 - 2 * {_ODD}, float('nan')))"
POWER = f"tl.where({{1}} == 0, 1.0, {_SIGN} * tl.exp({{1}} * tl.log(tl.abs({{0}}))))"

_TEXTS: dict[str, str] = {
    "add.Tensor": "{0} + {1}", "add.Scalar": "{0} + {1}", "sub.Tensor": "{0} - {1}", "sub.Scalar": "{0} - {1}",
    "mul.Tensor": "{0} * {1}", "mul.Scalar": "{0} * {1}", "div.Tensor": "{0} / {1}", "div.Scalar": "{0} / {1}",
    "neg.default": "-{0}", "abs.default": "tl.abs({0})", "exp.default": "tl.exp({0})", "log.default": "tl.log({0})",
    "exp2.default": "tl.exp2({0})", "sqrt.default": "tl.sqrt({0})", "rsqrt.default": "tl.rsqrt({0})",
    "reciprocal.default": "1 / {0}", "sigmoid.default": "tl.sigmoid({0})", "tanh.default": TANH,
    "log1p.default": LOG1P, "expm1.default": EXPM1, "pow.Tensor_Tensor": POWER, "sin.default": "tl.sin({0})", "cos.default": "tl.cos({0})", "erf.default": "tl.erf({0})",
    "floor.default": "tl.floor({0})", "relu.default": "tl.maximum({0}, 0.0)",
    "maximum.default": "tl.maximum({0}, {1})", "minimum.default": "tl.minimum({0}, {1})",
    "where.self": "tl.where({0}, {1}, {2})",
    "eq.Scalar": "{0} == {1}", "ne.Scalar": "{0} != {1}", "lt.Scalar": "{0} < {1}", "le.Scalar": "{0} <= {1}",
    "gt.Scalar": "{0} > {1}", "ge.Scalar": "{0} >= {1}",
    "eq.Tensor": "{0} == {1}", "ne.Tensor": "{0} != {1}", "lt.Tensor": "{0} < {1}", "le.Tensor": "{0} <= {1}",
    "gt.Tensor": "{0} > {1}", "ge.Tensor": "{0} >= {1}",
    "logical_and.default": "({0} != 0) & ({1} != 0)", "logical_or.default": "({0} != 0) | ({1} != 0)", "logical_not.default": "{0} == 0",
    "bitwise_and.Tensor": "{0} & {1}", "bitwise_or.Tensor": "{0} | {1}", "bitwise_xor.Tensor": "{0} ^ {1}",
    "__rshift__.Scalar": "{0} >> {1}", "__lshift__.Scalar": "{0} << {1}",
    "square.default": "{0} * {0}", "sign.default": "tl.where({0} > 0, 1.0, tl.where({0} < 0, -1.0, 0.0))",
    "pow.Scalar": "tl.exp({1} * tl.log(1.0 * {0}))", "rsub.Scalar": "{1} - {0}", "silu.default": "{0} * tl.sigmoid({0})",
}  # fmt: skip


def _overload(name: str) -> Any:
    packet, overload = name.rsplit(".", 1)
    return getattr(getattr(aten, packet), overload)


TEXTS: dict[Any, str] = {_overload(name): text for name, text in _TEXTS.items()}


def identity(x: torch.Tensor) -> torch.Tensor:
    """What stands for the copy of a tensor into its place in a larger one."""
    return x


def _clamp(args: list[str]) -> str:
    low, high = (args[1] if len(args) > 1 else "None"), (args[2] if len(args) > 2 else "None")
    text = args[0] if low == "None" else f"tl.maximum({args[0]}, {low})"
    return text if high == "None" else f"tl.minimum({text}, {high})"


def _power(args: list[str]) -> str:
    x, exponent = args[0], float(args[1].strip("()"))
    if exponent.is_integer() and 1 <= abs(exponent) <= MOST_FACTORS:
        text = " * ".join([x] * int(abs(exponent)))
        return text if exponent > 0 else f"1 / ({text})"
    named = {0.5: f"tl.sqrt({x})", -0.5: f"tl.rsqrt({x})", 0.0: "1.0"}
    return named.get(exponent) or f"tl.exp({exponent} * tl.log({x}))"


SPECIAL: dict[Any, Callable[[list[str]], str]] = {
    aten.clamp.default: _clamp, aten.pow.Tensor_Scalar: _power,
    aten.clamp_min.default: lambda a: f"tl.maximum({a[0]}, {a[1]})",
    aten.clamp_max.default: lambda a: f"tl.minimum({a[0]}, {a[1]})",
    aten._to_copy.default: lambda a: a[0], identity: lambda a: a[0],
}  # fmt: skip

MOST_FACTORS = 16
"""Of a power that is a product; the logarithm of what is negative is none."""

POWERS: set[Any] = {aten.pow.Scalar, aten.pow.Tensor_Scalar}
LOGICAL: dict[Any, str] = {aten.logical_and.default: "&", aten.logical_or.default: "|"}
KEYWORDS: set[Any] = {aten.add.Tensor, aten.sub.Tensor}
"""Of these a keyword `alpha` would matter; they are left to ATen where one is given."""


def is_pointwise(node: Node) -> bool:
    if node.op != "call_function" or not isinstance(node.meta.get("val"), torch.Tensor):
        return False
    if node.target in KEYWORDS and node.kwargs.get("alpha", 1) != 1:
        return False
    if not fits(node) or (node.target in POWERS and not _has_logarithm(node)):
        return False
    return node.target in TEXTS or node.target in SPECIAL


def _has_logarithm(node: Node) -> bool:
    """Whether a power is a product of few factors, or what `exp(b log(a))` computes wherever it is a number."""
    base, exponent = node.args
    if node.target is aten.pow.Scalar:
        return isinstance(base, int | float) and base > 0
    whole = isinstance(exponent, int) or (isinstance(exponent, float) and exponent.is_integer())
    return isinstance(exponent, int | float) and not (whole and abs(exponent) > MOST_FACTORS)


def expression(node: Node, args: list[str]) -> str:
    """The Triton expression of a node whose operands are named by `args`."""
    if node.target in SPECIAL:
        return SPECIAL[node.target](args)
    if node.target in LOGICAL and all(isinstance(x, Node) and x.meta["val"].dtype == torch.bool for x in node.args):
        return f"{args[0]} {LOGICAL[node.target]} {args[1]}"
    return TEXTS[node.target].format(*args)


def literal(x: object) -> str:
    """A Python number as it stands in the source of a kernel."""
    if isinstance(x, float) and x in (float("inf"), -float("inf")):
        return "float('inf')" if x > 0 else "(-float('inf'))"
    return f"({x})" if isinstance(x, int | float) and x < 0 else str(x)


REDUCTIONS: dict[Any, str] = {
    aten.sum.dim_IntList: "sum", aten.amax.default: "max", aten.amin.default: "min", aten.mean.dim: "mean",
}  # fmt: skip

SCANS: dict[Any, str] = {aten.cumsum.default: "cumsum"}

CONSTANTS: set[Any] = {aten.full.default, aten.scalar_tensor.default, aten.arange.start_step, aten.zeros.default, aten.ones.default}


def reduced_dims(node: Node) -> tuple[tuple[int, ...], bool]:
    """Dimensions that a reduction takes away or keeps as one, and whether it keeps them."""
    arguments: Any = node.args
    shape = arguments[0].meta["val"].shape
    dims = arguments[1] if len(arguments) > 1 and arguments[1] else range(len(shape))
    dims = (dims,) if isinstance(dims, int) else dims
    keep = bool(arguments[2]) if len(arguments) > 2 else bool(node.kwargs.get("keepdim", False))
    return tuple(sorted(d % len(shape) for d in dims)), keep


def scanned_axis(node: Node) -> int | None:
    """Whether a scan of floats runs along the rows (0) or the columns (1) of a matrix; None where a kernel can't say it."""
    arguments: Any = node.args
    value, dims = node.meta["val"], arguments[0].meta["val"].dim()
    axis = arguments[1] % dims - dims + 2 if dims else -1
    return axis if axis in (0, 1) and value.is_floating_point() and not node.kwargs else None


def neutral(kind: str, floating: bool) -> str:
    """What changes no result of a reduction of that kind."""
    if kind in ("sum", "mean"):
        return "0.0" if floating else "0"
    ends = ("-float('inf')", "float('inf')") if floating else ("-2147483648", "2147483647")
    return ends[kind == "min"]
