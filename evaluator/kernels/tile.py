"""Tiles in and out of memory."""

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor


def plain(x: Tensor, tile: Mapping[str, int], **sizes: int) -> tuple[bool, bool]:
    """EVEN and PTX for kernels on x: whether tiles cover all `sizes` exactly, named as in `tile`, and whether it is bfloat16 on a GPU."""
    return all(size % tile[name] == 0 for name, size in sizes.items()), x.is_cuda and x.dtype == torch.bfloat16


@triton.jit
def load(pointers, inside, EVEN: tl.constexpr):
    """What lies there, zeros outside; EVEN: no tile has an outside, and asking takes longer than loading."""
    if EVEN:
        return tl.load(pointers)
    return tl.load(pointers, mask=inside, other=0.0)


@triton.jit
def store(pointers, value, inside, EVEN: tl.constexpr):
    """Writes a tile in the type of what it is written to; `inside` and EVEN as for `load`."""
    value = value.to(pointers.dtype.element_ty)
    if EVEN:
        tl.store(pointers, value)
    else:
        tl.store(pointers, value, mask=inside)
