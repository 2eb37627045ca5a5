"""The trusted side's handle on a worker: asks, waits with a deadline, checks every answer, ends the process."""

import functools
import keyword
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from evaluator import figures, wire
from evaluator.conversation import Conversation, OperatorError, printable
from evaluator.sandbox import Walls

MAX_SOURCE = 256 << 10
MAX_DECLARED = 64
MAX_WIDTH = 4096
MAX_NAME = 64
START_UP = 180.0  # seconds a process may take to raise its walls and import torch
RESERVED = ("q", "k", "v", "beta", "chunk_size", "state", "grad_o", "o")

Tensors = dict[str, Tensor]

__all__ = ["Description", "OperatorError", "OperatorProcess", "Unrolled", "read_sources"]


@dataclass(frozen=True)
class Description:
    """What a variant declares for given heads."""

    forms: tuple[str, ...]
    projections: dict[str, int]  # name -> width per head, `output_gate` included
    parameters: Tensors  # name -> initial tensor, float32
    has_recurrence: bool


@dataclass(frozen=True)
class Unrolled:
    """The recurrent form over a whole sequence."""

    o: Tensor
    grads: dict[str, Tensor | None]
    state_sizes: list[int]  # numbers per row and head after each token


def read_sources(path: Path) -> dict[str, str]:
    """The forms of a variant, a folder with naive.py (and triton.py) or one .py file; raises ValueError, OSError."""
    alone = path.is_file() and path.suffix == ".py"
    files = {"naive": path} if alone else {p.stem: p for p in sorted(path.glob("*.py"))}
    found = {form: files[form] for form in ("naive", "triton") if form in files}
    if "naive" not in found:
        raise FileNotFoundError(f"{path} is neither a folder with naive.py nor a .py file")
    return {form: _read_source(file) for form, file in found.items()}


