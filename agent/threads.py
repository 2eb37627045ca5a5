"""What runs beside the main thread, and how it is ended: Ctrl-C reaches the main thread alone."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class Stopped(BaseException):
    """Ctrl-C as a thread learns of it; like KeyboardInterrupt, nothing that records a failure catches it."""


def on_a_thread(work: Callable[[], T]) -> "Future[T]":
    """Begin `work` on a thread of its own, which the program does not wait for when it ends (a pool's it would)."""
    result: Future[T] = Future()

    def do() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=do, daemon=True).start()
    return result


def aside(work: Callable[[], T], stop: Callable[[], None] = lambda: None) -> T:
    """What `work` returns, done on another thread: Ctrl-C in the middle of a fork is lost, and leaves locks held.

    Where it comes meanwhile, `stop` has the work end.
    """
    try:
        return on_a_thread(work).result()
    except KeyboardInterrupt:
        stop()
        raise


class Leash:
    """Holds the commands that several threads run: once it is pulled, none begins and none is left.

    A context manager around each command, which must end with `Stopped` soon after it finds `pulled`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held = 0
        self.pulled = False

    def __enter__(self) -> "Leash":
        with self._changed:
            if self.pulled:
                raise Stopped
            self._held += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._held -= 1
            self._changed.notify_all()

    def pull(self) -> None:
        """End all of them, and wait until they have ended."""
        with self._changed:
            self.pulled = True
            self._changed.wait_for(lambda: not self._held)
