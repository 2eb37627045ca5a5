"""What attempts in flight share: one at a time reads the history to begin, or ends; no two hold one name."""

import threading
from collections.abc import Mapping

from .proposal.reply import Proposal


class Desk:
    """A context manager: whoever is at the desk is alone there."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held: dict[str, Proposal] = {}

    def __enter__(self) -> "Desk":
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def take(self, entry_id: str, proposal: Proposal) -> bool:
        """Hold the proposal's name, instead of what this attempt held, unless another attempt holds it."""
        with self:
            if proposal.name in self.names_beside(entry_id):
                return False
            self._held[entry_id] = proposal
            return True

    def give_back(self, entry_id: str) -> None:
        """The attempt has ended; from now on the history speaks for it."""
        with self:
            self._held.pop(entry_id, None)

    def proposals(self) -> Mapping[str, Proposal]:
        """ID -> what is being tried there."""
        with self:
            return dict(self._held)

    def names_beside(self, entry_id: str) -> frozenset[str]:
        """The names that other attempts hold."""
        with self:
            return frozenset(held.name for other, held in self._held.items() if other != entry_id)
