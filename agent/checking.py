"""`agent check`: which variant is meant, and the gates' report for a terminal."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from . import history, variants
from .errors import BadInput
from .ids import meant
from .records import CheckReport
from .repo import scored_source
from .text import one_line, printable


@contextlib.contextmanager
def variant_meant(text: str, root: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """The folder or file that is meant: an entry's ID, a path, or the name of a stored variant. Raises BadInput."""
    if meant(text):
        with _of_entry(text, root, say) as folder:
            yield folder
    elif text and Path(text).exists():
        yield Path(text)
    elif (name := variants.named(root, text)) in variants.names(root):
        yield variants.folder_of(root, name)
    else:
        raise BadInput(f"there is no variant {one_line(text, 200)!r}: give its folder, its file, its name or an entry's ID")


@contextlib.contextmanager
def _of_entry(entry_id: str, root: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """What it scored, else what failed, else what has its name."""
    entry = history.read(root).find(entry_id)
    if (entry.folder / "variant").is_dir():
        yield entry.folder / "variant"
    elif entry.scores and entry.evaluation:
        with scored_source(root, entry, say) as folder:
            yield folder
    elif entry.name and entry.name in variants.names(root):
        yield variants.folder_of(root, entry.name)
    else:
        raise BadInput(f"{entry_id} ({entry.status}) has no source to check")


def check_report(report: CheckReport) -> Group:
    """One line a gate, the verdict last."""
    grid = Table.grid(padding=(0, 2))
    for gate in report.gates:
        mark = Text("pass", style="green") if gate.passed else Text("FAIL", style="bold red")
        grid.add_row(
            mark, Text(one_line(gate.name, 60)), f"{gate.seconds:.2f} s", Text(printable(gate.message or ""))
        )
    unread = report.properties.get("not_compared") or {}
    beside = "".join(f"\n{one_line(str(at), 200)} was not compared with: {one_line(str(why), 200)}" for at, why in unread.items())
    flags = f" ({one_line(', '.join(report.flags))})" if report.flags else ""
    return Group(grid, Text(f"{beside}\n{one_line(report.variant, 120)}: {report.verdict}{flags}", style="bold"))
