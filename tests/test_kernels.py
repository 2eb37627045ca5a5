"""The fused kernels say what `layers` says, in outputs and gradients (through Triton's interpreter on a CPU)."""

import math
import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton")

from evaluator import layers
from evaluator.kernels import ops

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _leaf(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return (torch.randn(*shape, device=DEVICE) * scale).requires_grad_()


def _weight(*shape: int) -> torch.Tensor:
    """As the trainer holds it: a view into a flat buffer, the replicas further apart than they are long."""
    size = math.prod(shape[1:])
    buffer = torch.randn(shape[0], 2 * size + 64, device=DEVICE)
    return buffer[:, 64 : 64 + size].view(shape).requires_grad_()


def _compare(fast, plain, leaves, tolerance=1e-5):
    """Outputs and gradients along a random direction."""
    results = []
    for function in (fast, plain):
        outputs = [o for o in function(*leaves) if o is not None]
        torch.manual_seed(1)
        loss = sum((o.float() * torch.randn_like(o.float())).sum() for o in outputs)
        grads = torch.autograd.grad(loss, [x for x in leaves if x is not None and x.is_floating_point()])
        results.append([*outputs, *grads])
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape
        error = (a.float() - b.float()).norm() / b.float().norm().clamp(min=1e-6)
        assert error < tolerance, error


@pytest.mark.parametrize("rows", [1, 17, 130])
@pytest.mark.parametrize("twice", [False, True])
def test_norm(rows, twice):
    torch.manual_seed(0)
    leaves = [_leaf(2, 1, rows, 32), _weight(2, 32)]
    _compare(
        lambda x, w: ops.norm(x, w, torch.float32)[1 - twice :], lambda x, w: layers.norm(x, w, torch.float32)[1 - twice :], leaves)


@pytest.mark.parametrize(("length", "projections"), [
    (1, {}), (3, {}), (6, {"g": 1, "output_gate": 16, "erase": 3}), (63, {"g": 1}),
])
def test_mixer_inputs(length, projections):
    torch.manual_seed(0)
    pads = 5
    columns = 96 + 2 + 2 * sum(projections.values()) + pads
    leaves = [_leaf(2, 2, length, columns), _weight(2, 96, 4)]
    plain = list(layers.mixer_inputs(*leaves, 2, projections))
    assert list(ops.mixer_inputs(*leaves, 2, projections)) == plain == ["q", "k", "v", "beta", *projections]
    _compare(
        lambda x, w: list(ops.mixer_inputs(x, w, 2, projections).values()),
        lambda x, w: list(layers.mixer_inputs(x, w, 2, projections).values()), leaves)


@pytest.mark.parametrize("length", [1, 19, 64, 70])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_mixer_output(length, gated, padded):
    torch.manual_seed(0)
    leaves = [_leaf(6, 2, length + padded, 16), _weight(2, 16), _leaf(2, 3, length, 32) if gated else None, _weight(2, 32, 32)]
    _compare(*(
        lambda o, w, g, out, f=f: [f(o[:, :, :length], w, g, out, 3)] for f in (ops.mixer_output, layers.mixer_output)
    ), leaves)


@pytest.mark.parametrize("rows", [1, 128, 130])
@pytest.mark.parametrize("inner", [16, 32, 48])
@pytest.mark.parametrize("kept", [slice(0, 2), slice(1, 2), None])
def test_feed_forward(rows, inner, kept):
    """The stream and the norm that follows, the norm alone as before the head, and the stream where no norm follows."""
    torch.manual_seed(0)
    leaves = [_leaf(2, 1, rows, 16), _leaf(2, 1, rows, 16), _weight(2, 16), _weight(2, 2 * inner, 16), _weight(2, 16, inner)]
    leaves += [_weight(2, 16)] if kept else []
    _compare(*(
        lambda *given, f=f: f(*given)[kept] if kept else f(*given, None)[:1] for f in (ops.feed_forward, layers.feed_forward)
    ), leaves)


@pytest.mark.parametrize("rows", [1, 70, 1100])
@pytest.mark.parametrize("biased", [False, True])
def test_linear(rows, biased):
    torch.manual_seed(0)
    leaves = [_leaf(2, 1, rows, 24), _weight(2, 40, 24), _weight(2, 40) if biased else None]
    _compare(lambda *given: [ops.linear(*given)], lambda *given: [layers.linear(*given)], leaves)


@pytest.mark.parametrize("vocab_size", [5, 16, 100])
def test_embed(vocab_size):
    torch.manual_seed(0)
    tokens = torch.randint(0, vocab_size, (2, 3, 50), dtype=torch.int32, device=DEVICE)
    _compare(lambda t, w: [ops.embed(t, w)], lambda t, w: [layers.embed(t, w)], [tokens, _weight(2, vocab_size, 16)], 2e-3)


@pytest.mark.parametrize("vocab_size", [5, 16, 300])
def test_cross_entropy(vocab_size):
    torch.manual_seed(0)
    targets = torch.randint(0, vocab_size, (2, 70), dtype=torch.int32, device=DEVICE)
    targets[:, ::3] = -100
    logits = _leaf(2, 70, vocab_size, scale=3.0)
    results = []
    for function in (ops.cross_entropy, layers.cross_entropy):
        loss = function(logits, targets)
        results.append((loss, *torch.autograd.grad(loss.sum(), [logits])))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_adamw_is_pytorchs():
    torch.manual_seed(0)
    rates, decays = [1e-2, 1e-3], [0.0, 0.1]
    start, low = torch.randn(2, 200, device=DEVICE), 128
    singles = [torch.nn.Parameter(row.clone()) for row in start]
    reference = [torch.optim.AdamW([p], lr=a, weight_decay=b) for p, a, b in zip(singles, rates, decays, strict=True)]
    weights, mean, square = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    copy = weights[:, :low].clone()
    lr, decay = torch.tensor(rates, device=DEVICE), torch.tensor(decays, device=DEVICE)
    for step in range(1, 5):
        grads = torch.randn(2, 200, device=DEVICE)
        counter = torch.tensor(step, device=DEVICE)
        ops.adamw(weights, copy, grads[:, :low].contiguous(), grads[:, low:].contiguous(), mean, square, lr, decay, counter)
        for p, grad, optimizer in zip(singles, grads, reference, strict=True):
            p.grad = grad
            optimizer.step()
    torch.testing.assert_close(weights, torch.stack([p.detach() for p in singles]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(copy, weights[:, :low])
