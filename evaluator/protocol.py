"""What is measured, under which name: the settings of MAD and the protocols that run them.

Source of every figure: arXiv 2403.17844 and its reference code, athms/mad-lab.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

COLUMNS = {
    "compression": "Compress",
    "in-context-recall": "Context Recall",
    "fuzzy-in-context-recall": "Fuzzy Recall",
    "memorization": "Memorize",
    "noisy-in-context-recall": "Noisy Recall",
    "selective-copying": "Selective Copy",
}
"""MAD's name of each task -> its column in every results table, in the order of the table."""

TASKS = tuple(COLUMNS)

# Raise by hand whenever a change makes new scores incomparable with old ones.
EVALUATOR_VERSION = 1


@dataclass(frozen=True)
class Setting:
    """One difficulty level of one task; everything that the data of a training run depends on."""

    task: str
    vocab_size: int
    seq_len: int
    num_train_examples: int
    num_test_examples: int = 1280
    frac_noise: float = 0.0  # noisy-in-context-recall only
    num_tokens_to_copy: int = 0  # selective-copying only

    @property
    def tokens(self) -> int:
        """Length of a row of inputs: where every pair is one of two tokens, the last value is a target alone."""
        return self.seq_len - (self.task in ("in-context-recall", "noisy-in-context-recall"))

    @property
    def name(self) -> str:
        """What differs from the task's baseline, as `seq_len=64`; `baseline` where nothing does."""
        base = BASELINES[self.task]
        fields = [f.name for f in dataclasses.fields(self) if f.name in CHANGEABLE]
        changed = [f for f in fields if getattr(self, f) != getattr(base, f)]
        return ",".join(f"{f}={getattr(self, f)}" for f in changed) or "baseline"


CHANGEABLE = ("vocab_size", "seq_len", "num_train_examples", "frac_noise", "num_tokens_to_copy")

BASELINES = {
    "compression": Setting("compression", 16, 32, 12_800),
    "in-context-recall": Setting("in-context-recall", 16, 128, 12_800),
    "fuzzy-in-context-recall": Setting("fuzzy-in-context-recall", 16, 128, 12_800),
    "memorization": Setting("memorization", 256, 32, 256),
    "noisy-in-context-recall": Setting("noisy-in-context-recall", 32, 128, 12_800, frac_noise=0.2),
    "selective-copying": Setting("selective-copying", 16, 256, 12_800, num_tokens_to_copy=16),
}

_FEWER_EXAMPLES = (6400, 3200, 1600, 800)
CHANGES: dict[str, dict[str, tuple[float, ...]]] = {
    "compression": {"vocab_size": (32, 64, 128), "seq_len": (64, 128, 256), "num_train_examples": _FEWER_EXAMPLES},
    "in-context-recall": {
        "vocab_size": (32, 64, 128), "seq_len": (256, 512, 1024), "num_train_examples": _FEWER_EXAMPLES},
    "fuzzy-in-context-recall": {
        "vocab_size": (32, 64, 128), "seq_len": (256, 512, 1024), "num_train_examples": _FEWER_EXAMPLES},
    "memorization": {"vocab_size": (512, 1024, 2048, 4096, 8192)},
    "noisy-in-context-recall": {
        "vocab_size": (48, 80, 144), "seq_len": (256, 512, 1024), "num_train_examples": _FEWER_EXAMPLES,
        "frac_noise": (0.4, 0.6, 0.8)},
    "selective-copying": {
        "vocab_size": (32, 64, 128), "seq_len": (512, 1024), "num_train_examples": _FEWER_EXAMPLES,
        "num_tokens_to_copy": (32, 64, 96)},
}
"""Per task: which variable is changed to which values, one at a time."""


def with_changes(setting: Setting, changes: Mapping[str, Any]) -> Setting:
    """The setting with some of its fields changed."""
    return replace(setting, **changes)


