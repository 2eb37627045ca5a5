"""Temporary folders of killed commands go with the next command, those of living ones stay."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from agent import scratch
from agent.errors import EnvironmentFault
from evaluator import results
from evaluator.__main__ import ENVIRONMENT, main

VARIANT = Path(__file__).parents[1] / "variants" / "delta_net"
HOLD = "import time\nfrom agent.scratch import scratch\nwith scratch() as place:\n    print(place.parent, flush=True)\n    time.sleep(60)\n"


def held(base: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(base)})
    assert process.stdout
    folder = Path(process.stdout.readline().strip())
    os.utime(folder, (time.time() - 3600,) * 2)
    return process, folder


def test_what_the_killed_left_is_removed_and_what_is_held_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (living, kept), (killed, left) = held(tmp_path), held(tmp_path)
    (left / "runs.csv").write_text("x")
    os.utime(left, (time.time() - 3600,) * 2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    with scratch.scratch() as mine, results.alone(mine):  # as the evaluator does that is given it
        assert sorted(tmp_path.iterdir()) == sorted([kept, mine.parent])
    living.kill()
    living.wait()
    assert sorted(tmp_path.iterdir()) == [kept]


def test_no_place_for_one_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with pytest.raises(EnvironmentFault, match="no temporary folder can be made: No such file"), scratch.scratch():
        pass


@pytest.mark.parametrize("command", [("check",), ("score", "--protocol", "smoke", "--out")])
def test_an_evaluator_without_a_temporary_folder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    asked, *options = command
    out = [str(tmp_path / "out")] if options else []
    assert main([asked, str(VARIANT), *options, *out]) == ENVIRONMENT
    assert capsys.readouterr().err == "evaluator: no temporary folder can be made: No such file or directory\n"
