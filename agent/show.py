"""One entry told in full: what was proposed, what was measured beside the parent, what was learned."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from . import variants
from .compare import bar, mean_bar, measured, minus
from .errors import BadInput
from .exchange import totals
from .history import Entry, Past, read_check
from .listing import cell, imported_lines, rows
from .records import COLUMNS, Score, mean_name, mean_score
from .reply import Proposal, ReplyError, parse
from .text import one_line, printable

_SHOWN = 20_000  # characters of one file; the file itself is named


def as_json(entry: Entry, past: Past) -> dict[str, Any]:
    """The row of `agent list`, and what the other files of the entry say."""
    row = next((row for row in rows(past) if row.id == entry.id), None)
    report = read_check(entry.folder)
    return {
        **(row.as_json() if row else {"id": entry.id}),
        **(entry.about.model_dump(mode="json") if entry.about else {}),
        "folder": str(entry.folder),
        "files": files(entry),
        "proposal": entry.prose("proposal.md"),
        "insight": entry.prose("insight.md"),
        "diff": entry.prose("patch.diff"),
        "check": report.model_dump(mode="json") if report else None,
        "evaluation": entry.evaluation.model_dump(mode="json") if entry.evaluation else None,
        "exchanges": totals(entry.prose("llm.jsonl") or ""),
        "imported": [{"name": name, "scores": scores} for name, scores in imported_lines(entry)],
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
    yield _facts(entry)
    proposal = proposal_of(entry)
    yield from _section("Proposal", entry.prose("proposal.md") if proposal is None else _prose(proposal))
    report = read_check(entry.folder)
    if report and report.verdict != "pass":
        yield from _section("Gates", report.reason)
    if entry.scores:
        yield from _section("Scores", None)
        yield _scores(entry, past, proposal)
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
        cut = f"\n... ({len(text):,} characters; the rest is in the file)" if len(text) > _SHOWN else ""
        yield Text(printable(text[:_SHOWN]).strip() + cut)


def _coloured(diff: str) -> Text:
    colours = {"+": "green", "-": "red", "@": "cyan"}
    lines = printable(diff[:_SHOWN]).splitlines(keepends=True)
    return Text.assemble(*((line, colours.get(line[0], "")) for line in lines))


def _facts(entry: Entry) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    for name, value in _known(entry):
        if value:
            grid.add_row(name, Text(one_line(value, 600)))
    return grid


def _known(entry: Entry) -> Iterator[tuple[str, str | None]]:
    about, attempt, evaluation = entry.about, entry.attempt, entry.evaluation
    yield "entry", f"{entry.id}  {entry.name or '(no name)'}"
    yield "status", entry.status + (f": {attempt.error}" if attempt and attempt.error else "")
    if about:
        yield "kind", about.kind + (f" of {about.source}" if about.source else "")
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
        yield "device", str(evaluation.device.get("name") or evaluation.device.get("kind"))
    elif about:
        yield "protocol", about.protocol
    spent = totals(entry.prose("llm.jsonl") or "")
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
        "",
        proposal.prose,
    ]
    return "\n".join(line for line in head if line or line is head[3])


def proposal_of(entry: Entry) -> Proposal | None:
    try:
        return parse(entry.prose("proposal.md") or "")
    except ReplyError:
        return None


def _scores(entry: Entry, past: Past, proposal: Proposal | None) -> Table:
    """Each task beside the parent's score, with the difference that would be more than noise."""
    before = measured(
        past,
        entry.about.parent if entry.about else None,
        entry.evaluation.fingerprint if entry.evaluation else "",
    )
    old: dict[str, Score] = before.scores if before else {}
    noise = (entry.attempt.noise if entry.attempt else None) or {}
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("task", "score", "parent", "difference", "noise", "predicted"):
        grid.add_column(title, justify="left" if title == "task" else "right")
    for column in COLUMNS:
        predicted = proposal.prediction.get(column) if proposal else None
        grid.add_row(
            column, *_cells(entry.scores.get(column), old.get(column), bar(noise.get(column)), predicted)
        )
    grid.add_row(
        mean_name(entry.about.protocol if entry.about else None),
        *_cells(entry.mad_score, mean_score(old), mean_bar(noise), None),
    )
    return grid


def _cells(new: Score, old: Score, limit: float | None, predicted: float | None) -> list[str]:
    difference = minus(new, old)
    return [
        cell(new) or "partial",
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
    if entry.name and entry.status == "scored" and entry.name in variants.names(root):
        lines.append(
            f"{root / 'variants' / entry.name}: {', '.join(_forms(root, entry.name))}{_left_out(entry, root)}"
        )
    return "\n".join(lines)


def _forms(root: Path, name: str) -> list[str]:
    folder = root / "variants" / name
    return [form for form in variants.FORMS if (folder / form).exists()]


def _left_out(entry: Entry, root: Path) -> str:
    """A child has the forms that its proposal gave; which of the parent's it has not must be told."""
    parent = entry.about.parent if entry.about else None
    if not parent or not entry.name or parent not in variants.names(root):
        return ""
    missing = [form for form in _forms(root, parent) if form not in _forms(root, entry.name)]
    return f" (without its parent's {', '.join(missing)})" if missing else ""
