"""What the walls hold back: an escape is tried for real in a process behind each level that stands on this machine."""

import contextlib
import functools
import os
import re
import select
import stat
import time
from pathlib import Path

import pytest
import torch

from evaluator import confine, sandbox
from evaluator.operator import OperatorError, OperatorProcess
from evaluator.sandbox import Walls

PLAIN = sandbox.choose("off")


@functools.cache
def without_bubblewrap():
    inner = ["no-network", "read-only", "landlock", "seccomp", "rlimits", "watch"]
    return Walls("landlock", tuple(inner)) if confine.landlock_version() and confine.has_seccomp() else None


def levels():
    best = sandbox.choose("auto")
    found = {w.level: w for w in (best, without_bubblewrap(), PLAIN) if w}
    return list(found.values())


WALLED = [pytest.param(w, id=w.level) for w in levels() if w.level != "plain"]
EVERY = [pytest.param(w, id=w.level) for w in levels()]

ENTER = "import json, os, sys\nfrom evaluator import confine\nconfine.enter(confine.Spec(**json.loads(sys.argv[1])))\n"


class Run:
    """One attack behind walls: what it printed, how it ended, what was wrong with it."""

    def __init__(self, attack, walls, *, memory=1 << 30, patience=6.0, device="cpu"):
        read, write = os.pipe()
        code = ENTER + attack
        self.jail = sandbox.start(
            ("-c", code), walls, pass_fds=(), log_fd=write, device=device, memory=memory, threads=1, arguments=()
        )
        os.close(write)
        self.trouble, self.text, deadline = None, b"", time.monotonic() + patience
        while time.monotonic() < deadline and not self.trouble:
            if select.select([read], [], [], 0.05)[0]:
                data = os.read(read, 1 << 16)
                if not data:
                    break
                self.text = (self.text + data)[: 1 << 20]
            self.trouble = self.jail.trouble()
        self.trouble = self.trouble or self.jail.found  # whoever of the two saw it first
        self.finished = time.monotonic() < deadline and not self.trouble
        self.scratch = self.jail.scratch
        with contextlib.suppress(Exception):
            self.jail.process.wait(0.5 if self.finished else 0)
        self.status = self.jail.kill()
        os.close(read)

    @property
    def said(self):
        return self.text.decode(errors="replace")


def processes():
    """Process ids of this machine."""
    return {int(p) for p in os.listdir("/proc") if p.isdigit()}


