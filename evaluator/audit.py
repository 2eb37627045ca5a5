"""The accuracy that is recorded: computed by a trusted process from the trained weights.

Everything of the model but the operator runs here. The operator runs in a fresh process that sees q, k, v,
beta and what it declared, on rows in shuffled order; never a token, a weight or a target.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluator import layers
from evaluator.metrics import macro_accuracy
from evaluator.model import Architecture, Operator, forward, layout, named, operations
from evaluator.operator import OperatorProcess
from evaluator.protocol import Protocol, Setting
from evaluator.tasks import Examples, generate, generate_fresh

STEERING_TOLERANCE = 0.02  # what other batch shapes and roundings may change of a test accuracy
FRESH_TOLERANCE = 0.03  # beyond five standard errors: epoch and run were chosen on the first test set


@dataclass(frozen=True)
class Audited:
    """One run's accuracy and loss on the test set, and its accuracy on a test set that nobody had seen."""

    accuracy: float
    loss: float
    fresh_accuracy: float


class AuditError(Exception):
    """The trained model does not do what was reported of it; one sentence with the figures."""


def audit(
    weights: Tensor, claimed: float, setting: Setting, protocol: Protocol, seed: int, arch: Architecture,
    process: OperatorProcess, device: torch.device, rng: np.random.Generator,
) -> Audited:
    """Audits one run: weights float32 [P], claimed = the accuracy its training reported. Raises AuditError."""
    model = _model(weights, arch, process, protocol, device)
    _, test = generate(setting, seed)
    fresh = generate_fresh(setting, seed, setting.num_test_examples, int(rng.integers(2**62)))
    batches, loss = _scores(model, test, setting, protocol, rng)
    fresh_batches, _ = _scores(model, fresh, setting, protocol, rng)
    accuracy, fresh_accuracy = batches.mean(), fresh_batches.mean()
    if not math.isfinite(loss) or abs(accuracy - claimed) > STEERING_TOLERANCE:
        raise AuditError(
            f"{setting.task} {setting.name}: training reported an accuracy of {claimed:.4f}, "
            f"the audit of its weights found {accuracy:.4f}"
        )
    error = math.sqrt(batches.var() / len(batches) + fresh_batches.var() / len(batches))
    if abs(accuracy - fresh_accuracy) > FRESH_TOLERANCE + 5 * error:
        raise AuditError(
            f"{setting.task} {setting.name}: accuracy {accuracy:.4f} on the test set, but {fresh_accuracy:.4f} "
            f"on examples that the training could not have seen (standard error {error:.4f})"
        )
    return Audited(float(accuracy), loss, float(fresh_accuracy))


def _model(
    weights: Tensor, arch: Architecture, process: OperatorProcess, protocol: Protocol, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Tokens [B, T] -> logits [B, T, V]."""
    flat = weights.to(device)[None]
    cuda = device.type == "cuda"
    low = torch.bfloat16 if cuda else torch.float32
    weights_by_name = named(flat[:, : layout(arch).matrix_size].to(low), flat, arch)

    def ask(inputs: dict[str, Tensor]) -> Tensor:
        sent = {name: x.cpu() for name, x in inputs.items()}
        return process.forward(sent, chunk_size=protocol.chunk_size).to(device)

    operator: Operator = ask

    @torch.no_grad()
    def logits(tokens: Tensor) -> Tensor:
        out = forward(weights_by_name, tokens.to(device)[None], operator, arch, operations(device))
        return out.view(*tokens.shape, -1)

    return logits


def _scores(
    model: Callable[[Tensor], Tensor], examples: Examples, setting: Setting, protocol: Protocol, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Accuracy of every test batch and the mean loss; rows are asked for in shuffled order, then put back.

    A batch or two, nobody knows which, are asked for twice.
    """
    inputs, targets = torch.from_numpy(examples.inputs), torch.from_numpy(examples.targets)
    batches = torch.from_numpy(rng.permutation(len(inputs))).split(protocol.batch_size)
    twice = {int(n) for n in rng.integers(len(batches), size=2)}
    predicted, losses = torch.empty_like(targets, dtype=torch.int64), torch.empty(len(inputs))
    counted = (targets != -100).sum(1)
    for n, rows in enumerate(batches):
        out = _asked_twice(model, inputs[rows], setting, rng) if n in twice else model(inputs[rows])
        predicted[rows] = out.argmax(-1).cpu()
        loss = layers.cross_entropy(out, targets[rows].to(out.device))  # each row a replica of one
        losses[rows] = torch.where(counted[rows] > 0, loss.cpu(), 0.0) * counted[rows]
    size = protocol.batch_size
    pairs = zip(predicted.split(size), targets.split(size), strict=True)
    accuracy = [macro_accuracy(p.flatten()[None], t.flatten()[None], setting.vocab_size).item() for p, t in pairs]
    return np.array(accuracy), float(losses.sum() / counted.sum())


def _asked_twice(model: Callable[[Tensor], Tensor], tokens: Tensor, setting: Setting, rng: np.random.Generator) -> Tensor:
    """The logits of a batch, held against those of the same rows with another future, beside other rows.

    Both calls have the shape that is scored and come in random order: the operator can't tell which one counts.
    """
    changed, kept = _replaced(tokens, setting, rng)
    first = int(rng.integers(2))
    answers = {i: model((tokens, changed)[i]).float() for i in (first, 1 - first)}
    moved = (answers[0] - answers[1]).abs().amax(-1).cpu()
    worst, scale = moved[kept].max().item(), answers[0].abs().max().item()
    if not worst <= 0.02 * scale:
        row, position = (int(i) for i in torch.nonzero(kept & ~(moved < worst))[0])
        raise AuditError(
            f"{setting.task} {setting.name}: with other tokens later in its row and other rows beside it the prediction at "
            f"position {position} of row {row} changed by {worst:.3g}, where logits reach {scale:.3g}: the trained model "
            "looks ahead or into other rows"
        )
    return answers[0]


def _replaced(tokens: Tensor, setting: Setting, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Half of the rows replaced whole, the others after a cut of their own; where predictions must stay, bool [B, T].

    What takes a token's place is another row's at the same position, or random; compression's answers are all read from
    the last position, so rows that stay keep every token.
    """
    B, T = tokens.shape
    cuts = np.full(B, T) if setting.task == "compression" else rng.integers(1, T, B)
    cuts[rng.permutation(B)[: B // 2]] = 0
    kept = torch.from_numpy(np.arange(T) < cuts[:, None])
    drawn = torch.from_numpy(rng.integers(0, setting.vocab_size, (B, T), dtype=np.int32))
    others = torch.where(torch.from_numpy(rng.random(B) < 0.5)[:, None], tokens.roll(int(rng.integers(1, B)), 0), drawn)
    return torch.where(kept, tokens, others), kept
