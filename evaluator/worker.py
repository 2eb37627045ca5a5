"""The untrusted process: raises its walls, loads one variant by file path, answers requests over two pipes.

It never holds a key, a target or a path of the host that matters; whatever it answers is data to the other side.
"""

import contextlib
import importlib.util
import inspect
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from evaluator import confine

if __name__ == "__main__":  # before torch is imported and the first thread starts
    confine.enter(confine.Spec(**json.loads(sys.argv[1])))

import torch
from torch import Tensor

from evaluator import wire

Tensors = dict[str, Tensor]
Send = Callable[[wire.Header, Tensors], None]
STANDARD = ("q", "k", "v", "beta")
MAX_MESSAGE = 300


@dataclass(frozen=True)
class Operator:
    """A loaded variant in one of its forms."""

    delta_rule: Callable[..., Any]
    projections: Callable[[int, int], Any] | None
    parameters: Callable[[int, int, torch.Generator], Any] | None
    recurrence: Callable[..., Any] | None
    device: torch.device
    form: str  # naive or triton


class BadOutput(Exception):
    """The operator answered with something else than its contract says."""


def load(sources: dict[str, str], form: str, device: str, folder: Path) -> Operator:
    """Write the sources into our own folder and load one form; the declarations always come from naive.py."""
    modules = {}
    for name, text in sources.items():
        path = folder / f"{name}.py"
        path.write_text(text, encoding="utf-8", newline="")
        if name in ("naive", form):
            modules[name] = _module(f"variant_{name}", path)
    if not callable(getattr(modules[form], "delta_rule", None)):
        raise BadOutput(f"{form}.py defines no function delta_rule(q, k, v, beta, *, chunk_size)")
    declared = modules["naive"]
    return Operator(
        modules[form].delta_rule,
        getattr(declared, "projections", None),
        getattr(declared, "parameters", None),
        getattr(declared, "recurrence", None),
        torch.device(device),
        form,
    )


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- answers ------------------------------------------------------------------------------------


def describe(header: wire.Header, tensors: Tensors, operator: Operator, send: Send) -> None:
    """What the variant declares for these heads: widths of projections, initial parameters."""
    heads, dim = header["num_heads"], header["head_dim"]
    generator = torch.Generator().manual_seed(header["seed"])
    projections = operator.projections(heads, dim) if operator.projections else {}
    parameters = operator.parameters(heads, dim, generator) if operator.parameters else {}
    if not isinstance(projections, dict) or not all(type(n) is int for n in projections.values()):
        raise BadOutput("projections(num_heads, head_dim) must return a dict of name to width, a whole number")
    if not isinstance(parameters, dict) or not all(isinstance(p, Tensor) for p in parameters.values()):
        raise BadOutput("parameters(num_heads, head_dim, generator) must return a dict of name to tensor")
    found = {str(name): p.detach() for name, p in parameters.items()}
    wrong = next((name for name, p in found.items() if p.dtype not in wire.DTYPES.values()), None)
    if wrong:
        raise BadOutput(f"parameters returns {wrong} as {found[wrong].dtype}, not float32")
    send({"projections": projections, "has_recurrence": operator.recurrence is not None}, found)


def forward(header: wire.Header, tensors: Tensors, operator: Operator, send: Send) -> None:
    """Outputs; with `grad` as in training (inputs have a history), with `echo` the inputs as they are afterwards."""
    given = _to_device(tensors, operator)
    for x in given.values():
        x.requires_grad_(header["grad"] and x.is_floating_point())
    with torch.set_grad_enabled(header["grad"]), _poison(header["poison"]):
        inputs = _with_history(given) if header["grad"] else given
        o = call(operator.delta_rule, inputs, header["chunk_size"])
    echoed = {f"input:{name}": x for name, x in inputs.items()} if header["echo"] else {}
    send({}, {"o": o.detach(), **{name: x.detach() for name, x in echoed.items()}})


def vjp(header: wire.Header, tensors: Tensors, operator: Operator, send: Send) -> None:
    """Outputs, and the gradient of sum(o * grad_o) to every floating input."""
    given = _to_device(tensors, operator)
    grad_o = given.pop("grad_o")
    leaves = {name: x.requires_grad_() for name, x in given.items() if x.is_floating_point()}
    with torch.enable_grad():
        o = call(operator.delta_rule, _with_history(given), header["chunk_size"])
        grads = torch.autograd.grad(o, list(leaves.values()), grad_o, allow_unused=True) if o.requires_grad else ()
    found = {f"grad:{name}": g for name, g in zip(leaves, grads, strict=False) if g is not None}
    send({}, {"o": o.detach(), **found})


