"""What a killed run left: which entries can never be gone on with, which can, and with which command.

Everything here is derived from the files of the entry; nothing is repaired.
"""

import shlex
from collections.abc import Iterable
from pathlib import Path

from . import variants
from .errors import BadInput
from .history import Entry, Past, read_check
from .proposal.reply import parsed
from .text import one_line, some

_TOLD = 3  # entries of one sentence, and sentences: a list that comes again at every start is not read


def left_over(past: Past) -> list[Entry]:
    """The entries that no living process will seal."""
    return [entry for entry in past.entries if entry.attempt is None and not entry.running]


def lost(entry: Entry) -> str | None:
    """How it was interrupted, where it can never be gone on with: no reply is stored, nothing passed its gates."""
    if entry.about.kind != "attempt" or entry.about.source is not None:
        return "killed while it was recorded"
    report = read_check(entry.folder)
    if report is not None:
        return None if report.verdict == "pass" else "killed after its gates had rejected it"
    if entry.name is not None:
        return "killed in its gates"
    return None if stored_reply(entry) else "killed before a proposal came"


def stored_reply(entry: Entry) -> str | None:
    """What its proposer answered last; a person may have written it when nobody waited any more."""
    answers = sorted(entry.folder.glob("answer*.md"), key=lambda path: (len(path.name), path.name), reverse=True)
    texts = (entry.prose(path.name) or "" for path in answers)
    return next((text for text in texts if text.strip()), None) or entry.prose("proposal.md")


def passed(entry: Entry) -> bool:
    """Whether the gates had let it through."""
    report = read_check(entry.folder)
    return report is not None and report.verdict == "pass"


def is_as_checked(entry: Entry, root: Path) -> bool:
    """Whether its source is still there and is the one that passed; what had not passed is checked again anyway."""
    report = read_check(entry.folder)
    if report is None:
        return True
    drafted = entry.folder / "variant"
    try:
        there = drafted if entry.name is None and drafted.is_dir() else variants.folder_of(root, checked_name(entry) or "")
        found = variants.digest_of(variants.sources(there))
    except (BadInput, OSError):
        return False
    return bool(report.properties.get("digest", found) == found)


def checked_name(entry: Entry) -> str | None:
    """The name of its variant: as stored before, or as in its proposal."""
    return entry.name or proposed_name(entry)


def known_name(entry: Entry) -> str | None:
    """The name that an entry tells: of one that is not sealed also that of its proposal."""
    return entry.name if entry.attempt else checked_name(entry)


def goes_on(entry: Entry, root: Path) -> str | None:
    """The command that goes on with it, where it was interrupted and one can."""
    can = entry.attempt is None and not entry.running and lost(entry) is None
    return _command(entry, root) if can else None


def waiting(entries: Iterable[Entry], root: Path) -> list[str]:
    """Which commands go on with them, in a few sentences."""
    told: dict[str, list[str]] = {}
    for entry in (one for one in entries if lost(one) is None):
        told.setdefault(f"Interrupted: {_command(entry, root)} goes on with", []).append(entry.id)
    more = sum(map(len, list(told.values())[_TOLD:]))
    sentences = [f"{how} {some(ids, _TOLD)}" for how, ids in told.items()][:_TOLD]
    return sentences + ([f"Interrupted under other settings: {more} more, as `agent list` shows"] if more else [])


def _command(entry: Entry, root: Path) -> str:
    known = entry.about
    words = ["score", known.name] if known.name else ["run", "--proposer", known.proposer or ""]
    words += ["--model", known.model] if known.model else []
    command = shlex.join(["agent", *words, "--protocol", known.protocol or "", "--seed", str(known.seed)])
    once = "" if is_as_checked(entry, root) else "once its source is again what passed its gates, "
    return one_line(f"{once}`{command}`", 300)


def put_back_orphans(root: Path, past: Past, passed_over: Iterable[Entry]) -> None:
    """A variant that was stored by an attempt that is passed over goes back into its folder; not one that was edited since."""
    owned = {entry.name for entry in past.entries if entry.status == "scored"}
    for entry in passed_over:
        name = proposed_name(entry)
        stored = name and name not in owned and passed(entry) and not (entry.folder / "variant").exists()
        if name and stored and is_as_checked(entry, root):
            variants.withdraw(root, entry.folder, name)


def proposed_name(entry: Entry) -> str | None:
    """The name in its proposal; None for an attempt at a variant that was stored before."""
    if entry.name is not None:
        return None
    found = parsed(stored_reply(entry))
    return found.name if found else None
