"""git: one commit for each sealed entry and its variant; the files are the truth, git follows them.

Nothing else is touched: only the entry and the source that it scored are committed, without hooks, signing or prompts.
"""

import contextlib
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import variants
from .errors import BadInput
from .files import write_whole
from .history import Entry, Past
from .scratch import scratch
from .text import one_line
from .threads import aside

_QUIET = (
    "-c",
    "commit.gpgsign=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "gc.auto=0",
    "-c",
    "maintenance.auto=false",
    "-c",
    "advice.detachedHead=false",
)
_EVERYONES = ("-c", "core.excludesFile=/dev/null")  # what a user ignores everywhere, *.csv or *.log, was not meant for history/
_UNDER_WAY = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase, or `git am`,",
    "BISECT_LOG": "a bisection",
}
_LOOKED_THROUGH = 50  # commits that changed a variant
_LARGEST = 16 << 20  # bytes of a file that is committed: as many as a record may have, and none of them can be taken out again
_PATIENCE = 3.0  # seconds for a neighbour to give back the index


class GitError(Exception):
    """git would not do it; the sentence says why, and the files are on disk all the same."""


@dataclass(frozen=True)
class Repo:
    """The checkout that holds `root`."""

    root: Path
    identity: tuple[str, ...]  # options that name a committer where the user has set none
    notes: tuple[str, ...]  # what is worth telling once

    @property
    def head(self) -> str | None:
        """The commit that is checked out, None before the first one."""
        found = _git(self.root, "rev-parse", "--verify", "--quiet", "HEAD")
        return found.stdout.strip() if found.returncode == 0 else None

    def commit(self, entry: Entry) -> list[str]:
        """Commit `history/ID` and, where it was scored, the source in `variants/NAME`; nothing else.

        A sentence for each file that is too large, and stays on disk alone.
        """
        sources = _source_paths(self.root, entry)
        large = _too_large(entry)
        kept_out = [f":(exclude,literal)history/{entry.id}/{name}" for name in large]
        paths = [f"history/{entry.id}", *sources]
        _expect_idle(self.root)
        staged = _git(self.root, "diff", "--cached", "--name-only", "--relative", "-z", "--", *sources).stdout.split("\0")
        try:
            _must(self.root, *_EVERYONES, "add", "--", paths[0], *kept_out)
            if sources:
                _must(self.root, "add", "--", *sources)
            _require_all_of_it(self.root, entry)
            if _git(self.root, "diff", "--cached", "--quiet", "--", *paths).returncode == 0:
                return []
            commit = ("commit", "--quiet", "--no-verify", "--only", "--message", _message(entry))
            _must(self.root, *self.identity, *commit, "--", *paths, *kept_out)
        except GitError:  # what we staged must not get into a commit of the user's
            _git(self.root, "reset", "--quiet", "--", *(path for path in paths if path not in staged))
            raise
        return [f"history/{entry.id}/{one_line(name, 100)} has {size:,} bytes and is not committed: it is kept on disk alone" for name, size in large.items()]

    def uncommitted(self, entries: Iterable[Entry]) -> list[Entry]:
        """The sealed entries that no commit holds yet."""
        listed = _git(self.root, "ls-files", "-z", "--full-name", "--", "history")
        # What is in the index but not in HEAD was added by a run that was killed before its commit.
        added = _git(
            self.root,
            "diff",
            "--cached",
            "--name-only",
            "--relative",
            "--diff-filter=A",
            "-z",
            "--",
            "history",
        )
        prefix = _git(self.root, "rev-parse", "--show-prefix").stdout.strip()
        held = {name.removeprefix(prefix) for name in listed.stdout.split("\0")} - set(
            added.stdout.split("\0")
        )
        return [
            entry for entry in entries if entry.attempt and f"history/{entry.id}/attempt.json" not in held
        ]


def open_repo(root: Path) -> Repo:
    """The checkout that holds `root`, or GitError."""
    inside = _git(root, "rev-parse", "--is-inside-work-tree")
    if inside.returncode != 0 or inside.stdout.strip() != "true":
        raise GitError(
            f"{root} is no git checkout, so nothing is committed; the files are all there"
            if "not a git repository" in inside.stderr or inside.returncode == 0
            else f"git: {one_line(inside.stderr)}; nothing is committed"
        )
    notes = []
    if _git(root, "symbolic-ref", "--quiet", "HEAD").returncode != 0:
        notes.append("HEAD is detached: commits go there and are on no branch")
    identity: tuple[str, ...] = ()
    if not all(_git(root, "config", f"user.{key}").stdout.strip() for key in ("name", "email")):
        identity = ("-c", "user.name=agent", "-c", "user.email=agent@localhost")
        notes.append("git has no user.name and user.email here: commits are signed `agent`")
    return Repo(root, identity, tuple(notes))


def follow(repo: Repo | None, entry: Entry, say: Callable[[str], None]) -> None:
    """Commit a sealed entry; where git will not, that is told, and the next start catches up."""
    if repo is None:
        return
    if entry.scores and not holds_source(repo.root, entry):
        say(f"variants/{entry.name} was edited while {entry.id} was scored: the source that was scored is not committed")
    try:
        for sentence in repo.commit(entry):
            say(sentence)
    except GitError as error:
        say(f"{entry.id} is recorded but not committed: {error}; the next start tries again")


def catch_up(repo: Repo | None, past: Past, say: Callable[[str], None]) -> None:
    """Commit what was sealed, but not committed, by a run before this one."""
    if repo is None:
        return
    left: list[Entry] = []
    try:
        left = repo.uncommitted(past.entries)
        while left:
            for sentence in repo.commit(left[0]):
                say(sentence)
            left = left[1:]
    except GitError as error:  # what stops one will stop the others
        which = f"{left[0].id} is" if len(left) == 1 else f"{len(left) or 'some'} earlier entries are"
        say(f"{which} not committed: {error}")