def command_line(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


@pytest.mark.parametrize("walls", EVERY)
def test_an_honest_process_runs_and_leaves_nothing(walls):
    run = Run("open(os.environ['HOME'] + '/own', 'w').write('x'); print('fine', sorted(os.environ))", walls)
    assert run.status == 0
    assert run.said.startswith("fine")
    assert not run.scratch.exists()


@pytest.mark.parametrize("walls", EVERY)
def test_no_secret_is_in_the_environment(walls, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert "secret" not in Run("print(os.environ)", walls).said


@pytest.mark.parametrize("walls", WALLED)
@pytest.mark.parametrize(
    "attack",
    [
        "open('{place}/forged', 'w')",
        "os.symlink('/etc/passwd', '{place}/forged')",
        "os.mkdir('{place}/forged')",
        "os.rename('{place}/kept', '{place}/forged')",
        "os.truncate('{place}/kept', 0)",
        "os.chmod('{place}/kept', 0o777)",
        "open(os.path.dirname(confine.__file__) + '/forged.py', 'w')",
        "open('/usr/lib/forged', 'w')",
    ],
)
def test_no_file_outside_changes(walls, attack, tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("kept")
    mode = kept.stat().st_mode
    run = Run(attack.format(place=tmp_path), walls)
    if "chmod" not in attack:  # Landlock does not know of modes
        assert "Error" in run.said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept"]
    assert kept.read_text() == "kept"
    assert walls.level == "landlock" or kept.stat().st_mode == mode
    assert not (sandbox.PACKAGE / "forged.py").exists()


@pytest.mark.parametrize("walls", WALLED)
@pytest.mark.parametrize("path", ["{place}/secret", "/proc/{parent}/environ", "/etc/shadow", "{home}/.bashrc"])
def test_no_file_of_the_user_is_read(walls, path, tmp_path):
    (tmp_path / "secret").write_text("a secret")
    target = path.format(place=tmp_path, parent=os.getpid(), home=Path.home())
    run = Run(f"print('read', len(open({target!r}, 'rb').read()))", walls)
    assert "Error" in run.said
    assert "read" not in run.said.split("Error")[0].splitlines()[-1]


@pytest.mark.parametrize("walls", WALLED)
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"])
def test_no_network(walls, family):
    run = Run(f"import socket; socket.socket(socket.{family}); print('open')", walls)
    assert "PermissionError" in run.said


@pytest.mark.parametrize("walls", WALLED)
@pytest.mark.parametrize(
    "attack",
    [
        "os.kill({parent}, 9)",
        "os.killpg(os.getpgid({parent}), 9)",
        "import ctypes; print('denied' if ctypes.CDLL(None).ptrace(16, {parent}, 0, 0) else 'traced'); raise OSError",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "import subprocess; subprocess.run(['true'])",
        "os.posix_spawn('/bin/true', ['true'], {{}})",
    ],
)
def test_no_other_process_is_reached_or_started(walls, attack):
    run = Run(attack.format(parent=os.getpid()), walls)
    assert "Error" in run.said
    assert "traced" not in run.said


@pytest.mark.parametrize("walls", EVERY)
def test_ending_it_again_and_a_folder_it_closed_leave_the_folder_above_as_it_was(walls, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox.tempfile, "tempdir", str(tmp_path))
    tmp_path.chmod(0o1777)
    close = "os.makedirs('a/b'); open('a/b/c', 'w'); os.chmod('a/b', 0); os.chmod('a', 0); os.chmod('.', 0o500)"
    run = Run(f"os.chdir(os.environ['HOME']); {close}", walls)
    assert run.jail.kill() == run.status
    assert not list(tmp_path.iterdir())
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777


@pytest.mark.parametrize("walls", EVERY)
def test_a_daemon_does_not_outlive_its_process(walls):
    before = processes()
    attack = "os.fork() or (os.setsid(), os.fork() or __import__('time').sleep(60), os._exit(0))"
    Run(attack, walls, device="cuda" if walls.level != "plain" else "cpu", patience=1.0)  # where a compiler may start
    assert not {p for p in processes() - before if "sleep(60)" in command_line(p)}


@pytest.mark.parametrize("walls", EVERY)
def test_a_fork_bomb_ends(walls):
    bomb = "[os.fork() for _ in range(9)]; __import__('time').sleep(60)"
    run = Run(bomb, walls, device="cuda" if walls.level != "plain" else "cpu")
    assert "more than" in run.trouble  # threads, or the memory of all
    assert not run.scratch.exists()


@pytest.mark.parametrize("walls", EVERY)
def test_a_thread_bomb_ends(walls):
    one = "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    bomb = f"import threading, time\nfor _ in range(400): {one}\ntime.sleep(60)"
    run = Run(bomb, walls)  # whichever sees it first: the watch, or the limit on memory, as each thread has a stack
    assert "can't start new thread" in run.said or "threads" in run.trouble


@pytest.mark.parametrize("walls", EVERY)
def test_memory_is_bounded(walls):
    run = Run("x = []\nwhile True: x.append(bytearray(1 << 26))", walls, memory=400 << 20)
    assert "MemoryError" in run.said or "memory" in run.trouble


@pytest.mark.parametrize("walls", EVERY)
def test_its_own_folder_is_bounded(walls):
    fill = "n = 0\nwhile True:\n    n += 1\n    open(os.environ['HOME'] + f'/{n}', 'wb').write(bytes(16 << 20))"
    run = Run(fill, walls)
    assert "No space left" in run.said or "folder" in run.trouble
    assert not run.scratch.exists()


HIDDEN = {
    "files without a name": (
        "n = 0\nwhile True:\n    n += 1\n    f = open(os.environ['HOME'] + f'/{n}', 'wb'); os.unlink(f.name); kept.append(f)\n"
        "    f.write(bytes(16 << 20)); f.flush()"
    ),
    "memory in a descriptor": "fd = os.memfd_create('x')\nwhile True: os.write(fd, bytes(1 << 24))",
    "memory that is shared and given back": (
        "import mmap\nwhile True:\n    m = mmap.mmap(-1, 64 << 20); kept.append(m)\n"
        "    for at in range(0, len(m), 4096): m[at] = 1\n    m.madvise(mmap.MADV_DONTNEED)"
    ),
}


@pytest.mark.parametrize("walls", EVERY)
@pytest.mark.parametrize("how", HIDDEN)
def test_what_is_taken_out_of_sight_is_bounded_too(walls, how):
    run = Run("kept = []\n" + HIDDEN[how], walls, memory=400 << 20, patience=20)
    assert re.search("No space left|Operation not permitted|MemoryError|Cannot allocate", run.said) or "more than" in run.trouble


@pytest.mark.parametrize("walls", EVERY)
def test_a_process_is_watched_where_nobody_asks_it_anything(walls):
    plain = "def delta_rule(q, k, v, beta, *, chunk_size):\n    threading.Thread(target=fill, daemon=True).start()\n    return v\n"
    fill = "def fill():\n    for n in range(40):\n        open(os.environ['HOME'] + f'/{n}', 'wb').write(bytes(16 << 20))\n    time.sleep(60)\n\n\n"
    x = {"q": torch.ones(1, 1, 4, 4), "k": torch.ones(1, 1, 4, 4), "v": torch.ones(1, 1, 4, 4), "beta": torch.ones(1, 1, 4)}
    with OperatorProcess({"naive": "import os, threading, time\n\n\n" + fill + plain}, walls=walls, timeout=20) as process:
        process.forward(x, chunk_size=4)
        until = time.monotonic() + 20
        while process._talk.jail.process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        if process._talk.jail.process.poll() is None:
            assert walls.level == "bubblewrap"  # where its folder is a disk of that size
            return
        with pytest.raises(OperatorError, match="more than the 256 it may"):
            process.forward(x, chunk_size=4)


@pytest.mark.parametrize("walls", [pytest.param(w, id=w.level) for w in levels() if "seccomp" in w.standing])
def test_a_process_can_neither_outlive_its_parent_nor_close_itself_to_who_watches_it(walls):
    run = Run("import ctypes\nlibc = ctypes.CDLL(None)\nprint([libc.prctl(option, 0, 0, 0, 0) for option in (1, 4)], libc.prctl(3))", walls)
    assert "[-1, -1]" in run.said


@pytest.mark.parametrize("walls", EVERY)
def test_a_hang_ends_in_its_time(walls):
    began = time.monotonic()
    run = Run("while True: pass", walls, patience=1.0)
    assert run.status is None
    assert time.monotonic() - began < 30


def test_require_refuses_where_no_wall_stands(monkeypatch):
    monkeypatch.setattr(sandbox, "_best", lambda: PLAIN)
    with pytest.raises(sandbox.SandboxError, match="install bubblewrap"):
        sandbox.choose("require")
    assert sandbox.choose("auto") == PLAIN
