"""The change inside a reply, as records: SEARCH/REPLACE blocks, whole files and unified diffs."""

import re
from collections.abc import Sequence
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict

File = Literal["naive.py", "triton.py"]
FILES: tuple[File, ...] = ("naive.py", "triton.py")

_OTHER_FILE = re.compile(r"\S{0,200}\.(?:py|pyi|md|toml|json|csv|txt|cfg|ini|sh|j2|ya?ml)")
_MENTION = re.compile(r"(?<![\w./\\-])(?:naive|triton)\.py(?!\w)")


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
    """A diff against the parent's files, as given."""

    text: str


AnyEdit = SearchReplace | WholeFile | UnifiedDiff


def named_file(line: str) -> File | None:
    """The file that a line names, if it is a heading for a change; a heading of any other file is refused."""
    if not line or len(line) > 200:
        return None
    bare = line.strip(" \t#*`_:>\"'()[]")
    label, _, rest = bare.partition(":")
    if label.lower() in {"file", "path", "filename", "file name"}:
        bare = rest.strip(" \t*`_\"'")
    for file in FILES:
        if bare == file:
            return file
    if _OTHER_FILE.fullmatch(bare):
        raise ReplyError(
            f"The reply changes {bare[:80]!a}, but only naive.py and triton.py may change: "
            "name one of these two, without a folder."
        )
    mentions = set(_MENTION.findall(line)) if line.rstrip().endswith((":", ":**", "`")) else set()
    return cast(File, mentions.pop()) if len(mentions) == 1 else None


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
