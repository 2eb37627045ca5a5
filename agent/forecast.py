"""What is known of a replay before it trains: how long it took when recorded, and whether it can agree at all."""

from collections.abc import Iterator, Sequence

from .events import span
from .history import Entry
from .job import Job
from .records import Evaluation


def sentences(job: Job, entry: Entry, recorded: Evaluation, keys: Sequence[tuple[str, str]]) -> Iterator[str]:
    """One each; `keys` are the settings that will be trained, as (task, setting)."""
    known = [recorded.tasks[task].settings[setting].seconds for task, setting in keys]
    seconds = [value for value in known if value is not None]
    if seconds:
        part = f"{len(seconds)} of these {len(known)} settings" if len(seconds) < len(known) else _settings(len(known))
        yield (
            f"{entry.id}: {part} took {span(sum(seconds))} of training when recorded, on {' and '.join(recorded.devices)}; "
            "runs that have learned end early, so a time left is the most that it can take"
        )
    if recorded.fingerprint != job.protocol.fingerprint:
        yield (
            f"{entry.id} was scored under another fingerprint of {recorded.protocol.name} ({recorded.fingerprint[:12]}, "
            f"here {job.protocol.fingerprint[:12]}): the replay will end as not comparable"
        )


def _settings(count: int) -> str:
    return "that setting" if count == 1 else f"these {count} settings"
