"""`agent import`: an earlier project's records become entries; nothing lost, nothing guessed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from .. import history, variants
from ..errors import BadInput
from ..files import read_whole
from ..job import tidy
from ..listing import imported_lines
from ..records import VERSION, Attempt, Start, now, results_csv
from ..repo import Repo, follow
from ..text import one_line, printable, some
from .record import OldRecord, parse

_LIMIT = 16 << 20
_TOLD = 3  # entries of one sentence
_NEITHER = "no insights and no name that could be told (`agent import --help` shows one)"


@dataclass(frozen=True)
class Imported:
    """What became of one file; `id` is None where nothing was recorded."""

    file: str
    id: str | None
    refused: str | None
    notes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        head = f"{one_line(self.file)}: {self.id or 'refused: ' + (self.refused or '')}"
        return "\n".join([head, *(f"  {note}" for note in self.notes)])


def import_files(
    root: Path, files: Sequence[Path], repo: Repo | None, say: Callable[[str], None]
) -> Iterator[Imported]:
    """One entry a file; a file that is no record, or is there already, is told and leaves none."""
    variants.require(root / "variants")
    with history.writing(root):
        tidy(root, repo, say)
        there = _There({}, {})
        for entry in filter(_has_record, history.read(root).entries):
            there.add(entry)
        for file in files:
            try:
                imported = _import(root, file, there)
            except BadInput as error:
                imported = Imported(str(file), None, str(error), ())
            yield imported
            if imported.id is not None:
                entry = history.load(root / "history" / imported.id)
                there.add(entry)
                follow(repo, entry, say)


@dataclass(frozen=True)
class _There:
    """What earlier records hold, read once: the ID of each text, and the table of each entry."""

    texts: dict[bytes, str]
    tables: dict[str, dict[str, dict[str, float]]]

    def add(self, entry: history.Entry) -> None:
        data = read_whole(entry.folder / "record.txt", _LIMIT)
        self.texts.setdefault(sha256(data).digest(), entry.id)
        self.tables[entry.id] = dict(imported_lines(entry))


def _import(root: Path, file: Path, there: _There) -> Imported:
    try:
        data = read_whole(file, _LIMIT)
    except OSError as error:
        raise BadInput(error.strerror or type(error).__name__) from error
    if same := there.texts.get(sha256(data).digest()):
        return Imported(str(file), same, None, (f"the same record is there already as {same}",))
    record = parse(data)
    if record.is_empty:
        what = f"it holds nothing but {record.lack}: " if record.lack else "it does not look like a record: no score table, "
        raise BadInput(what + _NEITHER)
    notes = [*record.oddities, *_disagreements(record, there)]
    return Imported(str(file), _write(root, file, data, record), None, tuple(notes))


def _has_record(entry: history.Entry) -> bool:
    return entry.is_imported and (entry.folder / "record.txt").is_file()


def _disagreements(record: OldRecord, there: _There) -> list[str]:
    """Names to which other records give other values: all are kept, and that is told once of each."""
    told: dict[str, list[str]] = {}
    for line in record.lines:
        values = {column: float(text) for column, text in line.values.items()}
        others = [entry_id for entry_id, table in there.tables.items() if table.get(line.name, values) != values]
        told.setdefault(line.name, []).extend(others)
    return [
        f"{one_line(name, 100)!r} has other values in {some(ids, _TOLD)}: {'both' if len(ids) == 1 else 'all'} are kept"
        for name, found in told.items()
        if (ids := sorted(set(found)))
    ]


def _write(root: Path, file: Path, data: bytes, record: OldRecord) -> str:
    start = Start(
        version=VERSION,
        id="",
        kind="imported",
        name=record.name,
        parent=None,
        protocol=None,
        seed=None,
        proposer=None,
        model=None,
        base_commit=None,
        source=printable(file.name),  # a name may be bytes that are no text
        started=record.stamp,
    )
    with history.begin(root, start) as opened:
        opened.write("record.txt", data)
        opened.write("results.csv", results_csv((line.name, line.values) for line in record.lines))
        if record.insights is not None:
            opened.write("insight.md", record.insights + "\n")
        opened.seal(
            Attempt(
                **opened.start.model_dump(),
                status="imported",
                success=record.success,
                error=None,
                versus_parent="unknown",
                noise=None,
                finished=now(),
            )
        )
    return opened.id
