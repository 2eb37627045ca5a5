"""The line over a score table: which columns there are, and what stands between them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..records import COLUMN_OF, COLUMNS
from .aside import is_aside
from .cells import MARKS, cells_of, is_plain, letters_of, plain

_SPELLINGS = {re.sub("[^a-z]", "", name.lower()): column for task, column in COLUMN_OF.items() for name in (task, column)}
_SHORT = {"icr": "Context Recall", "incontext": "Context Recall"}
_SHORT |= {short: f"{kind} Recall" for kind in ("Fuzzy", "Noisy") for short in (kind.lower(), f"{kind.lower()}icr")}
_WORDS = ("name", "model", "variant", "method", "operator", "architecture", "system", "candidate", "experiment", "child", "config", "run", "unnamed0", "")  # over names
_OTHERS = ("parent", "baseline", "base", "author", "user", "group", "gpu", "date", "split", "status", "metric", "phase", "seed", "notes", "note")  # over what names none
_PHRASE = "|".join(re.escape(column) for column in COLUMNS)
_ONE_BLANK = re.compile(rf"(.*?)((?: ?\b(?:{_PHRASE})){{2,}})", re.IGNORECASE)
_ASIDE = re.compile(r"\(([^()]*)\)|\[([^\[\]]*)\]")
_AS_IT_IS = re.compile(  # what may stand in brackets beside the name of a task: whatever else does makes another figure of it
    r"(?:\b(?:test|eval|val|validation|best|mean|average|avg|final|top-?1|acc|accuracy|score|fraction|in|of|percent|pct|max|higher is better|x ?100)\b|0 ?(?:-|\u2013|to) ?1(?:00)?|[%\u2191.,;\s])*",
    re.IGNORECASE,
)
_ANOTHER = re.compile(r"(?:train|loss|err|base|std|time|rank|diff|delta)[^/]*/", re.IGNORECASE)  # before a slash
_ODD = re.compile(r"[\u2193\u0394\u03b4\u00b1\u03c3?~<>=]|\+/?-")  # less is better, a difference, a spread or a doubt
_ROOT = re.compile("compress|recall|memori|selective", re.IGNORECASE)


@dataclass(frozen=True)
class Header:
    mark: str
    cells: Sequence[str]

    @cached_property
    def columns(self) -> list[str | None]:
        """Which of the six each is, in whatever spelling; beside two of them also in short."""
        found = list(map(column_of, self.cells))
        if sum(map(bool, found)) > 1:
            found = [column or _SHORT.get(letters_of(cell)) for cell, column in zip(self.cells, found, strict=True)]
        tested = {column for cell, column in zip(self.cells, found, strict=True) if "test" in cell.lower()}  # beside training or validation
        return [column if column not in tested or "test" in cell.lower() else None for cell, column in zip(self.cells, found, strict=True)]

    @cached_property
    def name_at(self) -> int | None:
        """The column of names: the first that is called so, else the first that is none of the six."""
        others = [at for at, column in enumerate(self.columns) if column is None]
        first = [at for at in others if letters_of(self.cells[at]) not in _OTHERS]
        return next(iter([*self._called(others), *first, *others]), None)

    @cached_property
    def counts(self) -> bool:
        """Whether what is taken for the column of names may as well number the rows."""
        return self.name_at is not None and letters_of(self.cells[self.name_at]) in ("", "unnamed0", "index", "id")

    @cached_property
    def in_front(self) -> list[int]:
        """Columns between that of names and the first of the six."""
        first = next((at for at, column in enumerate(self.columns) if column), 0)
        return list(range((self.name_at or 0) + 1, first))

    @cached_property
    def is_told(self) -> bool:
        """Whether the column of names is called so: another one of numbers holds none."""
        return self.name_at is not None and bool(self._called([self.name_at]))

    def _called(self, others: Sequence[int]) -> list[int]:
        letters = {at: letters_of(self.cells[at]) for at in others}
        exactly = [at for word in _WORDS for at in others if letters[at] == word]
        return [*exactly, *(at for at in others if letters[at].endswith("name"))]


def is_header(line: str) -> bool:
    """Whether a line names columns of the table."""
    return header_of(line) is not None


@lru_cache(4096)
def column_of(cell: str) -> str | None:
    """Which of the six a word stands for, without what is measured: `(%)`, `acc`; memorise is memorize."""
    if _ANOTHER.search(cell) or _ODD.search(cell) or not all(_AS_IT_IS.fullmatch(a or b) for a, b in _ASIDE.findall(cell)):
        return None
    bare = re.sub(rf"{_ASIDE.pattern}|^.*/", "", cell)
    return _SPELLINGS.get(re.sub("(accuracy|acc|score)?(in)?(percent|pct)?$", "", letters_of(bare)).replace("oris", "oriz"))


def names_systems(cell: str) -> bool:
    """Whether a word stands over a column of names."""
    return letters_of(cell) in filter(None, _WORDS)


def goes_on(line: str) -> bool:
    """Whether a printer says by a backslash that more columns follow below; two end a row of LaTeX."""
    return re.search(r"(?<!\\)\\\s*$", line) is not None


def header_of(line: str, *, of_a_block: bool = False) -> Header | None:
    """Of a line that names columns: one of the six as it is spelled here, two in any spelling, or any where a table is wrapped."""
    if of_a_block or goes_on(line):
        return Header("", _apart(cells_of(line, "")))
    if not _ROOT.search(line) or is_aside(line):
        return None
    for mark in MARKS:
        cells = cells_of(line, mark) if mark in line else []
        header = Header(mark, _apart(cells) if len(cells) > 1 else cells) if cells else None
        if header is None or not any(header.columns) or any(is_plain(plain(cell)) for cell in header.cells):
            continue
        is_prose = mark in (",", ";") and letters_of(header.cells[0]) not in _WORDS  # with one of these words in it
        if sum(map(bool, header.columns)) > 1 or (not is_prose and any(cell in COLUMNS for cell in header.cells)):
            return header
    alone = _apart([line.strip()])
    return Header("", alone) if len(alone) > 1 else None


def _apart(cells: Sequence[str]) -> list[str]:
    """Each cell, and the words over columns one by one where a single blank stands between them."""
    found = [_ONE_BLANK.fullmatch(cell) for cell in cells]
    parts = [[*filter(None, [m[1].strip()]), *re.findall(_PHRASE, m[2], re.IGNORECASE)] if m else [cell] for cell, m in zip(cells, found, strict=True)]
    return [part for of_one in parts for part in of_one]
