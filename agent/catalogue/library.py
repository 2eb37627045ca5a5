"""All mechanisms of the catalogue."""

from . import bounds, keys, reading, state
from .mechanism import Mechanism


def mechanisms() -> tuple[Mechanism, ...]:
    """Every mechanism, in the order in which the operator meets its place."""
    return keys.MECHANISMS + reading.MECHANISMS + bounds.MECHANISMS + state.MECHANISMS
