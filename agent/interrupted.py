"""What a killed run left: which entries can be finished, and which variants must give their name back.

Everything here is derived from the files of the entry; nothing is repaired.
"""

from collections.abc import Iterable
from pathlib import Path

from . import variants
from .history import Entry, Past, read_check
from .reply import ReplyError, parse


def resumable(past: Past, root: Path, protocol: str, seed: int) -> list[Entry]:
    """Interrupted attempts that had passed their gates, asked for under this protocol and seed."""
    return [
        entry
        for entry in past.entries
        if entry.attempt is None
        and not entry.running
        and entry.start
        and entry.start.kind == "attempt"
        and entry.start.source is None
        and (entry.start.protocol, entry.start.seed) == (protocol, seed)
        and _passed(entry)
        and _has_source(entry, root)
    ]


def put_back_orphans(root: Path, past: Past, passed_over: Iterable[Entry]) -> None:
    """A variant that was stored by an attempt that is passed over goes back into its folder."""
    owned = {entry.name for entry in past.entries if entry.status == "scored"}
    for entry in passed_over:
        name = proposed_name(entry)
        if name and name not in owned and _passed(entry) and not (entry.folder / "variant").exists():
            variants.withdraw(root, entry.folder, name)


def proposed_name(entry: Entry) -> str | None:
    """The name in its proposal; None for an attempt at a variant that was stored before."""
    if entry.start is None or entry.start.name is not None:
        return None
    try:
        return parse(entry.prose("proposal.md") or "").name
    except ReplyError:
        return None


def _passed(entry: Entry) -> bool:
    report = read_check(entry.folder)
    return report is not None and report.verdict == "pass"


def _has_source(entry: Entry, root: Path) -> bool:
    if (entry.folder / "variant").is_dir():
        return True
    name = proposed_name(entry) or (entry.start.name if entry.start else None)
    return name in variants.names(root)
