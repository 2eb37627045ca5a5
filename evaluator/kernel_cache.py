"""Our own Triton kernels, compiled once by a trusted process and copied to every untrusted one before it starts.

No process with a variant in it can see the folder they are kept in, so none can change what a later one loads.

    python -m evaluator.kernel_cache    (a process of `fill`: shapes on stdin, TRITON_CACHE_DIR in the environment)
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluator.protocol import Protocol, Setting, from_json, to_json

GROUP = "__grp__"  # Triton's files that list a kernel's parts by their absolute paths
DONE = "done"  # holds a file for each shape that was compiled for
LIMIT = 900.0  # seconds for compiling all shapes
PACKAGE = Path(__file__).resolve().parent


def folder() -> Path | None:
    """Where they are kept for these sources and this Triton, whether it is there or not; None without Triton, or a home."""
    try:
        import triton
    except ImportError:
        return None
    home = _home()
    if home is None:
        return None
    sources = [*sorted((PACKAGE / "kernels").glob("*.py")), PACKAGE / "model.py", PACKAGE / "group.py"]
    digest = hashlib.sha256(triton.__version__.encode() + b"".join(p.read_bytes() for p in sources)).hexdigest()[:16]
    return home / "delta-rule-search" / "kernels" / digest


def _home() -> Path | None:
    """The user's folder of caches; a user whom this machine does not know, as in a container, need not have one."""
    named = Path(os.environ.get("XDG_CACHE_HOME", "").strip())
    if named.is_absolute():  # any other is to be ignored, says the XDG specification
        return named
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ".cache" if home.is_absolute() else None


# --- filling ------------------------------------------------------------------------------------


def fill(protocol: Protocol, settings: Sequence[Setting], num_runs: int) -> str | None:
    """Compile on this process's GPU what these settings need and is not there yet; what went wrong in a sentence.

    Raises PermissionError where somebody else could write to the folder.
    """
    place = folder()
    if place is None:
        return None
    (place / DONE).mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(place)
    with open(place / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of ours may be compiling the same
        missing = [s for s in shapes(protocol, settings, num_runs) if not _marker(place, s).exists()]
        return _compile(place, missing) if missing else None


def shapes(protocol: Protocol, settings: Sequence[Setting], num_runs: int) -> list[dict[str, Any]]:
    """What decides which kernels a training needs, each once: the model's sizes and those of its batches."""
    batch, found = protocol.batch_size, []
    plain = to_json(dataclasses.replace(protocol, settings=()))
    for s in settings:
        sizes = sorted({batch, s.num_train_examples % batch, s.num_test_examples % batch} - {0})
        short = dataclasses.replace(s, num_train_examples=batch, num_test_examples=batch)
        shape = {"setting": dataclasses.asdict(short), "protocol": plain, "num_runs": num_runs, "sizes": sizes}
        found += [] if shape in found else [shape]
    return found


def _check_owner(place: Path) -> None:
    if place.stat().st_uid != os.getuid() or place.stat().st_mode & 0o022:
        raise PermissionError(f"{place} belongs to somebody else or can be written by others: remove it")


def _marker(place: Path, shape: Mapping[str, Any]) -> Path:
    import torch

    arch = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    return place / DONE / hashlib.sha256(json.dumps([arch, shape], sort_keys=True).encode()).hexdigest()[:16]


def _compile(place: Path, missing: Sequence[Mapping[str, Any]]) -> str | None:
    environment = os.environ | {"TRITON_CACHE_DIR": str(place), "PYTHONSAFEPATH": "1", "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-m", "evaluator.kernel_cache"]
    try:
        ended = subprocess.run(command, input=json.dumps(missing), env=environment, text=True, capture_output=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return f"compiling our kernels ahead was stopped after {LIMIT:.0f} s"
    if ended.returncode:
        return f"our kernels could not be compiled ahead: {(ended.stderr.strip().splitlines() or ['no word'])[-1]}"
    for shape in missing:
        _marker(place, shape).touch()
    return None


def main() -> None:
    """Takes one training and one test step of each shape on stdin, around an operator of our own."""
    for shape in json.loads(sys.stdin.read()):
        for gated in (False, True):
            _step(from_json(shape["protocol"]), Setting(**shape["setting"]), shape["num_runs"], shape["sizes"], gated)


def _step(protocol: Protocol, setting: Setting, num_runs: int, sizes: Sequence[int], gated: bool) -> None:
    import torch

    from evaluator.group import Group
    from evaluator.model import architecture, operations
    from evaluator.protocol import Run

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arch = architecture(setting, protocol, {"output_gate": protocol.head_dim} if gated else {}, {})
    runs = [Run(protocol.lrs[0], protocol.weight_decays[0], 0)] * num_runs

    def operator(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return inputs["q"] + inputs["k"] + inputs["v"] * inputs["beta"][..., None]

    group = Group(setting, protocol, runs, arch, operator, lambda stream: {}, device, operations(device))
    for size in sizes:
        for step in (group.train_step, group.test_step):
            group.cursor.zero_()
            step(size)


# --- copying ------------------------------------------------------------------------------------


def copy(source: Path, to: Path, inside: Path) -> None:
    """A cache of Triton's of one's own in `to`, which its reader will see as `inside`; never a link to the source."""
    _check_owner(source)
    for key in (path for path in source.iterdir() if path.is_dir() and path.name != DONE):
        (to / key.name).mkdir(parents=True)
        for file in (path for path in key.iterdir() if path.is_file()):
            target = to / key.name / file.name
            if file.name.startswith(GROUP):
                parts = json.loads(file.read_text())["child_paths"]
                target.write_text(json.dumps({"child_paths": {name: str(inside / key.name / name) for name in parts}}))
            else:
                shutil.copyfile(file, target)


if __name__ == "__main__":
    main()
