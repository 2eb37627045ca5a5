"""One entry told in full: what was proposed, what was measured beside the parent, what was learned."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from . import variants
from .compare import bar, mean_bar, minus, settings_beside, stood_beside
from .errors import BadInput
from .exchange import totals
from .history import Entry, Past, read_check
from .interrupted import goes_on, known_name
from .listing import Row, cell, imported_lines, rows, settings_done
from .proposal.prediction import left_out
from .proposal.reply import Proposal, parsed
from .records import COLUMNS, Evaluation, Score, mean_name, mean_score
from .repo import committed_source, holds_source
from .text import one_line, printable

_SHOWN = 20_000  # characters of one file; the file itself is named


def as_json(entry: Entry, past: Past) -> dict[str, Any]:
    """The row of `agent list`, and what the other files of the entry say."""
    row = _row(entry, past)
    report = read_check(entry.folder)
    return {
        **(row.as_json() if row else {"id": entry.id}),
        **entry.about.model_dump(mode="json"),
        "folder": str(entry.folder),
        "files": files(entry),
        "proposal": entry.prose("proposal.md"),
        "insight": entry.prose("insight.md"),
        "diff": entry.prose("patch.diff"),
        "check": report.model_dump(mode="json") if report else None,
        "evaluation": entry.evaluation.model_dump(mode="json") if entry.evaluation else None,
        "compared": _compared(entry, past),
        "exchanges": totals(entry.folder / "llm.jsonl"),
        "imported": [{"name": name, "scores": scores} for name, scores in (imported_lines(entry) if entry.is_imported else [])],
    }


def _row(entry: Entry, past: Past) -> Row | None:
    """Its row in the list; of an imported table the line that has its own name, and no scores where none has."""
    found = [row for row in rows(past) if entry.id in (row.id, *row.sources)]
    if not entry.is_imported or not found:
        return next(iter(found), None)
    own = next((row for row in found if row.name == entry.name), None)
    return own or replace(found[0], name=entry.name, scores={})


def _compared(entry: Entry, past: Past) -> dict[str, Any] | None:
    """What its scores stand beside, and by how much each is above it."""
    other = stood_beside(entry, past) if entry.scores else None
    if other is None or other.evaluation is None or entry.evaluation is None:
        return None
    old, new = other.evaluation.settings, entry.evaluation.settings
    return {
        "id": other.id,
        "name": other.name,
        "differences": {column: minus(entry.scores.get(column), other.scores.get(column)) for column in COLUMNS},
        "settings": {f"{task}:{name}": minus(new[task, name], old[task, name]) for task, name in new if (task, name) in old},
    }


def files(entry: Entry) -> list[str]:
    return sorted(
        str(path.relative_to(entry.folder))
        for path in entry.folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


def in_full(entry: Entry, past: Past, root: Path) -> Group:
    """For a terminal."""
    return Group(*_parts(entry, past, root))


def log(entry: Entry, console: Console) -> None:
    """The training log, as data."""
    text = entry.prose("train.log")
    if text is None:
        raise BadInput(f"{entry.id} has no train.log")
    console.print(Text(printable(text)), soft_wrap=True)


def _parts(entry: Entry, past: Past, root: Path) -> Iterator[RenderableType]:
    yield _facts(entry, root)
    proposal = proposal_of(entry)
    yield from _section("Proposal", entry.prose("proposal.md") if proposal is None else _prose(proposal))
    report = read_check(entry.folder)
    if report and report.verdict != "pass":
        yield from _section("Gates", report.reason)
    if entry.scores:
        yield from _section("Scores", None)
        yield from measured(entry, past)
    if lines := imported_lines(entry) if entry.is_imported else []:
        yield from _section("Imported table (not measured here)", None)
        yield _imported(lines)
    yield from _section("Insight", entry.prose("insight.md"))
    if diff := entry.prose("patch.diff"):
        yield from _section("Change", None)
        yield _coloured(diff)
    yield from _section("Files", _where(entry, root))


def _section(title: str, text: str | None) -> Iterator[Text]:
    if text is None and title in ("Proposal", "Insight"):
        return
    yield Text(f"\n{title}", style="bold")
    if text is not None:
        yield Text(printable(text[:_SHOWN]).strip() + _rest(text))


def _rest(text: str) -> str:
    return f"\n... ({len(text):,} characters; the rest is in the file)" if len(text) > _SHOWN else ""


def _coloured(diff: str) -> Text:
    colours = {"+": "green", "-": "red", "@": "cyan"}
    lines = printable(diff[:_SHOWN]).splitlines(keepends=True)
    return Text.assemble(*((line, colours.get(line[0], "")) for line in lines), _rest(diff))


def _facts(entry: Entry, root: Path) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    for name, value in _known(entry, root):
        if value:
            grid.add_row(name, Text(one_line(value, 600)))
    return grid


def _known(entry: Entry, root: Path) -> Iterator[tuple[str, str | None]]:
    about, attempt, evaluation = entry.about, entry.attempt, entry.evaluation
    yield "entry", f"{entry.id}  {known_name(entry) or '(no name)'}"
    yield "status", entry.status + (f": {attempt.error}" if attempt and attempt.error else "")
    yield "goes on", goes_on(entry, root)
    yield "kind", about.kind + (f" of {about.source}" if about.source else "")
    if entry.is_imported and attempt and attempt.success is not None:
        yield "success", f"{attempt.success}, as the record says".lower()
    yield "parent", about.parent
    yield "proposer", " ".join(filter(None, (about.proposer, about.model)))
    yield "started", about.started.isoformat(" ") if about.started else None
    yield "base commit", about.base_commit
    if evaluation:
        yield (
            "protocol",
            (
                f"{evaluation.protocol.name}-{evaluation.protocol.version}, fingerprint "
                f"{evaluation.fingerprint[:12]}, seeds {', '.join(map(str, evaluation.seeds))}"
            ),
        )
        yield "devices" if len(evaluation.devices) > 1 else "device", ", ".join(evaluation.devices)
    else:
        yield "protocol", about.protocol
    spent = totals(entry.folder / "llm.jsonl")
    if spent["exchanges"]:
        yield (
            "model",
            (
                f"{spent['exchanges']:.0f} exchange(s), {spent['input_tokens']:.0f} tokens in, "
                f"{spent['output_tokens']:.0f} out" + (f", cost {spent['cost']:.4f}" if spent["cost"] else "")
            ),
        )


def _prose(proposal: Proposal) -> str:
    predicted = ", ".join(f"{column} {value:+.3f}" for column, value in proposal.prediction.items())
    head = [
        proposal.title,
        f"Mechanism: {proposal.mechanism}" if proposal.mechanism else "",
        f"Predicted: {predicted}" if predicted else "",
        f"Not read of the prediction: {left_out(proposal.unread)}" if proposal.unread else "",
    ]
    return "\n".join([*filter(None, head), "", proposal.prose])


def proposal_of(entry: Entry) -> Proposal | None:
    return parsed(entry.prose("proposal.md"))


def measured(entry: Entry, past: Past) -> Iterator[RenderableType]:
    """The scores beside the parent's or the baseline's, and of a row that is not whole the settings that are done."""
    parent = entry.about.parent
    before = stood_beside(entry, past)
    title = "parent" if before is None or before.name == parent else one_line(before.name or "", 40)
    yield _scores(entry, before, title)
    if entry.evaluation and entry.evaluation.status != "scored":
        yield _settings(entry, entry.evaluation, before, title)


@dataclass(frozen=True)
class _Figures:
    """Rows of words and figures: a table where there is room, else a line each in which no figure is cut."""

    words: tuple[str, ...]
    figures: tuple[str, ...]
    title: str | None = None
    rows: list[list[str]] = field(default_factory=list)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=None, pad_edge=False, header_style="bold", title=self.title, title_style="bold", title_justify="left")
        for name in (*self.words, *self.figures):
            table.add_column(name, justify="left" if name in self.words else "right")
        for row in self.rows:
            table.add_row(*row)
        if console.measure(table, options=options.update(max_width=1000)).maximum <= options.max_width:
            yield table
            return
        if self.title:
            yield self.title
        for row in self.rows:
            values = zip(self.figures, row[len(self.words) :], strict=True)
            told = ", ".join(f"{name} {value}" for name, value in values if value)
            yield Text(f"{' '.join(row[: len(self.words)])}: {told}")


def _scores(entry: Entry, before: Entry | None, title: str) -> _Figures:
    """Each task beside the other score, with the difference that would be more than noise."""
    proposal = proposal_of(entry)
    old: dict[str, Score] = before.scores if before else {}
    noise = (entry.attempt.noise if entry.attempt else None) or {}
    grid = _Figures(("task",), ("score", title, "difference", "noise", "predicted"))
    for column in COLUMNS:
        predicted = proposal.prediction.get(column) if proposal else None
        new = entry.scores.get(column)
        cells = _cells(new, old.get(column), bar(noise.get(column)), predicted)
        grid.rows.append([column, cell(new) or _done(entry, column), *cells])
    cells = _cells(entry.mad_score, mean_score(old), mean_bar(noise), None)
    grid.rows.append([mean_name(entry.about.protocol), cell(entry.mad_score) or "partial", *cells])
    return grid


def _done(entry: Entry, column: str) -> str:
    return f"{settings_done(entry).get(column, 'none')} done"


def _settings(entry: Entry, evaluation: Evaluation, before: Entry | None, title: str) -> _Figures:
    """Those that are done of a row that is not whole."""
    grid = _Figures(("task", "setting"), ("accuracy", title, "difference", "noise"), "\nSettings that are done")
    noise = (entry.attempt.setting_noise if entry.attempt else None) or {}
    for setting in settings_beside(evaluation, before, noise):
        cells = _cells(setting.accuracy, setting.other, bar(setting.sigma), None)[:3]
        grid.rows.append([one_line(setting.task, 60), one_line(setting.name, 120), cell(setting.accuracy), *cells])
    return grid


def _cells(new: Score, old: Score, limit: float | None, predicted: float | None) -> list[str]:
    difference = minus(new, old)
    return [
        cell(old),
        "" if difference is None else f"{difference:+.4f}",
        "" if limit is None else f"±{limit:.4f}",
        "" if predicted is None else f"{predicted:+.3f}",
    ]


def _imported(lines: list[tuple[str, dict[str, float]]]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", *COLUMNS):
        grid.add_column(title, overflow="fold")
    for name, scores in lines:
        grid.add_row(Text(one_line(name, 200)), *(cell(scores.get(column)) for column in COLUMNS))
    return grid


def _where(entry: Entry, root: Path) -> str:
    lines = [f"{entry.folder}: {', '.join(files(entry))}"]
    if not entry.name or entry.status != "scored":
        return lines[0]
    place = root / "variants" / entry.name
    if holds_source(root, entry):
        lines.append(f"{place}: {', '.join(_forms(root, entry.name))}{_left_out(entry, root)}")
    elif entry.evaluation:
        found = committed_source(root, entry.name, entry.evaluation.variant.digest)
        now = "edited since" if entry.name in variants.names(root) else "no longer there"
        lines.append(f"{place}: {now}; " + (f"what was scored is in commit {found[0]}" if found else "what was scored is in no commit here"))
    return "\n".join(lines)


def _forms(root: Path, name: str) -> list[str]:
    folder = root / "variants" / name
    return [form for form in variants.FORMS if (folder / form).exists()]


def _left_out(entry: Entry, root: Path) -> str:
    """A child has the forms that its proposal gave; which of the parent's it has not must be told."""
    parent = entry.about.parent
    if not parent or not entry.name or parent not in variants.names(root):
        return ""
    missing = [form for form in _forms(root, parent) if form not in _forms(root, entry.name)]
    return f" (without its parent's {', '.join(missing)})" if missing else ""
