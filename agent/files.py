"""Writes that a kill or a full disk cannot leave half done, and reads that are bounded."""

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write `path` so that it holds what it held before or all of `content`, also after a power cut."""
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        error.filename = error.filename or str(path)  # a write names none
        raise
    sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append one line; what a kill tore off before it stays on a line of its own."""
    with open(path, "ab+") as file:
        torn = file.tell() > 0 and _last_byte(file.fileno(), file.tell()) != b"\n"
        file.write((b"\n" if torn else b"") + line.encode("utf-8", "replace") + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _last_byte(descriptor: int, size: int) -> bytes:
    return os.pread(descriptor, 1, size - 1)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` as durable as the bytes behind them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: Path, limit: int) -> bytes:
    """At most `limit` bytes of `path`; a pipe or a device, on which a read may wait for ever, is an OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:  # a socket
            raise
        raise PermissionError(errno.EACCES, "Not a regular file", str(path)) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):  # open() would name the descriptor, not the path
            raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
        if not stat.S_ISREG(mode):
            raise PermissionError(errno.EACCES, "Not a regular file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def read_whole(path: Path, limit: int) -> bytes:
    """All of `path`; a file of more than `limit` bytes is an OSError, for a part of it could mean another thing."""
    data = read_bounded(path, limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit >> 20} MiB", str(path))
    return data


def read_text(path: Path, limit: int = 4 << 20) -> str | None:
    """The text of `path`, at most `limit` bytes of it, or None where there is no such file, or none to be read."""
    try:
        return read_bounded(path, limit).decode("utf-8", "replace")
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        return None


_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES)


def unreadable(folder: Path) -> list[str]:
    """Names in `folder` that ought to be files and are not: a folder, a pipe, a link to nowhere, not ours to read."""
    found = [path for path in folder.iterdir() if path.suffix and not path.name.startswith(".")]
    return sorted(path.name for path in found if not path.is_file() or not os.access(path, os.R_OK))


def is_locked(path: Path) -> bool:
    """Whether a living process holds `path`; it lets go by dying, however it dies."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
