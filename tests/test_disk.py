"""A disk that is full, or that nobody may write to: a sentence, nothing half counted, and the next run goes on.

AGENT_TORTURE=300 fills the disk at every page that an entry takes.
"""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from agent import history

TORTURE = int(os.environ.get("AGENT_TORTURE", "8"))
PAGES = range(72) if TORTURE >= 300 else (0, 1, 3, 6)
HOLD = ["bwrap", "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]


@cache
def can_mount() -> bool:
    """Whether bubblewrap works here."""
    if not shutil.which("bwrap"):
        return False
    return subprocess.run([*HOLD, "true"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not can_mount(), reason="needs bubblewrap, to mount a small disk")


def agent(*arguments: str) -> str:
    return f"{sys.executable} -m agent {' '.join(arguments)}"


@pytest.fixture(scope="module")
def empty_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disk")


@pytest.mark.parametrize("pages", PAGES)
def test_a_full_disk_leaves_nothing_half_counted(root: Path, empty_disk: Path, tmp_path: Path, pages: int) -> None:
    """A disk with room for so many pages beside the root: whichever write comes next fails."""
    files = [path for path in root.rglob("*") if path.is_file()]
    room = sum(-(-path.stat().st_size // 4096) for path in files) + pages
    left = tmp_path / "left"
    left.mkdir()
    place = str(empty_disk)
    script = f"cp -r {root}/. {place} && {{ {agent('score', 'delta_net', '--root', place)}; s=$?; cp -r {place}/. {left}; exit $s; }}"
    done = subprocess.run([*HOLD, "--size", str(room * 4096), "--tmpfs", place, "sh", "-c", script], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    past = history.read(left)
    assert past.problems == ()
    statuses = [entry.status for entry in past.entries]
    if done.returncode == 0:
        assert statuses == ["scored"]
    else:
        assert done.returncode == 3
        assert "No space left on device" in done.stderr
        assert statuses in ([], ["interrupted"])
    after = subprocess.run([*HOLD, "sh", "-c", agent("score", "delta_net", "--root", str(left))], capture_output=True, text=True)
    assert after.returncode == 0, after.stderr
    assert history.read(left).entries[-1].status == "scored"


@pytest.mark.parametrize("command", ["run", "score delta_net", "import record.txt"])
def test_a_read_only_disk_is_a_sentence(root: Path, command: str) -> None:
    (root / "record.txt").write_text("Name\n\nan_old_one\n")
    command = command.replace("record.txt", str(root / "record.txt"))
    done = subprocess.run(
        [*HOLD, "--ro-bind", str(root), str(root), "sh", "-c", agent(*command.split(), "--root", str(root))],
        capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 3
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (root / "history").exists()
