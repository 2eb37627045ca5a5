"""The kernels under the names that `layers` gives to the same functions."""

from evaluator.kernels.adamw import adamw
from evaluator.kernels.conv import mixer_inputs
from evaluator.kernels.linear import linear
from evaluator.kernels.mlp import mlp
from evaluator.kernels.norm import add_norm, head_norm
from evaluator.kernels.tokens import cross_entropy, embed

__all__ = ["adamw", "add_norm", "cross_entropy", "embed", "head_norm", "linear", "mixer_inputs", "mlp"]
