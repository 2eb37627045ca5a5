"""A variant loaded into this process, and one call of it held to the contract."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
STANDARD = ("q", "k", "v", "beta")


@dataclass(frozen=True)
class Loaded:
    """A loaded variant in one of its forms."""

    delta_rule: Callable[..., Any]
    projections: Callable[[int, int], Any] | None
    parameters: Callable[[int, int, torch.Generator], Any] | None
    recurrence: Callable[..., Any] | None
    device: torch.device
    form: str  # naive or triton


class BadOutput(Exception):
    """The operator answered with something else than its contract says."""


def load(sources: dict[str, str], form: str, device: str, folder: Path) -> Loaded:
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
    return Loaded(
        _as_it_takes_parameters(modules[form].delta_rule),
        getattr(declared, "projections", None),
        getattr(declared, "parameters", None),
        getattr(declared, "recurrence", None),
        torch.device(device),
        form,
    )


def _as_it_takes_parameters(delta_rule: Callable[..., Any]) -> Callable[..., Any]:
    """The operator, with declared parameters in q's dtype if it answers for those alone.

    They are learned in float32, and arrive so where a GPU computes in bfloat16: what decays by one needs it exact. What multiplies them
    with q as they are gives float32, or fails, and is honest all the same.
    """
    lowered = False

    def call_it(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *, chunk_size: int, **declared: Tensor) -> Any:
        nonlocal lowered
        low = {name: x.to(q.dtype) for name, x in declared.items()}
        if lowered or all(low[name] is declared[name] for name in low):
            return delta_rule(q, k, v, beta, chunk_size=chunk_size, **low)
        try:
            o = delta_rule(q, k, v, beta, chunk_size=chunk_size, **declared)
        except RuntimeError as error:
            if "type" not in str(error):
                raise
        else:
            if not isinstance(o, Tensor) or o.dtype == q.dtype:
                return o
        o = delta_rule(q, k, v, beta, chunk_size=chunk_size, **low)
        lowered = True
        return o

    return call_it


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
        raise BadOutput(f"delta_rule returned shape {shape(o)}, not that of v, {list(v.shape)} = [B, H, T, V]")
    if o.dtype != q.dtype or o.device != q.device:
        raise BadOutput(f"delta_rule returned {o.dtype} on {o.device.type}, not {q.dtype} on {q.device.type} as q is")
    return o


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


def shape(x: object) -> object:
    """For a sentence: a tensor's shape, the kind of anything else."""
    return list(x.shape) if isinstance(x, Tensor) else type(x).__name__
