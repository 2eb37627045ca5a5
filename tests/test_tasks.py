"""The six tasks: their rules as facts about generated data, and figures of MAD's reference code."""

import dataclasses
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from evaluator import __main__ as command_line
from evaluator.protocol import BASELINES, PROTOCOLS, TASKS, Setting, settings_of
from evaluator.tasks import IGNORED, Examples, digest, first_batch_digest, generate, generate_fresh
from evaluator.tasks.plain import compression
from evaluator.tasks.streams import stream_named

ALL_SETTINGS = [setting for task in TASKS for setting in settings_of(task)]


def setting_of(task: str, **changes: float) -> Setting:
    """A setting small enough for a test, unless it says otherwise."""
    changes = {"num_train_examples": 300, "num_test_examples": 300} | changes
    return dataclasses.replace(BASELINES[task], **changes)


def rows_of(examples: Examples) -> np.ndarray:
    """Whole rows of a recall task trained on the next token."""
    return np.concatenate([examples.inputs, examples.targets[:, -1:]], axis=1)


# Every setting


@pytest.mark.parametrize("setting", ALL_SETTINGS, ids=lambda s: f"{s.task}:{s.name}")
def test_every_setting_of_mad_generates(setting):
    few = dataclasses.replace(setting, num_train_examples=130, num_test_examples=3)
    for examples, count in zip(generate(few, seed=0), (130, 3), strict=True):
        assert examples.inputs.shape == examples.targets.shape == (count, setting.tokens)
        assert examples.inputs.dtype == examples.targets.dtype == np.int32
        assert examples.inputs.min() >= 0
        assert examples.inputs.max() < setting.vocab_size
        assert np.all((examples.targets == IGNORED) | (examples.targets >= 0))
        assert examples.targets.max() < setting.vocab_size
        assert (examples.targets != IGNORED).any(axis=1).all()


def test_there_are_66_settings():
    assert len(ALL_SETTINGS) == 66


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("compression", {"seq_len": 1}),
        ("compression", {"vocab_size": 2}),
        ("in-context-recall", {"seq_len": 64, "vocab_size": 16}),
        ("in-context-recall", {"vocab_size": 17}),
        ("in-context-recall", {"vocab_size": 2, "seq_len": 4}),
        ("fuzzy-in-context-recall", {"seq_len": 64}),
        ("fuzzy-in-context-recall", {"vocab_size": 7, "seq_len": 13}),
        ("fuzzy-in-context-recall", {"vocab_size": 4096, "seq_len": 101}),
        ("memorization", {"seq_len": 33, "vocab_size": 3}),
        ("noisy-in-context-recall", {"frac_noise": 0}),
        ("noisy-in-context-recall", {"frac_noise": 0.99, "seq_len": 4, "vocab_size": 18}),
        ("selective-copying", {"seq_len": 64, "num_tokens_to_copy": 8}),
        ("selective-copying", {"seq_len": 34, "vocab_size": 3}),
        ("selective-copying", {"num_train_examples": 1, "num_tokens_to_copy": 1}),
    ],
)
def test_settings_off_the_grid_generate(task, changes):
    setting = setting_of(task, **changes)
    train, test = generate(setting, seed=0)
    assert len(train.inputs) == setting.num_train_examples
    assert len(test.inputs) == setting.num_test_examples


