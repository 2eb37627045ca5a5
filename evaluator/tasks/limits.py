"""Settings a task can be drawn at: where the reference code works, and no field stands without effect."""

from collections.abc import Iterator

from evaluator.protocol import TASKS, Setting
from evaluator.tasks.recall import LONGEST_MOTIF, NOISE_TOKENS

LARGEST_VOCAB = 2**20  # a motif's number fits into 63 bits, and a uniform draw has no bias worth a word
LONGEST = 2**16  # tokens; what an evaluation of elsewhere says is drawn before it is believed, and must fit into memory
MOST_TOKENS = 2**30  # of a set: 80 times the largest of MAD, and a million examples of its longest

_SMALLEST_VOCAB = {
    "compression": (2, "a token and the compression token"),
    "in-context-recall": (2, "a key and a value"),
    "fuzzy-in-context-recall": (2 * LONGEST_MOTIF + 1, "three tokens for keys, three for values, the pad"),
    "memorization": (3, "a key, a value and the insert token"),
    "noisy-in-context-recall": (NOISE_TOKENS + 2, f"a key, a value and {NOISE_TOKENS} tokens of noise"),
    "selective-copying": (3, "a token, the blank and the copy token"),
}
_SHORTEST = {
    "compression": (1, "the compression token"),
    "in-context-recall": (4, "two pairs"),
    "fuzzy-in-context-recall": (4 * LONGEST_MOTIF + 1, "the longest probe twice and one more token"),
    "memorization": (2, "a key and the insert token"),
    "noisy-in-context-recall": (4, "two pairs"),
}


def check(setting: Setting) -> None:
    """Raise ValueError, with the value in it, where the task cannot be drawn at this setting."""
    if setting.task not in TASKS:
        raise ValueError(f"unknown task {setting.task!r}; the tasks are {', '.join(TASKS)}")
    for field, wrong, sentence in _limits(setting):
        if wrong:
            raise ValueError(f"{setting.task}: {field}={getattr(setting, field)} {sentence}")


def _limits(s: Setting) -> Iterator[tuple[str, bool, str]]:
    """Field, whether its value is wrong, and what is asked of it."""
    yield "seq_len", s.seq_len > LONGEST, f"must be at most {LONGEST}"
    for name in ("num_train_examples", "num_test_examples"):
        yield name, getattr(s, name) < 1, "must be at least 1"
        yield name, getattr(s, name) * s.seq_len > MOST_TOKENS, f"of seq_len={s.seq_len} are more than {MOST_TOKENS} tokens"
    if s.task == "noisy-in-context-recall":
        yield "frac_noise", not 0 <= s.frac_noise < 1, "must be at least 0 and below 1"
    else:
        yield "frac_noise", s.frac_noise != 0, "means nothing here: noisy-in-context-recall has noise"
    if s.task == "selective-copying":
        yield "num_tokens_to_copy", s.num_tokens_to_copy < 1, "must be at least 1"
    else:
        yield "num_tokens_to_copy", s.num_tokens_to_copy != 0, "means nothing here: selective-copying copies"
    smallest, needed = _SMALLEST_VOCAB[s.task]
    yield "vocab_size", s.vocab_size < smallest, f"must be at least {smallest} ({needed})"
    yield "vocab_size", s.vocab_size > LARGEST_VOCAB, f"must be at most {LARGEST_VOCAB}"
    shortest, needed = _shortest(s)
    yield "seq_len", s.seq_len < shortest, f"must be at least {shortest} ({needed})"
    if s.task in ("in-context-recall", "noisy-in-context-recall"):
        yield "seq_len", s.seq_len % 2 != 0, "must be even, to hold whole pairs"


def _shortest(setting: Setting) -> tuple[int, str]:
    if setting.task != "selective-copying":
        return _SHORTEST[setting.task]
    n = setting.num_tokens_to_copy
    return 2 * n + 2, f"num_tokens_to_copy={n} tokens twice, a blank and the copy token"
