"""Our compiled kernels reach an untrusted process as a copy, and nothing that it does reaches them."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scoring import SHORT, SMOKE
from test_sandbox import WALLED

from evaluator import kernel_cache, sandbox
from evaluator.protocol import PROTOCOLS
from evaluator.sandbox import Walls

pytest.importorskip("triton", reason="needs Triton")
PART, GROUP = "_kernel.cubin", "__grp___kernel.json"
LOOK = """
import json, os, sys
from evaluator import confine
confine.enter(confine.Spec(**json.loads(sys.argv[1])))
cache, secret = os.environ["TRITON_CACHE_DIR"], sys.argv[2]
listed = json.load(open(cache + "/KEY/__grp___kernel.json"))["child_paths"]["_kernel.cubin"]
print("part", open(listed).read())
open(listed, "w").write("poison")
os.mkdir(cache + "/OTHER")
for path in (secret + "/KEY/_kernel.cubin", secret + "/KEY/new"):
    try:
        open(path, "a").write("poison")
        print("reached", path)
    except OSError:
        pass
"""
COMPILE = """
import sys, time
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton
from evaluator.kernels import linear
kinds = {"X": "*bf16", "OUT": "*fp32", "rows": "i32", "part": "i32", "size": "i32", "ROWS": "constexpr", "COLUMNS": "constexpr"}
sizes = {"ROWS": 16, "COLUMNS": 64}
triton.compile(ASTSource(fn=linear._sum_rows, signature=kinds, constexprs=sizes), target=GPUTarget("cuda", 90, 32))
"""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of compiled kernels, with one that is none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = kernel_cache.folder()
    assert folder is not None
    (folder / "KEY").mkdir(parents=True)
    (folder / kernel_cache.DONE).mkdir()
    (folder / "KEY" / PART).write_text("binary")
    (folder / "KEY" / GROUP).write_text(json.dumps({"child_paths": {PART: str(folder / "KEY" / PART)}}))
    return folder


@pytest.mark.parametrize("walls", WALLED)
def test_an_untrusted_process_finds_a_copy_of_its_own(kept: Path, walls: Walls) -> None:
    read, write = os.pipe()
    jail = sandbox.start(
        ("-c", LOOK), walls, pass_fds=(), log_fd=write, device="cuda", memory=1 << 30, threads=1,
        arguments=(str(kept),))  # fmt: skip
    os.close(write)
    text, end = b"", time.monotonic() + 120
    while time.monotonic() < end and select.select([read], [], [], 1.0) and (data := os.read(read, 4096)):
        text += data
    os.close(read)
    jail.kill()
    assert text == b"part binary\n"
    assert (kept / "KEY" / PART).read_text() == "binary"
    assert sorted(path.name for path in kept.iterdir()) == ["KEY", kernel_cache.DONE]
    assert not jail.scratch.exists()


def test_triton_takes_a_kernel_out_of_a_copy(tmp_path: Path) -> None:
    def compile_in(folder: Path) -> None:
        environment = os.environ | {"TRITON_CACHE_DIR": str(folder), "TRITON_INTERPRET": "0"}
        subprocess.run([sys.executable, "-c", COMPILE], env=environment, check=True, capture_output=True)

    def times(folder: Path) -> dict[str, int]:
        return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}

    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(mode=0o700)
    compile_in(first)
    kernel_cache.copy(first, second, second)
    first.rename(tmp_path / "gone")
    before = times(second)
    compile_in(second)
    assert any(name.endswith(".cubin") for name in before)
    assert times(second) == before


def test_a_folder_that_others_can_write_to_is_refused(kept: Path, tmp_path: Path) -> None:
    kept.chmod(0o777)
    with pytest.raises(PermissionError, match="can be written by others"):
        kernel_cache.copy(kept, tmp_path / "copy", tmp_path / "copy")
    with pytest.raises(PermissionError, match="can be written by others"):
        kernel_cache.fill(SHORT, SHORT.settings, 2)


def test_each_shape_is_compiled_for_once(kept: Path) -> None:
    two = SMOKE.settings[:2]
    assert kernel_cache.fill(SHORT, two, 2) is None
    marks = {path.name: path.stat().st_mtime_ns for path in (kept / kernel_cache.DONE).iterdir()}
    assert len(marks) == 2
    assert kernel_cache.fill(SHORT, two, 2) is None
    assert {path.name: path.stat().st_mtime_ns for path in (kept / kernel_cache.DONE).iterdir()} == marks


def test_the_settings_of_mad_need_fewer_shapes_than_they_are() -> None:
    mad = PROTOCOLS["mad"]
    assert 20 < len(kernel_cache.shapes(mad, mad.settings, 6)) < len(mad.settings)
    assert {size for shape in kernel_cache.shapes(mad, mad.settings, 6) for size in shape["sizes"]} == {32, 64, 128}


def test_where_they_are_kept_is_absolute_or_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    own = [tmp_path / ".cache" / "delta-rule-search", tmp_path / "x" / "delta-rule-search"]
    for named, place in {"": own[0], " ": own[0], "here": own[0], f" {tmp_path / 'x'} ": own[1]}.items():
        monkeypatch.setenv("XDG_CACHE_HOME", named)
        found = kernel_cache.folder()
        assert found
        assert found.is_relative_to(place)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "here")
    assert kernel_cache.folder() is None
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 987654)  # a container's user, of whom its password file knows nothing
    assert kernel_cache.folder() is None
    assert kernel_cache.fill(PROTOCOLS["smoke"], SMOKE, 2) is None
