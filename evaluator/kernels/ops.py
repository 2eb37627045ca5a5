"""The kernels under the names that `layers` gives to the same functions."""

from evaluator.kernels.adamw import adamw
from evaluator.kernels.conv import conv_silu
from evaluator.kernels.norm import add_norm, head_norm
from evaluator.kernels.swiglu import swiglu
from evaluator.kernels.tokens import cross_entropy, embed

__all__ = ["adamw", "add_norm", "conv_silu", "cross_entropy", "embed", "head_norm", "swiglu"]
