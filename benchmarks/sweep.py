"""Scores many stored variants, several at a time: the runs behind the published table beside ours.

    python benchmarks/sweep.py --protocol mad --out DIR                       # all of variants/, in the published order
    python benchmarks/sweep.py delta_net gla --only memorization:baseline --out DIR --lanes 4 --seconds 540
    python benchmarks/table.py --from DIR/* > table.md

Each variant is scored by `python -m evaluator score` into DIR/NAME, its progress in DIR/NAME/score.log. A lane is one
such process at a time; lane i works on GPU i modulo their number (of CUDA_VISIBLE_DEVICES where that is set). Small
settings leave room on a GPU for several lanes. Called again it goes on where it was, setting by setting. After
--seconds no further setting is started. Exit status 1 where a variant failed or was not begun.
"""

import argparse
import itertools
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from measured import MEAN, Measured, TableError, load, published

from evaluator.conversation import printable

PROJECT = Path(__file__).parent.parent
WHOLE = ("scored", "partial")  # partial: by choice of settings, or not yet whole


def stored() -> list[str]:
    """The variants of this checkout, published ones first and in their order."""
    order = list(dict.fromkeys(itertools.chain.from_iterable(published().values())))
    found = sorted(p.parent.name for p in (PROJECT / "variants").glob("*/naive.py"))
    return sorted(found, key=lambda name: order.index(name) if name in order else len(order))


def devices() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be set to for one process, nothing where there is no GPU."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda.is_available():
        return []
    return given.split(",") if given else [str(i) for i in range(torch.cuda.device_count())]


class Sweep:
    """The variants still to be scored, and what was said of those that are."""

    def __init__(self, names: Sequence[str], out: Path, options: Sequence[str], seconds: float | None) -> None:
        self.waiting = queue.SimpleQueue[str]()
        for name in names:
            self.waiting.put(name)
        self.total, self.done, self.bad = len(names), 0, 0
        self.out, self.options = out, options
        self.began = time.monotonic()
        self.end = None if seconds is None else self.began + seconds
        self.children: set[subprocess.Popen[bytes]] = set()
        self.telling = threading.Lock()

    def lane(self, gpu: str | None) -> None:
        """Scores one variant after another, until none is left or the time is over."""
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})
        while True:
            left = None if self.end is None else self.end - time.monotonic()
            if left is not None and left <= 0:
                return
            try:
                name = self.waiting.get_nowait()
            except queue.Empty:
                return
            self._tell(name, self._score(name, environment, left), gpu)

    def _score(self, name: str, environment: dict[str, str], left: float | None) -> int:
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        bound = [] if left is None else ["--seconds", f"{left:.0f}"]
        command = [sys.executable, "-m", "evaluator", "score", str(PROJECT / "variants" / name), "--out", str(folder), *self.options]
        with (folder / "score.log").open("ab") as log:
            child = subprocess.Popen([*command, *bound], cwd=PROJECT, env=environment, stdout=log, stderr=log)
            self.children.add(child)
            status = child.wait()
            self.children.discard(child)
        return status

    def _tell(self, name: str, status: int, gpu: str | None) -> None:
        try:
            found: Measured | None = load(self.out / name)
        except TableError:
            found = None
        with self.telling:
            self.done += 1
            good = found is not None and found.status in WHOLE and status == 0
            self.bad += not good
            spent = time.monotonic() - self.began
            about = f"about {spent / self.done * (self.total - self.done) / 60:.0f} min left" if self.done < self.total else "the last"
            where = f" on GPU {gpu}" if gpu else ""
            told = _told(found) if good and found else f"exit status {status}: {_last_line(self.out / name / 'score.log')}"
            print(f"[{self.done}/{self.total}, {spent / 60:.1f} min, {about}] {name}{where}: {told}", flush=True)

    def stop(self) -> None:
        """Ends what is under way; what is on disk is gone on with by the next call."""
        while not self.waiting.empty():
            self.waiting.get()
        for child in list(self.children):
            child.terminate()


def _told(found: Measured) -> str:
    whole = {column: score for column, score in found.scores("accuracy").items() if score is not None}
    scores = ", ".join(f"{column} {score:.3f}" for column, score in whole.items()) or "no task is whole"
    shown = scores if found.protocol.name == "mad" or MEAN not in whole else f"{scores} (no MAD score)"
    return f"{found.done} of {found.total} settings, {shown}, {found.minutes:.1f} min of training"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return printable(lines[-1]) if lines else "nothing was printed"


def _options(args: argparse.Namespace) -> Iterator[str]:
    yield from ("--protocol", args.protocol, "--seeds", str(args.seeds), "--sandbox", args.sandbox)
    for task in args.task:
        yield from ("--task", task)
    for setting in args.only:
        yield from ("--only", setting)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", nargs="*", help="names in variants/; all of them where none is given")
    parser.add_argument("--protocol", default="mad", choices=("smoke", "fast", "mad"))
    parser.add_argument("--task", action="append", default=[], help="only this task; may be repeated")
    parser.add_argument("--only", action="append", default=[], metavar="TASK:SETTING", help="only this setting; may be repeated")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sandbox", default="auto", choices=("require", "auto", "off"))
    parser.add_argument("--lanes", type=int, help="processes at a time (default: one a GPU)")
    parser.add_argument("--seconds", type=float, help="start no further setting after so long")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    known, gpus = stored(), devices()
    if strange := [name for name in args.variant if name not in known]:
        parser.error(f"there is no variants/{strange[0]}; there are {', '.join(known)}")
    sweep = Sweep(args.variant or known, args.out, list(_options(args)), args.seconds)
    lanes = [
        threading.Thread(target=sweep.lane, args=(gpus[i % len(gpus)] if gpus else None,), daemon=True)
        for i in range(args.lanes or len(gpus) or 1)
    ]
    for lane in lanes:
        lane.start()
    try:
        for lane in lanes:
            lane.join()
    except KeyboardInterrupt:
        sweep.stop()
        return 130
    left = sweep.total - sweep.done
    print(f"{sweep.done - sweep.bad} of {sweep.total} variants done, {sweep.bad} failed, {left} not begun: {args.out}")
    return int(bool(sweep.bad or left))


if __name__ == "__main__":
    sys.exit(main())
