"""What a long command says while it works: live lines on a terminal, plain lines now and then elsewhere."""

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from .events import Event, describe
from .text import one_line, printable

_EVERY = 10.0  # seconds between two plain lines of progress


class _Screen:
    """What the reporters of attempts in flight share: each line is whole, and the live ones stand together."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Status | None = console.status("") if console.is_terminal else None
        self._lines: dict[object, str] = {}
        self._lock = threading.RLock()
        self._closed = False

    @property
    def is_live(self) -> bool:
        return self._live is not None

    def say(self, text: str) -> None:
        with self._lock:
            if not self._closed:
                self._console.print(escape(printable(text)), highlight=False, soft_wrap=True)

    def show(self, of: object, line: str | None) -> None:
        """The live line of one reporter; None takes it away."""
        with self._lock:
            if self._live is None or self._closed:
                return
            self._lines = {other: told for other, told in self._lines.items() if other is not of or line}
            if line:
                self._lines[of] = line
            if self._lines:
                self._live.update(self._together())
                self._live.start()
            else:
                self._live.stop()

    def _together(self) -> str:
        """One line each: under the first, which stands behind the spinner, where they are several."""
        lines = list(self._lines.values())
        width = self._console.width - 3 if len(lines) > 1 else 200
        return "\n  ".join(escape(_fitting(one_line(line, 200), width)) for line in lines)

    def close(self) -> None:
        """Nothing is said any more, whoever is still at work."""
        with self._lock:
            self._closed = True
            if self._live:
                self._live.stop()


class Reporter:
    """Says what is going on in one attempt. A context manager: the live lines are gone when it ends."""

    def __init__(self, console: Console, beside: "Reporter | None" = None) -> None:
        self._console = console
        self._screen: _Screen = beside._screen if beside else _Screen(console)
        self._title, self._said = "", 0.0

    def another(self) -> "Reporter":
        """For an attempt beside this one, on the same screen."""
        return Reporter(self._console, self)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.close()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._screen.say(text)

    def stage(self, title: str) -> None:
        """What begins now, as `0007 tanh_on_error: gates`."""
        self._title, self._said = one_line(title, 160), time.monotonic()
        if self._screen.is_live:
            self._screen.show(self, self._title)
        else:
            self.say(self._title)

    def event(self, event: Event) -> None:
        """News of the evaluator."""
        line = f"{self._title}  {describe(event)}"
        if event.event == "note":
            self.say(line)
        elif self._screen.is_live:
            self._screen.show(self, line)
        elif event.event == "setting" or time.monotonic() - self._said >= _EVERY:
            self._said = time.monotonic()
            self.say(line)

    def rest(self) -> None:
        """Nothing is under way here; the live line goes until the next stage."""
        self._screen.show(self, None)


def _fitting(line: str, width: int) -> str:
    """Its beginning and its end: which attempt it is, and how far."""
    head = width // 3
    return line if len(line) <= width else f"{line[:head]}...{line[head + 3 - width :]}"
