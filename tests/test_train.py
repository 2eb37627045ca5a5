"""Packed training is training: R runs as one model are R models, whichever operations they are made of."""

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from evaluator import layers
from evaluator.group import Group
from evaluator.loaded import load
from evaluator.metrics import macro_accuracy
from evaluator.model import architecture, forward, initial_weights, layout, views
from evaluator.operator import read_sources
from evaluator.protocol import BASELINES, PROTOCOLS, TASKS, Run, from_json, settings_of, sweep, to_json
from evaluator.serving import _declare, arithmetic, declared, operator_function
from evaluator.train import train_group

VARIANTS = Path(__file__).parents[1] / "variants"
CPU = torch.device("cpu")
SMOKE = PROTOCOLS["smoke"]


def group_of(tmp_path, name="delta_net", runs=None, ops=layers, setting=SMOKE.settings[1], protocol=SMOKE, device=CPU):
    operator = load(read_sources(VARIANTS / name), "naive", device.type, tmp_path)
    arch = architecture(setting, protocol, *declared(operator, protocol))

    def declare(stream):
        return _declare(operator, protocol, stream)

    runs = runs or sweep(protocol, [0])
    return Group(setting, protocol, runs, arch, operator_function(operator, protocol), declare, device, ops)


def test_mad_has_66_settings_and_396_runs():
    counts = [len(settings_of(task)) for task in TASKS]
    assert counts == [11, 11, 11, 6, 14, 13]
    mad = PROTOCOLS["mad"]
    assert len(mad.settings) * len(sweep(mad, [0])) == 396


def test_sizes_are_the_references():
    mad = PROTOCOLS["mad"]
    plain = dataclasses.replace(BASELINES["in-context-recall"])
    assert architecture(plain, mad, {}, {}).num_parameters == 409_872
    assert architecture(BASELINES["compression"], mad, {}, {}).num_parameters == 443_152
    gated = architecture(plain, mad, {"a": 1, "output_gate": 64}, {"A_log": (2,), "dt_bias": (2,)})
    assert gated.num_parameters == 443_160


def test_protocol_survives_json():
    for protocol in PROTOCOLS.values():
        assert from_json(to_json(protocol)) == protocol


@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net"])
def test_packed_runs_are_single_runs(tmp_path, name):
    runs = sweep(SMOKE, [0, 1])
    packed = group_of(tmp_path, name, runs)
    packed.order.copy_(torch.arange(packed.order.shape[1]).expand_as(packed.order))
    for _ in range(3):
        packed.train_step(16)
    for i, run in enumerate(runs):
        single = group_of(tmp_path, name, [run])
        single.order.copy_(torch.arange(single.order.shape[1]).expand_as(single.order))
        for _ in range(3):
            single.train_step(16)
        torch.testing.assert_close(packed.weights[i], single.weights[0], rtol=1e-4, atol=1e-5)


def test_an_added_parameter_shifts_no_other_tensor():
    mad, setting = PROTOCOLS["mad"], BASELINES["in-context-recall"]
    plain = architecture(setting, mad, {}, {})
    more = architecture(setting, mad, {"a": 1}, {"A_log": (2,)})
    declare = lambda stream: {"A_log": np.ones(2, np.float32)}  # noqa: E731
    first, second = (
        views(torch.from_numpy(initial_weights(arch, "0/x", declare))[None], arch, arch.segments) for arch in (plain, more)
    )
    for segment in plain.segments:
        if segment.name.endswith("mixer.in"):
            assert torch.equal(first[segment.name][:, :2], second[segment.name][:, :2])  # beta's rows
        else:
            assert torch.equal(first[segment.name], second[segment.name])


