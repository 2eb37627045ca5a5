"""Kernels by their source, each compiled once: side by side where several are known, with as many warps as they need."""

import hashlib
import importlib.util
import math
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from evaluator.fusion.kernel import Kernel
from evaluator.model import Operator

THREADS = min(8, os.cpu_count() or 1)  # compile side by side; the compiler lets go of Python's lock
SPILLS = 32  # registers; a kernel that lacks more of them gets twice the warps, as measured on an H100


class Library:
    """Kernels and how they are launched; their files lie in one folder."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="fusion-")
        self.kernels: dict[str, Any] = {}
        self.operators: dict[str, Operator] = {}  # by `products`: traced once for settings of equal shapes
        self.warps: dict[str, int] = {}
        self.tried: set[str] = set()  # sources that the compiler was given
        self.refused: dict[str, str] = {}  # of them those that it ended in an error for, and its words
        self.deadline = math.inf  # on time.monotonic()
        self.products = "tf32"  # of float32, where the process allows it: tf32, or tf32x3, which is nearly float32

    def prepare(self, wanted: Sequence[tuple[Kernel, Sequence[Tensor]]]) -> None:
        """Compiles kernels for tensors of these types and alignments. Raises TimeoutError after the deadline."""
        for kernel, _ in wanted:
            self._function(kernel)
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda one: self._try(*one), wanted))

    def launch(self, kernel: Kernel, tensors: Sequence[Tensor]) -> bool:
        """Runs a kernel, compiled first where it is not yet, if the compiler takes it. Raises TimeoutError after the deadline."""
        function = self._function(kernel)
        if tensors[0].is_cuda and kernel.source not in self.tried:
            self._try(kernel, tensors)
        if kernel.source in self.refused:
            return False
        warps = self._warps(kernel)
        launched = function[(kernel.grid,)](*tensors, num_warps=warps)
        if self._spills(kernel, warps, launched):
            function[(kernel.grid,)](*tensors, num_warps=self._warps(kernel))  # a kernel writes nothing that it reads
        return True

    def _try(self, kernel: Kernel, tensors: Sequence[Tensor]) -> None:
        self.tried.add(kernel.source)
        try:
            self._compile(kernel, tensors)
        except TimeoutError:
            raise
        except Exception as error:  # a fault or a limit of the compiler's, which are of many kinds: of this kernel alone
            self.refused[kernel.source] = f"{type(error).__name__}: {error}".splitlines()[0][:200]

    def _compile(self, kernel: Kernel, tensors: Sequence[Tensor]) -> None:
        self._in_time()
        warps = self._warps(kernel)
        compiled = self._function(kernel).warmup(*tensors, grid=(kernel.grid,), num_warps=warps)
        compiled.run  # noqa: B018  loads it, and only then it tells of its registers
        if self._spills(kernel, warps, compiled):
            self._compile(kernel, tensors)

    def _warps(self, kernel: Kernel) -> int:
        return self.warps.setdefault(kernel.source, 2 if kernel.area <= 4096 else 4)

    def _spills(self, kernel: Kernel, warps: int, compiled: Any) -> bool:
        """Whether a kernel is to be launched with more warps, from now on."""
        if warps == 2 and getattr(compiled, "n_spills", 0) > SPILLS:
            self.warps[kernel.source] = 4
            return True
        return False

    def _function(self, kernel: Kernel) -> Any:
        text = kernel.source
        if text not in self.kernels:
            self._in_time()
            name = "fused_" + hashlib.sha256(text.encode()).hexdigest()[:12]
            path = Path(self.folder.name) / f"{name}.py"
            path.write_text(text.replace("def kernel(", f"def {name}("), encoding="utf-8")
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec
            assert spec.loader
            module: ModuleType = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            self.kernels[text] = getattr(module, name)
        return self.kernels[text]

    def _in_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise TimeoutError(f"no end within its time, after {len(self.kernels)} kernels")
