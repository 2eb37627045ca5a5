"""The built-in proposer, with no model: published mechanisms as edits of the parent's own source."""

from .choose import NothingLeft, propose
from .library import mechanisms
from .mechanism import Mechanism

__all__ = ["Mechanism", "NothingLeft", "mechanisms", "propose"]
