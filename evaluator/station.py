"""What a Ray worker does for an evaluation: the gates, and one setting after another on the GPU that it holds."""

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluator import local, sandbox
from evaluator.bench import FAILURES, Bench, Failure, failure
from evaluator.job import Job
from evaluator.protocol import Setting
from evaluator.results import Row


@dataclass(frozen=True)
class Facts:
    """What the machines of one evaluation must have in common."""

    evaluator: str  # digest of its source
    walls: str
    environment: dict[str, Any]


class UnequalMachines(Exception):
    """Two machines of the cluster would not measure the same; one sentence."""


class Events:
    """Lives in a Ray worker beside the driver: what the stations tell, until the driver asks for it."""

    def __init__(self) -> None:
        self._told: list[tuple[Setting | None, Any]] = []

    def put(self, setting: Setting | None, told: Any) -> None:
        """The progress of a setting, or a note where there is none."""
        self._told.append((setting, told))

    def take(self) -> list[tuple[Setting | None, Any]]:
        told, self._told = self._told, []
        return told


class Station:
    """Lives in a Ray worker, which runs its methods one at a time; the untrusted processes last from task to task."""

    def __init__(self, job: Job, events: str, expected: Facts | None) -> None:
        self.job, self.events, self.expected = job, events, expected
        self._bench: Bench | None = None

    def facts(self) -> Facts:
        """Of this machine; walls are asked for where the job has some."""
        walls = sandbox.choose("off" if self.job.walls.level == "plain" else "auto")
        return Facts(local.source_digest(), ", ".join(walls.standing), local.environment(self.job))

    def gates(self, todo: Sequence[Setting]) -> Failure | None:
        """What a gate has against the operator on this machine, or None."""
        return self._opened().gates(todo, self)

    def again(self, setting: Setting) -> Failure | None:
        """Trains and audits a setting and keeps nothing of it."""
        return self._opened().again(setting, self)

    def score(self, setting: Setting) -> tuple[list[Row], Failure | None]:
        """The audited rows of a setting, or how it failed."""
        try:
            return self._opened().train(setting, self).result(), None
        except FAILURES as error:
            return [], failure(error)

    def update(self, setting: Setting, facts: Mapping[str, Any]) -> None:
        self._tell(setting, facts)

    def note(self, message: str) -> None:
        self._tell(None, message)

    def _tell(self, setting: Setting | None, told: Any) -> None:
        import ray

        events = ray.get_actor(self.events)
        ray.get(events.put.remote(setting, told))  # waited for, so that it is there when the task has ended

    def _compare(self) -> None:
        here = self.facts()
        if self.expected and here != self.expected:
            different = [f.name for f in dataclasses.fields(Facts) if getattr(here, f.name) != getattr(self.expected, f.name)]
            told = ", ".join(f"{name} {getattr(here, name)} and {getattr(self.expected, name)}" for name in different)
            raise UnequalMachines(f"{platform.node()} and another machine of the Ray cluster would not measure the same: {told}")

    def _opened(self) -> Bench:
        if self._bench is None:
            self._compare()
            local.prepare(self.job, self.job.settings, self)
            self._bench = Bench(self.job)
        return self._bench
