"""What a kernel is: its source, and the tensors that it is launched with."""

from dataclasses import dataclass

from torch.fx import Node


@dataclass(frozen=True)
class Pointer:
    """An argument of a kernel: a tensor, and how many of its elements lie before the first that is meant."""

    tensor: Node
    offset: int


@dataclass(frozen=True)
class Kernel:
    """Source of a group; equal sources are one kernel."""

    source: str
    pointers: tuple[Pointer, ...]
    grid: int
    area: int  # the largest tile
