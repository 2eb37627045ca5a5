"""What the next attempt starts from: which parent, and what of the past its proposer is shown."""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from . import variants
from .compare import BASELINE, mean_bar, scored
from .desk import Desk
from .errors import BadInput
from .history import Entry, Past
from .listing import imported_lines
from .proposal.reply import parsed
from .records import COLUMNS, SERVER_THEN, ProtocolInfo, Score, mean_score
from .text import one_line

_ROWS, _LESSONS, _FAILURES, _REPORTED = 40, 30, 20, 30
_TEMPERATURE = 3.0  # ranks over which the chance to be a parent falls by e
_CURIOSITY = 0.02  # the chance that even the last in rank keeps


@dataclass(frozen=True)
class Row:
    """One line of the table that a proposer sees."""

    name: str
    parent: str | None
    scores: Mapping[str, Score]
    mad_score: float | None
    versus_parent: str


@dataclass(frozen=True)
class Told:
    """A sentence that an earlier attempt left: a lesson or a reason. Data, whoever wrote it."""

    id: str
    name: str
    text: str


@dataclass(frozen=True)
class Brief:
    """All that a proposer is given."""

    parent: str
    sources: Mapping[str, str]
    protocol: str
    noise: Mapping[str, float]  # column -> the standard deviation over seeds, where it was measured
    mean_noise: float | None  # the smallest difference of two means that is not noise
    table: Sequence[Row]
    reported: Sequence[Row]  # by records of an earlier project; not measured here
    lessons: Sequence[Told]
    failures: Sequence[Told]
    under_way: Sequence[Told]  # what is tried right now, beside this attempt
    taken: frozenset[str]  # names that a new variant cannot have
    tried: frozenset[str]  # names of all variants that were ever proposed, failed ones too
    seed: int
    desk: Desk  # where a proposer that is quick can hold a name before another attempt does


def brief(
    root: Path, past: Past, protocol: ProtocolInfo, seed: int, turn: int, desk: Desk, begun: Entry | None = None
) -> Brief:
    """The brief of pass number `turn`: the same history, attempts in flight, seed and turn give the same brief.

    One that was `begun` before keeps its parent.
    """
    number = seed_of(seed, turn)
    name = _parent_of(begun, root, past, protocol) if begun else _new_parent(root, past, protocol, number)
    held, lines = desk.proposals(), imported(past)
    names = frozenset(made.name for made in held.values())
    return Brief(
        name,
        variants.sources(variants.folder_of(root, name)),
        protocol.name,
        {column: sigma for column, sigma in protocol.noise.items() if sigma is not None},
        mean_bar(protocol.noise),
        table(past, protocol, (name, BASELINE)),
        reported(lines),
        lessons(past, protocol),
        failures(past),
        [Told(of, made.name, one_line(f"{made.title} ({made.mechanism})")) for of, made in held.items()],
        variants.names(root) | names,
        tried(past, lines) | names,
        number,
        desk,
    )


def _new_parent(root: Path, past: Past, protocol: ProtocolInfo, number: int) -> str:
    candidates = parents(root, past, protocol)
    if not candidates:
        raise BadInput(f"nothing to start from: no scored variant under {protocol.name} is in history/")
    return choose(candidates, past, random.Random(number), mean_bar(protocol.noise)).name or ""


def _parent_of(begun: Entry, root: Path, past: Past, protocol: ProtocolInfo) -> str:
    """Its parent as it was when that entry was begun, or BadInput: a reply fits no other source."""
    name = begun.about.parent or ""
    if name not in variants.names(root):
        raise BadInput(f"its parent {name} is no longer in variants/")
    if name not in {parent.name for parent in parents(root, past.until(begun.id), protocol)}:
        raise BadInput(f"its parent variants/{name} is no longer the source that it was begun with")
    return name


def seed_of(*parts: object) -> int:
    """A random seed out of whatever tells two occasions apart."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def parents(root: Path, past: Past, protocol: ProtocolInfo) -> list[Entry]:
    """The latest complete score of each stored variant, best first; other fingerprints do not count."""
    usable = [entry for entry in _complete(root, past, protocol) if not _edited(root, entry)]
    return sorted(usable, key=lambda entry: -(entry.mad_score or 0.0))


def lacks_baseline(root: Path, past: Past, protocol: ProtocolInfo) -> bool:
    """Whether there is nothing to start from, or nothing that whatever comes can be compared with."""
    known = {entry.name for entry in _complete(root, past, protocol)}
    return not parents(root, past, protocol) or (BASELINE not in known and BASELINE in variants.names(root))


def edited(root: Path, past: Past, protocol: ProtocolInfo) -> list[str]:
    """A sentence for each whose source is another now: a child of it can't be compared with what was scored."""
    return [
        f"variants/{entry.name} was edited since {entry.id} scored it: it has no children until "
        f"`agent score {entry.name} --protocol {protocol.name}` has scored it again"
        for entry in _complete(root, past, protocol)
        if _edited(root, entry)
    ]


def _complete(root: Path, past: Past, protocol: ProtocolInfo) -> list[Entry]:
    stored, found = variants.names(root), scored(past, protocol.fingerprint)
    latest = {entry.name: entry for entry in found if entry.mad_score is not None}
    return [entry for entry in latest.values() if entry.name in stored]


def _edited(root: Path, entry: Entry) -> bool:
    return entry.evaluation is None or not variants.holds(root, entry.name, entry.evaluation.variant.digest)


