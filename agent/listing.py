"""The history as a table: one row an attempt, one row for each distinct line of imported tables."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from .errors import BadInput
from .history import Entry, Past
from .interrupted import known_name
from .records import COLUMN_OF, COLUMNS, Score, Versus, mean_name, mean_score, results_csv
from .text import one_line

_WIDE = 132  # columns; narrower, rich would leave out names and cut scores


@dataclass(frozen=True)
class Row:
    """One line of `agent list`."""

    id: str
    name: str | None
    kind: str
    status: str
    success: bool | None
    versus_parent: Versus
    parent: str | None
    proposer: str | None
    protocol: str | None
    fingerprint: str | None
    scores: dict[str, Score | float]
    settings: str | None  # "12/66" where the evaluation is not complete
    settings_done: dict[str, str]  # column -> "1/11" of each that is not, where some are done
    devices: tuple[str, ...]  # every one that had a part in it, the oldest first
    error: str | None
    lesson: str | None
    sources: tuple[str, ...]  # imported: the entries that hold this line

    def as_json(self) -> dict[str, Any]:
        scores = {column: self.scores.get(column) for column in COLUMNS}
        return {
            **self.__dict__,
            "scores": scores,
            "mad_score": mean_score(scores) if self.kind != "imported" and self.protocol == "mad" else None,
            "mean_of_six": mean_score(scores) if self.kind != "imported" else None,
            "devices": list(self.devices),
            "sources": list(self.sources),
        }


def rows(past: Past) -> list[Row]:
    """Every attempt in order; equal imported lines are one row that names all its sources."""
    found: list[Row] = []
    imported: dict[tuple[str, ...], int] = {}
    lines = {entry.id: imported_lines(entry) for entry in past.entries if entry.is_imported}
    told = {name for table in lines.values() for name, _ in table}
    said = _successes(past)
    for entry in past.entries:
        if not entry.is_imported:
            found.append(_row(entry))
            continue
        for row in _imported(entry, lines[entry.id], told, said):
            key = (row.name or "", *(repr(row.scores.get(column)) for column in COLUMNS))
            if key in imported:
                earlier = found[imported[key]]
                found[imported[key]] = Row(**{**earlier.__dict__, "sources": (*earlier.sources, row.id)})
            else:
                imported[key] = len(found)
                found.append(row)
    return found


def _row(entry: Entry) -> Row:
    about, attempt, evaluation = entry.about, entry.attempt, entry.evaluation
    scored = entry.status == "scored"
    return Row(
        entry.id,
        known_name(entry),
        about.kind,
        entry.status,
        attempt.success if attempt else None,
        attempt.versus_parent if attempt else "unknown",
        about.parent,
        about.proposer,
        about.protocol,
        evaluation.fingerprint if evaluation and scored else None,
        dict(entry.scores),
        _settings(entry),
        settings_done(entry),
        tuple(evaluation.devices) if evaluation and scored else (),
        attempt.error if attempt else None,
        entry.lesson,
        (),
    )


def _settings(entry: Entry) -> str | None:
    if entry.status != "scored" or entry.evaluation is None or entry.mad_score is not None:
        return None
    tasks = entry.evaluation.tasks.values()
    return f"{sum(task.settings_done for task in tasks)}/{sum(task.settings_total for task in tasks)}"


def settings_done(entry: Entry) -> dict[str, str]:
    """Column -> `1/11`, of each column that has no score yet though some of its settings are done."""
    tasks = entry.evaluation.tasks if entry.evaluation and entry.scores else {}
    return {
        COLUMN_OF[task]: f"{found.settings_done}/{found.settings_total}"
        for task, found in tasks.items()
        if task in COLUMN_OF and found.settings_done and entry.scores.get(COLUMN_OF[task]) is None
    }


def _imported(
    entry: Entry, lines: list[tuple[str, dict[str, float]]], told: set[str], said: dict[str, bool]
) -> list[Row]:
    """The lines of an imported table, and its own name where no imported table has scores for it; one row at the least."""
    own = entry.name
    if not lines or (own and own not in told):
        lines = [*lines, (own or "", {})]
    return [
        Row(
            entry.id,
            name or None,
            "imported",
            "imported",
            said.get(name),
            "unknown",
            None,
            None,
            None,
            None,
            dict(scores),
            None,
            {},
            (),
            None,
            entry.lesson if name == own else None,
            (entry.id,),
        )
        for name, scores in lines
    ]


def _successes(past: Past) -> dict[str, bool]:
    """Name -> what the first record says of the proposal; a line of a table alone says nothing."""
    found: dict[str, bool] = {}
    for entry in past.entries:
        if entry.is_imported and entry.attempt and entry.attempt.name and entry.attempt.success is not None:
            found.setdefault(entry.attempt.name, entry.attempt.success)
    return found


def imported_lines(entry: Entry) -> list[tuple[str, dict[str, float]]]:
    """(name, scores) for each line of the table of an imported entry; none where a stranger made it no table."""
    try:
        lines = list(csv.DictReader(io.StringIO(entry.prose("results.csv") or "")))
    except csv.Error:
        return []
    return [
        (
            line.get("name") or "",
            {column: value for column in COLUMNS if (value := number(line.get(column))) is not None},
        )
        for line in lines
    ]


def number(text: str | None) -> float | None:
    """A finite number, None for an empty cell or NaN."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def table(shown: Sequence[Row], width: int = 240) -> Table | Text:
    """A line an attempt where there is room, else its words above its figures: no name and no score is cut off."""
    return _grid(shown) if width >= _WIDE else _narrow(shown)


