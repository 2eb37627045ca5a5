"""How far an evaluation is, and how long the rest can take."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from typing import Protocol as Interface

from evaluator import figures
from evaluator.protocol import Protocol, Setting
from evaluator.results import Row

Report = Callable[[dict[str, Any]], None]
"""Receives progress as plain values with an `event`: progress, setting or note."""


class Listener(Interface):
    """Whoever is told how a training goes."""

    def update(self, setting: Setting, facts: Mapping[str, Any]) -> None: ...

    def note(self, message: str) -> None: ...


class Progress:
    """Tells how far it is and, from the tokens trained per second so far, how long the rest can take at most."""

    def __init__(self, protocol: Protocol, todo: Sequence[Setting], report: Report) -> None:
        self.protocol, self.report = protocol, report
        self.left = {s: cost(s, protocol) for s in todo}
        self.share = dict.fromkeys(todo, 0.0)  # of each setting, how much of it is done: several may be under way
        self.total, self.done, self.spent, self.started = len(todo), 0, 0.0, time.monotonic()
        self.first: tuple[float, float] | None = None  # when the first news came, and the tokens that were trained by then

    @property
    def elapsed(self) -> float:
        """Seconds since the evaluation was started or taken up again."""
        return time.monotonic() - self.started

    def note(self, message: str) -> None:
        self.report({"event": "note", "message": message})

    def update(self, setting: Setting, facts: Mapping[str, Any]) -> None:
        numbers = figures.count(facts.get("epoch"), self.protocol.epochs) and figures.count(facts.get("step"))
        if not (numbers and figures.duration(facts.get("seconds")) and isinstance(facts.get("accuracy"), list)):
            return
        if setting not in self.left:
            return  # told late, after its end
        epoch, step, seconds, accuracy = (facts[k] for k in ("epoch", "step", "seconds", "accuracy"))
        self.share[setting] = share = epoch / self.protocol.epochs
        under_way = sum(tokens * self.share[s] for s, tokens in self.left.items())
        trained, left = self.spent + under_way, sum(self.left.values()) - under_way
        self.first = self.first or (self.elapsed, trained)  # set-up is no training, nor is what a checkpoint held
        passed, gained = self.elapsed - self.first[0], trained - self.first[1]
        known = gained > 0 and (passed > 30 or gained > 0.02 * left)
        finite = [a for a in accuracy if figures.share(a) and math.isfinite(a)]
        self.report({
            "event": "progress", "task": setting.task, "setting": setting.name, "settings_done": self.done,
            "settings_total": self.total, "step": step, "steps": round(step / max(share, 1e-9)),
            "accuracy": max(finite, default=None), "steps_per_second": round(step / max(seconds, 1e-9), 2),
            "seconds_left": round(left * passed / gained) if known else None,
        })  # fmt: skip

    def finished(self, setting: Setting, rows: Sequence[Row]) -> None:
        self.spent += self.left.pop(setting)
        self.done += 1
        audited = [r.accuracy for r in rows if r.audited]
        accuracy = sum(audited) / len(audited) if audited else None
        seconds = round(sum(r.seconds for r in rows), 1)
        self.report({
            "event": "setting", "task": setting.task, "setting": setting.name, "accuracy": accuracy,
            "seconds": seconds, "settings_done": self.done, "settings_total": self.total,
        })  # fmt: skip


def cost(setting: Setting, protocol: Protocol) -> float:
    """Tokens of a training that is never stopped early."""
    return float(protocol.epochs * setting.num_train_examples * setting.seq_len)