def recurrence(header: wire.Header, tensors: Tensors, operator: Operator, send: Send) -> None:
    """The recurrent form run token by token: outputs, gradients, and the size of its state after each token."""
    if operator.recurrence is None:
        raise BadOutput("the variant has no recurrence")
    given = _to_device(tensors, operator)
    grad_o = given.pop("grad_o")
    leaves = {name: x.requires_grad_() for name, x in given.items() if x.is_floating_point()}
    per_token = set(STANDARD) | set(header["projections"])
    with torch.enable_grad():
        o, sizes = _unroll(operator.recurrence, _with_history(given), per_token)
        grads = torch.autograd.grad(o, list(leaves.values()), grad_o, allow_unused=True) if o.requires_grad else ()
    found = {f"grad:{name}": g for name, g in zip(leaves, grads, strict=False) if g is not None}
    send({"state_sizes": sizes}, {"o": o.detach(), **found})


def _unroll(step: Callable[..., Any], inputs: Tensors, per_token: set[str]) -> tuple[Tensor, list[int]]:
    state, outputs, sizes = None, [], []
    for t in range(inputs["q"].shape[2]):
        # Copies, here and of the state: a view would show the rest of what it is a view of.
        now = {name: x[:, :, t].clone() if name in per_token else x for name, x in inputs.items()}
        q, k, v, beta = (now.pop(name) for name in STANDARD)
        result = step(q, k, v, beta, state, **now)
        if not isinstance(result, tuple) or len(result) != 2:
            raise BadOutput("recurrence must return (o_t, state)")
        o, state = result
        if type(o) is not Tensor or o.shape != v.shape:
            raise BadOutput(f"recurrence returns o_t of shape {_shape(o)}, not {list(v.shape)}")
        outputs.append(o)
        state = _copied(state)
        sizes.append(_numbers(state))
    return torch.stack(outputs, 2), sizes


def measure(header: wire.Header, tensors: Tensors, operator: Operator, send: Send) -> None:
    """Run forward `repeat` times for the other side's clock; answers the bytes kept for a backward pass."""
    given = _to_device(tensors, operator)
    with torch.no_grad():
        for _ in range(header["repeat"]):
            call(operator.delta_rule, given, header["chunk_size"])
    kept = _kept_for_backward(operator, given, header["chunk_size"]) if header["memory"] else None
    if operator.device.type == "cuda":
        torch.cuda.synchronize()
    send({"kept_bytes": kept}, {})


def _kept_for_backward(operator: Operator, given: Tensors, chunk_size: int) -> int:
    storages: dict[int, Tensor] = {}  # the tensors are held, so that no address is used twice

    def keep(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x
        return x

    for x in given.values():
        x.requires_grad_(x.is_floating_point())
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        o = call(operator.delta_rule, _with_history(given), chunk_size)
    kept = sum(x.untyped_storage().nbytes() for x in storages.values())
    del o
    return kept


def train(header: wire.Header, tensors: Tensors, operator: Operator, send: Send) -> None:
    """Training lives in its own module, which is imported only where it is asked for."""
    from evaluator import serving

    serving.serve(header, tensors, operator, send)


HANDLERS: dict[str, Callable[[wire.Header, Tensors, Operator, Send], None]] = {
    "describe": describe,
    "forward": forward,
    "vjp": vjp,
    "recurrence": recurrence,
    "measure": measure,
    "train": train,
}
"""What can be asked: a handler answers by `send`, several times where it reports progress."""


# --- one call -----------------------------------------------------------------------------------


def call(delta_rule: Callable[..., Any], inputs: Tensors, chunk_size: int) -> Tensor:
    """One call of the operator, its answer held to the contract, torch's global settings to what they were."""
    q, k, v, beta = (inputs[name] for name in STANDARD)
    declared = {name: x for name, x in inputs.items() if name not in STANDARD}
    before = _settings()
    o = delta_rule(q, k, v, beta, chunk_size=chunk_size, **declared)
    changed = next((f"{name} from {was} to {now}" for (name, was), (_, now) in _compare(before)), None)
    if changed:
        raise BadOutput(f"delta_rule changed torch's {changed}, which belongs to the whole process")
    if type(o) is not Tensor:
        raise BadOutput(f"delta_rule returned a {type(o).__name__}, not a plain tensor")
    if o.shape != v.shape:
        raise BadOutput(f"delta_rule returned shape {_shape(o)}, not that of v, {list(v.shape)} = [B, H, T, V]")
    if o.dtype != q.dtype or o.device != q.device:
        raise BadOutput(f"delta_rule returned {o.dtype} on {o.device.type}, not {q.dtype} on {q.device.type} as q is")
    return o


@contextlib.contextmanager
def _poison(wanted: bool) -> Iterator[None]:
    """Have torch fill new memory with NaN, so that an output which reads what it never wrote shows it."""
    # Not torch.use_deterministic_algorithms, which first imports a compiler for two seconds.
    torch._C._set_deterministic_algorithms(wanted, warn_only=True)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(False, warn_only=False)


def _settings() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
        "number of threads": torch.get_num_threads(),
        "deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "random state": torch.initial_seed(),
    }


