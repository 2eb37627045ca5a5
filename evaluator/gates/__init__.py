"""The gates that watch an operator behave, in the order in which they are asked: cheap first.

A gate is a function of the operator and the probe; its docstring is its reason. It returns properties to record or
None, and raises `Rejected` with the sentence for the one who must fix it. To add one, write it and list it here.
"""

from collections.abc import Callable
from typing import Any

from evaluator.gates.canary import canary
from evaluator.gates.causality import causal, lengths
from evaluator.gates.channels import state_in_full
from evaluator.gates.chunks import chunk
from evaluator.gates.contract import cost, declarations, finite, growth, shapes, speed
from evaluator.gates.forms import recurrence
from evaluator.gates.gradients import derivative, reach
from evaluator.gates.independence import backward, batches, heads, prefix, rows
from evaluator.gates.precision import precision
from evaluator.gates.probe import Probe, Rejected
from evaluator.gates.recall import recall
from evaluator.gates.sameness import dtypes, exact, memory
from evaluator.gates.state import state
from evaluator.operator import OperatorProcess

Gate = Callable[[OperatorProcess, Probe], dict[str, Any] | None]

STAGES: tuple[tuple[Gate, ...], ...] = (
    (declarations,),
    (shapes,),
    (speed,),
    (cost,),
    (precision, causal, finite, rows, heads, reach),
    (derivative, backward, chunk),
    (state, batches, lengths, state_in_full, recall, canary, dtypes, prefix, growth, recurrence),
    (memory,),
)
"""All gates of a stage are asked, side by side where there are several, the longest first; a stage that rejects is the last."""

BEHIND: dict[str, tuple[Gate, ...]] = {"cost": (precision, chunk, state), "reach": (chunk, state)}
"""Asked too where a gate rejects what may be a sign of something else: attention is slow because of what it keeps."""

ON_DEVICE: tuple[Gate, ...] = (causal, backward, rows, heads, memory)
"""Asked again on the training device, when training begins and after it."""

__all__ = ["BEHIND", "ON_DEVICE", "STAGES", "Gate", "Probe", "Rejected", "exact"]
