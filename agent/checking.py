"""`agent check`: which variant is meant, and the gates' report for a terminal."""

from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from . import history, variants
from .errors import BadInput
from .ids import meant
from .records import CheckReport
from .text import one_line, printable


def find_variant(text: str, root: Path) -> Path:
    """The folder or file that is meant: an entry's ID, a path, or the name of a stored variant."""
    if meant(text):
        return _of_entry(text, root)
    if text and Path(text).exists():
        return Path(text)
    if (name := variants.named(root, text)) in variants.names(root):
        return variants.folder_of(root, name)
    raise BadInput(
        f"there is no variant {one_line(text, 200)!r}: give its folder, its file, its name or an entry's ID"
    )


def _of_entry(entry_id: str, root: Path) -> Path:
    entry = history.read(root).find(entry_id)
    if (entry.folder / "variant").is_dir():
        return entry.folder / "variant"
    if entry.name and entry.name in variants.names(root):
        return variants.folder_of(root, entry.name)
    raise BadInput(f"{entry_id} ({entry.status}) has no source to check")


def check_report(report: CheckReport) -> Group:
    """One line a gate, the verdict last."""
    grid = Table.grid(padding=(0, 2))
    for gate in report.gates:
        mark = Text("pass", style="green") if gate.passed else Text("FAIL", style="bold red")
        grid.add_row(
            mark, Text(one_line(gate.name, 60)), f"{gate.seconds:.2f} s", Text(printable(gate.message or ""))
        )
    flags = f" ({one_line(', '.join(report.flags))})" if report.flags else ""
    return Group(grid, Text(f"\n{one_line(report.variant, 120)}: {report.verdict}{flags}", style="bold"))
