"""What is written as PTX compiles for a GPU: by a process of its own, for elsewhere kernels are interpreted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # for the other tests of this process
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton")

COMPILE = """
import sys
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

def ptx(function, kinds, **sizes):
    source = ASTSource(fn=function, signature=kinds | dict.fromkeys(sizes, "constexpr"), constexprs=sizes)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
"""
ROUNDED = """
from evaluator.kernels.ptx import rounded, sigmoid

@triton.jit
def kernel(X, Y, PTX: tl.constexpr):
    at = tl.arange(0, 256)
    tl.store(Y + at, rounded(sigmoid(tl.load(X + at), PTX), tl.bfloat16, PTX))

print(ptx(kernel, {"X": "*fp32", "Y": "*fp32"}, PTX=sys.argv[1] == "True"))
"""
NEAREST = """
@triton.jit
def kernel(X, Y):
    at = tl.arange(0, 256)
    tl.store(Y + at, nearest(tl.load(X + at)))

print(ptx(kernel, {"X": "*fp32", "Y": "*fp32"}))
"""


def compiled(folder: Path, text: str, *arguments: str) -> str:
    path = folder / "kernel.py"
    path.write_text(COMPILE + text)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run([sys.executable, path, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_sigmoid_takes_two_slow_instructions_and_its_rounding_none(tmp_path: Path) -> None:
    short, long = compiled(tmp_path, ROUNDED, "True"), compiled(tmp_path, ROUNDED, "False")
    assert 2 * short.count("cvt.rn.bf16x2.f32") == short.count("ex2.approx.ftz.f32") == short.count("rcp.approx.ftz.f32") > 0
    assert "cvt.rn.bf16.f32" not in short
    assert "div.full.f32" in long


def test_operands_are_rounded_and_nan_is_left_alone(tmp_path: Path) -> None:
    from evaluator.fusion.nearest import NEAREST as helper

    found = compiled(tmp_path, helper + NEAREST)
    assert found.count("setp.num.f32") == found.count("4096") > 0
