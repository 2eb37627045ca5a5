"""prompts/: the text that a model is given, edited by people; here it is filled in."""

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, TemplateError, TemplateNotFound

from .compare import Comparison, bar
from .errors import BadInput
from .exchange import Message
from .policy import Brief
from .records import COLUMNS
from .text import one_line, printable

_LONGEST_PROPOSAL = 20_000  # characters of it that a reflection is shown
_NEEDED = ("contract.md", "tasks.md", "propose.md.j2", "retry.md.j2", "reflect.md.j2")


def require(root: Path) -> None:
    """Before anything is trained: the texts that a model will need are there and can be read."""
    missing = [name for name in _NEEDED if not (root / "prompts" / name).is_file()]
    if missing:
        raise BadInput(f"{root / 'prompts'} lacks {', '.join(missing)}: --root needs the project's prompts/")
    for name in _NEEDED:
        _template(root, name)


def propose(root: Path, brief: Brief) -> list[Message]:
    """The opening of a conversation: the contract, then what there is and what is asked."""
    return [
        {"role": "system", "content": render(root, "contract.md")},
        {"role": "user", "content": render(root, "propose.md.j2", brief=brief, columns=COLUMNS)},
    ]


def retry(root: Path, reply: str, reason: str, tries_left: int) -> list[Message]:
    """What follows a reply that would not do: the reply, and exactly why."""
    return [
        {"role": "assistant", "content": reply or "(no text)"},
        {"role": "user", "content": render(root, "retry.md.j2", reason=reason, tries_left=tries_left)},
    ]


def reflect(root: Path, comparison: Comparison, proposal: str) -> list[Message]:
    """Asks for the insight, after scoring."""
    said = printable(proposal[:_LONGEST_PROPOSAL])
    text = render(root, "reflect.md.j2", measured=comparison, proposal=said, columns=COLUMNS)
    return [{"role": "user", "content": text}]


def as_text(messages: Sequence[Message]) -> str:
    """A conversation as one text, to be pasted into a chat window."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(message["content"] for message in messages)


def render(root: Path, name: str, **values: object) -> str:
    """The template `name` filled in; a variable that is not there is an error, never an empty place."""
    try:
        return _template(root, name).render(values)
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BadInput(f"{root / 'prompts' / name}: {one_line(str(error) or type(error).__name__)}") from None


def _template(root: Path, name: str) -> Template:
    folder = root / "prompts"
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"score": _score, "signed": _signed, "quoted": _quoted, "bar": bar}
    try:
        return environment.get_template(name)
    except TemplateNotFound as error:
        raise BadInput(f"there is no {folder / str(error)}: --root needs the project's prompts/") from None
    except (TemplateError, UnicodeDecodeError) as error:
        raise BadInput(f"{folder / name}: {one_line(str(error))}") from None


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _quoted(text: str) -> str:
    """As data: one line, bounded, in quotation marks that it cannot close."""
    return json.dumps(one_line(text), ensure_ascii=False)
