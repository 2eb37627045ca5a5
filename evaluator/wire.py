"""Frames on a pipe: one JSON header and the raw bytes of tensors, every size bounded, nothing ever unpickled."""

import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

MAX_HEADER = 1 << 20
MAX_BYTES = 4 << 30
MAX_TENSORS = 4096
MAX_DIM = 8

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int64": torch.int64,
    "int32": torch.int32,
    "uint8": torch.uint8,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

Header = dict[str, Any]
Wait = Callable[[int, bool], None]
"""Blocks until a descriptor can be read (False) or written (True), or raises when its patience ends."""


class WireError(Exception):
    """What came over the pipe is no frame, or a larger one than was allowed."""


class WireClosed(WireError):
    """The other side closed its end of the pipe."""


def send(fd: int, header: Header, tensors: Mapping[str, Tensor] | None = None, *, wait: Wait | None = None) -> None:
    """Write one frame; without `wait` the descriptor must be a blocking one."""
    tensors = tensors or {}
    listed = [[name, _NAMES[t.dtype], list(t.shape)] for name, t in tensors.items()]
    text = json.dumps({**header, "tensors": listed}).encode()
    if len(text) > MAX_HEADER:
        raise WireError(f"a header of {len(text)} bytes is more than {MAX_HEADER}")
    _write(fd, memoryview(struct.pack(">I", len(text)) + text), wait)
    for tensor in tensors.values():
        _write(fd, _bytes_of(tensor), wait)


def receive(fd: int, *, limit: int = MAX_BYTES, wait: Wait | None = None) -> tuple[Header, dict[str, Tensor]]:
    """Read one frame whose tensors take at most `limit` bytes together."""
    (size,) = struct.unpack(">I", _read(fd, 4, wait))
    if size > MAX_HEADER:
        raise WireError(f"a header of {size} bytes is more than {MAX_HEADER}")
    header = _parse(bytes(_read(fd, size, wait)))
    listed = _listed(header.pop("tensors", None), limit)
    return header, {name: _tensor(_read(fd, n, wait), dtype, shape) for name, dtype, shape, n in listed}


def _parse(text: bytes) -> Header:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a header is no JSON ({type(error).__name__})") from None
    if not isinstance(header, dict):
        raise WireError(f"a header is a {type(header).__name__}, not an object")
    return header


def _listed(entries: Any, limit: int) -> list[tuple[str, torch.dtype, list[int], int]]:
    if not isinstance(entries, list) or len(entries) > MAX_TENSORS:
        raise WireError(f"a header lists no tensors, or more than {MAX_TENSORS}")
    checked = [_entry(entry) for entry in entries]
    total = sum(n for *_, n in checked)
    if total > limit:
        raise WireError(f"a frame of {total} bytes is more than the {limit} allowed here")
    if len({name for name, *_ in checked}) != len(checked):
        raise WireError("a header lists one tensor twice")
    return checked


def _entry(entry: Any) -> tuple[str, torch.dtype, list[int], int]:
    if not (isinstance(entry, list) and len(entry) == 3):
        raise WireError("a header lists a tensor without its name, dtype and shape")
    name, dtype, shape = entry
    known = isinstance(name, str) and isinstance(dtype, str) and dtype in DTYPES
    if not (known and isinstance(shape, list) and len(shape) <= MAX_DIM):
        raise WireError("a header lists a tensor of an unknown type")
    # Its size as if nothing in it were empty: the strides of an empty tensor overflow as well.
    if not all(type(n) is int and 0 <= n <= MAX_BYTES for n in shape) or math.prod(max(1, n) for n in shape) > MAX_BYTES:
        raise WireError("a header lists a tensor of an impossible shape")
    return name, DTYPES[dtype], shape, math.prod(shape) * DTYPES[dtype].itemsize


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return memoryview(flat.numpy())  # type: ignore[arg-type]


def _tensor(data: bytearray, dtype: torch.dtype, shape: list[int]) -> Tensor:
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(shape)


def _write(fd: int, view: memoryview, wait: Wait | None) -> None:
    while view:
        if wait:
            wait(fd, True)
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            raise WireClosed("the other side closed the pipe") from None


def _read(fd: int, size: int, wait: Wait | None) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        if wait:
            wait(fd, False)
        try:
            count = os.readv(fd, [view])
        except BlockingIOError:
            continue
        if not count:
            raise WireClosed("the other side closed the pipe")
        view = view[count:]
    return data
