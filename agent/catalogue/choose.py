"""Which mechanism comes next: what was tried least, in an order that the seed draws."""

import hashlib
import random
from collections.abc import Collection, Iterator, Mapping, Sequence

from ..names import LONGEST
from .library import mechanisms
from .mechanism import Choice, apply_choice, choices
from .places import NoPlace
from .writing import reply

_MOST_PAIRS = 400  # looked at before giving up


class NothingLeft(Exception):
    """Every mechanism that finds its place in this parent has been tried; one sentence."""


def propose(parent_name: str, parent_sources: Mapping[str, str], tried: Collection[str], seed: int) -> str:
    """A reply like a model's: one mechanism on the parent, or a pair of them once all have been tried on it.

    `tried` holds every name that must not come again. The same arguments give the same reply.
    """
    source = parent_sources["naive.py"].replace("\r\n", "\n")
    generator = random.Random(seed)
    for wanted in _in_order(tried, generator):
        name = name_of(wanted, parent_name)
        child = None if name in tried else applied(source, wanted)
        if child is not None:
            return reply(name, parent_name, source, child, wanted)
    raise NothingLeft(
        f"The catalogue has nothing left to try on {parent_name}: each mechanism has been tried on it "
        "or finds no place in its source."
    )


def applied(source: str, wanted: Sequence[Choice]) -> str | None:
    """The source with all of `wanted`, or None where one of them has no place."""
    try:
        for choice in wanted:
            source = apply_choice(source, choice)
    except NoPlace:
        return None
    return source


def name_of(wanted: Sequence[Choice], parent: str) -> str:
    """What a child is called: its mechanisms, and its parent unless that is the baseline."""
    name = "_and_".join(choice.slug for choice in wanted)
    name += "" if parent == "delta_net" else f"_on_{parent.lower()}"
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _in_order(tried: Collection[str], generator: random.Random) -> Iterator[tuple[Choice, ...]]:
    """Each mechanism at its default, then at its other values, then pairs; the least tried come first."""
    ranked = [(choice, index) for m in mechanisms() for index, choice in enumerate(choices(m))]
    generator.shuffle(ranked)
    ranked.sort(key=lambda item: (min(item[1], 1), _times(item[0], tried)))
    yield from ((choice,) for choice, _ in ranked)
    singles = [choice for choice, _ in ranked]
    for _ in range(_MOST_PAIRS):
        first, second = generator.sample(singles, 2)
        if first.mechanism.kind != second.mechanism.kind:
            yield tuple(sorted((first, second), key=_rank))


def _times(choice: Choice, tried: Collection[str]) -> int:
    """How often the mechanism stands in a name that was tried, on any parent."""
    return sum(choice.mechanism.slug in name for name in tried)


def _rank(choice: Choice) -> int:
    return mechanisms().index(choice.mechanism)