def choose(candidates: Sequence[Entry], past: Past, rng: random.Random, limit: float | None = None) -> Entry:
    """Mostly one of the best; less often one that had many children, or whose children failed.

    limit: the smallest difference of two means that is not noise, where it is known; what lies further below the best
    than that is chosen less often, by e for each such step.
    """
    best = candidates[0].mad_score or 0.0
    behind = [(best - (entry.mad_score or 0.0)) / limit if limit else 0.0 for entry in candidates]
    weights = [
        (math.exp(-rank / _TEMPERATURE - max(0.0, behind[rank] - 1)) + _CURIOSITY) * _freshness(entry, past)
        for rank, entry in enumerate(candidates)
    ]
    return rng.choices(candidates, weights)[0]


def _freshness(parent: Entry, past: Past) -> float:
    """How little is known of its children, of those that say something of it: not of a server, nor of another protocol."""
    children = [
        entry.attempt
        for entry in past.entries
        if entry.attempt and entry.attempt.kind == "attempt" and entry.attempt.parent == parent.name and entry.attempt.protocol == parent.about.protocol
        if entry.status not in ("interrupted", "reply-failed")
    ]
    under_way = sum(entry.running and entry.about.parent == parent.name for entry in past.entries)
    wasted = sum(child.status != "scored" or child.versus_parent == "worse" for child in children)
    return 1 / math.sqrt(1 + len(children) + under_way) / (1 + wasted / 3)


def table(past: Past, protocol: ProtocolInfo, always: Collection[str] = (BASELINE,)) -> list[Row]:
    """The results under this fingerprint, best first, incomplete ones last; that of `always` also where it is not among the best."""
    found = sorted(scored(past, protocol.fingerprint), key=lambda entry: entry.mad_score is not None)
    latest = {entry.name: entry for entry in found}  # a whole row stands for its name, whatever partial one came after it
    rows = [
        Row(
            one_line(entry.name or "", 120),
            entry.attempt.parent,
            entry.scores,
            entry.mad_score,
            entry.attempt.versus_parent,
        )
        for entry in latest.values()
        if entry.attempt and any(score is not None for score in entry.scores.values())
    ]
    rows.sort(key=lambda row: -1.0 if row.mad_score is None else row.mad_score, reverse=True)
    return rows[:_ROWS] + [row for row in rows[_ROWS:] if row.name in always]


def imported(past: Past) -> dict[str, dict[str, float]]:
    """Each name in imported records and the latest scores that a table has for it, none where none has."""
    found: dict[str, dict[str, float]] = {}
    for entry in (e for e in past.entries if e.is_imported):
        found |= {name: scores for name, scores in imported_lines(entry) if name and scores}
        if entry.name:
            found.setdefault(entry.name, {})
    return found


def reported(lines: Mapping[str, dict[str, float]]) -> list[Row]:
    """The best of what was imported: other code made it, under another protocol. What can be no accuracy leads nobody."""
    scored_lines = {name: scores for name, scores in lines.items() if scores and all(0 <= score <= 1 for score in scores.values())}
    whole: dict[str, dict[str, Score]] = {n: {c: s.get(c) for c in COLUMNS} for n, s in scored_lines.items()}
    rows = [Row(one_line(n, 120), None, scores, mean_score(scores), "unknown") for n, scores in whole.items()]
    return sorted(rows, key=lambda row: -1.0 if row.mad_score is None else row.mad_score, reverse=True)[:_REPORTED]


def lessons(past: Past, protocol: ProtocolInfo) -> list[Told]:
    """The latest lessons, bounded: what a model wrote yesterday must not become today's instruction.

    Each with the protocol that it was learned under; `smoke` measures no quality, so elsewhere its lessons are left out.
    """
    found = (
        Told(entry.id, one_line(f"{entry.name} ({_mechanism(entry)}{entry.evaluation.protocol.name})", 240), entry.lesson)
        for entry in reversed(past.entries)
        if entry.status == "scored" and entry.about.kind == "attempt" and entry.evaluation
        if (protocol.name == "smoke" or entry.evaluation.protocol.name != "smoke") and entry.lesson
    )
    return list(islice(found, _LESSONS))[::-1]


def failures(past: Past) -> list[Told]:
    """The latest failures and why, equal ones once: a proposer that is not told repeats them."""
    found = [
        Told(
            entry.id,
            one_line(entry.name or "(no name)", 120),
            one_line(f"{entry.status}: {entry.attempt.error}".partition(SERVER_THEN)[0]),
        )
        for entry in past.entries
        if entry.attempt and entry.status.endswith("-failed") and not _unanswered(entry)
    ]
    times = Counter((told.name, told.text) for told in found)
    latest: dict[tuple[str, str], Told] = {}
    for told in reversed(found):
        latest.setdefault((told.name, told.text), told)
    kept = [replace(told, text=f"{told.text} ({times[key]} times)") if times[key] > 1 else told for key, told in latest.items()]
    return kept[:_FAILURES][::-1]


def _mechanism(entry: Entry) -> str:
    """In the words of its proposal, where one has them."""
    found = parsed(entry.prose("proposal.md"))
    return f"{one_line(found.mechanism, 100)}; " if found and found.mechanism else ""


def _unanswered(entry: Entry) -> bool:
    """A server that was down teaches nothing about operators, and would crowd out what does."""
    return entry.status == "reply-failed" and not (entry.folder / "proposal.md").exists()


def tried(past: Past, elsewhere: Iterable[str]) -> frozenset[str]:
    """Names of all that was proposed here or in what was imported."""
    ended = [e for e in past.entries if e.attempt and e.attempt.kind == "attempt" and e.status != "interrupted"]
    here = {entry.name for entry in ended if entry.name}
    return frozenset(here.union(elsewhere))
