"""What the evaluator tells while it works, and how that is said in one line."""

from typing import Literal

from .records import Record
from .text import one_line


class Event(Record):
    """One line of `score --events`."""

    event: Literal["progress", "setting", "note"]
    task: str | None = None
    setting: str | None = None
    settings_done: int | None = None
    settings_total: int | None = None
    step: int | None = None
    steps: int | None = None
    accuracy: float | None = None
    steps_per_second: float | None = None
    seconds_left: float | None = None
    seconds: float | None = None
    message: str | None = None


def describe(event: Event) -> str:
    """`memorization vocab_size=512  step 300/400  accuracy 0.412  3/6 settings  at most 2 min left`"""
    if event.event == "note":
        return one_line(event.message or "")
    parts = [one_line(f"{event.task or ''} {event.setting or ''}", 80)]
    if event.step is not None and event.steps:
        parts.append(f"step {event.step}/{event.steps}")
    if event.accuracy is not None:
        parts.append(f"accuracy {event.accuracy:.3f}")
    if event.event == "setting" and event.seconds is not None:
        parts.append(f"in {span(event.seconds)}")
    if event.settings_total:
        parts.append(f"{event.settings_done or 0}/{event.settings_total} settings")
    if event.seconds_left is not None:
        parts.append(f"at most {span(event.seconds_left)} left")  # runs may end before their last epoch
    return "  ".join(parts)


def span(seconds: float) -> str:
    """Seconds in words: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
