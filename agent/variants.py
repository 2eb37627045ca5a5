"""variants/: the stored operators, each a folder of source files that gets there and back by one rename."""

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from .errors import BadInput, EnvironmentFault
from .files import read_whole, sync_folder, write_whole
from .text import one_line

FORMS = ("naive.py", "triton.py")
_MOVED = ".moved-"  # of a folder that is there to be moved once
_SOURCE_LIMIT = 1 << 20


def folder_of(root: Path, name: str) -> Path:
    """variants/NAME; a name out of a record is a stranger's text, so it may not lead anywhere else."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}", name):
        raise BadInput(f"{one_line(name, 60)!r} is not the name of a variant")
    return root / "variants" / name


def named(root: Path, text: str) -> str:
    """The name that is meant by NAME, or by the path of its folder or file, with whatever slashes; else `text` itself."""
    for start in (Path(), root):
        path = Path(os.path.abspath(start / text))
        path = path.parent if path.name in FORMS else path
        if text.strip("/") and path.parent == Path(os.path.abspath(root / "variants")):
            return path.name
    return text.rstrip("/") or text


def names(root: Path) -> frozenset[str]:
    """Every name that is taken, by whatever kind of file; bytes that are no text can be nobody's."""
    folder = root / "variants"
    found = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return frozenset(name for name in found if name.encode(errors="ignore").decode() == name)


def require(folder: Path) -> None:
    """BadInput where there is no such variants/, as its root is no project's."""
    if not folder.is_dir():
        raise BadInput(f"there is no {folder}: --root needs the project's variants/")


def sources(folder: Path) -> dict[str, str]:
    """File name -> text of the forms that `folder` holds; BadInput where there is no naive.py."""
    try:
        found = {
            form: read_whole(folder / form, _SOURCE_LIMIT).decode()
            for form in FORMS
            if (folder / form).exists()
        }
    except UnicodeDecodeError as error:
        raise BadInput(f"{folder} holds a file that is not UTF-8: {error}") from error
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise BadInput(f"{error.filename}: {error.strerror}") from error
    require(folder.parent)
    if "naive.py" not in found:
        raise BadInput(f"{folder} is no variant: it holds no naive.py")
    return found


def digest(root: Path, name: str) -> str | None:
    """Of a variant's files; None where they can't be read."""
    try:
        return digest_of(sources(folder_of(root, name)))
    except (BadInput, OSError):
        return None


def digest_of(files: Mapping[str, str]) -> str:
    """sha256 over the names and texts of a variant's files, as evaluation.json has it."""
    total = hashlib.sha256()
    for form, text in sorted(files.items()):
        data = text.encode()
        total.update(f"{form} {len(data)}\n".encode() + data)
    return total.hexdigest()


def holds(root: Path, name: str | None, then: str) -> bool:
    """Whether variants/NAME still is the source that had that digest."""
    return digest(root, name or "") == then


def draft(entry: Path, files: dict[str, str]) -> Path:
    """Write a variant's source into the folder of its attempt."""
    folder = entry / "variant"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in files.items():
        write_whole(folder / name, text)
    return folder


def require_one_file_system(root: Path) -> None:
    """EnvironmentFault where no variant could be moved in one step from its attempt's folder to variants/."""
    history, stored = root / "history", root / "variants"
    made = Path(tempfile.mkdtemp(dir=history, prefix=_MOVED))
    moved = stored / made.name
    try:
        made.rename(moved)  # a mount of the same disk looks as if it were no other
        moved.rmdir()
    except OSError as error:
        made.rmdir()
        if error.errno != errno.EXDEV:
            raise EnvironmentFault(f"{stored}: {error.strerror}: no variant can be stored there") from error
        raise EnvironmentFault(
            f"{history.resolve()} and {stored.resolve()} lie on two file systems, between which no variant can be moved in "
            "one step: keep both on one, as with the whole project there"
        ) from error


def tidy_moves(root: Path) -> None:
    """What that question left of itself when it was killed; whoever asks this is the one that writes."""
    for folder in (root / "history", root / "variants"):
        for moved in folder.glob(f"{_MOVED}*"):
            with suppress(OSError):  # one that is not empty is none of ours
                moved.rmdir()


def publish(root: Path, entry: Path, name: str) -> Path:
    """The gates have passed: move the source from the attempt's folder to variants/NAME, in one step."""
    (root / "variants").mkdir(exist_ok=True)
    target = folder_of(root, name)
    if os.path.lexists(target):
        raise FileExistsError(f"variants/{name} exists already")
    _move(entry / "variant", target)
    return target


def withdraw(root: Path, entry: Path, name: str) -> None:
    """The attempt failed after all: move the source back, so that the name is free."""
    if folder_of(root, name).is_dir() and not (entry / "variant").exists():
        _move(folder_of(root, name), entry / "variant")


def _move(old: Path, new: Path) -> None:
    os.rename(old, new)
    sync_folder(new.parent)
    sync_folder(old.parent)
