"""The Triton kernels agree with naive.py in outputs and all gradients, in the interpreter.

Of those that were made after delta_net's every third shape is asked here, with AGENT_TORTURE=300 every one, and where
every key is the same the longest.

The interpreter must be chosen before triton is imported, so all cases run in one process of their own (this
file as a script), whose relative errors the tests read.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

VARIANTS = Path(__file__).parents[1] / "variants"
KERNELS = sorted(path.parent.name for path in VARIANTS.glob("*/triton.py"))
# (batch, heads, T, K, V, chunk_size)
SHAPES = [
    (1, 1, 1, 16, 16, 32),
    (1, 2, 31, 16, 16, 32),
    (2, 1, 33, 32, 32, 32),
    (1, 1, 97, 16, 32, 32),
    (1, 1, 70, 32, 24, 16),
    (1, 1, 131, 16, 16, 64),
    (1, 1, 37, 16, 16, 24),
    (1, 1, 45, 8, 130, 32),
]
LONG = (1, 1, 1100, 24, 40, 64)  # for kernels that go another way there

WALKED = [(name, LONG) for name in KERNELS if "WALK = " in (VARIANTS / name / "triton.py").read_text(encoding="utf-8")]
FULL = int(os.environ.get("AGENT_TORTURE", "8")) >= 300
WHOLE = KERNELS if FULL else ("delta_net", "gated_delta_net")
CASES = [(name, shape) for name in KERNELS for shape in (SHAPES if name in WHOLE else SHAPES[1::3])] + WALKED
REPEATED = [(name, SHAPES[3]) for name in KERNELS] + (WALKED if FULL else [])


def load(name, form):
    spec = importlib.util.spec_from_file_location(f"{name}_{form}", VARIANTS / name / f"{form}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inputs_of(module, B, H, T, K, V, repeated):
    generator = torch.Generator().manual_seed(T)
    q, k = torch.randn(2, B, H, T, K, generator=generator)
    beta = torch.rand(B, H, T, generator=generator)
    if repeated:
        k, beta = k[:, :, :1].expand_as(k), beta * 0.01 + 0.99
    inputs = {"q": q, "k": k, "v": torch.randn(B, H, T, V, generator=generator), "beta": beta}
    widths = module.projections(H, K) if hasattr(module, "projections") else {}
    for name in widths.keys() - {"output_gate"}:
        inputs[name] = torch.randn(B, H, T, widths[name], generator=generator)
    parameters = module.parameters(H, K, generator) if hasattr(module, "parameters") else {}
    inputs |= {name: p.expand(B, *p.shape) for name, p in parameters.items()}
    return {name: x.clone().requires_grad_() for name, x in inputs.items()}


def relative_errors(name, B, H, T, K, V, chunk_size, repeated=False):
    """Of the output and of each gradient, against the largest value of each."""
    naive = load(name, "naive")
    inputs = inputs_of(naive, B, H, T, K, V, repeated)
    grad = torch.randn(B, H, T, V, generator=torch.Generator().manual_seed(0))
    results = []
    for module in (naive, load(name, "triton")):
        o = module.delta_rule(**inputs, chunk_size=chunk_size)
        results.append((o, *torch.autograd.grad(o, list(inputs.values()), grad)))
    pairs = zip(("o", *inputs), *results, strict=True)
    return {n: ((x - y).abs().max() / (x.abs().max() + 1e-4)).item() for n, x, y in pairs}


def all_errors():
    errors = {}
    for name, shape in CASES:
        errors[f"{name} {shape}"] = relative_errors(name, *shape)
    for name, shape in REPEATED:
        errors[f"{name} {shape} repeated keys"] = relative_errors(name, *shape, repeated=True)
    return errors


@pytest.fixture(scope="module")
def errors():
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_kernels_agree_with_naive(errors, name, shape):
    assert max(errors[f"{name} {shape}"].values()) < 1e-4


@pytest.mark.parametrize(("name", "shape"), REPEATED, ids=str)
def test_kernels_agree_with_naive_where_every_key_is_the_same(errors, name, shape):
    found = errors[f"{name} {shape} repeated keys"]
    assert max(found[n] for n in ("o", "q", "k", "v", "beta")) < 1e-4


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(all_errors()))