def _read_source(path: Path) -> str:
    if not path.is_file():  # a pipe would be waited for, a device has no end
        raise ValueError(f"{path.name} is no file")
    with path.open("rb") as file:
        data = file.read(MAX_SOURCE + 1)
    if len(data) > MAX_SOURCE:
        raise ValueError(f"{path.name} has more than {MAX_SOURCE} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None


class OperatorProcess:
    """One worker with one form of one variant loaded; a context manager, for one thread.

    The process starts at once and is waited for at the first request, so that several can start side by side.
    """

    def __init__(
        self,
        folder: Path | Mapping[str, str],
        *,
        form: str = "naive",
        device: str = "cpu",
        walls: Walls,
        timeout: float,
        num_heads: int = 2,
        head_dim: int = 64,
        memory: int = 8 << 30,
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        self.sources = dict(folder) if isinstance(folder, Mapping) else read_sources(folder)
        if form not in self.sources:
            raise FileNotFoundError(f"the variant has no {form}.py")
        self.form, self.device, self.walls, self.timeout = form, device, walls, timeout
        self.num_heads, self.head_dim, self.seed = num_heads, head_dim, seed
        self._loaded = self._started = self._killed = self._by_token = False
        self._talk = Conversation(walls, device, memory, threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process and all that it started; the handle answers nothing more."""
        self._talk.close()

    def kill(self) -> None:
        """End the process from another thread than the one that asks it, which then hears that it has ended."""
        self._killed = True
        self._talk.jail.kill()

    @property
    def failed(self) -> bool:
        """Whether the process is gone; every further question is answered by what ended it."""
        return self._talk.failure is not None

    @property
    def log(self) -> bytes:
        """The first of what the process printed."""
        return self._talk.log

    # --- questions ---

    @functools.cached_property
    def description(self) -> Description:
        """What the variant declares, checked; raises OperatorError where it is not what the contract says."""
        return self.describe(self.seed)

    def describe(self, seed: int, num_heads: int | None = None, head_dim: int | None = None) -> Description:
        """What the variant declares for a seed and heads."""
        heads = {"num_heads": num_heads or self.num_heads, "head_dim": head_dim or self.head_dim, "seed": seed}
        header, parameters = self._one({"request": "describe", **heads}, {}, limit=64 << 20)
        projections = header.get("projections")
        if not isinstance(projections, dict) or not all(type(n) is int for n in projections.values()):
            raise self._talk.bad("projections is not a dict of name to width")
        _check_names([*projections, *parameters])
        for name, width in projections.items():
            if not 1 <= width <= MAX_WIDTH:
                raise OperatorError("bad-output", f"projections asks for {name} of width {width}, not 1 to {MAX_WIDTH}")
        for name, tensor in parameters.items():
            if tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
                raise OperatorError("bad-output", f"parameters returns {name} that is not float32 and finite")
        return Description(tuple(self.sources), projections, parameters, header.get("has_recurrence") is True)

    def forward(
        self, inputs: Tensors, *, chunk_size: int, grad: bool = False, poison: bool = False, timeout: float | None = None
    ) -> Tensor:
        """o [B, H, T, V]; with `grad` called as in training, with `poison` on memory that is NaN where not written."""
        header = {"request": "forward", "chunk_size": chunk_size, "grad": grad, "echo": False, "poison": poison}
        _, found = self._one(header, inputs, limit=inputs["v"].nbytes, timeout=timeout)
        return self._like(found, "o", inputs["v"], inputs["q"].dtype)

    def forward_and_inputs(self, inputs: Tensors, *, chunk_size: int, grad: bool = False) -> tuple[Tensor, Tensors]:
        """The outputs, and the inputs as they are after the call."""
        header = {"request": "forward", "chunk_size": chunk_size, "grad": grad, "echo": True, "poison": False}
        _, found = self._one(header, inputs, limit=_bytes(inputs) + inputs["v"].nbytes)
        return self._like(found, "o", inputs["v"], inputs["q"].dtype), self._echoed(inputs, found)

    def inputs_after_backward(self, inputs: Tensors, grad_o: Tensor, *, chunk_size: int) -> Tensors:
        """The inputs as they are after a forward and a backward pass."""
        header = self._backward(chunk_size, echo=True, poison=False)
        _, found = self._one(header, {**inputs, "grad_o": grad_o}, limit=2 * _bytes(inputs) + 2 * grad_o.nbytes)
        return self._echoed(inputs, found)

    def _echoed(self, inputs: Tensors, found: Tensors) -> Tensors:
        return {name: self._like(found, f"input:{name}", x, x.dtype) for name, x in inputs.items()}

    def vjp(
        self, inputs: Tensors, grad_o: Tensor, *, chunk_size: int, poison: bool = False, timeout: float | None = None
    ) -> tuple[Tensor, dict[str, Tensor | None]]:
        """o, and the gradient of sum(o * grad_o) to every floating input, None where none reaches it; `poison` as in `forward`."""
        header = self._backward(chunk_size, echo=False, poison=poison)
        limit = _bytes(inputs) + 2 * grad_o.nbytes
        _, found = self._one(header, {**inputs, "grad_o": grad_o}, limit=limit, timeout=timeout)
        return self._like(found, "o", inputs["v"], inputs["q"].dtype), self._grads(inputs, found)

    def _backward(self, chunk_size: int, echo: bool, poison: bool) -> wire.Header:
        """Gradients of outputs lie in memory one way and the other in turn, as layers on a CPU and on a GPU have them."""
        self._by_token = not self._by_token
        return {"request": "vjp", "chunk_size": chunk_size, "echo": echo, "poison": poison, "by_token": self._by_token}

    def recurrence(self, inputs: Tensors, grad_o: Tensor | None = None) -> Unrolled:
        """The recurrent form, token by token, over the same inputs; gradients as of `vjp` where grad_o is given."""
        header = {"request": "recurrence", "projections": list(self.description.projections)}
        given = inputs if grad_o is None else {**inputs, "grad_o": grad_o}
        answer, found = self._one(header, given, limit=_bytes(given) + inputs["v"].nbytes)
        sizes = answer.get("state_sizes")
        if not isinstance(sizes, list) or len(sizes) != inputs["v"].shape[2] or not all(map(figures.count, sizes)):
            raise self._talk.bad("the sizes of a recurrent state are no list of numbers")
        return Unrolled(self._like(found, "o", inputs["v"], inputs["q"].dtype), self._grads(inputs, found), sizes)

    def measure(self, inputs: Tensors, *, chunk_size: int, repeat: int, memory: bool = False) -> tuple[float, int]:
        """Seconds of a request that runs forward `repeat` times, and the bytes kept for a backward pass.

        By `clock`: other load does not count where the kernel tells.
        """
        header = {"request": "measure", "chunk_size": chunk_size, "repeat": repeat, "memory": memory}
        self._load()
        began = self.clock()
        answer, _ = self._one(header, inputs, limit=0)
        seconds = self.clock() - began
        kept = answer.get("kept_bytes") or 0
        if not figures.count(kept):
            raise self._talk.bad("the bytes kept for a backward pass are no number of them")
        return seconds, kept

    def kept_bytes(self, inputs: Tensors, *, chunk_size: int) -> int:
        """What these inputs keep for a backward pass, at least 1."""
        return max(self.measure(inputs, chunk_size=chunk_size, repeat=0, memory=True)[1], 1)

    def work(self, inputs: Tensors, *, chunk_size: int) -> int:
        """What forward and backward calculate for these inputs, at least 1: see `evaluator.work`."""
        answer, _ = self._one({"request": "work", "chunk_size": chunk_size}, inputs, limit=0)
        done = answer.get("work")
        if done is None or not figures.count(done):
            raise self._talk.bad("the work of a call is no number of operations")
        return max(int(done), 1)

    def clock(self) -> float:
        """Seconds that the process spent on a processor, our own reading, where the kernel tells and no GPU computes.

        What is bounded by it is done alike on a busy machine and on an idle one.
        """
        return (self.device == "cpu" and self._talk.jail.processor_time()) or time.perf_counter()

    def request(
        self, header: wire.Header, tensors: Tensors, *, timeout: float | None = None, limit: int = wire.MAX_BYTES
    ) -> Iterator[tuple[wire.Header, Tensors]]:
        """Ask anything and yield each part of the answer as it comes; `timeout` is for the whole of it."""
        self._load()
        yield from self._talk.ask(header, tensors, time.monotonic() + (timeout or self.timeout), limit)

    def _one(
        self, header: wire.Header, tensors: Tensors, *, limit: int, timeout: float | None = None
    ) -> tuple[wire.Header, Tensors]:
        parts = list(self.request(header, tensors, timeout=timeout, limit=limit))
        if len(parts) != 1:
            raise self._talk.bad(f"an answer came in {len(parts)} parts")
        return parts[0]

    def load(self, sources: Mapping[str, str]) -> None:
        """Put another variant into the same process, which then has seen both."""
        self.sources, self._loaded = dict(sources), False
        self.__dict__.pop("description", None)
        self._load()

    def _load(self) -> None:
        """Our own start has a patience of its own: a machine under load imports torch slowly, and no variant is to blame.

        Raises OSError where a process can't start before it is given one.
        """
        if self._loaded:
            return
        try:
            self._tell({"request": "start"}, {}, START_UP)
        except OperatorError as error:
            if self._started or self._killed:
                raise
            raise OSError(f"a process behind the walls ({self.walls.level}) can't start on this machine: {error.message}") from None
        self._started = True
        sources = {
            name: torch.frombuffer(bytearray(text.encode(errors="surrogatepass")), dtype=torch.uint8)
            for name, text in self.sources.items()
            if text
        }
        self._tell({"request": "load", "form": self.form, "device": self.device}, sources, self.timeout)
        self._loaded = True

    def _tell(self, header: wire.Header, tensors: Tensors, timeout: float) -> None:
        for _ in self._talk.ask(header, tensors, time.monotonic() + timeout, 0):
            pass

    def _like(self, found: Tensors, name: str, like: Tensor, dtype: torch.dtype) -> Tensor:
        tensor = found.get(name)
        if tensor is None or tensor.shape != like.shape or tensor.dtype != dtype:
            raise self._talk.bad(f"{name} is missing or of another shape or dtype than asked for")
        return tensor

    def _grads(self, inputs: Tensors, found: Tensors) -> dict[str, Tensor | None]:
        names = [name for name, x in inputs.items() if x.is_floating_point()]
        return {n: self._like(found, f"grad:{n}", inputs[n], inputs[n].dtype) if f"grad:{n}" in found else None for n in names}


def _check_names(names: list[str]) -> None:
    if len(names) > MAX_DECLARED:
        raise OperatorError("bad-output", f"{len(names)} projections and parameters are declared, more than {MAX_DECLARED}")
    for name in names:
        if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name) or name in RESERVED or len(name) > MAX_NAME:
            raise OperatorError("bad-output", f"{printable(name, 64)!r} can't be the name of a projection or parameter")
        if names.count(name) > 1:
            raise OperatorError("bad-output", f"{name} is declared both as projection and as parameter")


def _bytes(tensors: Tensors) -> int:
    return sum(x.nbytes for x in tensors.values())
