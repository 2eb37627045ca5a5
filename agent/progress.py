"""What a long command says while it works: a live line on a terminal, plain lines now and then elsewhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from .evaluate import Event
from .text import one_line, printable

_EVERY = 10.0  # seconds between two plain lines of progress


class Reporter:
    """Says what is going on. A context manager: the live line is gone when it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Status | None = console.status("") if console.is_terminal else None
        self._title, self._said = "", 0.0

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(escape(printable(text)), highlight=False, soft_wrap=True)

    def stage(self, title: str) -> None:
        """What begins now, as `0007 tanh_on_error: gates`."""
        self._title, self._said = one_line(title, 160), time.monotonic()
        if self._live:
            self._live.start()
            self._live.update(escape(self._title))
        else:
            self.say(self._title)

    def event(self, event: Event) -> None:
        """News of the evaluator."""
        line = f"{self._title}  {describe(event)}"
        if event.event == "note":
            self.say(line)
        elif self._live:
            self._live.update(escape(one_line(line, 200)))
        elif event.event == "setting" or time.monotonic() - self._said >= _EVERY:
            self._said = time.monotonic()
            self.say(line)

    def rest(self) -> None:
        """Nothing is under way; the live line goes until the next stage."""
        if self._live:
            self._live.stop()


def describe(event: Event) -> str:
    """`memorization vocab_size=512  step 300/400  accuracy 0.412  3/6 settings  2 min left`"""
    if event.event == "note":
        return one_line(event.message or "")
    parts = [one_line(f"{event.task or ''} {event.setting or ''}", 80)]
    if event.step is not None and event.steps:
        parts.append(f"step {event.step}/{event.steps}")
    if event.accuracy is not None:
        parts.append(f"accuracy {event.accuracy:.3f}")
    if event.settings_total:
        parts.append(f"{event.settings_done or 0}/{event.settings_total} settings")
    if event.seconds_left is not None:
        parts.append(f"{span(event.seconds_left)} left")
    return "  ".join(parts)


def span(seconds: float) -> str:
    """Seconds in words: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
