"""The README shows what the program prints, and its commands exist."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
COMMANDS = ("run", "list", "show", "replay", "score", "check", "import")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_is_what_the_readme_shows(command):
    shown = subprocess.run(
        [sys.executable, "-m", "agent", command, "--help"], capture_output=True, text=True, check=True, cwd=PROJECT
    ).stdout
    assert "\n".join(line.rstrip() for line in shown.strip().splitlines()) in README


def test_the_two_commands_are_in_the_makefile():
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_link_leads_somewhere():
    pages = [*(PROJECT / "docs").glob("*.md"), PROJECT / "benchmarks" / "README.md"]
    for page in (README, *(path.read_text() for path in pages)):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page):
            assert any((folder / target).exists() for folder in (PROJECT, PROJECT / "docs", PROJECT / "benchmarks")), target


def test_the_figures_of_what_was_tried_add_up():
    page = (PROJECT / "docs" / "attacks.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if re.match(r"\| 20\d\d-", line)]
    number = lambda cell: int(found.group()) if (found := re.search(r"\d+", cell.split(":")[0])) else 0  # noqa: E731
    sums = {who: [sum(number(row[at]) for row in rows if row[1].startswith(who)) for at in range(2, 7)] for who in ("contract", "the gates")}
    assert f"some {sums['contract'][0]} | {' | '.join(map(str, sums['contract'][1:]))} |" in README
    assert f"| {' | '.join(map(str, sums['the gates'][1:]))} |" in README
    cases = json.loads((PROJECT / "tests" / "attacks" / "manifest.json").read_text(encoding="utf-8"))
    honest = sum(case["cls"] == "honest" for case in cases)
    assert f"| {len(cases) - honest + 61} | - | - | {honest + 7} |" in README  # with the corpus from outside


def test_each_gate_stands_with_what_it_catches_alone():
    cases = json.loads((PROJECT / "tests" / "attacks" / "manifest.json").read_text(encoding="utf-8"))
    table = re.findall(r"^\| `(\w+)` \| \S+ \| (\S+) \|", (PROJECT / "docs" / "trust.md").read_text(encoding="utf-8"), re.MULTILINE)
    caught = Counter(gate for case in cases if case["cls"] != "honest" for gate in case["by"])
    assert dict(table) == {gate: str(caught.get(gate, "-")) for gate, _ in table}
    assert caught.keys() <= dict(table).keys()
