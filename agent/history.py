"""history/: the only memory. Entries are begun, sealed by one file written last, and read back tolerantly."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePath

from pydantic import ValidationError

from .errors import BadInput, EnvironmentFault
from .files import read_text, sync_folder, unreadable, write_whole
from .recordfile import read_record, why
from .records import Attempt, CheckReport, Evaluation, Score, Start, mean_score
from .runs import check_runs
from .text import one_line, printable

ID = re.compile(r"r?[0-9]{4,9}")
_PROSE_LIMIT = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One attempt as its folder tells it; sealed when `attempt` is there."""

    id: str
    folder: Path
    start: Start | None
    attempt: Attempt | None
    evaluation: Evaluation | None
    running: bool

    @property
    def status(self) -> str:
        if self.attempt is not None:
            return self.attempt.status
        return "running" if self.running else "interrupted"

    @property
    def about(self) -> Start | None:
        """What is known of it, sealed or not."""
        return self.attempt or self.start

    @property
    def name(self) -> str | None:
        return self.about.name if self.about else None

    @property
    def is_imported(self) -> bool:
        return self.attempt is not None and self.attempt.kind == "imported"

    @property
    def scores(self) -> dict[str, Score]:
        """The six columns, all None where nothing was scored."""
        scored = self.evaluation is not None and self.status == "scored"
        return self.evaluation.row if scored and self.evaluation else {}

    @property
    def mad_score(self) -> float | None:
        return mean_score(self.scores)

    @property
    def lesson(self) -> str | None:
        """The first line of its insight."""
        text = printable(read_text(self.folder / "insight.md", 8192) or "")
        lines = [line.strip("# ").strip() for line in text.splitlines()]
        return one_line(next((line for line in lines if line), "")) or None

    def prose(self, name: str) -> str | None:
        """The text of one of its files, bounded."""
        return read_text(self.folder / name, _PROSE_LIMIT)


def meant(text: str) -> str | None:
    """The ID that is meant by `0007`, `7`, `R7` or `history/0007/`; None where none is."""
    found = re.fullmatch(r"(?:.*/)?history/(r?[0-9]{4,9})/*|([rR]?)([0-9]{1,9})", text)
    if found is None:
        return None
    return found[1] or f"{found[2].lower()}{found[3]:0>4}"


@dataclass(frozen=True)
class Past:
    """The whole history: what could be read, oldest first, and a sentence for each entry that could not."""

    entries: tuple[Entry, ...]
    problems: tuple[str, ...]

    def find(self, text: str) -> Entry:
        """The entry of that ID, also as `7` for 0007, `R7` for r0007 or the path of its folder; or BadInput."""
        wanted = meant(text) or text.lower()
        for entry in self.entries:
            if entry.id == wanted:
                return entry
        for problem in self.problems:
            if problem.startswith(f"history/{wanted}:"):
                raise BadInput(problem)
        named = [entry.id for entry in self.entries if entry.name == PurePath(text).name]
        hint = f"the entries of that name are {', '.join(named)}" if named else "`agent list` shows them all"
        raise BadInput(f"there is no entry {one_line(text, 120)!r} in history/; {hint}")

    def until(self, entry_id: str) -> "Past":
        """The history as it stood when that entry was the last one."""
        last = self.entries.index(self.find(entry_id))
        return Past(self.entries[: last + 1], self.problems)


def read(root: Path) -> Past:
    """Read every entry under `root`; one that is damaged is named and passed over."""
    entries, problems = [], []
    for folder in sorted(_folders(root), key=lambda path: _order(path.name)):
        try:
            entries.append(load(folder))
            problems += [f"history/{folder.name}: {one_line(name, 60)} cannot be read; left out" for name in unreadable(folder)]
        except (ValidationError, ValueError, OSError) as error:
            problems.append(f"history/{folder.name}: {why(error)}; passed over")
    strangers = [path.name for path in _subfolders(root) if not ID.fullmatch(path.name)]
    problems += [f"history/{one_line(name, 60)}: not the name of an entry; passed over" for name in strangers]
    return Past(tuple(entries), tuple(problems))


def _subfolders(root: Path) -> list[Path]:
    folder = root / "history"
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def _folders(root: Path) -> list[Path]:
    return [path for path in _subfolders(root) if ID.fullmatch(path.name)]


def _order(entry_id: str) -> tuple[bool, int]:
    """Entries that ship with the project come first."""
    return not entry_id.startswith("r"), int(entry_id.removeprefix("r"))


