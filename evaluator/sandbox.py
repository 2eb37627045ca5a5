"""How an untrusted process is started and ended: which walls can stand here, bubblewrap's arguments, watching, killing.

Levels: `bubblewrap` (namespaces, and everything below inside them), `landlock` (Landlock, seccomp, rlimits, a user
without rights where root can step down), `plain` (rlimits and watching only).
"""

import dataclasses
import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluator import confine, kernel_cache
from evaluator.jail import SCRATCH, Jail, launch, remove

MODES = ("require", "auto", "off")
NOBODY = 65534
OWN_FOLDER = "delta-rule-"
TRITON = "triton"  # in a worker's own folder: its cache of compiled kernels, which begins with ours
PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Walls:
    """What stands between a variant and the machine: goes into every record."""

    level: str  # bubblewrap, landlock or plain
    standing: tuple[str, ...]


class SandboxError(Exception):
    """The walls that were demanded can't stand on this machine."""


def choose(mode: str) -> Walls:
    """The best walls for `require` and `auto`, none for `off`; raises where `require` finds none."""
    if mode not in MODES:
        raise ValueError(f"a sandbox is one of {', '.join(MODES)}, not {mode}")
    walls = Walls("plain", ("rlimits", "watch")) if mode == "off" else _best()
    if mode == "require" and walls.level == "plain":
        raise SandboxError(
            "--sandbox require: neither bubblewrap nor Landlock with seccomp works here, so nothing would keep a "
            "variant from files and the network; install bubblewrap, or use --sandbox auto"
        )
    return walls


@functools.cache
def _best() -> Walls:
    inner = [
        name for name, here in (("landlock", confine.landlock_version()), ("seccomp", confine.has_seccomp())) if here
    ]
    inner += ["rlimits", "watch"]
    nobody = ["nobody"] if os.name == "posix" and os.getuid() == 0 and _readable_by_all(_runtime()) else []
    for user in [nobody, []] if nobody else [[]]:
        if _bubblewrap_works(bool(user)):
            return Walls("bubblewrap", ("namespaces", "no-network", "read-only", *inner, *user))
    if "landlock" in inner and "seccomp" in inner:
        return Walls("landlock", ("no-network", "read-only", *inner, *nobody))
    return Walls("plain", (*inner, *nobody))


def _bubblewrap_works(nobody: bool) -> bool:
    """Try it for real: being installed does not mean that namespaces are allowed."""
    if not confine.LINUX or not shutil.which("bwrap"):
        return False
    command = ["bwrap", *_namespaces(), "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, **_user(nobody))  # type: ignore[call-overload]
    except (OSError, subprocess.TimeoutExpired):
        return False
    return bool(done.returncode == 0)


def _namespaces() -> list[str]:
    return ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]


def _user(nobody: bool) -> dict[str, object]:
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if nobody else {}


# --- starting -----------------------------------------------------------------------------------


