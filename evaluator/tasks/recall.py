"""In-context recall, plain, noisy and fuzzy: pairs of key and value, by a map drawn anew for each example.

The input is all but the last token. Training asks for every next token, a test for values that can be known.
Each function draws one block of examples; the rows of every array below are examples.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from evaluator.protocol import Setting
from evaluator.tasks.plain import IGNORED
from evaluator.tasks.streams import BLOCK, Bools, Ints, below, chance, raw

NOISE_TOKENS = 16  # noisy: the last tokens of the vocabulary
LONGEST_MOTIF = 3  # fuzzy: tokens in a key, and in a value

Indices = npt.NDArray[np.intp]


def in_context_recall(
    setting: Setting, stream: np.random.PCG64, train: bool, noise_tokens: int = NOISE_TOKENS
) -> tuple[Ints, Ints]:
    """Pairs of two tokens, some of them replaced by noise; the last pair repeats one that was shown."""
    num_clean = setting.vocab_size - noise_tokens
    num_keys, shape = num_clean // 2, (BLOCK, setting.seq_len // 2 - 1)  # all pairs but the last
    noise = _noisy_pairs(setting, stream)
    keys = np.where(noise, -1, below(stream, num_keys, shape))
    first = _first_with_same(keys)
    values = _take(num_keys + below(stream, num_clean - num_keys, shape), first)
    new = (first == np.arange(shape[1])) & ~noise
    # Every key shown is equally likely to come last, however often it was shown.
    last = np.where(new, raw(stream, shape), np.uint64(0)).argmax(axis=1)[:, None]
    pairs = np.stack([keys, values], axis=-1)
    if noise_tokens:
        pairs = np.where(noise[..., None], num_clean + below(stream, noise_tokens, pairs.shape), pairs)
    pairs = np.concatenate([pairs, _take(pairs, last)], axis=1)
    scored = np.zeros(pairs.shape, dtype=np.bool_)
    scored[:, :-1, 1] = ~new & ~noise
    scored[:, -1, 1] = True
    return _shifted(pairs.reshape(BLOCK, -1), scored.reshape(BLOCK, -1), train)


def _noisy_pairs(setting: Setting, stream: np.random.PCG64) -> Bools:
    """Which pairs are noise, of all but the last, which never is.

    One of all pairs is spared. Where that is the last one, all others may turn out noise: such rows, with
    no key to ask for, are drawn again.
    """
    num_pairs = setting.seq_len // 2
    noise = np.ones((BLOCK, num_pairs - 1), dtype=np.bool_)
    while (bare := noise.all(axis=1)).any():
        spared = below(stream, num_pairs, (BLOCK, 1)) == np.arange(num_pairs - 1)
        noise[bare] = (chance(stream, setting.frac_noise, noise.shape) & ~spared)[bare]
    return noise


def fuzzy_in_context_recall(setting: Setting, stream: np.random.PCG64, train: bool) -> tuple[Ints, Ints]:
    """Pairs whose keys and values are motifs of up to three tokens; the probe ends the row, pads begin it."""
    num_keys, pad, width = (setting.vocab_size - 1) // 2, setting.vocab_size - 1, setting.seq_len + 1
    shortest_key = 1 if train else LONGEST_MOTIF  # a test asks with the longest keys only
    count = 1 + _most_pairs(setting.seq_len, shortest_key + 1)  # pair 0 is the probe
    keys = _motifs(stream, count, 0, num_keys, shortest_key)
    values = _motifs(stream, count, num_keys, pad - num_keys, 1)
    first = _first_with_same(_numbers_of(keys, pad))
    pairs = np.concatenate([keys, _take(values, first)], axis=-1)  # [BLOCK, count, 6], -1 for no token
    order, shown = _order_of_showing(setting, stream, pairs, first)
    pairs = _take(pairs, order)
    written = (pairs >= 0) & shown[..., None]
    is_value = np.arange(2 * LONGEST_MOTIF) >= LONGEST_MOTIF
    scored = _scored_pairs(order, _take(first, order))[..., None] & is_value
    tokens = _right_aligned(pairs, written, width, pad)
    return _shifted(tokens, _right_aligned(scored, written, width, False), train)


def _most_pairs(seq_len: int, shortest_pair: int) -> int:
    """How many pairs fit beside the probe where all of them, and the probe, are as short as can be."""
    return -(-(seq_len - shortest_pair - 2 * LONGEST_MOTIF) // shortest_pair)


def _motifs(stream: np.random.PCG64, count: int, first_token: int, num_tokens: int, shortest: int) -> Ints:
    """Ordered samples of distinct tokens [BLOCK, count, 3]; sizes uniform from `shortest` to 3, then -1."""
    shape = (BLOCK, count)
    size = shortest + below(stream, LONGEST_MOTIF + 1 - shortest, shape)
    a, b, c = (below(stream, num_tokens - taken, shape) for taken in range(LONGEST_MOTIF))
    b += b >= a  # from a rank among the tokens that are left to the token
    c += c >= np.minimum(a, b)
    c += c >= np.maximum(a, b)
    tokens = first_token + np.stack([a, b, c], axis=-1)
    return np.where(np.arange(LONGEST_MOTIF) < size[..., None], tokens, np.int32(-1))


def _numbers_of(motifs: Ints, num_tokens: int) -> npt.NDArray[np.int64]:
    """A number for each motif, the same for equal motifs only."""
    digits = motifs.astype(np.int64) + 1
    return (digits[..., 0] * (num_tokens + 1) + digits[..., 1]) * (num_tokens + 1) + digits[..., 2]


def _order_of_showing(
    setting: Setting, stream: np.random.PCG64, pairs: Ints, first: Indices
) -> tuple[Indices, Bools]:
    """Which pair stands at each place of a row, and which places are shown: the first ones, and the last.

    Pairs are appended while the row is short of `room`; the probe is planted before the first pair that would
    begin at `earliest` or later, unless it came up by chance before, or there is no such pair.
    """
    lengths = (pairs >= 0).sum(axis=-1, dtype=np.int32)
    room = setting.seq_len - lengths[:, :1] - 2 * LONGEST_MOTIF
    earliest = below(stream, setting.seq_len - 2 * lengths[:, :1], (BLOCK, 1))
    place, last = np.arange(lengths.shape[1]), lengths.shape[1] - 1
    begins = _begins(lengths[:, 1:])
    fits = (begins >= earliest) & (begins < room)
    planted = np.where(fits.any(axis=1), fits.argmax(axis=1), last)[:, None]
    came_up = ((first[:, 1:] == 0) & (place[:last] < planted)).any(axis=1, keepdims=True)
    planted = np.where(came_up, last, planted)  # the last place is beyond the room of every row
    order = np.where(place == planted, 0, place + (place < planted))
    shown = _begins(_take(lengths, order)) < room
    ends = np.zeros((BLOCK, 1), dtype=np.intp)  # the probe, always shown
    return np.concatenate([order, ends], axis=1), np.concatenate([shown, ends == 0], axis=1)


def _scored_pairs(order: Indices, first: Indices) -> Bools:
    """Pairs whose key stands before them; the last always, as a probe not planted stands beyond `room`."""
    is_probe = first == 0
    scored: Bools = np.where(is_probe, is_probe.cumsum(axis=1) > 1, first != order)
    return scored


def _begins(lengths: Ints) -> Ints:
    return lengths.cumsum(axis=1, dtype=np.int32) - lengths


def _right_aligned(slots: npt.NDArray[Any], written: Bools, width: int, filler: int) -> npt.NDArray[Any]:
    """The written slots of each row, in order, at the end of a row of `width`."""
    rows = np.full((len(slots), width), filler, dtype=slots.dtype)
    rows[np.arange(width) >= width - written.sum(axis=(1, 2))[:, None]] = slots[written]
    return rows


def _first_with_same(numbers: npt.NDArray[Any]) -> Indices:
    """For each number of a row the index at which the row has it first."""
    order = np.argsort(numbers, axis=1, kind="stable")
    ordered = _take(numbers, order)
    is_start = np.ones(ordered.shape, dtype=np.bool_)
    is_start[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    start = np.maximum.accumulate(np.where(is_start, np.arange(ordered.shape[1]), 0), axis=1)
    first = np.empty_like(order)
    np.put_along_axis(first, order, _take(order, start), axis=1)
    return first


def _take(rows: npt.NDArray[Any], indices: Indices) -> npt.NDArray[Any]:
    """Entries along the second axis, whole where they are arrays themselves."""
    return rows[np.arange(len(rows))[:, None], indices]


def _shifted(tokens: Ints, scored: Bools, train: bool) -> tuple[Ints, Ints]:
    targets = tokens if train else np.where(scored, tokens, np.int32(IGNORED))
    return tokens[:, :-1], targets[:, 1:]
