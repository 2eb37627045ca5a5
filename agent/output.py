"""What the commands print: tables for people, one JSON document for programs, sentences on stderr."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from . import history, listing, replay, show, variants
from .compare import BASELINE
from .history import Entry, Past
from .replay import Replay
from .text import one_line, printable


def console(*, err: bool = False) -> Console:
    """Tables are as wide as they need to be where no terminal limits them."""
    console = Console(stderr=err, highlight=False, emoji=False)
    return console if console.is_terminal else Console(stderr=err, highlight=False, emoji=False, width=240)


def say(text: str) -> None:
    typer.echo(printable(text), err=True)


def tell(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        say(sentence)


def say_empty(root: Path, past: Past) -> None:
    """That there is no attempt: the folder may be another than the one that was meant; BadInput where it is no project's."""
    variants.sources(variants.folder_of(root, BASELINE))  # what `agent run` needs, too
    found = "history/ holds no attempt" if (root / "history").is_dir() else "there is no history/"
    found += " that can be read" if past.problems else ""
    say(f"{found} in {one_line(str(root.absolute()), 200)}: `agent run` makes {'one' if past.problems else 'the first'}")


def print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2))


def print_done(out: Console, root: Path, done: list[Entry], *, in_full: bool = False) -> None:
    """Their rows, and `in_full` what each is compared with."""
    if not done:
        return
    ids, past = {entry.id for entry in done}, history.read(root)
    out.print()
    out.print(listing.table([row for row in listing.rows(past) if row.id in ids], out.width))
    for entry in done if in_full else []:
        for grid in show.measured(entry, past) if entry.scores else ():
            out.print()
            out.print(grid)
    where = escape(str(root / "history"))
    out.print(f"\nRead on: `agent show {done[-1].id}`, `agent list`; the files are in {where}")


def without_a_score(done: Sequence[Entry]) -> str | None:
    """That none of the attempts got a score, and how they ended; None where one did."""
    made = [entry.status for entry in done if entry.about.proposer and entry.status != "interrupted"]
    if not made or "scored" in made:
        return None
    ended = ", ".join(f"{count} {status}" for status, count in sorted(Counter(made).items()))
    return f"none of the {len(made)} attempts got a score: {ended}" if len(made) > 1 else f"the attempt got no score: {made[0]}"


def print_replay(done: Replay) -> None:
    console().print(replay.table(done))
    tell(done.changes)
    typer.echo(f"{done.id} {printable(done.name)}: {done.verdict}")