def start(
    python: Sequence[str],
    walls: Walls,
    *,
    pass_fds: Sequence[int],
    log_fd: int,
    device: str,
    memory: int,
    threads: int | None,
    arguments: Iterable[str],
) -> Jail:
    """Start `python ... SPEC arguments...` behind walls, as ("-m", "evaluator.worker"), which must raise SPEC itself."""
    contained, nobody = walls.level == "bubblewrap", "nobody" in walls.standing
    scratch = _own_folder()
    inside = Path("/tmp") if contained else scratch
    kernels = kernel_cache.folder() if device != "cpu" else None
    if kernels and kernels.exists():
        kernel_cache.copy(kernels, scratch / TRITON, inside / TRITON)
    if nobody:
        for path in (scratch, *scratch.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    environment = _environment(inside) | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    spec = json.dumps(dataclasses.asdict(_spec(walls, device, memory, inside)))
    command = [sys.executable, "-P", *python, spec, *arguments]
    if contained:
        own = ["--bind", str(scratch / TRITON), str(inside / TRITON)] if (scratch / TRITON).exists() else []
        # Found as `choose` found it: a worker's own PATH need not hold it.
        command = [shutil.which("bwrap") or "bwrap", *_bubblewrap(device, environment, own), "--", *command]
    return launch(
        scratch, memory, contained, device != "cpu", command,
        stdout=log_fd, stderr=log_fd, pass_fds=pass_fds, env=environment, **_user(nobody),
    )  # fmt: skip


def _own_folder() -> Path:
    """Raises OSError, none of the kinds that say of a file that was asked for that it isn't there."""
    try:
        _remove_what_the_killed_left()
        return Path(tempfile.mkdtemp(prefix=f"{OWN_FOLDER}{_namespace()}-{os.getpid()}-"))
    except OSError as error:
        raise OSError(f"no temporary folder can be made: {error.strerror}") from error


def _namespace() -> int:
    """Within which a process ID means this process; 0 where the kernel tells of none."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


@functools.cache
def _remove_what_the_killed_left() -> None:
    """Folders of workers whose evaluator was killed before it could remove them; of those in another container nothing is known here."""
    mine = f"{OWN_FOLDER}{_namespace()}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{mine}*-*"):
        pid = folder.name.removeprefix(mine).split("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            remove(folder)


def _spec(walls: Walls, device: str, memory: int, inside: Path) -> confine.Spec:
    contained = walls.level == "bubblewrap"
    return confine.Spec(
        landlock="landlock" in walls.standing,
        seccomp="seccomp" in walls.standing,
        compiler=device != "cpu",
        memory=memory if device == "cpu" else None,
        read=(*map(str, _runtime() + _readable_system(device)), *(["/proc"] if contained else _PROC), *_DEVICES),
        write=(
            str(inside),
            "/dev/null",
            *_device_nodes(device),
            *(["/proc/self"] if device != "cpu" else []),
        ),  # CUDA names threads
        parent=None if contained else os.getpid(),
    )


_PROC = ("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys", "/proc/devices", "/proc/driver")
_DEVICES = ("/dev/zero", "/dev/urandom", "/dev/random")


def _environment(home: Path) -> dict[str, str]:
    """All that a worker is told of the world; no key can be in it."""
    kept = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "CUDA_HOME", "CC", "TRITON_INTERPRET")
    fixed = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/cuda/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(PACKAGE.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",  # else the order of a set tells one process from another
        "OMP_WAIT_POLICY": "passive",  # spinning threads take minutes where another process needs a core
        "TRITON_CACHE_DIR": str(home / TRITON),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),
        "USER": "nobody",  # who has no entry in a password file where there is none
        "CUDA_CACHE_PATH": str(home / "cuda"),
    }
    return {name: os.environ[name] for name in kept if name in os.environ} | fixed


def _bubblewrap(device: str, environment: dict[str, str], own: Sequence[str]) -> list[str]:
    """An empty world with the interpreter, its libraries and a small folder of its own."""
    arguments = [*_namespaces(), "--clearenv", "--proc", "/proc", "--dev", "/dev"]
    arguments += ["--size", str(SCRATCH), "--tmpfs", "/tmp", *own, "--chdir", "/tmp"]
    for path in _readable_system(device):
        linked = path.is_symlink() and path.parent == Path("/")
        arguments += ["--symlink", os.readlink(path), str(path)] if linked else ["--ro-bind", str(path), str(path)]
    for path in _runtime():
        arguments += ["--ro-bind", str(path), str(path)]
    for node in _device_nodes(device):
        arguments += ["--dev-bind", node, node]
    for name, value in environment.items():
        arguments += ["--setenv", name, value]
    return [*arguments, "--remount-ro", "/"]


def _runtime() -> list[Path]:
    """The interpreter, the libraries and this package: never the folder the package or the user lies in.

    A package that is installed lies among the libraries, and no project's files lie there.
    """
    listed = [sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1])]
    for library in ("torch", "numpy", "triton"):
        spec = importlib.util.find_spec(library)
        listed += [str(Path(spec.origin).parents[1])] if spec and spec.origin else []
    installed = PACKAGE.parent in {Path(p).resolve() for p in listed}
    folders = {Path(p).absolute() for p in listed} | {Path(p).resolve() for p in listed} | {PACKAGE}
    useful = [p for p in sorted(folders) if p.exists() and (installed or p == PACKAGE or not PACKAGE.is_relative_to(p))]
    return [p for p in useful if p != Path("/") and not any(q != p and p.is_relative_to(q) for q in useful)]


def _readable_system(device: str) -> list[Path]:
    names = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf"]
    names += ["/etc/ld.so.conf.d", "/etc/alternatives", "/sys/devices/system"]
    if device != "cpu":
        names += ["/opt", "/sys", *os.environ.get("LD_LIBRARY_PATH", "").split(":")]
    found = [Path(name) for name in names if name and Path(name).exists()]
    return [p for p in found if not any(q != p and p.is_relative_to(q) for q in found)]


def _device_nodes(device: str) -> list[str]:
    if device == "cpu":
        return []
    return sorted(map(str, Path("/dev").glob("nvidia*")))


def _readable_by_all(paths: Iterable[Path]) -> bool:
    """Whether a user without rights finds and reads them."""
    on_the_way = {parent for path in paths for parent in path.parents}
    return all(p.stat().st_mode & 0o001 for p in on_the_way) and all(p.stat().st_mode & 0o005 == 0o005 for p in paths)
