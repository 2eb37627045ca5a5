"""How an untrusted process is started and ended: which walls can stand here, bubblewrap's arguments, watching, killing.

Levels: `bubblewrap` (namespaces, and everything below inside them), `landlock` (Landlock, seccomp, rlimits, a user
without rights where root can step down), `plain` (rlimits and watching only).
"""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluator import confine

MODES = ("require", "auto", "off")
NOBODY = 65534
SCRATCH = 256 << 20  # bytes a worker may write to its own folder
MAX_TASKS = 96 + 8 * (os.cpu_count() or 1)  # threads and processes of one worker
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
    inner = [name for name, here in (("landlock", confine.landlock_version()), ("seccomp", confine.has_seccomp())) if here]
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


class Jail:
    """One untrusted process with all that it started; `kill` leaves nothing of it."""

    def __init__(self, process: subprocess.Popen[bytes], scratch: Path, memory: int, contained: bool) -> None:
        self.process = process
        self.scratch = scratch
        self.memory = memory
        self.contained = contained  # in a process namespace, which ends as a whole
        _own.add(process.pid)

    def trouble(self) -> str | None:
        """One sentence if the process uses more memory, threads or disk than it may, else None."""
        tree = [self.process.pid, *_descendants(self.process.pid)]
        resident, tasks = sum(map(_resident, tree)), sum(map(_tasks, tree))
        if resident > self.memory:
            return f"the process holds {resident >> 20} MiB of memory, more than the {self.memory >> 20} it may"
        if tasks > MAX_TASKS:
            return f"the process runs {tasks} threads and processes, more than the {MAX_TASKS} it may"
        written = _written(self.scratch)
        if written > SCRATCH:
            return f"the process wrote {written >> 20} MiB to its folder, more than the {SCRATCH >> 20} it may"
        return None

    def processor_time(self) -> float:
        """Seconds that all threads of the process and of what it started have run, 0.0 where the kernel does not tell."""
        tree = [self.process.pid, *_descendants(self.process.pid)]
        files = [f"/proc/{pid}/task/{task}/schedstat" for pid in tree for task in _listdir(f"/proc/{pid}/task")]
        return sum(int((_text(file).split() or ["0"])[0]) for file in files) / 1e9

    def kill(self) -> int | None:
        """End the process and everything it started, remove its folder, and give its exit status if it had one."""
        status = self.process.poll()
        _own.discard(self.process.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while (left := [pid for pid in self._left() if _alive(pid)]) and time.monotonic() < deadline:
            for pid in left:
                _signal(pid)
            time.sleep(0.002)
        self.process.wait()
        shutil.rmtree(self.scratch, onerror=_open_and_retry)
        return status

    def _left(self) -> list[int]:
        """What is below the process, and what came to us when its parent, the process, was gone."""
        here = {os.getsid(0), *_own}
        orphans = [] if self.contained else [p for p in _children(os.getpid()) if _session(p) not in here]
        return [*_descendants(self.process.pid), *orphans, *(d for p in orphans for d in _descendants(p))]


_own: set[int] = set()  # the workers of this process that are alive; each leads a session


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
    scratch = Path(tempfile.mkdtemp(prefix="delta-rule-"))
    if nobody:
        os.chown(scratch, NOBODY, NOBODY)
    inside = Path("/tmp") if contained else scratch
    environment = _environment(inside) | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    spec = json.dumps(dataclasses.asdict(_spec(walls, device, memory, inside)))
    command = [sys.executable, "-P", *python, spec, *arguments]
    if contained:
        command = ["bwrap", *_bubblewrap(device, environment), "--", *command]
    process = subprocess.Popen(  # type: ignore[call-overload]
        command, stdin=subprocess.DEVNULL, stdout=log_fd, stderr=log_fd, pass_fds=pass_fds, env=environment,
        cwd=scratch, start_new_session=True, **_user(nobody),
    )  # fmt: skip
    confine.become_subreaper()
    return Jail(process, scratch, memory, contained)


def _spec(walls: Walls, device: str, memory: int, inside: Path) -> confine.Spec:
    contained = walls.level == "bubblewrap"
    return confine.Spec(
        landlock="landlock" in walls.standing,
        seccomp="seccomp" in walls.standing,
        compiler=device != "cpu",
        memory=memory if device == "cpu" else None,
        read=(*map(str, _runtime() + _readable_system(device)), *(["/proc"] if contained else _PROC), *_DEVICES),
        write=(str(inside), "/dev/null", *_device_nodes(device), *(["/proc/self"] if device != "cpu" else [])),  # CUDA names threads
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
        "OMP_WAIT_POLICY": "passive",  # spinning threads take minutes where another process needs a core
        "TRITON_CACHE_DIR": str(home / "triton"),
        "CUDA_CACHE_PATH": str(home / "cuda"),
    }
    return {name: os.environ[name] for name in kept if name in os.environ} | fixed


def _bubblewrap(device: str, environment: dict[str, str]) -> list[str]:
    """An empty world with the interpreter, its libraries and a small folder of its own."""
    arguments = [*_namespaces(), "--clearenv", "--proc", "/proc", "--dev", "/dev"]
    arguments += ["--size", str(SCRATCH), "--tmpfs", "/tmp", "--chdir", "/tmp"]
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
    """The interpreter, the libraries and this package: never the folder the package or the user lies in."""
    listed = [sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1])]
    for library in ("torch", "numpy", "triton", "pandas"):
        spec = importlib.util.find_spec(library)
        listed += [str(Path(spec.origin).parents[1])] if spec and spec.origin else []
    folders = {Path(p).absolute() for p in listed} | {Path(p).resolve() for p in listed} | {PACKAGE}
    useful = [p for p in sorted(folders) if p.exists() and (p == PACKAGE or not PACKAGE.is_relative_to(p))]
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
    places = {parent for path in paths for parent in (path, *path.parents)}
    return all(place.stat().st_mode & 0o005 == 0o005 for place in places)


# --- watching and ending ------------------------------------------------------------------------


def _descendants(pid: int) -> list[int]:
    """Every process below one, from /proc; empty where there is none."""
    below = _children(pid)
    return [*below, *(grandchild for child in below for grandchild in _descendants(child))]


def _children(pid: int) -> list[int]:
    tasks = _listdir(f"/proc/{pid}/task")
    if tasks and not os.path.exists(f"/proc/{pid}/task/{tasks[0]}/children"):  # a kernel without that file
        return [int(p) for p in _listdir("/proc") if p.isdigit() and _stat(int(p), 1) == str(pid)]
    return [int(child) for task in tasks for child in _text(f"/proc/{pid}/task/{task}/children").split()]


def _resident(pid: int) -> int:
    fields = _text(f"/proc/{pid}/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def _tasks(pid: int) -> int:
    return len(_listdir(f"/proc/{pid}/task"))


def _written(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total


def _session(pid: int) -> int:
    return int(_stat(pid, 3) or -1)


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # an orphan that came to us and ended waits to be reaped
        if pid not in _own:
            os.waitpid(pid, os.WNOHANG)
    return _stat(pid, 0) not in ("", "Z", "X")


def _stat(pid: int, field: int) -> str:
    """One field of /proc/PID/stat, counted from the state (0), the parent (1), the group (2), the session (3)."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[field] if len(fields) > field else ""


def _open_and_retry(remove: Callable[[str], object], path: str, _: object) -> None:
    """A variant may have closed its folder to us."""
    with contextlib.suppress(OSError):
        os.chmod(os.path.dirname(path), 0o700)
        os.chmod(path, 0o700, follow_symlinks=False) if not os.path.islink(path) else None
        remove(path)


def _signal(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
