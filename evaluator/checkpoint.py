"""A group in the middle of its training, on disk: whoever is killed loses a minute of a long setting, not all of it.

The file holds plain numbers, which only say where to go on: what is recorded is audited at the end all the same.
"""

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluator import figures
from evaluator.protocol import Run, Setting

STATE = ("weights", "mean", "square", "best")  # as `Group.state`
FIGURES: dict[str, figures.Test] = {"epoch": figures.count, "step": figures.count, "seconds": figures.duration, "setup_seconds": figures.duration}
OF_A_RUN: dict[str, tuple[figures.Test, ...]] = {
    "best": (figures.real, figures.count, figures.share),  # perplexity, epoch, accuracy
    "last": (figures.count, figures.share, lambda x: type(x) is bool),  # epoch, accuracy, whether it ended there
}


def write(folder: Path, setting: Setting, runs: Sequence[Run], kind: str, facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Whole or not at all, over an older one; raises OSError."""
    path = _path(folder, setting, runs, kind)
    new = path.with_suffix(".new.part")
    arrays: dict[str, Any] = {"facts": np.array(json.dumps(dict(facts)))} | {name: state[name].numpy() for name in STATE}
    try:
        with new.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def read(folder: Path, setting: Setting, runs: Sequence[Run], kind: str, size: int) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Facts and state [runs, size] of such a group; None where there is none, or none that is sound and fits."""
    try:
        with np.load(_path(folder, setting, runs, kind), allow_pickle=False) as found:
            facts = json.loads(str(found["facts"]))
            state = {name: torch.from_numpy(found[name]) for name in STATE}
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return None
    fits = all(x.shape == (len(runs), size) and x.dtype == torch.float32 for x in state.values())
    return (facts, state) if fits and isinstance(facts, dict) and sound(facts, len(runs)) else None


def sound(facts: Mapping[str, Any], count: int) -> bool:
    """Whether these are the figures of a checkpoint of so many runs: FIGURES, and those of each run so far."""
    if set(facts) != {*FIGURES, *OF_A_RUN} or any(not isinstance(facts[k], list) or len(facts[k]) != count for k in OF_A_RUN):
        return False
    told = all(
        isinstance(run, list) and len(run) == len(kinds) and all(is_one(x) for x, is_one in zip(run, kinds, strict=True))
        for name, kinds in OF_A_RUN.items() for run in facts[name]
    )
    return told and all(is_one(facts[name]) for name, is_one in FIGURES.items())


def is_there(folder: Path) -> bool:
    """Whether a training was begun there that is not at its end."""
    return any(folder.glob(f"{PREFIX}*.part"))


def forget(folder: Path, setting: Setting | None = None) -> None:
    """Removes what is left of a setting, or of all."""
    for path in folder.glob(f"{_name(setting) if setting else PREFIX}*.part"):
        with contextlib.suppress(OSError):
            path.unlink()


PREFIX = ".training-"


def _path(folder: Path, setting: Setting, runs: Sequence[Run], kind: str) -> Path:
    """Of a training on one kind of device: what began on a GPU owes gates that a CPU does not ask."""
    return folder / f"{_name(setting)}-{_digest([kind, *(tuple(vars(r).values()) for r in runs)])}.part"


def _name(setting: Setting) -> str:
    return PREFIX + _digest(setting)


def _digest(thing: object) -> str:
    return hashlib.sha256(repr(thing).encode()).hexdigest()[:12]