@pytest.mark.parametrize(
    ("task", "changes", "told"),
    [
        ("compression", {"vocab_size": 1}, "vocab_size=1 "),
        ("compression", {"frac_noise": 0.2}, "frac_noise=0.2 "),
        ("compression", {"num_tokens_to_copy": 4}, "num_tokens_to_copy=4 "),
        ("compression", {"vocab_size": 2**20 + 1}, "vocab_size=1048577 "),
        ("in-context-recall", {"seq_len": 127}, "seq_len=127 must be even"),
        ("compression", {"seq_len": 65537}, "seq_len=65537 must be at most 65536"),
        ("compression", {"num_train_examples": 2**25 + 1}, "num_train_examples=33554433 of seq_len=32 are more than 1073741824 tokens"),
        ("memorization", {"num_test_examples": 10**12}, "num_test_examples=1000000000000 of seq_len=32 are more than "),
        ("in-context-recall", {"seq_len": 2}, "seq_len=2 "),
        ("in-context-recall", {"num_train_examples": 0}, "num_train_examples=0 "),
        ("fuzzy-in-context-recall", {"vocab_size": 6}, "vocab_size=6 must be at least 7"),
        ("fuzzy-in-context-recall", {"seq_len": 12}, "seq_len=12 must be at least 13"),
        ("memorization", {"seq_len": 1}, "seq_len=1 "),
        ("memorization", {"num_test_examples": -1}, "num_test_examples=-1 "),
        ("noisy-in-context-recall", {"vocab_size": 16}, "vocab_size=16 must be at least 18"),
        ("noisy-in-context-recall", {"frac_noise": 1.0}, "frac_noise=1.0 "),
        ("noisy-in-context-recall", {"frac_noise": float("nan")}, "frac_noise=nan "),
        ("selective-copying", {"seq_len": 33}, "seq_len=33 must be at least 34"),
        ("selective-copying", {"num_tokens_to_copy": 0}, "num_tokens_to_copy=0 "),
    ],
)
def test_a_setting_that_cannot_be_drawn_is_told_with_its_value(task, changes, told):
    setting = setting_of(task, **changes)
    for attempt in (lambda: generate(setting, 0), lambda: generate_fresh(setting, 0, 1, 1)):
        with pytest.raises(ValueError, match=told) as error:
            attempt()
        assert str(error.value).startswith(f"{task}: ")


def test_an_unknown_task_is_told_with_the_tasks_there_are():
    with pytest.raises(ValueError, match="unknown task 'copying'; the tasks are compression, "):
        generate(dataclasses.replace(BASELINES["compression"], task="copying"), 0)


# Streams


# Raise EVALUATOR_VERSION where one of these has to change: scores of before and after are of other data.
DIGESTS = {
    "compression": "71b08ed0e79b287493f9bde2024e60a9d8ad21d0a538b4ee9a755d5df70fdf29",
    "in-context-recall": "c68592c683da7f54fdd36cc32e98638a8472214d2fd159c48b517b4067f141d5",
    "fuzzy-in-context-recall": "17553a720ddb9a0bb3d1d5f1a3b9c04135733047ec2381ce9f71dd9b6143ad9b",
    "memorization": "36bf48b2f19713a115d6d21522f567bdf9ba2e7634a6c1007de8996ad33cb7c7",
    "noisy-in-context-recall": "5a4a23102cc8523758ae571068edcbd798190278bb0cc9f1b2483925a9d4355f",
    "selective-copying": "09b854a959fbd0d5faebdb1aa8f170dbdb06e44351beb005aac0377918f1fc3a",
}


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_bytes_everywhere(task):
    assert first_batch_digest(BASELINES[task]) == DIGESTS[task]


@pytest.mark.parametrize("task", TASKS)
def test_the_digest_is_of_the_first_training_examples(task):
    train, _ = generate(setting_of(task), seed=3)
    first = Examples(train.inputs[:128], train.targets[:128])
    assert first_batch_digest(setting_of(task), seed=3) == digest(first)


@pytest.mark.parametrize("task", TASKS)
def test_each_seed_and_each_field_has_a_stream_of_its_own(task):
    changes = ({}, {"num_train_examples": 301}, {"num_test_examples": 301})
    settings = [setting_of(task, **change) for change in changes]
    digests = [first_batch_digest(setting, seed) for setting in settings for seed in (0, 1)]
    assert len(set(digests)) == 6


def test_noise_of_0_and_of_zero_point_zero_are_one_setting():
    whole, point = (setting_of("noisy-in-context-recall", frac_noise=value) for value in (0, 0.0))
    assert first_batch_digest(whole) == first_batch_digest(point)


@pytest.mark.parametrize("task", TASKS)
def test_no_test_example_was_trained_on(task):
    train, test = generate(setting_of(task), seed=0)
    assert not {row.tobytes() for row in train.inputs} & {row.tobytes() for row in test.inputs}