@pytest.mark.parametrize("task", ["in-context-recall", "compression"])
def test_kernels_train_as_layers_do(tmp_path, task):
    pytest.importorskip("triton")
    from evaluator.kernels import ops

    protocol = dataclasses.replace(SMOKE, width=16, num_heads=1, head_dim=16)
    setting = dataclasses.replace(BASELINES[task], seq_len=8, num_train_examples=8, num_test_examples=8)
    groups = [group_of(tmp_path, ops=o, setting=setting, protocol=protocol) for o in (layers, ops)]
    for group in groups:
        for _ in range(2):
            group.cursor.zero_()
            group.train_step(3)
        group.cursor.zero_()
        group.test_step(5)
    plain, fast = groups
    moved = (plain.weights - plain.best).abs().max()
    assert moved > 1e-3
    # An Adam step is the sign of the gradient at first: compare where the gradient is not rounding alone.
    sure = plain.square.sqrt() > 1e-4 * plain.square.sqrt().max()
    torch.testing.assert_close(fast.weights[sure], plain.weights[sure], rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(fast.scores.perplexity, plain.scores.perplexity, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a second stream needs a GPU")
@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net"])
def test_a_second_stream_changes_no_bit(tmp_path, name):
    from evaluator.kernels import ops

    one_stream = SimpleNamespace(**vars(ops) | {"gradients": layers.gradients})
    setting = BASELINES["in-context-recall"]
    groups = [group_of(tmp_path, name, ops=o, setting=setting, device=torch.device("cuda")) for o in (ops, one_stream)]
    for group in groups:
        group.epoch(0)
    assert torch.equal(groups[0].weights, groups[1].weights)


def test_training_learns_and_is_deterministic(tmp_path):
    protocol = dataclasses.replace(SMOKE, epochs=2)
    first, second = (train_group(group_of(tmp_path, protocol=protocol), lambda p: None) for _ in range(2))
    assert torch.equal(first.weights, second.weights)
    assert first.accuracy == second.accuracy
    assert max(first.accuracy) > 0.1


def test_a_seed_ends_as_it_would_without_another_beside_it(tmp_path):
    protocol = dataclasses.replace(SMOKE, epochs=8, stop_accuracy=0.7)
    same, kept = {"protocol": protocol, "setting": SMOKE.settings[3]}, []
    alone = [train_group(group_of(tmp_path, runs=sweep(protocol, [seed]), **same), lambda p: None) for seed in (0, 1)]

    def keep(checkpoint):
        kept.append(dataclasses.replace(checkpoint, state={name: x.clone() for name, x in checkpoint.state.items()}))

    runs = sweep(protocol, [0, 1])
    both = train_group(group_of(tmp_path, runs=runs, **same), lambda p: None, keep=keep, every=0.0)
    again = train_group(group_of(tmp_path, runs=runs, **same), lambda p: None, begin=kept[-1])
    assert alone[0].epochs[0] != alone[1].epochs[0]
    for together in (both, again):
        assert together.epochs == alone[0].epochs + alone[1].epochs
        assert together.best_epoch == alone[0].best_epoch + alone[1].best_epoch
        assert together.accuracy == pytest.approx(alone[0].accuracy + alone[1].accuracy, abs=0.01)
        assert together.last_accuracy == pytest.approx(alone[0].last_accuracy + alone[1].last_accuracy, abs=0.01)
        torch.testing.assert_close(together.weights, torch.cat([alone[0].weights, alone[1].weights]), rtol=1e-3, atol=1e-3)


def test_a_diverging_run_is_scored_on_its_best_finite_epoch(tmp_path):
    runs = [Run(1e-3, 0.0, 0), Run(1e18, 0.0, 0)]
    trained = train_group(group_of(tmp_path, runs=runs, setting=SMOKE.settings[3]), lambda p: None)
    assert trained.best_epoch[0] > 0
    assert trained.best_epoch[1] == 0
    assert np.isnan(trained.accuracy[1])
    assert trained.accuracy[0] > 0.1


def test_the_autoencoder_reads_the_last_position_alone(tmp_path):
    group = group_of(tmp_path, setting=SMOKE.settings[0])
    weights = views(group.weights, group.arch, group.arch.segments)
    tokens = torch.randint(0, 15, (2, 3, 32), dtype=torch.int32)
    logits = forward(weights, tokens, group.operator, group.arch)
    assert logits.shape == (2, 96, 16)
    assert layout(group.arch).size == group.weights.shape[1]


@pytest.mark.parametrize(
    ("predicted", "targets", "accuracy"),
    [
        ([0, 1, 2, 2], [0, 1, 2, 2], 1.0),
        ([0, 0, 0, 0], [0, 1, 0, 1], 0.5),
        ([3, 1, 1, 1], [0, 1, 1, 1], 1 / 3),  # 3 was predicted but is no target: a class of its own with 0
        ([0, 1, 2, 3], [0, -100, -100, -100], 1.0),  # what is not scored counts nowhere
    ],
)
def test_accuracy_is_the_mean_over_classes(predicted, targets, accuracy):
    found = macro_accuracy(torch.tensor([predicted]), torch.tensor([targets]), 4)
    assert found.item() == pytest.approx(accuracy)


def test_training_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path):
    same = {"protocol": dataclasses.replace(SMOKE, epochs=3), "setting": SMOKE.settings[3]}
    whole = train_group(group_of(tmp_path, **same), lambda progress: None)
    kept = []

    def keep(checkpoint):
        kept.append(dataclasses.replace(checkpoint, state={name: x.clone() for name, x in checkpoint.state.items()}))

    train_group(group_of(tmp_path, **same), lambda progress: None, keep=keep, every=0.0)
    assert [c.epoch for c in kept] == [1, 2]
    for checkpoint in kept:
        again = train_group(group_of(tmp_path, **same), lambda progress: None, begin=checkpoint)
        assert torch.equal(again.weights, whole.weights)
        told = [f.name for f in dataclasses.fields(whole) if f.name not in ("weights", "seconds", "setup_seconds")]
        assert [getattr(again, name) for name in told] == [getattr(whole, name) for name in told]
        assert again.seconds > checkpoint.seconds
        assert again.setup_seconds == checkpoint.setup_seconds


def test_a_process_computes_after_training_as_one_that_never_trained() -> None:
    """Gates compare the two, and an operator that selects makes the rounding of another kind of product large."""
    threads = torch.get_num_threads()
    with arithmetic(torch.device("cuda"), 1):
        assert torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    with arithmetic(torch.device("cpu"), threads + 1):
        assert torch.get_num_threads() == threads + 1
    assert torch.get_num_threads() == threads


def test_a_run_that_passes_and_is_kept_with_less_ends_alone():
    told = [([0.9, 0.5], [1.0, 3.0]), ([0.9995, 0.6], [1.1, 2.0]), ([0.9995, 0.9995], [0.9, 1.0]), ([1.0, 1.0], [0.5, 0.5])]

    class Told:
        protocol, runs, steps_an_epoch, best, fused, state = SMOKE, sweep(SMOKE, [0]), 1, torch.zeros(2, 1), False, {}

        def epoch(self, number):
            self.scores = told[number]

        def test_scores(self, active):
            return self.scores

        def tokens_after(self, epoch):
            return 0

    trained = train_group(Told(), lambda p: None)
    assert (trained.epochs, trained.best_epoch) == ((2, 3), (1, 3))
    assert (trained.accuracy, trained.last_accuracy) == ((0.9, 0.9995), (0.9995, 0.9995))
