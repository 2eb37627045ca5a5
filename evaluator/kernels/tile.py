"""Tiles in and out of memory."""

import triton
import triton.language as tl


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