def test_the_test_set_continues_the_stream_of_the_training_set():
    setting = setting_of("compression")
    stream = stream_named("examples", 0, setting)
    blocks = [compression(setting, stream)[0] for _ in range(6)]  # 300 examples are three blocks, twice
    train, test = generate(setting, seed=0)
    assert np.array_equal(train.inputs, np.concatenate(blocks[:3])[:300])
    assert np.array_equal(test.inputs, np.concatenate(blocks[3:])[:300])


@pytest.mark.parametrize("task", TASKS)
def test_a_fresh_test_set_is_new_for_each_entropy(task):
    setting = setting_of(task)
    _, test = generate(setting, seed=0)
    fresh = generate_fresh(setting, 0, 300, entropy=2**127 + 5)
    assert digest(fresh) == digest(generate_fresh(setting, 0, 300, entropy=2**127 + 5))
    others = (test, generate_fresh(setting, 0, 300, entropy=6), generate_fresh(setting, 1, 300, 2**127 + 5))
    assert all(not np.array_equal(fresh.inputs, other.inputs) for other in others)
    assert fresh.inputs.shape == test.inputs.shape


@pytest.mark.parametrize("task", TASKS)
def test_a_fresh_test_set_is_scored_like_the_test_set(task):
    setting = setting_of(task, num_test_examples=2000)
    _, test = generate(setting, seed=0)
    fresh = generate_fresh(setting, 0, 2000, entropy=1)
    scored = [(examples.targets != IGNORED).mean(axis=0) for examples in (test, fresh)]
    assert np.abs(scored[0] - scored[1]).max() < 0.08


def test_a_fresh_set_without_examples_is_refused():
    with pytest.raises(ValueError, match="num_examples=0 must be at least 1"):
        generate_fresh(BASELINES["compression"], 0, 0, 1)


# Compression, memorization, selective copying


@pytest.mark.parametrize(("vocab_size", "seq_len"), [(16, 32), (128, 64), (3, 5)])
def test_compression_asks_for_every_input(vocab_size, seq_len):
    for examples in generate(setting_of("compression", vocab_size=vocab_size, seq_len=seq_len), seed=1):
        assert np.array_equal(examples.inputs, examples.targets)
        assert np.all(examples.inputs[:, -1] == vocab_size - 1)
        assert set(examples.inputs[:, :-1].ravel()) == set(range(vocab_size - 1))


def memorized(examples: Examples) -> dict[int, int]:
    pairs = np.stack([examples.inputs[:, ::2].ravel(), examples.targets[:, 1::2].ravel()], axis=1)
    distinct = {(int(key), int(value)) for key, value in pairs}
    assert len(distinct) == len({key for key, _ in distinct}), "a key has two values"
    return dict(distinct)


@pytest.mark.parametrize(("vocab_size", "seq_len"), [(256, 32), (17, 33), (10, 8)])
def test_memorization_has_one_map_for_all_sets(vocab_size, seq_len):
    setting = setting_of("memorization", vocab_size=vocab_size, seq_len=seq_len)
    num_keys = (vocab_size - 1) // 2
    train, test = generate(setting, seed=5)
    fresh = generate_fresh(setting, 5, 300, entropy=9)
    for examples in (train, test, fresh):
        assert examples.inputs.shape[1] == seq_len // 2 * 2
        assert np.all(examples.inputs[:, 1::2] == vocab_size - 1)
        assert np.all(examples.targets[:, ::2] == IGNORED)
    maps = [memorized(examples) for examples in (train, test, fresh)]
    assert maps[0] == maps[1] == maps[2]
    assert set(maps[0]) == set(range(num_keys))
    assert len(set(maps[0].values())) == num_keys
    assert set(maps[0].values()) <= set(range(num_keys, vocab_size - 1))


def test_the_map_of_memorization_hangs_on_the_seed_and_not_on_the_number_of_examples():
    maps = [
        memorized(generate(setting_of("memorization", vocab_size=16, num_train_examples=count), seed)[0])
        for seed, count in ((0, 300), (0, 128), (1, 300))
    ]
    assert maps[0] == maps[1] != maps[2]


def test_256_training_sequences_show_the_share_of_a_large_map_that_can_be_learned():
    setting = dataclasses.replace(BASELINES["memorization"], vocab_size=8192)
    train, _ = generate(setting, seed=0)
    assert len(memorized(train)) == pytest.approx(4095 * (1 - (1 - 1 / 4095) ** 4096), abs=60)