def _narrow(shown: Sequence[Row]) -> Text:
    """For 80 columns; a name that is longer goes on on the next line."""
    titles = [*(column.rpartition(" ") for column in COLUMNS), _mean_title(shown).partition(" ")]
    lines = [_figures([top for top, _, _ in titles]), _figures([last for _, _, last in titles])]
    for row in shown:
        beside = f"{row.versus_parent} against {row.parent}" if row.success else f"child of {row.parent}"
        words = (row.name or "(no name)", row.status, row.protocol or _in_records(row), beside if row.parent else "")
        lines.append(f"{row.id}  {one_line(', '.join(word for word in words if word), 400)}")
        lines.append(_figures(_cells(row)))
    return Text("\n".join(line for line in lines if line))


def _figures(cells: Sequence[str]) -> str:
    widths = (14, 9, 8, 10, 8, 11, 15)
    return "".join(f"{text:>{width}}" for text, width in zip(cells, widths, strict=True)).rstrip()


def _grid(shown: Sequence[Row]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("id", no_wrap=True)
    grid.add_column("name", overflow="fold", min_width=16)
    grid.add_column("status", no_wrap=True)
    for column in COLUMNS:
        grid.add_column(column.replace(" ", "\n"), justify="right", no_wrap=True)
    grid.add_column(_mean_title(shown).replace(" ", "\n", 1), justify="right", no_wrap=True)
    for name in ("versus\nparent", "parent", "protocol"):
        grid.add_column(name, overflow="fold")
    for row in shown:
        cells = [
            row.id,
            row.name or "(no name)",
            row.status,
            *_cells(row),
            row.versus_parent if row.parent and row.success else "",
            row.parent or "",
            row.protocol or _in_records(row),
        ]
        grid.add_row(*(Text(one_line(text, 200)) for text in cells))
    return grid


def _mean_title(shown: Sequence[Row]) -> str:
    """Both names where both are there: a MAD score, too, is a mean of six, but no other mean is a MAD score."""
    means = {mean_name(row.protocol) for row in shown if row.fingerprint}
    return "MAD/ mean of six" if len(means) > 1 else next(iter(means), "mean of six")


def cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _in_records(row: Row) -> str:
    return f"in {len(row.sources)} records" if len(row.sources) > 1 else ""


def _cells(row: Row) -> list[str]:
    """The six columns and their mean; of a task that is not whole how many of its settings are done."""
    return [*(cell(row.scores.get(column)) or row.settings_done.get(column, "") for column in COLUMNS), _mean(row)]


def _mean(row: Row) -> str:
    if row.kind == "imported":
        return ""  # never ranked as measured
    return f"partial {row.settings}" if row.settings else cell(mean_score(row.scores))


def csv_table(shown: Iterable[Row], protocol: str | None) -> tuple[str, list[str]]:
    """The results table of one fingerprint, the latest score of each variant, a whole one if any is; and what it leaves out."""
    shown = list(shown)
    measured = [row for row in shown if row.fingerprint and row.kind == "attempt"]
    wanted = [row for row in measured if protocol in (None, row.protocol)]
    if not wanted:
        if protocol and measured:
            raise BadInput(f"nothing is scored under {protocol}")
        return results_csv([]), []
    one = [row for row in wanted if row.fingerprint == wanted[-1].fingerprint]
    notes = (
        [f"{len(measured) - len(one)} row(s) of other protocols or fingerprints are left out"]
        if len(measured) > len(one)
        else []
    )
    latest = {row.name or "": row.scores for row in one}
    latest |= {row.name or "": row.scores for row in one if not row.settings}  # a partial one that came later hides no whole one
    return results_csv((name, scores) for name, scores in latest.items()), notes
