"""R runs of one setting as one model: on a GPU every step is a replayed CUDA graph."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from evaluator.metrics import BatchScores
from evaluator.model import (
    Architecture,
    Declare,
    Operator,
    forward,
    initial_weights,
    layout,
    named,
    stream_seed,
)
from evaluator.protocol import Protocol, Run, Setting
from evaluator.tasks import Examples, generate

if TYPE_CHECKING:
    from evaluator.fusion.library import Library

COMPILE_SECONDS = 120.0


class Group:
    """R models of one setting in training; on a GPU every step is a replayed CUDA graph."""

    def __init__(
        self, setting: Setting, protocol: Protocol, runs: Sequence[Run], arch: Architecture, operator: Operator,
        declare: Declare, device: torch.device, ops: ModuleType,
    ) -> None:
        self.setting, self.protocol, self.runs, self.arch = setting, protocol, tuple(runs), arch
        self.operator, self.device, self.ops = operator, device, ops
        self.cuda = device.type == "cuda"
        where = layout(arch)
        streams = [_stream(setting, run) for run in runs]
        flat = np.stack([initial_weights(arch, s, declare) for s in streams])
        self.weights = torch.from_numpy(flat).to(device)
        self.mean, self.square = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        low = torch.bfloat16 if self.cuda else torch.float32
        self.weights16 = self.weights[:, : where.matrix_size].to(low, copy=True).contiguous()
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        self.lr = torch.tensor([r.lr for r in runs], device=device)
        self.weight_decay = torch.tensor([r.weight_decay for r in runs], device=device)
        self.shuffles = [np.random.Generator(np.random.PCG64(stream_seed(f"{s}/shuffle"))) for s in streams]
        self._load_data()
        self.scores = BatchScores(len(runs), setting.vocab_size, device)
        self.best = self.weights.clone()
        self.best_perplexity = torch.full((len(runs),), math.inf, dtype=torch.float64, device=device)
        self._graphs: dict[tuple[str, int], Callable[[], None]] = {}
        self._pool: Any = None
        self.fused = False

    def _load_data(self) -> None:
        seeds = sorted({r.seed for r in self.runs})
        pairs = [generate(self.setting, seed) for seed in seeds]
        self.train = _on_device([train for train, _ in pairs], self.device)
        self.test = _on_device([test for _, test in pairs], self.device)
        self.which = torch.tensor([seeds.index(r.seed) for r in self.runs], device=self.device)
        self.order = torch.zeros(len(self.runs), self.train[0].shape[1], dtype=torch.int64, device=self.device)
        self.cursor = torch.zeros((), dtype=torch.int64, device=self.device)

    def _batch(self, data: tuple[Tensor, Tensor], order: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        """The `size` examples from the cursor on: inputs and targets [R, size, T]."""
        at = self.cursor + torch.arange(size, device=self.device)
        rows = at.expand(len(self.runs), size) if order is None else order.index_select(1, at)
        return data[0][self.which[:, None], rows], data[1][self.which[:, None], rows]

    def _matrices(self) -> list[Any]:
        return [s for s in self.arch.segments if s.matrix]

    def _rest(self) -> list[Any]:
        return [s for s in self.arch.segments if not s.matrix]

    def _leaves(self) -> dict[str, Tensor]:
        return named(self.weights16, self.weights, self.arch)

    def train_step(self, size: int) -> None:
        """One optimiser step of every run on its own batch of `size` examples."""
        inputs, targets = self._batch(self.train, self.order, size)
        leaves = {k: v.detach().requires_grad_() for k, v in self._leaves().items()}
        logits = forward(leaves, inputs, self.operator, self.arch, self.ops)
        loss = self.ops.cross_entropy(logits, targets.flatten(1))
        grads = self.ops.gradients(loss.sum(), list(leaves.values()))
        self._update(dict(zip(leaves, grads, strict=True)))
        self.cursor += size

    def _update(self, grads: dict[str, Tensor]) -> None:
        self.step += 1
        low = self._flat(grads, self._matrices(), 0, self.weights16.shape[1], self.weights16.dtype)
        high = self._flat(grads, self._rest(), self.weights16.shape[1], self.weights.shape[1], torch.float32)
        self.ops.adamw(
            self.weights, self.weights16, low, high, self.mean, self.square, self.lr, self.weight_decay, self.step
        )

    def _flat(self, grads: dict[str, Tensor], segments: list[Any], start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """The segments' gradients side by side, zeros in the gaps: [R, stop - start]."""
        offsets, at, pieces = layout(self.arch).offsets, start, []
        for s in segments:
            if offsets[s.name] > at:
                pieces.append(torch.zeros(len(self.runs), offsets[s.name] - at, dtype=dtype, device=self.device))
            pieces.append(grads[s.name].reshape(len(self.runs), -1).to(dtype))
            at = offsets[s.name] + s.size
        if stop > at:
            pieces.append(torch.zeros(len(self.runs), stop - at, dtype=dtype, device=self.device))
        return torch.cat(pieces, 1)

    @torch.no_grad()
    def test_step(self, size: int) -> None:
        """Scores one batch of the test set."""
        inputs, targets = self._batch(self.test, None, size)
        logits = forward(self._leaves(), inputs, self.operator, self.arch, self.ops)
        self.scores.add(logits, targets.flatten(1))
        self.cursor += size

    def _run(self, kind: str, size: int) -> None:
        """The step eagerly on a CPU, as a replayed CUDA graph on a GPU."""
        step = self.train_step if kind == "train" else self.test_step
        if not self.cuda:
            return step(size)
        if (kind, size) not in self._graphs:
            self._graphs[kind, size] = self._capture(step, size)
        return self._graphs[kind, size]()

    def _capture(self, step: Callable[[int], None], size: int) -> Callable[[], None]:
        """Warm up beside the graph, put everything back as it was, then capture."""
        state = [self.weights, self.weights16, self.mean, self.square, self.step, self.cursor]
        state += [self.scores.accuracy, self.scores.perplexity, self.scores.batches]
        kept = [t.clone() for t in state]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                step(size)
                for tensor, value in zip(state, kept, strict=True):
                    tensor.copy_(value)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            step(size)
        self._pool = self._pool or graph.pool()
        return graph.replay

    @property
    def state(self) -> dict[str, Tensor]:
        """All that training changes and an epoch's number does not tell, each float32 [R, P]: the tensors themselves."""
        return {"weights": self.weights, "mean": self.mean, "square": self.square, "best": self.best}

    def restore(self, state: Mapping[str, Tensor], perplexity: Sequence[float], epochs: int, steps: int) -> None:
        """Puts a fresh group where another one was after so many epochs and steps; `perplexity` is each run's best."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])
        self.weights16.copy_(self.weights[:, : self.weights16.shape[1]])
        self.best_perplexity.copy_(torch.tensor(perplexity, dtype=torch.float64))
        self.step.fill_(steps)
        for rng in self.shuffles:
            for _ in range(epochs):
                rng.permutation(self.order.shape[1])

    @property
    def steps_an_epoch(self) -> int:
        return len(list(_sizes(self.order.shape[1], self.protocol.batch_size)))

    def tokens_after(self, epochs: int) -> int:
        """Training tokens of all runs from such an epoch to the last."""
        return self.train[0].shape[1] * self.setting.seq_len * len(self.runs) * (self.protocol.epochs - epochs)

    def compile(self, library: "Library") -> str:
        """Puts a compiled operator into the place of the eager one if that is as exact and faster; says what became of it."""
        from evaluator.fusion.faster import faster

        kept: list[dict[str, Tensor]] = []

        def look(inputs: dict[str, Tensor]) -> Tensor:
            kept.append({name: x.detach() for name, x in inputs.items()})
            return self.operator(inputs)

        self.cursor.zero_()
        inputs, _ = self._batch(self.train, self.order, self.protocol.batch_size)
        with torch.no_grad():
            forward(self._leaves(), inputs, look, self.arch, self.ops)
        self.operator, found = faster(self.operator, kept[0], library, COMPILE_SECONDS)
        if found.used:
            self.fused = True
            self._graphs.clear()
            self._pool = None
        return found.message

    def epoch(self, number: int) -> None:
        """One pass over the training examples in a fresh order, the last short batch kept."""
        orders = np.stack([rng.permutation(self.order.shape[1]) for rng in self.shuffles])
        self.order.copy_(torch.from_numpy(orders))
        self.lr.copy_(torch.tensor([_rate(self.protocol, r.lr, number) for r in self.runs]))
        self.cursor.zero_()
        for size in _sizes(self.order.shape[1], self.protocol.batch_size):
            self._run("train", size)

    def test_scores(self, going: Sequence[bool] | None = None) -> tuple[list[float], list[float]]:
        """Test accuracy and perplexity of every run; keeps the weights of the best epoch of those still going (default: all)."""
        self.scores.reset()
        self.cursor.zero_()
        for size in _sizes(self.test[0].shape[1], self.protocol.batch_size):
            self._run("test", size)
        accuracy, perplexity = self.scores.means()
        better = perplexity < self.best_perplexity
        if going is not None:
            better &= torch.tensor(going, device=self.device)
        self.best = torch.where(better[:, None], self.weights, self.best)
        self.best_perplexity = torch.where(better, perplexity, self.best_perplexity)
        both = torch.stack([accuracy, perplexity]).tolist()
        return both[0], both[1]


def _stream(setting: Setting, run: Run) -> str:
    return f"{run.seed}/{setting.task}/{setting.name}/lr={run.lr}/weight_decay={run.weight_decay}"


def _rate(protocol: Protocol, lr: float, epoch: int) -> float:
    if protocol.schedule == "constant":
        return lr
    return 1e-6 + (lr - 1e-6) * (1 + math.cos(math.pi * epoch / protocol.epochs)) / 2


def _sizes(examples: int, batch_size: int) -> Iterator[int]:
    for start in range(0, examples, batch_size):
        yield min(batch_size, examples - start)


def _on_device(sets: Sequence[Examples], device: torch.device) -> tuple[Tensor, Tensor]:
    inputs = torch.from_numpy(np.stack([s.inputs for s in sets])).to(device, torch.int32)
    targets = torch.from_numpy(np.stack([s.targets for s in sets])).to(device, torch.int32)
    return inputs, targets
