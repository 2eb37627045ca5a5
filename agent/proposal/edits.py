"""The change inside a reply, as records: SEARCH/REPLACE blocks, whole files and unified diffs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict

File = Literal["naive.py", "triton.py"]
FILES: tuple[File, ...] = ("naive.py", "triton.py")

_OTHER_FILE = re.compile(r"\S{0,200}\.(?:py|pyi|md|toml|json|csv|txt|cfg|ini|sh|j2|ya?ml)")
_PATH = re.compile(r"(?:\./)?(?:[ab]/)?(?:(?:variants/)?([a-z0-9_]{3,96})/)?(naive\.py|triton\.py)")
_MENTION = re.compile(r"(?<![\w./\\-])[\w./\\-]{0,200}?(?:naive|triton)\.py(?!\w)")


class ReplyError(Exception):
    """Why a reply is no proposal; the message tells the model in one sentence what to do differently."""


class Edit(BaseModel):
    """One piece of the change, as it stands in the reply."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SearchReplace(Edit):
    """`search`, which stands once in the parent's `file`, becomes `replace`; both are whole lines."""

    file: File
    search: str
    replace: str
    indent: int = 0  # of its marks: the lines may be indented by as much more than they are in the file


class WholeFile(Edit):
    """The new text of `file`."""

    file: File
    text: str


class UnifiedDiff(Edit):
    """A diff against the parent's files, as given; `file` is the one above it, where it has no headers."""

    text: str
    file: File | None = None


AnyEdit = SearchReplace | WholeFile | UnifiedDiff


@dataclass(frozen=True)
class Named:
    """A file that a reply names, and the variant in whose folder it says that it is."""

    file: File
    variant: str | None = None
    alone: bool = True  # a heading has nothing else; a sentence may only speak of the file


def named_by(path: str) -> Named | None:
    """The file that a path means, with `./`, with a letter of git's, or in a variant's folder; None for any other."""
    match = _PATH.fullmatch(path)
    return Named(cast(File, match[2]), match[1]) if match else None


def named_file(line: str) -> Named | None:
    """The file that a line names, if it is a heading for a change; a heading of any other file is refused."""
    if not line or len(line) > 200:
        return None
    bare = line.strip(" \t#*`_:>\"'()[]")
    label, _, rest = bare.partition(":")
    if label.lower() in {"file", "path", "filename", "file name"}:
        bare = rest.strip(" \t*`_\"'")
    if named := named_by(bare):
        return named
    if _OTHER_FILE.fullmatch(bare):
        raise ReplyError(
            f"The reply changes {bare[:80]!a}, but only naive.py and triton.py may change: "
            "name one of these two, without a folder."
        )
    found = _MENTION.findall(line) if line.rstrip().endswith((":", ":**", "`")) else []
    files = {named.file for path in found if (named := named_by(path))}
    return Named(files.pop(), alone=False) if len(files) == 1 else None


def consistent(edits: Sequence[AnyEdit]) -> tuple[AnyEdit, ...]:
    """The edits, each once; two answers to one question are refused."""
    if not edits:
        raise ReplyError(
            "The reply holds no change: add SEARCH/REPLACE blocks, or one ```python fence with the "
            "whole new naive.py."
        )
    unique = tuple(dict.fromkeys(edits))
    whole = [edit.file for edit in unique if isinstance(edit, WholeFile)]
    for file in whole:
        if whole.count(file) > 1:
            raise ReplyError(
                f"The reply holds two different versions of {file}: give one, and head a fence with "
                "triton.py where it is that file."
            )
        if any(isinstance(edit, SearchReplace) and edit.file == file for edit in unique):
            raise ReplyError(
                f"The reply gives {file} whole and edits it by blocks too: give one or the other."
            )
    if len({isinstance(edit, UnifiedDiff) for edit in unique}) > 1:
        raise ReplyError(
            "The reply holds a unified diff beside other edits: give the change once, in one form."
        )
    return unique
