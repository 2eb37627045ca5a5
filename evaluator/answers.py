"""What a worker can be asked of the variant that it holds: each handler answers by `send`, perhaps several times."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from evaluator import wire
from evaluator.loaded import STANDARD, BadOutput, Loaded, Tensors, call, shape
from evaluator.work import Work

Send = Callable[[wire.Header, Tensors], None]


def describe(header: wire.Header, tensors: Tensors, operator: Loaded, send: Send) -> None:
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


def forward(header: wire.Header, tensors: Tensors, operator: Loaded, send: Send) -> None:
    """Outputs; with `grad` as in training (inputs have a history), with `echo` the inputs as they are afterwards."""
    given = _to_device(tensors, operator)
    for x in given.values():
        x.requires_grad_(header["grad"] and x.is_floating_point())
    with torch.set_grad_enabled(header["grad"]), _poison(header["poison"]):
        inputs = _with_history(given)
        o = call(operator.delta_rule, inputs, header["chunk_size"])
    send({}, {"o": o.detach(), **(_echo(inputs) if header["echo"] else {})})


def vjp(header: wire.Header, tensors: Tensors, operator: Loaded, send: Send) -> None:
    """Outputs, and the gradient of sum(o * grad_o) to every floating input; with `echo` the inputs as they are afterwards.

    What is sent back lies token by token in memory with `by_token`, as a layer on a CPU has it, else head by head.
    """
    given = _to_device(tensors, operator)
    grad_o = given.pop("grad_o")
    grad_o = grad_o.transpose(1, 2).contiguous().transpose(1, 2) if header["by_token"] else grad_o
    leaves = {name: x.requires_grad_() for name, x in given.items() if x.is_floating_point()}
    with torch.enable_grad(), _poison(header["poison"]):
        inputs = _with_history(given)
        o = call(operator.delta_rule, inputs, header["chunk_size"])
        grads = _grads(o, leaves, grad_o)
    found = {f"grad:{name}": g for name, g in zip(leaves, grads, strict=False) if g is not None}
    send({}, {"o": o.detach(), **found, **(_echo(inputs) if header["echo"] else {})})


def _echo(inputs: Tensors) -> Tensors:
    return {f"input:{name}": x.detach() for name, x in inputs.items()}


def _grads(o: Tensor, leaves: Tensors, grad_o: Tensor) -> tuple[Tensor | None, ...]:
    """Of a sum, and not of o given grad_o, for which torch would first import sympy: 0.6 s in every process."""
    return torch.autograd.grad((o * grad_o).sum(), list(leaves.values()), allow_unused=True) if o.requires_grad else ()


def recurrence(header: wire.Header, tensors: Tensors, operator: Loaded, send: Send) -> None:
    """The recurrent form run token by token: outputs, the size of its state after each token, gradients where grad_o is given."""
    if operator.recurrence is None:
        raise BadOutput("the variant has no recurrence")
    given = _to_device(tensors, operator)
    grad_o = given.pop("grad_o", None)
    leaves = {name: x.requires_grad_() for name, x in given.items() if x.is_floating_point()}
    per_token = set(STANDARD) | set(header["projections"])
    with torch.set_grad_enabled(grad_o is not None):
        o, sizes = _unroll(operator.recurrence, _with_history(given), per_token)
        grads = () if grad_o is None else _grads(o, leaves, grad_o)
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
            raise BadOutput(f"recurrence returns o_t of shape {shape(o)}, not {list(v.shape)}")
        outputs.append(o)
        state = _copied(state)
        sizes.append(_numbers(state))
    return torch.stack(outputs, 2), sizes


def measure(header: wire.Header, tensors: Tensors, operator: Loaded, send: Send) -> None:
    """Run forward `repeat` times for the other side's clock; answers the bytes kept for a backward pass."""
    given = _to_device(tensors, operator)
    with torch.no_grad():
        for _ in range(header["repeat"]):
            call(operator.delta_rule, given, header["chunk_size"])
    kept = _kept_for_backward(operator, given, header["chunk_size"]) if header["memory"] else None
    if operator.device.type == "cuda":
        torch.cuda.synchronize()
    send({"kept_bytes": kept}, {})


def work(header: wire.Header, tensors: Tensors, operator: Loaded, send: Send) -> None:
    """How much forward and backward calculate."""
    given = _to_device(tensors, operator)
    leaves = {name: x.requires_grad_() for name, x in given.items() if x.is_floating_point()}
    with Work() as counted, torch.enable_grad():
        o = call(operator.delta_rule, _with_history(given), header["chunk_size"])
        _grads(o, leaves, torch.ones_like(o))
    send({"work": counted.done}, {})


def _kept_for_backward(operator: Loaded, given: Tensors, chunk_size: int) -> int:
    storages: dict[int, Tensor] = {}  # the tensors are held, so that no address is used twice

    def keep(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x
        return x

    for x in given.values():
        x.requires_grad_(x.is_floating_point())
    with torch.enable_grad():
        try:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
                o = call(operator.delta_rule, _with_history(given), chunk_size)
        except RuntimeError as error:
            if "saved tensor hooks" not in str(error):  # torch.func has none
                raise
            o = call(operator.delta_rule, _with_history(given), chunk_size)
            for x in _saved(o):
                keep(x)
    kept = sum(x.untyped_storage().nbytes() for x in storages.values())
    del o
    return kept


def _saved(o: Tensor) -> Iterator[Tensor]:
    """What the graph behind a tensor holds, where nobody was asked while it was made."""
    nodes, seen = [o.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [before for before, _ in node.next_functions]
        for name in dir(node):
            if name == "saved_tensors" or name.startswith("_saved_"):
                found = getattr(node, name)
                yield from (x for x in (found if isinstance(found, tuple) else [found]) if isinstance(x, Tensor))


def train(header: wire.Header, tensors: Tensors, operator: Loaded, send: Send) -> None:
    """Training lives in its own module, which is imported only where it is asked for."""
    from evaluator import serving

    serving.serve(header, tensors, operator, send)


@contextlib.contextmanager
def _poison(wanted: bool) -> Iterator[None]:
    """Have torch fill new memory with NaN, so that an output which reads what it never wrote shows it."""
    # Not torch.use_deterministic_algorithms, which first imports a compiler for two seconds.
    torch._C._set_deterministic_algorithms(wanted, warn_only=True)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(False, warn_only=False)


def _with_history(inputs: Tensors) -> Tensors:
    """Inputs as the layer makes them: results of an operation, q, k and v in one piece of memory; a check looks like training."""
    made = {name: x.clone() for name, x in inputs.items()}
    qkv = [made[name] for name in STANDARD[:3]]
    if len({(x.shape, x.dtype) for x in qkv}) == 1:
        made |= dict(zip(STANDARD, torch.stack(qkv).unbind(), strict=False))
    return made


def _to_device(tensors: Tensors, operator: Loaded) -> Tensors:
    return {name: x.to(operator.device) for name, x in tensors.items()}


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


HANDLERS: dict[str, Callable[[wire.Header, Tensors, Loaded, Send], None]] = {
    "describe": describe,
    "forward": forward,
    "vjp": vjp,
    "recurrence": recurrence,
    "measure": measure,
    "work": work,
    "train": train,
}
