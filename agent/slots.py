"""Several attempts at once: each on a thread of its own, in a slot that has its share of the machine."""

import os
import subprocess
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import TypeVar

from .job import Job
from .threads import Leash, aside, on_a_thread

T = TypeVar("T")
Share = Mapping[str, str]


def as_they_end(job: Job, tasks: Iterable[Callable[[Job], T]]) -> Generator[T, None, None]:
    """Run `tasks`, as many at once as the job has shares; what they return, in the order in which they end.

    A task begins only when a result is asked for. Whatever ends this early (an error of one of them, Ctrl-C,
    whoever asks no more) ends the commands of the others; their entries are then as after a kill.
    """
    leash, left = Leash(), iter(tasks)
    slots = [_slot(job, share, leash) for share in job.shares]
    free = list(slots)
    under_way: dict[Future[T], Job] = {}
    try:
        while True:
            while free and (task := next(left, None)):
                slot = free.pop(0)
                under_way[on_a_thread(partial(task, slot))] = slot
            if not under_way:
                return
            wait(under_way, return_when=FIRST_COMPLETED)
            ended = next(future for future in under_way if future.done())
            free.append(under_way.pop(ended))
            yield ended.result()
    finally:
        cut_off = sum(not future.done() for future in under_way)
        leash.pull()
        for slot in slots:
            slot.reporter.rest()
        if cut_off and len(slots) > 1:
            job.reporter.say(f"{cut_off} under way: for the next run to take up")


def _slot(job: Job, share: Share, leash: Leash) -> Job:
    evaluator = replace(job.evaluator, share=share, leash=leash)
    return replace(job, evaluator=evaluator, reporter=job.reporter.another())


def shares(parallel: int, device: str) -> tuple[Share, ...]:
    """What each of `parallel` evaluations may use, as environment variables: a GPU, and its part of the cores."""
    if parallel == 1:
        return ({},)
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // parallel))
    gpus = [] if device == "cpu" else _gpus()
    one_each = [{"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {} for slot in range(parallel)]
    return tuple({"OMP_NUM_THREADS": threads} | gpu for gpu in one_each)


def _gpus() -> list[str]:
    """The GPUs that CUDA would show us, by what CUDA_VISIBLE_DEVICES may call them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(number) for number in range(_count())]
    named = (part.strip() for part in visible.split(","))
    return list(takewhile(lambda part: part and not part.startswith("-"), named))  # CUDA, too, stops there


def _count() -> int:
    """How many GPUs the driver lists; no driver, no GPU."""
    try:
        listed = aside(partial(subprocess.run, ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60))
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if listed.returncode == 0 else 0
