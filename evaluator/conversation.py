"""The trusted end of the pipes to a worker: every wait has a deadline, and whatever goes wrong ends the process.

A process that hangs, floods, crashes, answers out of turn or uses more than it may becomes an `OperatorError`.
"""

import contextlib
import fcntl
import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping

from torch import Tensor

from evaluator import sandbox, wire
from evaluator.sandbox import Walls

KINDS = ("raised", "crashed", "timeout", "bad-output", "memory")
MAX_LOG = 64 << 10  # bytes kept of what a process prints
MAX_FLOOD = 64 << 20  # bytes after which it is ended
LOADED = 3  # as many times its bound is waited longer, at most, where others have the processors

Tensors = dict[str, Tensor]


class OperatorError(Exception):
    """An operator failed: `kind` is one of KINDS, the message one sentence safe to print."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Conversation:
    """One worker behind walls, its request and reply pipes and its log; for one thread."""

    def __init__(self, walls: Walls, device: str, memory: int, threads: int | None) -> None:
        self.log = b""
        self.failure: OperatorError | None = None
        self._flood = 0
        request, self._request = os.pipe()
        self._reply, reply = os.pipe()
        self._log, log = os.pipe()
        for fd in (self._request, self._reply, self._log):
            os.set_blocking(fd, False)
        for fd in (self._request, self._reply):
            if hasattr(fcntl, "F_SETPIPE_SZ"):
                with contextlib.suppress(PermissionError):  # a user's pipes together are limited
                    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1 << 20)
        try:
            self.jail = sandbox.start(
                ("-m", "evaluator.worker"), walls, pass_fds=(request, reply), log_fd=log, device=device,
                memory=memory, threads=threads, arguments=(str(request), str(reply)),
            )  # fmt: skip
        finally:
            for fd in (request, reply, log):
                os.close(fd)

    def close(self) -> None:
        """End the process and all that it started."""
        self.end(OperatorError("crashed", "the operator's process was closed"))

    def ask(self, header: wire.Header, tensors: Tensors, deadline: float, limit: int) -> Iterator[tuple[wire.Header, Tensors]]:
        """Send one request and yield each part of its answer; raises OperatorError with what went wrong.

        Left before its end, it ends the process, which would go on answering.
        """
        if self.failure:
            raise self.failure
        sizes = f" of {' x '.join(map(str, tensors['v'].shape))} values" if "v" in tensors else ""
        wait = self._patience(f"{header['request']}{sizes}", deadline)
        try:
            wire.send(self._request, header, tensors, wait=wait)
            while True:
                answer, found = wire.receive(self._reply, limit=limit, wait=wait)
                reply = answer.pop("reply", None)
                if reply == "end":
                    return
                if reply == "error":
                    raise self._refused(answer)
                yield answer, found
        except GeneratorExit:
            self.close()
            raise
        except wire.WireClosed:
            raise self.end(self._ended()) from None
        except wire.WireError as error:
            raise self.bad(str(error)) from None

    def _patience(self, request: str, deadline: float) -> wire.Wait:
        poll = {False: select.poll(), True: select.poll()}
        poll[False].register(self._reply, select.POLLIN)
        poll[True].register(self._request, select.POLLOUT)
        for each in poll.values():
            each.register(self._log, select.POLLIN)
        started, queued = time.monotonic(), self.jail.queued()
        watch, end = started + 0.05, deadline

        def wait(fd: int, write: bool) -> None:
            nonlocal watch, end
            while True:
                now = time.monotonic()
                if now >= end:
                    end = deadline + min(self._held_up(queued), LOADED * (deadline - started))
                if now >= end:
                    raise self.end(OperatorError("timeout", f"{request} was not answered within {deadline - started:.0f} s"))
                ready = dict(poll[write].poll(max(1.0, 1000 * min(end - now, watch - now))))
                if time.monotonic() >= watch:
                    self._watch()
                    watch = time.monotonic() + min(1.0, 0.1 + (now - started) / 20)
                if self._log in ready and not self._drain():
                    poll[write].unregister(self._log)
                if fd in ready:
                    return

        return wait

    def _held_up(self, before: Mapping[str, float]) -> float:
        """Seconds for which it was ready to go on and others had the processors: no fault of the operator's."""
        return max((waited - before.get(thread, 0.0) for thread, waited in self.jail.queued().items()), default=0.0)

    def _watch(self) -> None:
        trouble = self.jail.trouble()
        if trouble:
            raise self.end(OperatorError("memory", trouble))

    def _drain(self) -> bool:
        """Keep the first of what the process prints, read on and forget the rest, end it if it never stops."""
        try:
            data = os.read(self._log, 1 << 16)
        except BlockingIOError:
            return True
        self.log += data[: MAX_LOG - len(self.log)]
        self._flood += len(data)
        if self._flood > MAX_FLOOD:
            raise self.end(OperatorError("crashed", f"the process printed more than {MAX_FLOOD >> 20} MiB"))
        return bool(data)

    # --- failures ---

    def end(self, failure: OperatorError) -> OperatorError:
        """Kill the process; what it failed of first is what every later question hears."""
        if self.failure is None:
            self.failure = failure
            self.jail.kill()
            for fd in (self._request, self._reply, self._log):
                os.close(fd)
        return self.failure

    def _ended(self) -> OperatorError:
        if self.jail.found:
            return OperatorError("memory", self.jail.found)
        with contextlib.suppress(BlockingIOError):
            self.log += os.read(self._log, MAX_LOG)[: MAX_LOG - len(self.log)]
        try:
            status = self.jail.process.wait(5)
        except subprocess.TimeoutExpired:
            return OperatorError("crashed", "the operator's process closed its pipe and lives on")
        signal = -status if status < 0 else status - 128  # bubblewrap tells it as a shell does
        how = f"was ended by signal {signal}" if signal > 0 else f"ended with status {status}"
        return OperatorError("crashed", f"the operator's process {how} before it answered{self._last_words()}")

    def _last_words(self) -> str:
        lines = printable(self.log.decode(errors="replace")[-300:])
        return f"; its last words: {lines}" if lines else ""

    def _refused(self, answer: wire.Header) -> OperatorError:
        kind, message = answer.get("kind"), answer.get("message")
        if kind not in KINDS or not isinstance(message, str):
            return self.bad("a failure without a kind and a message")
        failure = OperatorError(kind, printable(message))
        return self.end(failure) if kind == "crashed" else failure

    def bad(self, what: str) -> OperatorError:
        return self.end(OperatorError("bad-output", f"the operator's process answered out of turn: {printable(what)}"))


def printable(text: str, limit: int = 300) -> str:
    """Text of a stranger on one line, without escapes or anything invisible."""
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * limit])
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
