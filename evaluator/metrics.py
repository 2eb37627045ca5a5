"""MAD's accuracy and perplexity, counted on the device: per batch first, then the mean over batches."""

import torch
from torch import Tensor

from evaluator.layers import cross_entropy


class BatchScores:
    """Accuracy and perplexity of R replicas on one test batch after another.

    Accuracy of a batch = mean over the classes that occur as target or as prediction of the share of that
    class's targets that were hit (a class that is predicted but never a target counts 0), as torchmetrics'
    macro average does it; positions whose target is -100 are left out.
    """

    def __init__(self, replicas: int, vocab_size: int, device: torch.device) -> None:
        self.accuracy = torch.zeros(replicas, dtype=torch.float64, device=device)
        self.perplexity = torch.zeros(replicas, dtype=torch.float64, device=device)
        self.batches = torch.zeros((), dtype=torch.float64, device=device)
        self.vocab_size = vocab_size

    def reset(self) -> None:
        for total in (self.accuracy, self.perplexity, self.batches):
            total.zero_()

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """logits [R, N, V], targets [R, N]: all positions of one batch."""
        self.accuracy += macro_accuracy(logits.argmax(-1), targets, self.vocab_size)
        self.perplexity += cross_entropy(logits, targets).double().exp()
        self.batches += 1

    def means(self) -> Tensor:
        """Accuracy and perplexity, [2, R]."""
        return torch.stack([self.accuracy, self.perplexity]) / self.batches


def macro_accuracy(predicted: Tensor, targets: Tensor, vocab_size: int) -> Tensor:
    """Accuracy [R] of class indices predicted [R, N] against targets [R, N]."""
    scored, targets = targets != -100, targets.long()
    spare = torch.full_like(targets, vocab_size)  # a class of its own for what is not counted

    def count(classes: Tensor, kept: Tensor) -> Tensor:
        counts = torch.zeros(len(classes), vocab_size + 1, dtype=torch.int64, device=classes.device)
        return counts.scatter_add_(1, torch.where(kept, classes, spare), torch.ones_like(classes))[:, :-1]

    wanted, given = count(targets, scored), count(predicted, scored)
    hit = count(targets, scored & (predicted == targets))
    occurs = (wanted + given) > 0
    return (hit.double() / wanted.clamp(min=1)).sum(1) / occurs.sum(1)
