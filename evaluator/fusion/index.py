"""Affine indices: sums of a coefficient times a loop variable, with which views are undone exactly."""

from collections.abc import Mapping
from typing import NamedTuple


class NotAffine(Exception):
    """An index that is no sum of coefficient times variable, or not provably so."""


class Index(NamedTuple):
    """sum of coefficient * variable, plus a constant; terms are sorted and have no zero coefficient."""

    terms: tuple[tuple[str, int], ...]
    const: int


ZERO = Index((), 0)


def variable(name: str) -> Index:
    return Index(((name, 1),), 0)


def plus(a: Index, b: Index | int) -> Index:
    if isinstance(b, int):
        return Index(a.terms, a.const + b)
    total = dict(a.terms)
    for name, coefficient in b.terms:
        total[name] = total.get(name, 0) + coefficient
    return Index(tuple(sorted((n, c) for n, c in total.items() if c)), a.const + b.const)


def times(a: Index, factor: int) -> Index:
    return Index(tuple((n, c * factor) for n, c in a.terms if factor), a.const * factor)


def largest(a: Index, extents: Mapping[str, int]) -> int:
    """Its greatest value where each variable runs from 0 to its extent."""
    return a.const + sum(c * (extents[n] - 1) for n, c in a.terms if c > 0)


def smallest(a: Index, extents: Mapping[str, int]) -> int:
    return a.const + sum(c * (extents[n] - 1) for n, c in a.terms if c < 0)


def divide(a: Index, size: int, extents: Mapping[str, int]) -> tuple[Index, Index]:
    """a // size and a % size; raises NotAffine where the remainder can't be shown to stay below `size`."""
    if size == 1:
        return a, ZERO
    high = tuple((n, c // size) for n, c in a.terms if c % size == 0)
    low = Index(tuple((n, c) for n, c in a.terms if c % size), a.const % size)
    if smallest(low, extents) < 0 or largest(low, extents) >= size:
        raise NotAffine(f"{a} by {size}")
    return Index(high, a.const // size), low


def linear(indices: tuple[Index, ...], strides: tuple[int, ...]) -> Index:
    total = ZERO
    for index, stride in zip(indices, strides, strict=True):
        total = plus(total, times(index, stride))
    return total


def padded(n: int) -> int:
    """The power of two that a tile's side of n is rounded up to."""
    return 1 << (n - 1).bit_length()


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a contiguous tensor."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))
