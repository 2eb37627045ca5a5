"""history/: the only memory. Entries are begun, sealed by one file written last, and read back tolerantly."""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePath
from uuid import uuid4

from pydantic import ValidationError

from .errors import BadInput, EnvironmentFault
from .files import is_locked, read_text, sync_folder, unreadable, write_whole
from .ids import ID, meant, missing, order
from .recordfile import read_record, why
from .records import COLUMNS, Attempt, CheckReport, Evaluation, Score, Start, mean_score, results_csv
from .runs import check_runs
from .text import one_line, printable

_BEGUN = ".begun-"  # of a folder that is no entry yet
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)  # a file, or a folder that holds anything, is never replaced
_LABEL = re.compile(r"(?:the )?(?:insights?|lessons?|reflections?|summary|analysis|conclusion|takeaway)(?: learned)?[ *]*(?::[ *]*|$)", re.IGNORECASE)
_PROSE_LIMIT = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One attempt as its folder tells it; sealed when `attempt` is there."""

    id: str
    folder: Path
    about: Start  # attempt.json, or start.json where it is not sealed
    evaluation: Evaluation | None
    running: bool

    @property
    def attempt(self) -> Attempt | None:
        return self.about if isinstance(self.about, Attempt) else None

    @property
    def status(self) -> str:
        if self.attempt is not None:
            return self.attempt.status
        return "running" if self.running else "interrupted"

    @property
    def name(self) -> str | None:
        return self.about.name

    @property
    def is_imported(self) -> bool:
        return self.status == "imported"

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
        lines = [line for raw in text.splitlines() if (line := _LABEL.sub("", raw.strip("# *")).strip("* "))]
        return one_line(next(iter(lines), "")) or None

    def prose(self, name: str) -> str | None:
        """The text of one of its files, bounded."""
        return read_text(self.folder / name, _PROSE_LIMIT)


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
        if problem := self.refused(text):
            raise BadInput(problem)
        named = [entry.id for entry in self.entries if entry.name == PurePath(text).name]
        hint = "`agent list` shows them all" if self.entries else "it holds none that can be read"
        hint = f"the entries of that name are {', '.join(named)}" if named else hint
        raise BadInput(f"there is no entry {one_line(text, 120)!r} in history/; {hint}")

    def refused(self, text: str | None) -> str | None:
        """Why the entry that is meant could not be read; None where it could, or is not there."""
        wanted = meant(text or "")
        if wanted is None or any(entry.id == wanted for entry in self.entries):
            return None
        return next((problem for problem in self.problems if problem.startswith(f"history/{wanted}:")), None)

    def until(self, entry_id: str) -> "Past":
        """The history as it stood when that entry was the last one."""
        last = self.entries.index(self.find(entry_id))
        return Past(self.entries[: last + 1], self.problems)


def read(root: Path) -> Past:
    """Read every entry under `root`; one that is damaged is named and passed over."""
    entries, problems = [], []
    folders = sorted(_entries(root), key=lambda path: order(path.name))
    for folder in folders:
        try:
            entries.append(load(folder))
            problems += [f"history/{folder.name}: {left_out}; left out" for left_out in _left_out(entries[-1])]
        except (ValidationError, ValueError, OSError) as error:
            problems.append(f"history/{folder.name}: {why(error)}; passed over")
    problems += [f"history/{gap}: missing, though entries before and after are there" for gap in missing(f.name for f in folders)]
    strangers = [path.name for path in _visible(root) if not ID.fullmatch(path.name) and path.is_dir()]
    problems += [f"history/{one_line(name, 60)}: not the name of an entry; passed over" for name in strangers]
    return Past(tuple(entries), tuple(problems))


def _left_out(entry: Entry) -> list[str]:
    """What is wrong with files of an entry without which it still is one."""
    told = {name: f"{one_line(name, 60)} cannot be read" for name in unreadable(entry.folder)}
    if entry.is_imported and (entry.prose("results.csv") or "").splitlines()[:1] != [",".join(["name", *COLUMNS])]:
        told.setdefault("results.csv", "results.csv is missing, or not the table that was imported")
    if entry.scores and (entry.prose("results.csv") or "").splitlines() != results_csv([(entry.name or "", entry.scores)]).splitlines():
        told.setdefault("results.csv", "results.csv is missing, or says another thing than evaluation.json")
    if (entry.folder / "check.json").exists() and read_check(entry.folder) is None:
        told.setdefault("check.json", "check.json is no report of a check")
    return list(told.values())


def _visible(root: Path) -> list[Path]:
    folder = root / "history"
    if folder.exists() and not folder.is_dir():
        raise EnvironmentFault(f"{folder} is not a folder: it is where the attempts are kept")
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.exists() else []


def _entries(root: Path) -> list[Path]:
    """What has the name of an entry, a folder or not."""
    return [path for path in _visible(root) if ID.fullmatch(path.name)]


def load(folder: Path) -> Entry:
    """The entry in `folder`; ValueError or OSError where its records are damaged."""
    if not folder.is_dir():
        raise ValueError("is not a folder")
    sealed = folder / "attempt.json"
    about = read_record(sealed, Attempt) or read_record(folder / "start.json", Start) or read_record(sealed, Attempt)  # just now?
    if about is None:
        there = any(not path.name.startswith(".") for path in folder.iterdir())
        raise ValueError("neither attempt.json nor start.json is there" if there else "is empty")
    if about.id != folder.name:
        raise ValueError(f"its record says that it is {one_line(about.id, 40)}: a copy?")
    if isinstance(about, Attempt):
        return Entry(folder.name, folder, about, _evaluation(folder, about), running=False)
    return Entry(folder.name, folder, about, None, is_locked(folder / "start.json"))


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
    both = {
        "protocol": (attempt.protocol, found.protocol.name), "name": (attempt.name, found.variant.name), "seed": (attempt.seed, found.seeds[0]),
    }  # fmt: skip
    if other := next((what for what, (here, there) in both.items() if here != there), None):
        here, there = (one_line(str(told), 40) for told in both[other])
        raise ValueError(f"attempt.json says that the {other} is {here}, but evaluation.json {there}")
    check_runs(folder, found)
    return found


def read_check(folder: Path) -> CheckReport | None:
    """What the gates said of the variant of this entry, None where they have not spoken (whole)."""
    try:
        return read_record(folder / "check.json", CheckReport)
    except (ValueError, OSError):
        return None


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Be the one process that writes to the history under `root`."""
    _visible(root)  # says what history/ must be
    (root / "history").mkdir(exist_ok=True)
    held = root / "history" / ".lock"
    if held.exists() and not held.is_file():
        raise EnvironmentFault(f"{held} is no file: remove it")
    with open(held, "a+") as lock:
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
        for begun in (root / "history").glob(f"{_BEGUN}*"):  # by a process that was killed
            shutil.rmtree(begun, ignore_errors=True)
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
    """Make the folder of a new entry; its ID is the next one, whatever `known` says.

    It is named when start.json is in it and is held: no kill leaves an entry of which nothing is known.
    """
    begun = root / "history" / f"{_BEGUN}{uuid4().hex}"
    number = next_number(root)
    begun.mkdir()
    try:
        while True:
            start = known.model_copy(update={"id": f"{number:04d}"})
            write_whole(begun / "start.json", start.model_dump_json(indent=2) + "\n")
            hold = _hold(begun)
            try:
                os.rename(begun, begun.with_name(start.id))
            except OSError as error:
                hold.close()
                if error.errno not in _TAKEN:
                    raise
                number += 1
                continue
            sync_folder(root / "history")
            return Pass(begun.with_name(start.id), start, hold)
    except BaseException:  # a full disk, text that no file can hold, a Ctrl-C
        shutil.rmtree(begun, ignore_errors=True)
        raise


def reopen(entry: Entry) -> Pass:
    """Go on with an entry that was interrupted."""
    if entry.attempt is not None:
        raise ValueError(f"{entry.id} is not an interrupted entry")
    return Pass(entry.folder, entry.about, _hold(entry.folder))


def _hold(folder: Path) -> FileIO:
    hold = FileIO(folder / "start.json", "r")
    fcntl.flock(hold, fcntl.LOCK_EX)  # waits, if at all, for somebody's `agent list`
    return hold


def next_number(root: Path) -> int:
    """The number of the next entry. Raises EnvironmentFault where no entry could have it for its ID."""
    number = max((int(path.name) for path in _entries(root) if path.name.isdigit() and path.is_dir()), default=-1) + 1
    if not ID.fullmatch(f"{number:04d}"):
        raise EnvironmentFault(f"history/{number - 1} has the last number that there is: give that folder a smaller one")
    return number
