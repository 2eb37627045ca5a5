"""An evaluation spread over GPUs and machines through Ray: one setting a task, the longest first.

Ray places the workers, one a GPU (or one for some cores of a machine without), starts one anew where it was lost,
and asks it its task again. Rows are written here alone, so that what is on disk does not depend on who trained it.
"""

import contextlib
import dataclasses
import importlib.util
import logging
import os
import socket
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from evaluator import local, results
from evaluator.bench import Failure, Work
from evaluator.job import Job
from evaluator.progress import Progress, cost
from evaluator.protocol import Setting
from evaluator.station import Events, Facts, Station, UnequalMachines

RETRIES = 2  # of a setting whose worker was lost
POLL = 0.5  # seconds


class ClusterError(Exception):
    """Ray is missing, does not answer, or has not what was asked for; one sentence."""


def reachable(address: str) -> None:
    """Finds out in a moment, without joining, whether there can be a cluster; raises ClusterError, ValueError."""
    if importlib.util.find_spec("ray") is None:
        raise ClusterError(f"--ray {address}: Ray is not installed here; pip install -e '.[ray]' brings it")
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise ValueError(f"--ray {address}: it is local, auto (the cluster that this machine is part of) or HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"--ray {address}: no Ray cluster answers there ({error})") from None


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    """Be part of a cluster, or of one that is started on this machine and ends with us; raises ClusterError."""
    reachable(address)
    import ray

    own = {"include_dashboard": False, "num_cpus": os.cpu_count()} if address == "local" else {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise ClusterError(f"--ray {address}: no Ray cluster answers there ({_last_line(error)})") from None
    try:
        yield
    finally:
        ray.shutdown()


def device(wanted: str) -> torch.device:
    """Where the cluster is to train: `auto` means its GPUs where it has any. Raises ClusterError."""
    import ray

    gpus = ray.cluster_resources().get("GPU", 0)
    if wanted == "cuda" and not gpus:
        raise ClusterError("--device cuda: the Ray cluster has no GPU")
    return torch.device("cuda" if gpus and wanted != "cpu" else "cpu")


class Cluster:
    """The place of one evaluation in the cluster that was joined: a `score.Place`."""

    def __init__(self, job: Job) -> None:
        import ray
        from ray.exceptions import RayActorError

        self.job, self._needs = job, _needs(job)
        self._name = f"events-{uuid.uuid4().hex}"  # by name: an actor that is started anew should need no object
        self._events = ray.remote(num_cpus=0, scheduling_strategy=_here(), name=self._name)(Events).remote()
        ray.get(self._events.take.remote())
        self._actor = ray.remote(max_restarts=-1, max_task_retries=RETRIES, **self._needs)(Station)
        self._stations = [self._station(None)]
        try:
            self._facts: Facts = ray.get(self._stations[0].facts.remote())
        except RayActorError as error:
            raise ClusterError(f"a Ray worker did not start; is the evaluator installed on its machine? ({_last_line(error)})") from None

    def _station(self, expected: Facts | None) -> Any:
        threads = self._needs.get("num_cpus", self.job.threads)
        return self._actor.remote(dataclasses.replace(self.job, threads=threads), self._name, expected)

    def environment(self, job: Job) -> dict[str, Any]:
        """Of the machines that train, which are alike."""
        return self._facts.environment

    @contextlib.contextmanager
    def work(self, job: Job, todo: Sequence[Setting], progress: Progress) -> Iterator[Work]:
        """Gates and training on the cluster, by the same workers."""
        yield Work(
            run=lambda: self._run(todo, progress),
            again=lambda setting: self._ask(self._stations[0].again.remote(setting), progress),
            gates=lambda: self._gates(todo, progress),
        )

    def _gates(self, todo: Sequence[Setting], progress: Progress) -> Failure | None:
        """Asked of one worker for all: their machines are alike."""
        return self._ask(self._stations[0].gates.remote(todo), progress)

    def _ask(self, task: Any, progress: Progress) -> Failure | None:
        """How the one worker says that it failed; a worker that was lost gave no answer to judge."""
        import ray
        from ray.exceptions import RayActorError

        try:
            found: Failure | None = ray.get(task)
        except RayActorError:
            found = "train-failed", f"the Ray worker that was asked was lost {RETRIES + 1} times"
        self._tell(progress)
        return found

    def _run(self, todo: Sequence[Setting], progress: Progress) -> Failure | None:
        """Has every setting trained and audited; a failure ends the evaluation, what was done before it is kept."""
        import ray

        job = self.job
        if job.gated and (found := self._gates(todo, progress)):
            return found
        waiting = deque(sorted(todo, key=lambda s: cost(s, job.protocol), reverse=True))
        free = self._stations + [self._station(self._facts) for _ in range(self._room(len(todo)) - 1)]
        under_way: dict[Any, tuple[Any, Setting]] = {}
        while waiting or under_way:
            if job.seconds is not None and waiting and progress.elapsed > job.seconds:
                progress.note(local.left_out(job.seconds, len(waiting)))
                waiting.clear()
                continue
            while waiting and free:
                station, setting = free.pop(), waiting.popleft()
                under_way[station.score.remote(setting)] = station, setting
            ready, _ = ray.wait(list(under_way), timeout=POLL)
            self._tell(progress)
            for task in ready:
                station, setting = under_way.pop(task)
                if lost := self._keep(task, setting, progress):
                    return lost
                free.append(station)
            if not waiting:  # a worker that was lost with its machine may need the room
                self._stations = [station for station, _ in under_way.values()] or free[-1:]
                for station in [s for s in free if s not in self._stations]:
                    ray.kill(station)
                free = []
        return None

    def _keep(self, task: Any, setting: Setting, progress: Progress) -> Failure | None:
        """Puts the rows of a setting on disk, or says what became of it."""
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        try:
            rows, failure = ray.get(task)
        except RayTaskError as error:
            raise error.cause from error  # a bug of ours, or a machine that does not fit
        except RayActorError:
            return "train-failed", f"{setting.task} {setting.name}: the Ray worker that trained it was lost {RETRIES + 1} times"
        if not failure:
            results.append_rows(self.job.out, rows)
            progress.finished(setting, rows)
        told: Failure | None = failure
        return told

    def _tell(self, progress: Progress) -> None:
        import ray

        for setting, told in ray.get(self._events.take.remote()):
            progress.update(setting, told) if setting else progress.note(told)

    def _room(self, settings: int) -> int:
        """How many workers the cluster has room for, at most one a setting and at least one."""
        import ray

        (resource, amount), = self._needs.items()
        total = ray.cluster_resources().get({"num_gpus": "GPU", "num_cpus": "CPU"}[resource], 0)
        return max(1, min(settings, int(total // amount)))


def _needs(job: Job) -> Mapping[str, int]:
    """One GPU; without, so many cores that all of them are busy, but never more than a machine has."""
    import ray

    if job.device.type == "cuda":
        return {"num_gpus": 1}
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return {"num_cpus": max(1, min(max(cores), sum(cores) // len(job.settings)))}


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def _here() -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


__all__ = ["Cluster", "ClusterError", "UnequalMachines", "device", "joined", "reachable"]
