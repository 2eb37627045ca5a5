"""MAD's reference code (athms/mad-lab) as a peer: its own train() on a model built as its benchmark.py builds it.

Nothing is fetched or built here. reference_speed.py and reference_agreement.py take two folders: a checkout of
mad-lab, and one of flash-linear-attention (or none, where fla is installed). What mad-lab imports for training
must be installed: pytorch-lightning, torchmetrics, pandas, einops, pyyaml, tqdm; fla wants transformers.
"""

import contextlib
import functools
import importlib
import io
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from evaluator.protocol import PROTOCOLS, Run, Setting
from evaluator.tasks import generate


@dataclass(frozen=True)
class Peer:
    """The modules of a checkout that a run needs, and the mixer that its models get."""

    folder: Path
    train: ModuleType
    configs: ModuleType
    registry: ModuleType
    mixer: type[torch.nn.Module]


@dataclass
class Epochs:
    """What was seen of one run: when each epoch began and was trained (seconds), and its test scores."""

    began: list[float] = field(default_factory=list)  # one more than epochs: the last is the end
    trained: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    perplexity: list[float] = field(default_factory=list)


@functools.cache  # a process that makes several runs imports the peer once
def connect(reference: Path, fla: Path | None) -> Peer:
    """The peer behind its folders; raises FileNotFoundError where a folder is no checkout of it."""
    for folder, file in [(reference, "train.py"), (reference, "mad/registry.py"), (fla, "fla/layers/delta_net.py")]:
        if folder is not None and not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} has no {file}: it is no checkout of the peer")
    sys.path[:0] = [str(folder.resolve()) for folder in (reference, fla) if folder is not None]
    sys.modules["mad.model.layers"] = _layers_in_use(reference.resolve())
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # it loads a checkpoint that holds its config's class
    train, configs, registry = (importlib.import_module(n) for n in ("train", "mad.configs", "mad.registry"))
    return Peer(reference.resolve(), train, configs, registry, _mixer())


def _layers_in_use(reference: Path) -> ModuleType:
    """mad.model.layers without the mixers that are not used here: they want CUDA builds of their own."""
    package = ModuleType("mad.model.layers")
    package.__path__ = [str(reference / "mad" / "model" / "layers")]

    def layer(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module("mad.model.layers.mlp"), name, None)

    package.__getattr__ = layer  # type: ignore[method-assign]
    return package


def _mixer() -> type[torch.nn.Module]:
    """fla's DeltaNet layer with the protocol's number of heads, as a layer of mad-lab."""
    layer = importlib.import_module("fla.layers.delta_net").DeltaNet
    num_heads = PROTOCOLS["mad"].num_heads

    class Mixer(torch.nn.Module):
        def __init__(self, dim: int, max_length: int) -> None:
            super().__init__()
            self.layer = layer(mode="chunk", d_model=dim, num_heads=num_heads)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layer(x)[0]
            return out

    return Mixer


def model_of(peer: Peer, setting: Setting) -> torch.nn.Module:
    """The model as mad-lab's benchmark.py makes it: its default norm (RMSNorm), max_length = seq_len, width 128."""
    import yaml  # type: ignore[import-untyped]

    size = {"dim": PROTOCOLS["mad"].width, "max_length": setting.seq_len}
    swiglu = yaml.safe_load((peer.folder / peer.registry.layer_registry["swiglu"]["cfg"]).read_text())
    layers = [peer.mixer, peer.registry.layer_registry["swiglu"]["module"]] * 2
    backbone = "autoencoder" if setting.task == "compression" else "language-model"
    model: torch.nn.Module = peer.registry.model_registry[backbone](
        vocab_size=setting.vocab_size, layers=layers, layer_cfgs=[dict(size), {**swiglu, **size}] * 2, **size
    )
    return model


def train(peer: Peer, setting: Setting, run: Run, epochs: int) -> tuple[Epochs, float]:
    """One run of the peer's train() with its defaults, on the data that ours would get; its own test accuracy too.

    Its output (a progress bar among it) goes nowhere; its CSV log and two checkpoints an epoch go to a temporary folder.
    """
    seen = Epochs()
    with tempfile.TemporaryDirectory() as folder, _watched(peer, seen), _silent():
        config = _config(peer, setting, run, epochs, folder)
        torch.manual_seed(run.seed)
        result = peer.train.train(model=model_of(peer, setting), mad_config=config, log_path=f"{folder}/log")
    return seen, float(result["test_acc"].iloc[0])


def _config(peer: Peer, setting: Setting, run: Run, epochs: int, folder: str) -> Any:
    """The run in mad-lab's words, with our examples where it looks for data that was generated before."""
    config = peer.configs.MADConfig(
        task=setting.task, vocab_size=setting.vocab_size, seq_len=setting.seq_len, frac_noise=setting.frac_noise,
        num_tokens_to_copy=setting.num_tokens_to_copy, num_train_examples=setting.num_train_examples,
        num_test_examples=setting.num_test_examples, data_path=f"{folder}/data", epochs=epochs, lr=run.lr,
        weight_decay=run.weight_decay, batch_size=PROTOCOLS["mad"].batch_size, seed=run.seed,
    )  # fmt: skip
    paths = (config.train_dataset_path, config.test_dataset_path)
    for path, examples in zip(paths, generate(setting, run.seed), strict=True):
        Path(path).mkdir(parents=True)
        np.save(f"{path}/inputs.npy", examples.inputs.astype(np.int64))
        np.save(f"{path}/targets.npy", examples.targets.astype(np.int64))
    return config


@contextlib.contextmanager
def _watched(peer: Peer, seen: Epochs) -> Any:
    """While this lasts, every trainer that the peer makes has one more callback, which fills `seen`."""
    lightning = peer.train.pl
    original = lightning.Trainer

    class Watch(lightning.Callback):  # type: ignore[misc, name-defined]
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            seen.began.append(_now())

        def on_validation_start(self, trainer: Any, module: Any) -> None:
            if _fitting(trainer):
                seen.trained.append(_now())

        def on_validation_end(self, trainer: Any, module: Any) -> None:
            if _fitting(trainer):
                seen.accuracy.append(float(trainer.callback_metrics["test/Accuracy_epoch"]))
                seen.perplexity.append(float(trainer.callback_metrics["test/Perplexity_epoch"]))

        def on_train_end(self, trainer: Any, module: Any) -> None:
            seen.began.append(_now())

    def make(*, callbacks: list[Any], **rest: Any) -> Any:
        return original(callbacks=[*callbacks, Watch()], **rest)

    lightning.Trainer = make
    try:
        yield
    finally:
        lightning.Trainer = original


def _fitting(trainer: Any) -> bool:
    """Whether this validation is an epoch's, not the check before the first or the peer's own after the last."""
    return bool(trainer.state.fn == "fit" and not trainer.sanity_checking)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@contextlib.contextmanager
def _silent() -> Any:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