def load(folder: Path) -> Entry:
    """The entry in `folder`; ValueError or OSError where its records are damaged."""
    attempt = read_record(folder / "attempt.json", Attempt)
    start = attempt or read_record(folder / "start.json", Start)
    _check_identity(folder, start)
    evaluation = _evaluation(folder, attempt) if attempt else None
    running = attempt is None and _is_locked(folder / "start.json")
    return Entry(folder.name, folder, start, attempt, evaluation, running)


def _evaluation(folder: Path, attempt: Attempt) -> Evaluation | None:
    """What was measured; of a scored entry the one that its runs bear out."""
    if attempt.status not in ("scored", "train-failed", "audit-failed"):
        return None
    found = read_record(folder / "evaluation.json", Evaluation)
    if attempt.status != "scored":
        return found
    if found is None:
        raise ValueError("attempt.json says scored, but evaluation.json is missing")
    if found.status not in ("scored", "partial"):
        raise ValueError(f"attempt.json says scored, but evaluation.json {found.status}")
    if found.protocol.name != attempt.protocol:
        protocols = (one_line(str(name), 40) for name in (attempt.protocol, found.protocol.name))
        raise ValueError("attempt.json says that the protocol is {}, but evaluation.json {}".format(*protocols))
    check_runs(folder, found)
    return found


def _check_identity(folder: Path, start: Start | None) -> None:
    if start is not None and start.id != folder.name:
        raise ValueError(f"its record says that it is {one_line(start.id, 40)}: a copy?")


def read_check(folder: Path) -> CheckReport | None:
    """What the gates said of the variant of this entry, None where they have not spoken (whole)."""
    try:
        return read_record(folder / "check.json", CheckReport)
    except (ValueError, OSError):
        return None


def _is_locked(path: Path) -> bool:
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


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Be the one process that writes to the history under `root`."""
    (root / "history").mkdir(exist_ok=True)
    with open(root / "history" / ".lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = one_line(lock.read(80), 80) or "another process"
            raise EnvironmentFault(
                f"{holder} is writing to {root / 'history'}: wait for it to end, or stop it"
            ) from None
        lock.truncate(0)
        lock.write(f"agent, process {os.getpid()},")
        lock.flush()
        yield


class Pass:
    """An entry in the making, held by a lock that dies with the process; unsealed, it is interrupted."""

    def __init__(self, folder: Path, start: Start, hold: FileIO) -> None:
        self.folder = folder
        self.start = start
        self._hold = hold

    @property
    def id(self) -> str:
        return self.start.id

    def write(self, name: str, content: str | bytes) -> None:
        write_whole(self.folder / name, content)

    def seal(self, attempt: Attempt) -> None:
        """Make the entry whole: attempt.json last, then what it replaces goes."""
        for part in self.folder.glob(".*.part"):
            part.unlink()
        self.write("attempt.json", attempt.model_dump_json(indent=2) + "\n")
        (self.folder / "start.json").unlink(missing_ok=True)

    def __enter__(self) -> "Pass":
        return self

    def __exit__(self, *_: object) -> None:
        self._hold.close()


def begin(root: Path, known: Start) -> Pass:
    """Make the folder of a new entry; its ID is the next one, whatever `known` says."""
    folder = _make_folder(root)
    start = known.model_copy(update={"id": folder.name})
    try:
        write_whole(folder / "start.json", start.model_dump_json(indent=2) + "\n")
    except (OSError, ValueError):  # a full disk, text that no file can hold
        folder.rmdir()
        raise
    return _hold(folder, start)


def reopen(entry: Entry) -> Pass:
    """Go on with an entry that was interrupted."""
    if entry.start is None or entry.attempt is not None:
        raise ValueError(f"{entry.id} is not an interrupted entry")
    return _hold(entry.folder, entry.start)


def _hold(folder: Path, start: Start) -> Pass:
    hold = FileIO(folder / "start.json", "r")
    fcntl.flock(hold, fcntl.LOCK_EX)  # waits, if at all, for somebody's `agent list`
    return Pass(folder, start, hold)


def next_number(root: Path) -> int:
    """The number of the next entry."""
    return max((int(path.name) for path in _folders(root) if path.name.isdigit()), default=-1) + 1


def _make_folder(root: Path) -> Path:
    """mkdir is atomic, so no two processes ever get one ID."""
    number = next_number(root)
    while True:
        folder = root / "history" / f"{number:04d}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
            continue
        sync_folder(folder.parent)
        return folder
