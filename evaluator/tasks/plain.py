"""Compression, memorization and selective copying, whose targets stand at the position itself.

Each function draws one block of examples, the same way for training and test.
"""

import numpy as np

from evaluator.protocol import Setting
from evaluator.tasks.streams import BLOCK, Ints, below, raw, stream_named

IGNORED = -100  # a target that is not scored


def compression(setting: Setting, stream: np.random.PCG64) -> tuple[Ints, Ints]:
    """Random tokens, then the compression token; every input is a target, that token too."""
    inputs = below(stream, setting.vocab_size - 1, (BLOCK, setting.seq_len))
    inputs[:, -1] = setting.vocab_size - 1
    return inputs, inputs


def memorized_values(setting: Setting, seed: int) -> Ints:
    """The value of key 0, 1, ...: no two keys share one, and the map hangs on seed and vocabulary alone."""
    num_keys = (setting.vocab_size - 1) // 2
    num_values = setting.vocab_size - 1 - num_keys  # at an even vocabulary one value is left over
    order = np.argsort(raw(stream_named("map", seed, setting.vocab_size), (num_values,)), kind="stable")
    return (num_keys + order[:num_keys]).astype(np.int32)


def memorization(setting: Setting, stream: np.random.PCG64, values: Ints) -> tuple[Ints, Ints]:
    """A key, then the insert token, whose target is the key's value, and so on."""
    inputs = np.full((BLOCK, setting.seq_len // 2, 2), setting.vocab_size - 1, dtype=np.int32)
    targets = np.full_like(inputs, IGNORED)
    inputs[..., 0] = below(stream, len(values), inputs.shape[:2])
    targets[..., 1] = values[inputs[..., 0]]
    return inputs.reshape(BLOCK, -1), targets.reshape(BLOCK, -1)


def selective_copying(setting: Setting, stream: np.random.PCG64) -> tuple[Ints, Ints]:
    """Tokens strewn among blanks, the copy token, then as many blanks, where the tokens are the targets."""
    num_tokens, blank, copy = setting.num_tokens_to_copy, setting.vocab_size - 2, setting.vocab_size - 1
    num_blanks = setting.seq_len - 2 * num_tokens - 1
    tokens = below(stream, blank, (BLOCK, num_tokens))
    # Each blank falls into the gap before one of the tokens: none stands between the last one and `copy`.
    gap = below(stream, num_tokens, (BLOCK, num_blanks)) + num_tokens * np.arange(BLOCK)[:, None]
    blanks = np.bincount(gap.ravel(), minlength=BLOCK * num_tokens).reshape(BLOCK, num_tokens)
    inputs = np.full((BLOCK, setting.seq_len), blank, dtype=np.int32)
    np.put_along_axis(inputs, np.arange(num_tokens) + blanks.cumsum(axis=1), tokens, axis=1)
    inputs[:, num_tokens + num_blanks] = copy
    targets = np.full_like(inputs, IGNORED)
    targets[:, -num_tokens:] = tokens
    return inputs, targets