@pytest.mark.parametrize(("vocab_size", "seq_len", "num_tokens"), [(16, 256, 16), (16, 64, 8), (3, 10, 4)])
def test_selective_copying_asks_for_the_tokens_in_order(vocab_size, seq_len, num_tokens):
    blank, copy, body = vocab_size - 2, vocab_size - 1, seq_len - num_tokens - 1
    changes = {"vocab_size": vocab_size, "seq_len": seq_len, "num_tokens_to_copy": num_tokens}
    for examples in generate(setting_of("selective-copying", **changes), seed=0):
        tokens = examples.inputs[:, :body][examples.inputs[:, :body] != blank].reshape(300, num_tokens)
        assert tokens.max() < blank
        assert np.all(examples.inputs[:, body] == copy)
        assert np.all(examples.inputs[:, body + 1 :] == blank)
        assert np.array_equal(examples.targets[:, -num_tokens:], tokens)
        assert np.all(examples.targets[:, :-num_tokens] == IGNORED)
        assert np.all(examples.inputs[:, body - 1] != blank), "a blank follows the last token"


def test_blanks_fall_into_the_gaps_one_by_one():
    setting = setting_of("selective-copying", num_test_examples=4000)
    _, test = generate(setting, seed=0)
    places = np.nonzero(test.inputs[:, :239] != 14)[1].reshape(4000, 16)
    gaps = np.diff(places, axis=1, prepend=-1) - 1  # 223 blanks: each gap is binomial with p = 1/16
    assert gaps.mean(axis=0) == pytest.approx(np.full(16, 223 / 16), abs=0.3)
    assert gaps.var(axis=0) == pytest.approx(np.full(16, 223 * 15 / 256), rel=0.12)


# In-context recall, plain and noisy


def pairs_and_scored(row: np.ndarray, noise_from: int) -> tuple[dict[int, int], list[int], list[int]]:
    """The map a row shows, how often each key comes, and the targets a test row must have."""
    shown: dict[int, int] = {}
    keys, targets = [], []
    pairs = [(int(key), int(value)) for key, value in row.reshape(-1, 2)]
    for place, (key, value) in enumerate(pairs):
        is_noise = key >= noise_from
        assert is_noise == (value >= noise_from)
        if not is_noise:
            assert key < noise_from // 2 <= value
            assert shown.get(key, value) == value, "a key has two values"
            keys.append(key)
        is_target = not is_noise and (key in shown or place == len(pairs) - 1)
        targets += [IGNORED, value if is_target else IGNORED]
        if not is_noise:
            shown[key] = value
    return shown, keys, targets[1:]


RECALL_SETTINGS = [
    ("in-context-recall", 16, 128, 0.0),
    ("in-context-recall", 17, 6, 0.0),
    ("noisy-in-context-recall", 32, 128, 0.2),
    ("noisy-in-context-recall", 19, 6, 0.8),
]


@pytest.mark.parametrize(("task", "vocab_size", "seq_len", "frac_noise"), RECALL_SETTINGS)
def test_recall_scores_the_values_that_can_be_known(task, vocab_size, seq_len, frac_noise):
    setting = setting_of(task, vocab_size=vocab_size, seq_len=seq_len, frac_noise=frac_noise)
    noise_from = vocab_size - 16 * task.startswith("noisy")
    train, test = generate(setting, seed=2)
    assert np.array_equal(train.inputs[:, 1:], train.targets[:, :-1])
    for examples in (train, test):
        for row, targets in zip(rows_of(examples), examples.targets, strict=True):
            _, keys, scored = pairs_and_scored(row, noise_from)
            assert keys[-1] in keys[:-1], "the last key was not shown before"
            assert np.array_equal(targets, row[1:] if examples is train else scored)


def test_the_last_key_is_any_of_those_shown_however_often_they_were():
    train, _ = generate(setting_of("in-context-recall", seq_len=20, num_train_examples=4000), seed=0)
    ranks, counts = [], []
    for row in rows_of(train):
        shown, keys, _ = pairs_and_scored(row, 16)
        ranks.append((list(shown).index(keys[-1]) + 0.5) / len(shown))
        counts.append(keys[:-1].count(keys[-1]) / (len(keys[:-1]) / len(shown)))
    assert np.mean(ranks) == pytest.approx(0.5, abs=0.02)
    assert np.mean(counts) == pytest.approx(1.0, abs=0.03)  # drawn over showings it would be 1.3


