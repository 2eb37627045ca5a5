"""How much is calculated, counted and not timed: the same on every machine, however busy."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

# torch.utils.flop_counter has such a table, and imports all of Triton for it.
LEFT = {aten.mm: 0, aten.bmm: 0, aten.mv: 0, aten.addmm: 1, aten.addmm_: 1, aten.baddbmm: 1, aten.baddbmm_: 1, aten.addmv: 1}
"""Products of matrices, and which argument is the left factor."""

SUMS = {aten.add, aten.add_, aten.clone}
"""What autograd does with whole sequences for each chunk that code slices or writes: no calculation of the operator's."""


class Work(TorchDispatchMode):
    """Counts what is done within: 2 for each multiply-add of a product, 1 for each entry of what is calculated entry by entry.

    `done` leaves out copies and sums: the gradient of a slice of T tokens is T wide, so those of T / C slices are summed
    in T^2 / C.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done = 0

    def __torch_dispatch__(self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.done += _work(func, args, out)
        return out


def _work(func: OpOverload, args: Sequence[Any], out: Any) -> int:
    op: Any = func.overloadpacket
    if op in LEFT:
        return 2 * int(out.numel()) * int(args[LEFT[op]].shape[-1])
    if op is aten.convolution:
        return 2 * int(out.numel()) * int(args[1][0].numel())
    if op is aten.convolution_backward:
        grad_o, weight, needed = args[0], args[2], args[-1]
        return 2 * int(grad_o.numel()) * int(weight[0].numel()) * int(sum(needed[:2]))
    if torch.Tag.pointwise in func.tags and op not in SUMS:
        return int(out.numel()) if isinstance(out, Tensor) else 0
    return 0
