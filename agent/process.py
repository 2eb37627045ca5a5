"""One command in a process group of its own: its lines as they come, and nothing of it left behind."""

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .threads import Leash, Stopped, aside

_LINE_LIMIT = 1 << 20
_OUTPUT_LIMIT = 16 << 20
_LOG_LIMIT = 8 << 20
_GRACE = 3.0  # seconds between asking the group to end and ending it
_LOOK = 0.25  # seconds until a thread that waits sees that it is to stop
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ended:
    """How the command ended: its exit status (negative: the signal), its output, the end of its stderr."""

    status: int
    output: str
    complaint: str
    timed_out: str | None  # the bound that it ran past, in words


@dataclass(frozen=True)
class Bounds:
    """How long a command may take, and how long it may say nothing, in seconds."""

    total: float
    silence: float


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    bounds: Bounds,
    *,
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    leash: Leash | None = None,
) -> Ended:
    """Run `command` to its end or its bound. Ctrl-C and every other way out take the whole group along.

    With `on_line` each line of stdout is handed over and not kept; stderr goes to `log`, both bounded. Raises
    `Stopped` where another thread has pulled the `leash`.
    """
    held = leash or Leash()
    return aside(lambda: _run(command, environment, bounds, log, on_line, held), held.pull)


def _run(
    command: Sequence[str],
    environment: Mapping[str, str],
    bounds: Bounds,
    log: Path | None,
    on_line: Callable[[str], None] | None,
    leash: Leash,
) -> Ended:
    with leash:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()) if sys.platform == "linux" else None,
        )
        reader = _Reader(child, log, on_line)
        try:
            late = reader.drain(bounds, leash)
        except BaseException:
            _end(child, at_once=True)
            raise
        finally:
            reader.close()
        return Ended(_end(child, at_once=late is not None), reader.output, reader.complaint, late)


def _die_with(parent: int) -> Callable[[], None]:
    """Linux: have the kernel kill the child when its parent dies, however that happens."""
    prctl = ctypes.CDLL(None).prctl  # found here: another thread may hold the linker's lock when we fork

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _end(child: subprocess.Popen[bytes], *, at_once: bool) -> int:
    """Wait a moment for the child, or ask its group to end; then end whatever the group still holds."""
    if at_once:
        _signal_group(child, signal.SIGTERM)
    try:
        child.wait(timeout=_GRACE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal_group(child, signal.SIGKILL)
    return child.wait()


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


class _Reader:
    """Reads both pipes without ever waiting on one of them, and without keeping more than its limits."""

    def __init__(
        self, child: subprocess.Popen[bytes], log: Path | None, on_line: Callable[[str], None] | None
    ) -> None:
        assert child.stdout is not None
        assert child.stderr is not None
        self._child = child
        self._out, self._err = child.stdout, child.stderr
        self._on_line = on_line
        self._log = open(log, "ab") if log else None  # noqa: SIM115 - closed by close()
        self._kept, self._tail, self._logged = b"", b"", 0

    @property
    def output(self) -> str:
        return self._kept.decode("utf-8", "replace")

    @property
    def complaint(self) -> str:
        return self._tail.decode("utf-8", "replace")

    def drain(self, bounds: Bounds, leash: Leash) -> str | None:
        """Read until both pipes are closed; the bound that was passed in words, or None."""
        end, heard = time.monotonic() + bounds.total, time.monotonic()
        with selectors.DefaultSelector() as pipes:
            pipes.register(self._out, selectors.EVENT_READ, self._take_output)
            pipes.register(self._err, selectors.EVENT_READ, self._take_complaint)
            while pipes.get_map():
                wait = min(end, heard + bounds.silence) - time.monotonic()
                if wait <= 0:
                    return _words(bounds, total=time.monotonic() >= end)
                ready = pipes.select(min(wait, _LOOK))
                if leash.pulled:
                    raise Stopped
                if not ready and self._child.poll() is not None:
                    return None  # it has ended, and an orphan of its own holds the pipes
                for key, _ in ready:
                    data = os.read(key.fd, 65536)
                    heard = time.monotonic()
                    key.data(data)
                    if not data:
                        pipes.unregister(key.fileobj)
        return None

    def _take_output(self, data: bytes) -> None:
        self._kept += data
        if self._on_line is None:
            self._kept = self._kept[:_OUTPUT_LIMIT]
            return
        *lines, self._kept = self._kept.split(b"\n")
        self._kept = self._kept[:_LINE_LIMIT]
        for line in lines:
            self._on_line(line.decode("utf-8", "replace"))

    def _take_complaint(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-8192:]
        if self._log and self._logged < _LOG_LIMIT:
            self._log.write(data[: _LOG_LIMIT - self._logged])
            self._log.flush()
            self._logged += len(data)

    def close(self) -> None:
        self._out.close()
        self._err.close()
        if self._log:
            self._log.close()


def _words(bounds: Bounds, *, total: bool) -> str:
    seconds = bounds.total if total else bounds.silence
    span = f"{seconds:.0f} s" if seconds < 180 else f"{seconds / 60:.0f} min"
    return f"stopped after {span}" if total else f"stopped after {span} without a sign of life"
