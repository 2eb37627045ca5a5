"""The kernels under the names that `layers` gives to the same functions."""

from evaluator.kernels.adamw import adamw
from evaluator.kernels.beside import gradients
from evaluator.kernels.conv import mixer_inputs
from evaluator.kernels.feed_forward import feed_forward
from evaluator.kernels.linear import linear
from evaluator.kernels.mixer_output import mixer_output
from evaluator.kernels.norm import norm
from evaluator.kernels.tokens import cross_entropy, embed

__all__ = ["adamw", "cross_entropy", "embed", "feed_forward", "gradients", "linear", "mixer_inputs", "mixer_output", "norm"]
