"""The data of MAD's six tasks, drawn for any setting: same seed, same bytes on every machine.

Rules of the tasks: arXiv 2403.17844 and what its reference code, athms/mad-lab, does. Examples are drawn in
blocks, always whole, so that the first examples of a set are the same however many of them are asked for.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from evaluator.protocol import Setting
from evaluator.tasks.limits import check
from evaluator.tasks.plain import IGNORED, compression, memorization, memorized_values, selective_copying
from evaluator.tasks.recall import fuzzy_in_context_recall, in_context_recall
from evaluator.tasks.streams import BLOCK, Ints, stream_named

__all__ = ["IGNORED", "Examples", "check", "digest", "first_batch_digest", "generate", "generate_fresh"]


@dataclass(frozen=True)
class Examples:
    """Inputs and targets [N, T], int32; targets of -100 are not scored.

    A target stands at the position whose prediction it scores; for compression, where all predictions are
    read from the last position's vector, target t is what is to be read for input t.
    """

    inputs: Ints
    targets: Ints


def generate(setting: Setting, seed: int) -> tuple[Examples, Examples]:
    """Training and test set of a setting; the test set continues the stream of the training set.

    Raises ValueError where the task cannot be drawn at this setting.
    """
    check(setting)
    stream = stream_named("examples", seed, setting)
    train = _draw(setting, seed, stream, setting.num_train_examples, train=True)
    return train, _draw(setting, seed, stream, setting.num_test_examples, train=False)


def generate_fresh(setting: Setting, seed: int, num_examples: int, entropy: int) -> Examples:
    """Another test set, which nobody can have seen who does not know `entropy`.

    Memorization keeps the map of `generate(setting, seed)`: it is what was to be learned.
    """
    check(setting)
    return _draw(setting, seed, stream_named("fresh", seed, setting, entropy), num_examples, train=False)


def first_batch_digest(setting: Setting, seed: int = 0, num_examples: int = 128) -> str:
    """`digest` of the first training examples of `generate(setting, seed)`, without drawing the others."""
    check(setting)
    return digest(_draw(setting, seed, stream_named("examples", seed, setting), num_examples, train=True))


def digest(examples: Examples) -> str:
    """sha256 over types, shapes and values of inputs and targets."""
    sha = hashlib.sha256()
    for array in (examples.inputs, examples.targets):
        sha.update(f"{array.dtype.name} {array.shape}\n".encode())
        sha.update(array.astype("<i4").tobytes())
    return sha.hexdigest()


def _draw(setting: Setting, seed: int, stream: np.random.PCG64, count: int, *, train: bool) -> Examples:
    if count < 1:
        raise ValueError(f"{setting.task}: num_examples={count} must be at least 1")
    blocks = [_block(setting, seed, stream, train) for _ in range(0, count, BLOCK)]
    inputs, targets = (np.concatenate(parts)[:count].astype(np.int32) for parts in zip(*blocks, strict=True))
    return Examples(inputs, targets)


def _block(setting: Setting, seed: int, stream: np.random.PCG64, train: bool) -> tuple[Ints, Ints]:
    match setting.task:
        case "compression":
            return compression(setting, stream)
        case "memorization":
            return memorization(setting, stream, memorized_values(setting, seed))
        case "selective-copying":
            return selective_copying(setting, stream)
        case "fuzzy-in-context-recall":
            return fuzzy_in_context_recall(setting, stream, train)
        case "in-context-recall":
            return in_context_recall(setting, stream, train, noise_tokens=0)
        case _:
            return in_context_recall(setting, stream, train)