def holds_source(root: Path, entry: Entry) -> bool:
    """Whether variants/NAME still is the source that the entry scored."""
    scored = entry.evaluation if entry.scores else None
    return scored is not None and variants.holds(root, entry.name, scored.variant.digest)


def _source_paths(root: Path, entry: Entry) -> list[str]:
    """The files of the variant that was scored, where they still are what was: without them nobody can replay it."""
    if not holds_source(root, entry):
        return []
    files = [f"variants/{entry.name}/{form}" for form in variants.FORMS]
    tracked = _git(root, "ls-files", "-z", "--", *files).stdout.split("\0")  # one that is gone is to be committed as gone
    ignored = _git(root, "check-ignore", "--", *files).stdout.splitlines()  # kept private: its author's wish
    return [file for file in files if file in tracked or ((root / file).exists() and file not in ignored)]


def _too_large(entry: Entry) -> dict[str, int]:
    """What an answer, a log or a conversation may become: name -> bytes."""
    found = ((path, path.lstat()) for path in entry.folder.rglob("*"))
    sizes = {str(path.relative_to(entry.folder)): there.st_size for path, there in found if stat.S_ISREG(there.st_mode)}
    return {name: size for name, size in sorted(sizes.items()) if size > _LARGEST}


def _require_all_of_it(root: Path, entry: Entry) -> None:
    """GitError where this checkout ignores a file without which a clone could not read the entry."""
    files = [f"history/{entry.id}/{name}" for name in ("attempt.json", "evaluation.json", "runs.csv", "results.csv")]
    ignored = _git(root, *_EVERYONES, "check-ignore", "--", *files).stdout.splitlines()
    if left_out := [file for file in ignored if (root / file).exists()]:
        raise GitError(f"{left_out[0]} is ignored by this checkout, and a clone could not read the entry without it")


def committed_source(root: Path, name: str, digest: str) -> tuple[str, dict[str, str]] | None:
    """The latest commit in which variants/NAME is the source with that digest, and its files; None where there is none, or no git."""
    try:
        commits = _git(root, "log", f"-{_LOOKED_THROUGH}", "--format=%h", "--", f"variants/{name}").stdout.split()
        sources = ((commit, _source_in(root, commit, name)) for commit in commits)
        return next((found for found in sources if variants.digest_of(found[1]) == digest), None)
    except GitError:
        return None


@contextlib.contextmanager
def scored_source(root: Path, entry: Entry, say: Callable[[str], None]) -> Iterator[Path]:
    """A folder with the source that an entry scored, out of a commit where variants/NAME is another by now. Raises BadInput."""
    assert entry.evaluation
    name, digest = entry.name or entry.evaluation.variant.name, entry.evaluation.variant.digest
    if variants.holds(root, name, digest):
        yield variants.folder_of(root, name)
        return
    found = committed_source(root, name, digest)
    if not found:
        variants.sources(variants.folder_of(root, name))
        raise BadInput(f"variants/{name} is no longer the source that {entry.id} scored, and no commit here holds that one")
    commit, files = found
    say(f"variants/{name} is no longer the source that {entry.id} scored: that one is taken from commit {commit}")
    with scratch() as place:
        folder = place / name
        folder.mkdir()
        for file, text in files.items():
            write_whole(folder / file, text)
        yield folder


def _source_in(root: Path, commit: str, name: str) -> dict[str, str]:
    files = {form: f"{commit}:./variants/{name}/{form}" for form in variants.FORMS}
    return {form: text for form, file in files.items() if (text := _text_of(root, file)) is not None}


def _text_of(root: Path, file: str) -> str | None:
    """A committed file as it stands there, line ends too; None where there is none."""
    done = _run(root, "cat-file", "blob", file)
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _message(entry: Entry) -> str:
    title = f"{entry.about.kind} {entry.id}: {one_line(entry.name or '(no name)', 100)}"
    lesson = f"\n\n{entry.lesson}" if entry.lesson else ""
    return f"{title}, {entry.status}{lesson}"


def _expect_idle(root: Path) -> None:
    """Nobody else is at work in the checkout; what would be committed amid a rebase goes when that is given up."""
    folder = root / _must(root, "rev-parse", "--git-dir").strip()
    for name, what in _UNDER_WAY.items():
        if (folder / name).exists():
            raise GitError(f"{what} is under way in this checkout")
    lock = folder / "index.lock"
    end = time.monotonic() + _PATIENCE
    while lock.exists() and time.monotonic() < end:
        time.sleep(0.05)
    if lock.exists():
        raise GitError(f"another git process holds {lock} (or one that was killed left it: then remove it)")


def _must(root: Path, *arguments: str) -> str:
    done = _git(root, *arguments)
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip() and not line.startswith("hint:")]
        said = lines[0] if lines and lines[0].startswith(("fatal:", "error:")) else " ".join(lines)
        raise GitError(f"git: {one_line(said or f'exit status {done.returncode}').rstrip('.')}")
    return done.stdout


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = _run(root, *arguments)
    said, told = (text.decode("utf-8", "replace").replace("\r\n", "\n") for text in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, said, told)


def _run(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in a session of its own: it finishes what it began, and leaves no lock, if we are killed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_EDITOR": "true"}
    try:
        return aside(
            lambda: subprocess.run(
                ["git", *_QUIET, *arguments],
                cwd=root,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=120,
                start_new_session=True,
            )
        )
    except FileNotFoundError:
        raise GitError("git is not installed, so nothing is committed; the files are all there") from None
    except subprocess.TimeoutExpired:
        raise GitError(f"`git {arguments[0]}` took more than two minutes") from None
