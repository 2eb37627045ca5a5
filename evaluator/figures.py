"""Numbers that a stranger sent, each held to what it can be: JSON has integers without end, infinities and NaN."""

import math
from collections.abc import Callable
from typing import Any

Test = Callable[[Any], bool]
MOST = 1 << 53  # up to which a float tells whole numbers apart


def count(x: Any, most: int = MOST) -> bool:
    """A whole number from 0 to `most`."""
    return type(x) is int and 0 <= x <= most


def duration(x: Any) -> bool:
    """Seconds, finite and not negative."""
    return (type(x) is float and 0 <= x < math.inf) or count(x)


def share(x: Any) -> bool:
    """From 0 to 1, as a mean is rounded; NaN where there was none to measure."""
    return (type(x) is float and (0 <= x <= 1 + 1e-6 or math.isnan(x))) or count(x, 1)


def real(x: Any) -> bool:
    """Any number of float64, infinite and NaN too."""
    return type(x) is float or (type(x) is int and abs(x) <= MOST)
