"""How a command ends that could not do its work: one sentence on stderr and an exit status."""

import errno
import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperGroup

from .errors import AgentError
from .stopping import STATUS, with_an_end
from .text import printable

_OF_THE_MACHINE = {
    errno.ENOSPC,
    errno.EFBIG,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENOMEM,
    errno.ENFILE,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EXDEV,
}

_LATER = {
    "run": "; the next run takes up what was under way, where its reply had come",
    "score": "; the next one takes up what was under way",
}
_USAGE: Any = typer.BadParameter.__mro__[1]  # UsageError, of whichever click typer brings along


class Sentences(TyperGroup):
    """Turns the errors that have a sentence into it; a bug stays a traceback."""

    def invoke(self, ctx: Any) -> Any:
        arguments = [*getattr(ctx, "_protected_args", ()), *ctx.args]
        command, wants_json = arguments[0] if arguments else "", "--json" in arguments
        try:
            with with_an_end():
                return super().invoke(ctx)
        except AgentError as error:
            _end(str(error), error.exit_status, wants_json)
        except _USAGE as error:
            error.message = _with_its_value(error, arguments)
            if wants_json:
                _print_error(error.format_message())
            raise  # typer tells how the command is used, and ends with 2
        except KeyboardInterrupt:
            _end(f"stopped{_LATER.get(command, '')}", STATUS, wants_json)
        except OSError as error:
            _end(f"{_of_the_machine(error)}; what was recorded before stands", 3, wants_json)


def ended_by(error: OSError) -> int:
    """Says what the machine refused, outside of any command, and gives the exit status."""
    typer.echo(f"agent: {printable(_of_the_machine(error))}", err=True)
    return 3


def _of_the_machine(error: OSError) -> str:
    """What it refused, and where; any other error is raised again, as a bug."""
    if error.errno not in _OF_THE_MACHINE:
        raise error
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def _with_its_value(error: Any, arguments: Sequence[str]) -> str:
    """What is wrong with the value of an option, and the value."""
    text = str(error.message).removeprefix("Value error, ")
    names = getattr(getattr(error, "param", None), "opts", ())
    words = [part for word in arguments for part in word.split("=", 1)]
    values = [value for name, value in pairwise(words) if name in names]
    return f"{text}: {values[-1]!r}" if values and values[-1] not in text else text


def _print_error(sentence: str) -> None:
    typer.echo(json.dumps({"error": sentence}))


def _end(sentence: str, status: int, wants_json: bool) -> None:
    typer.echo(f"agent: {printable(sentence)}", err=True)
    if wants_json:
        with suppress(OSError):  # stdout may be what is full
            _print_error(sentence)
    raise typer.Exit(status)
