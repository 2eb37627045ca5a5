"""An untrusted process while it runs: what it uses is watched from outside, and it ends with all that it started."""

import contextlib
import functools
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluator import confine

SCRATCH = 256 << 20  # bytes a worker may write to its own folder
MAX_TASKS = 96 + 8 * (os.cpu_count() or 1)  # threads and processes of one worker


class Jail:
    """One untrusted process with all that it started; `kill` leaves nothing of it."""

    def __init__(self, process: subprocess.Popen[bytes], scratch: Path, memory: int, contained: bool, on_gpu: bool) -> None:
        self.process = process
        self.scratch = scratch
        self.memory = memory
        self.contained = contained  # in a process namespace, which ends as a whole
        self.on_gpu = on_gpu  # whose driver maps host memory that it shares
        self.found: str | None = None  # what it was ended for by whoever watches it between questions
        self._end = threading.Lock()
        self._ended = False

    def tree(self) -> list[int]:
        """The process, and whatever it started."""
        return [self.process.pid, *_descendants(self.process.pid)]

    def trouble(self) -> str | None:
        """One sentence if the process uses more memory, threads or disk than it may, else None."""
        tree = self.tree()
        resident, tasks = sum(map(_resident, tree)), sum(map(_tasks, tree))
        resident += 0 if self.on_gpu else sum(map(_shared, tree))
        if resident > self.memory:
            return f"the process holds {resident >> 20} MiB of memory, more than the {self.memory >> 20} it may"
        if tasks > MAX_TASKS:
            return f"the process runs {tasks} threads and processes, more than the {MAX_TASKS} it may"
        written = _written(self.scratch) + _nameless(tree)
        if written > SCRATCH:
            return f"the process wrote {written >> 20} MiB to its folder, more than the {SCRATCH >> 20} it may"
        return None

    def processor_time(self) -> float:
        """Seconds that all threads of the process and of what it started have run, 0.0 where the kernel does not tell."""
        return sum(ran for ran, _ in self._scheduled().values()) / 1e9

    def queued(self) -> Mapping[str, float]:
        """Seconds that each of its threads was ready to run and had no processor; empty where the kernel does not tell."""
        return {thread: waited / 1e9 for thread, (_, waited) in self._scheduled().items()}

    def _scheduled(self) -> dict[str, tuple[int, int]]:
        """Nanoseconds that each thread ran, and waited for a processor."""
        files = [f"/proc/{pid}/task/{task}/schedstat" for pid in self.tree() for task in _listdir(f"/proc/{pid}/task")]
        told = {file: _text(file).split() for file in files}
        return {file: (int(fields[0]), int(fields[1])) for file, fields in told.items() if len(fields) >= 2}

    def kill(self) -> int | None:
        """End the process and everything it started, remove its folder, and give its exit status if it had one.

        Again, it does nothing: the number of the process may be another's by then, and the folder is gone.
        """
        with self._end:
            status = self.process.poll()
            if not self._ended:
                self._kill()
            self._ended = True
        return status

    def _kill(self) -> None:
        with OWN:
            _own.discard(self.process.pid)
            _living.discard(self)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while (left := [pid for pid in self._left() if _alive(pid)]) and time.monotonic() < deadline:
            for pid in left:
                _signal(pid)
            time.sleep(0.002)
        self.process.wait()
        remove(self.scratch)

    def _left(self) -> list[int]:
        """What is below the process, and what came to us when its parent, the process, was gone."""
        with OWN:
            here = {os.getsid(0), *_own}
            orphans = [] if self.contained else [p for p in _children(os.getpid()) if _session(p) not in here]
        return [*_descendants(self.process.pid), *orphans, *(d for p in orphans for d in _descendants(p))]


_own: set[int] = set()
_living: set[Jail] = set()
OWN = threading.Lock()
"""Held while the workers of this process that live, each the leader of a session, become more or fewer."""


def launch(scratch: Path, memory: int, contained: bool, on_gpu: bool, command: Sequence[str], **options: Any) -> Jail:
    """Start a command in a session of its own."""
    with OWN:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=scratch, start_new_session=True, **options)
        _own.add(process.pid)
        jail = Jail(process, scratch, memory, contained, on_gpu)
        _living.add(jail)
    confine.become_subreaper()
    _watch(os.getpid())
    return jail


@functools.cache
def _watch(_: int) -> None:
    """Once in a process: a thread that looks at every worker once a second, for nobody else does where none is asked."""

    def look() -> None:
        while True:
            time.sleep(1.0)
            with OWN:
                jails = [*_living]
            for jail in jails:
                if found := jail.trouble():
                    jail.found = found
                    jail.kill()

    threading.Thread(target=look, daemon=True, name="watch").start()


def remove(scratch: Path) -> None:
    """Remove a folder whose owner may have closed parts of it to us; nothing outside it is touched."""

    def open_and_retry(again: Callable[[str], object], path: str, _: object) -> None:
        with contextlib.suppress(OSError):
            for place in [path] if Path(path) == scratch else [os.path.dirname(path), path]:
                os.chmod(place, 0o700) if not os.path.islink(place) else None
            again(path)

    shutil.rmtree(scratch, onerror=open_and_retry)


# --- what the kernel tells in /proc ------------------------------------------------------------


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


def _nameless(tree: Sequence[int]) -> int:
    """Bytes of the files that processes hold open and that have no name any more, or never had one; each once."""
    found: dict[tuple[int, int], int] = {}
    for pid in tree:
        for fd in _listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                told = os.stat(f"/proc/{pid}/fd/{fd}")
                if stat.S_ISREG(told.st_mode) and told.st_nlink == 0:
                    found[told.st_dev, told.st_ino] = told.st_blocks * 512
    return sum(found.values())


def _shared(pid: int) -> int:
    """Bytes of mapped memory that is shared and in no file: what a process gives back of it stays taken."""
    lines = (line.split(maxsplit=5) for line in _text(f"/proc/{pid}/maps").splitlines() if line.endswith("(deleted)"))
    ranges = (line[0].split("-") for line in lines if len(line) == 6 and line[1].endswith("s"))
    return sum(int(end, 16) - int(start, 16) for start, end in ranges)


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
