"""Temporary folders, and those that killed commands left."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import EnvironmentFault
from .files import is_locked

_OURS = "agent-scratch-"
_YOUNG = 60.0  # seconds in which a folder may have been made and not locked yet


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards; of a command that was killed meanwhile, with a later command's first one."""
    try:
        _remove_what_the_killed_left(Path(tempfile.gettempdir()))
        place = tempfile.TemporaryDirectory(prefix=_OURS)
    except OSError as error:
        raise EnvironmentFault(f"no temporary folder can be made: {error.strerror}") from error
    with place as made:
        held = os.open(made, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system without locks: its folders are young for as long as they are written to
                fcntl.flock(held, fcntl.LOCK_EX)
            inner = Path(made) / "files"  # the evaluator locks the folder that it is given
            inner.mkdir()
            yield inner
        finally:
            os.close(held)


def _remove_what_the_killed_left(base: Path) -> None:
    for folder in base.glob(f"{_OURS}*"):
        with suppress(OSError):  # another user's, or gone by now
            if time.time() - folder.stat().st_mtime > _YOUNG and not is_locked(folder):
                shutil.rmtree(folder, ignore_errors=True)
