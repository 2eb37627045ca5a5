"""What Ctrl-C does: it ends the program at once where nothing is under way, and else asks the command to end itself."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 130


def at_once() -> None:
    """From here on Ctrl-C ends the program, unless whoever started it wants it deaf to that."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


@contextmanager
def with_an_end() -> Iterator[None]:
    """What is done here has something to end: Ctrl-C is a KeyboardInterrupt."""
    before = signal.getsignal(signal.SIGINT)
    if before is not _leave:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def leave() -> None:
    """End the program as it stands: a thread that looks up a host's name can't be ended, and would be waited for."""
    os._exit(STATUS)


def _leave(_: int, __: FrameType | None) -> None:
    os.write(2, b"agent: stopped\n")
    leave()
