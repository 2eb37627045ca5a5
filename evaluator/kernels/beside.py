"""Gradients of weights on a second stream: nothing else in a backward pass waits for them, so they fill what it leaves free."""

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from evaluator import layers


class _Pass:
    """A backward pass under way, for there is one at a time."""

    stream: ClassVar[torch.cuda.Stream | None] = None
    read: ClassVar[list[Tensor]] = []  # what the second stream reads: freed before that, its memory would be written again


def gradients(loss: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """As `layers.gradients`. Each leaf is used once: a sum of two gradients would not wait for the second stream."""
    if not loss.is_cuda:  # Triton's interpreter
        return layers.gradients(loss, leaves)
    _Pass.stream = _second(loss.device)
    try:
        found = layers.gradients(loss, leaves)
        torch.cuda.current_stream(loss.device).wait_stream(_Pass.stream)
    finally:
        _Pass.stream = None
        _Pass.read.clear()
    return found


def beside(product: Callable[..., Tensor], *read: Tensor) -> Tensor:
    """product(*read), which nothing may use before `gradients` has returned."""
    if _Pass.stream is None:
        return product(*read)
    _Pass.read.extend(read)
    _Pass.stream.wait_stream(torch.cuda.current_stream(read[0].device))
    with torch.cuda.stream(_Pass.stream):
        return product(*read)


@functools.cache
def _second(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
