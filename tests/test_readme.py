"""The README shows what the program prints, and its commands exist."""

import re
import subprocess
import sys
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