def _compare(before: dict[str, object]) -> list[tuple[tuple[str, object], tuple[str, object]]]:
    pairs = zip(before.items(), _settings().items(), strict=True)
    return [(was, now) for was, now in pairs if was != now]


def _with_history(inputs: Tensors) -> Tensors:
    """Inputs as the layer makes them: results of an operation, so that nothing tells a check from training."""
    return {name: x.clone() for name, x in inputs.items()}


def _to_device(tensors: Tensors, operator: Operator) -> Tensors:
    return {name: x.to(operator.device) for name, x in tensors.items()}


def _shape(x: object) -> object:
    return list(x.shape) if isinstance(x, Tensor) else type(x).__name__


def _copied(state: object) -> Any:
    """The state with tensors of its own; anything but tensors and numbers could hide more than is counted."""
    if isinstance(state, Tensor):
        return state.clone()
    if state is None or isinstance(state, bool | float) or (isinstance(state, int) and abs(state) < 1 << 31):
        return state
    if isinstance(state, dict):
        return {name: _copied(part) for name, part in state.items()}
    if isinstance(state, list | tuple):
        parts = [_copied(part) for part in state]
        return parts if isinstance(state, list) else tuple.__new__(type(state), parts)
    raise BadOutput(f"the state of recurrence holds a {type(state).__name__}, not tensors and numbers alone")


def _numbers(state: object) -> int:
    if isinstance(state, Tensor):
        return math.prod(state.shape[2:])
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(_numbers, parts))


# --- the loop -----------------------------------------------------------------------------------


def serve(request_fd: int, reply_fd: int) -> None:
    """Answer requests until the other side hangs up."""
    operator: Operator | None = None
    while True:
        try:
            header, tensors = wire.receive(request_fd)
        except wire.WireClosed:
            return
        try:
            if header["request"] == "start":
                pass  # that it answers says that torch is imported
            elif header["request"] == "load":
                sources = {name: bytes(x.numpy()).decode() for name, x in tensors.items()}
                operator = load(sources, header["form"], header["device"], Path(os.environ["HOME"]))
            else:
                assert operator is not None
                part = lambda h, t: wire.send(reply_fd, {**h, "reply": "part"}, t)  # noqa: E731
                HANDLERS[header["request"]](header, tensors, operator, part)
            answer: wire.Header = {"reply": "end"}
        except BaseException as error:  # whatever a variant raises, KeyboardInterrupt and SystemExit too, is an answer
            answer = {"reply": "error", **_failure(error)}
        wire.send(reply_fd, answer)


def _failure(error: BaseException) -> dict[str, str]:
    if isinstance(error, BadOutput):
        return {"kind": "bad-output", "message": str(error)[:MAX_MESSAGE]}
    try:
        text = f"{type(error).__name__}: {error}"[: MAX_MESSAGE + 100]
    except BaseException:  # its __str__ is the variant's code too
        text = "an exception that can't be printed"
    line = _last_line(error)
    kind = "memory" if isinstance(error, MemoryError) or "not enough memory" in text.lower() else "raised"
    kind = "memory" if "out of memory" in text.lower() else "crashed" if "CUDA error" in text else kind
    return {"kind": kind, "message": (f"line {line}, " if line else "") + text}


def _last_line(error: BaseException) -> str | None:
    """Where in the variant it was raised."""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    own = [f for f in frames if str(f.frame.f_globals.get("__name__")).startswith("variant_")]
    return f"{own[-1].lineno} of {Path(own[-1].filename).name}" if own else None


if __name__ == "__main__":
    serve(int(sys.argv[2]), int(sys.argv[3]))
    os._exit(0)  # nothing that a variant left to run at exit is run