def test_noise_replaces_its_share_of_all_pairs_but_one():
    setting = setting_of("noisy-in-context-recall", num_train_examples=20_000, seq_len=6, frac_noise=0.5)
    train, _ = generate(setting, seed=0)
    noise = rows_of(train)[:, ::2] >= 16
    assert not noise[:, -1].any()
    # One of three pairs is spared, which may be the last one; in 1 of 12 rows nothing is left to ask for.
    expected = (1 / 3 - 1 / 12) / (11 / 12)
    assert noise[:, :-1].mean(axis=0) == pytest.approx([expected, expected], abs=0.01)
    tokens = rows_of(train)[:, :-2][np.repeat(noise[:, :-1], 2, axis=1)]
    shares = np.bincount(tokens, minlength=32)[16:] / len(tokens)
    assert shares == pytest.approx(np.full(16, 1 / 16), abs=0.008)


def test_two_keys_may_share_a_value():
    train, _ = generate(setting_of("in-context-recall"), seed=0)
    distinct = [len(set(pairs_and_scored(row, 16)[0].values())) for row in rows_of(train)]
    assert np.mean(distinct) == pytest.approx(8 * (1 - (7 / 8) ** 8), abs=0.2)


# Fuzzy in-context recall


Pair = tuple[tuple[int, ...], tuple[int, ...]]


