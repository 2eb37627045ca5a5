"""A record out of its file, or the reason why there is none to be had."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from .files import read_whole
from .records import VERSION, Record, Start
from .text import one_line

_LIMIT = 16 << 20
R = TypeVar("R", bound=Record)


def read_record(path: Path, model: type[R]) -> R | None:
    """The record in `path`, None where the file is missing, ValueError where it is no such record."""
    try:
        data = read_whole(path, _LIMIT)
    except FileNotFoundError:
        return None
    try:
        if issubclass(model, Start):
            _check_version(data)
        return model.model_validate_json(data)
    except ValidationError as error:
        raise ValueError(f"{path.name} is damaged ({why(error)})") from error


class _Versioned(Record):
    version: int


def _check_version(data: bytes) -> None:
    """Before anything else is read: a newer program may mean other things by the same words."""
    version = _Versioned.model_validate_json(data).version
    if version > VERSION:
        raise ValueError(f"written by a newer program (version {version}, this one reads {VERSION})")


def why(error: Exception) -> str:
    """In a few words."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        return one_line(f"{where}: {what}" if where else what, 160)
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror})"
    return str(error)