def settings_of(task: str) -> tuple[Setting, ...]:
    """All settings of one task, its baseline first."""
    base = BASELINES[task]
    changed = [with_changes(base, {key: value}) for key, values in CHANGES[task].items() for value in values]
    return (base, *changed)


@dataclass(frozen=True)
class Protocol:
    """How a variant is scored: which settings, which sweep, which training. Part of every fingerprint."""

    name: str
    version: int
    settings: tuple[Setting, ...]
    lrs: tuple[float, ...]
    weight_decays: tuple[float, ...]
    epochs: int
    batch_size: int
    schedule: str = "constant"  # what the reference code does; "cosine" (what it says) is a control
    stop_accuracy: float = 0.999
    width: int = 128
    num_blocks: int = 2
    num_heads: int = 2
    head_dim: int = 64
    chunk_size: int = 32

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that have settings here, in the order of the table."""
        return tuple(t for t in TASKS if any(s.task == t for s in self.settings))


@dataclass(frozen=True)
class Run:
    """One training run: a point of the sweep and a random seed."""

    lr: float
    weight_decay: float
    seed: int


def sweep(protocol: Protocol, seeds: Sequence[int]) -> tuple[Run, ...]:
    """All runs of one setting."""
    return tuple(Run(lr, wd, seed) for seed in seeds for lr in protocol.lrs for wd in protocol.weight_decays)


def _smoke() -> tuple[Setting, ...]:
    """All six tasks, small enough for two CPU cores; most lengths are beyond a chunk of 32."""
    changes: dict[str, dict[str, Any]] = {
        "compression": {},
        "in-context-recall": {"seq_len": 64},
        "fuzzy-in-context-recall": {"seq_len": 64},
        "memorization": {"vocab_size": 64, "num_train_examples": 256},
        "noisy-in-context-recall": {"seq_len": 64},
        "selective-copying": {"seq_len": 64, "num_tokens_to_copy": 8},
    }
    short = {"num_train_examples": 512, "num_test_examples": 128}
    return tuple(replace(BASELINES[task], **{**short, **change}) for task, change in changes.items())


def _fast() -> tuple[Setting, ...]:
    """One setting a task: those whose mean, with its noise, stays nearest to the MAD score.

    At five of the baselines nearly every variant comes to its end, where scores tell nothing of it; with less data, or
    more to remember, it doesn't (benchmarks/README.md, "What `fast` can tell").
    """
    harder: dict[str, dict[str, Any]] = {
        "compression": {"num_train_examples": 800},
        "in-context-recall": {"num_train_examples": 1600},
        "fuzzy-in-context-recall": {"num_train_examples": 1600},
        "memorization": {"vocab_size": 8192},
        "noisy-in-context-recall": {"num_train_examples": 3200},
        "selective-copying": {"num_train_examples": 1600},
    }
    return tuple(replace(BASELINES[task], **change) for task, change in harder.items())


def _mad(name: str, version: int, settings: tuple[Setting, ...]) -> Protocol:
    return Protocol(name, version, settings, (1e-4, 5e-4, 1e-3), (0.0, 0.1), epochs=200, batch_size=128)


PROTOCOLS = {
    "smoke": Protocol("smoke", 1, _smoke(), (1e-3, 3e-3), (0.0,), epochs=4, batch_size=32, width=64, head_dim=32),
    "fast": _mad("fast", 3, _fast()),
    "mad": _mad("mad", 1, tuple(s for task in TASKS for s in settings_of(task))),
}
"""`smoke` shows that everything runs and measures no quality; `fast` is no MAD score; `mad` is the full 66 x 6."""


def to_json(protocol: Protocol) -> dict[str, Any]:
    """The protocol as plain JSON values; `from_json` gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(protocol)))
    return plain


def from_json(plain: Mapping[str, Any]) -> Protocol:
    """A protocol from what `to_json` gave; an unknown or missing field raises TypeError."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    fields["settings"] = tuple(Setting(**s) for s in plain["settings"])
    return Protocol(**fields)