def motifs_of(row: np.ndarray, vocab_size: int) -> tuple[int, list[Pair]]:
    """Pads at the start of a row, and its pairs: a motif ends where keys turn into values or back."""
    tokens = [int(token) for token in row]
    pads = next(place for place, token in enumerate(tokens) if token != vocab_size - 1)
    is_value = [token >= (vocab_size - 1) // 2 for token in tokens[pads:]]
    turns = [place for place in range(1, len(is_value)) if is_value[place] != is_value[place - 1]]
    runs = [tuple(tokens[pads + start : pads + end]) for start, end in pairwise([0, *turns, len(is_value)])]
    assert vocab_size - 1 not in tokens[pads:]
    return pads, list(zip(runs[::2], runs[1::2], strict=True))


def fuzzy_targets(pads: int, pairs: list[Pair]) -> list[int]:
    targets, shown = [IGNORED] * pads, set()
    for place, (key, value) in enumerate(pairs):
        is_target = key in shown or place == len(pairs) - 1
        targets += [IGNORED] * len(key) + [token if is_target else IGNORED for token in value]
        shown.add(key)
    return targets[1:]


@pytest.mark.parametrize(("vocab_size", "seq_len"), [(16, 128), (7, 40), (8, 13), (128, 33)])
def test_fuzzy_recall_scores_values_of_repeated_keys_and_of_the_probe(vocab_size, seq_len):
    setting = setting_of("fuzzy-in-context-recall", vocab_size=vocab_size, seq_len=seq_len)
    train, test = generate(setting, seed=4)
    assert np.array_equal(train.inputs[:, 1:], train.targets[:, :-1])
    for examples, key_sizes in ((train, {1, 2, 3}), (test, {3})):
        seen_sizes = set()
        for row, targets in zip(rows_of(examples), examples.targets, strict=True):
            pads, pairs = motifs_of(row, vocab_size)
            assert pads >= 2
            assert len(set(pairs)) == len({key for key, _ in pairs}), "a key has two values"
            assert all(len(set(motif)) == len(motif) <= 3 for pair in pairs for motif in pair)
            assert np.array_equal(targets, row[1:] if examples is train else fuzzy_targets(pads, pairs))
            seen_sizes |= {len(key) for key, _ in pairs}
            probe = sum(map(len, pairs[-1]))
            body = seq_len + 1 - pads - probe
            assert seq_len - probe - 6 <= body < seq_len - probe
        assert seen_sizes == key_sizes


# Measured over 20,000 examples of the reference code, for (vocab_size, seq_len). In training and in test, the
# end of a row left out: share of rows that never show their probe, share that begin with it, how often it is
# shown; then pairs in a row, and pads. Last the scored tokens of a test row.
FUZZY_FIGURES = {
    (16, 128): ((0.0184, 0.0264, 1.3371, 30.8949, 5.3284), (0.0214, 0.0135, 1.0325, 24.8255, 4.9161), 4.377),
    (128, 128): ((0.0263, 0.0105, 0.999, 30.914, 5.3257), (0.0248, 0.0072, 0.9753, 24.8072, 4.9421), 2.007),
    (16, 64): ((0.0488, 0.0355, 1.0814, 14.9024, 5.3279), (0.0554, 0.022, 0.9667, 12.0091, 4.9535), 2.461),
    (7, 40): ((0.0592, 0.1036, 1.2247, 8.9218, 5.3296), (0.036, 0.1913, 1.4799, 7.2214, 5.0037), 5.934),
    (8, 13): ((0.579, 0.35, 0.4289, 2.2168, 4.9917), (0.4069, 0.5931, 0.5931, 2.0, 3.7765), 2.001),
}


def fuzzy_figures(examples: Examples, vocab_size: int) -> np.ndarray:
    figures = []
    for row in rows_of(examples):
        pads, pairs = motifs_of(row, vocab_size)
        is_probe = [pair == pairs[-1] for pair in pairs[:-1]]
        figures.append((not any(is_probe), is_probe[0], sum(is_probe), len(pairs), pads))
    return np.array(figures, dtype=float)


@pytest.mark.parametrize(("vocab_size", "seq_len"), FUZZY_FIGURES)
def test_fuzzy_recall_has_the_figures_of_the_reference(vocab_size, seq_len):
    setting = setting_of(
        "fuzzy-in-context-recall", vocab_size=vocab_size, seq_len=seq_len,
        num_train_examples=4000, num_test_examples=4000,
    )
    *expected, scored = FUZZY_FIGURES[vocab_size, seq_len]
    train, test = generate(setting, seed=1)
    for examples, theirs in zip((train, test), expected, strict=True):
        ours = fuzzy_figures(examples, vocab_size)
        error = ours.std(axis=0) * np.sqrt(1 / 4000 + 1 / 20_000)
        assert np.all(np.abs(ours.mean(axis=0) - theirs) <= 4 * error), (ours.mean(axis=0), theirs)
    assert (test.targets != IGNORED).sum(axis=1).mean() == pytest.approx(scored, rel=0.05)


def test_a_motif_is_uniform_among_those_of_its_size():
    setting = setting_of("fuzzy-in-context-recall", vocab_size=7, seq_len=13, num_train_examples=9000)
    train, _ = generate(setting, seed=0)
    first_keys = [motifs_of(row, 7)[1][-1][0] for row in rows_of(train)]
    for size, motifs in ((1, 3), (2, 6), (3, 6)):
        counts = np.unique([str(key) for key in first_keys if len(key) == size], return_counts=True)[1]
        assert len(counts) == motifs
        assert counts == pytest.approx(np.full(motifs, 3000 / motifs), abs=4.5 * np.sqrt(3000 / motifs))


# Speed


@pytest.mark.parametrize("seq_len", [128, 1024])
def test_the_largest_setting_is_drawn_in_five_seconds(seq_len):
    setting = dataclasses.replace(BASELINES["fuzzy-in-context-recall"], vocab_size=128, seq_len=seq_len)
    start = time.process_time()
    train, _ = generate(setting, seed=0)
    assert time.process_time() - start < 5
    assert train.inputs.shape == (12_800, seq_len)


def test_settings_can_be_chosen_one_by_one(tmp_path, capsys):
    names = ["memorization:vocab_size=512", "compression:baseline"]
    assert [f"{s.task}:{s.name}" for s in command_line._only(PROTOCOLS["mad"].settings, names)] == names
    variant = str(Path(__file__).parent.parent / "variants" / "delta_net")
    asked = ["score", variant, "--only", "memorization:vocab_size=3", "--out", str(tmp_path / "out")]
    assert command_line.main(asked) == 2
    assert "--only memorization:vocab_size=3: there is no such setting" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
