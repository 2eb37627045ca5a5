"""runs.csv, one line a training run, held against evaluation.json, which the evaluator derived from it."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from .files import read_whole
from .recordfile import why
from .records import Evaluation, Key, Score, SettingResult, alike, mean
from .text import one_line

_LIMIT = 16 << 20
_POINT = ("lr", "weight_decay", "seed", "audited")
_OTHERS = ("loss", "epochs", "seconds", "reported_accuracy", "last_accuracy", "fresh_accuracy", "best_epoch", "setup_seconds")
_FIGURES = (*_POINT, "accuracy", *_OTHERS)
_COLUMNS = ("task", "setting", *_FIGURES)
"""What a whole line has; `operator` came later."""
_NUMBERS = re.compile(r"[-+.0-9einfa,]*")

Line = Sequence[str]


class _Runs(NamedTuple):
    """The lines of one setting that can be read."""

    points: frozenset[tuple[float, ...]]  # learning rate, weight decay, seed
    audited: Sequence[tuple[int, float]]  # which of them, and its seed
    accuracies: Sequence[float]  # NaN: it was never finite


def check_runs(folder: Path, evaluation: Evaluation) -> None:
    """ValueError where the runs in `folder` do not bear out every setting that `evaluation` counts.

    Runs of other settings don't matter: they were cut off, or came later. Nor does a line that can't be read, which a
    kill leaves in the middle, where the setting was trained again.
    """
    text = _text(folder / "runs.csv")
    at, lines = _lines(text)
    protocol, seeds = evaluation.protocol, evaluation.seeds
    sweep = {(lr, wd, seed) for lr in protocol.lrs for wd in protocol.weight_decays for seed in seeds}
    for key, told in evaluation.results.items():
        there = lines.get(key, [])
        if len(there) > len(sweep):  # the same line twice is one run; another one is what was trained again after a kill
            there = list(dict.fromkeys(map(tuple, there)))
        runs = _runs(there, at)
        whole = sweep <= runs.points
        if not whole and (damage := _damage(text, at, key)):
            raise ValueError(f"runs.csv is damaged ({damage})")
        if reason := _difference(runs, told, seeds) if whole else f"{len(sweep & runs.points)} of {len(sweep)} runs":
            raise ValueError(f"runs.csv does not agree with evaluation.json ({one_line(' '.join(key), 120)}: {reason})")


def _lines(text: str) -> tuple[dict[str, int], dict[Key, list[Line]]]:
    """Where each column stands, and the lines of each setting that have all of them."""
    whole = text[: text.rfind("\n") + 1]  # what comes after the last line end was cut off
    try:
        header, *lines = csv.reader(io.StringIO(whole)) if '"' in whole else [line.split(",") for line in whole.split("\n")]
    except csv.Error as error:  # a quotation mark that no other one follows
        raise ValueError(f"runs.csv is damaged ({error})") from None
    at = {name: column for column, name in enumerate(header)}
    if lacking := [name for name in _COLUMNS if name not in at]:
        raise ValueError(f"runs.csv is damaged (line 1: there is no column {lacking[0]})")
    last, found = max(at[name] for name in _COLUMNS), dict[Key, list[Line]]()
    for key, those in groupby([line for line in lines if len(line) > last], itemgetter(at["task"], at["setting"])):
        found.setdefault(key, []).extend(those)
    return at, found


def _runs(lines: Sequence[Line], at: Mapping[str, int]) -> _Runs:
    """At a glance, as what a list has to read may be long; of lines that are odd each by itself."""
    others_of = itemgetter(*(at[name] for name in _OTHERS))
    try:
        runs = _parsed(lines, at)
        plain = _NUMBERS.fullmatch(",".join([",".join(others_of(line)) for line in lines]))
        if plain and False not in [0 <= accuracy <= 1 or accuracy != accuracy for accuracy in runs.accuracies]:
            return runs
    except ValueError:
        pass
    return _parsed([line for line in lines if not _reason(line, at)], at)


def _parsed(lines: Sequence[Line], at: Mapping[str, int]) -> _Runs:
    texts = tuple(map(itemgetter(*(at[name] for name in _POINT)), lines))
    return _Runs(*_points(texts), [float(line[at["accuracy"]]) for line in lines])


@lru_cache(256)  # the settings of all entries have the same few
def _points(texts: tuple[tuple[str, ...], ...]) -> tuple[frozenset[tuple[float, ...]], Sequence[tuple[int, float]]]:
    """What lr, weight_decay, seed and audited say."""
    points = [tuple(map(float, point)) for *point, _ in texts]
    audited = [("0", "1").index(flag) for *_, flag in texts]
    return frozenset(points), [(number, points[number][2]) for number, flag in enumerate(audited) if flag]


def _difference(runs: _Runs, told: SettingResult, seeds: Sequence[int]) -> str | None:
    """What the runs of a setting say else than the evaluation; the audited one of each seed made the score."""
    best: dict[float, float] = {}
    for number, seed in runs.audited:
        best[seed] = max(best.get(seed, 0.0), runs.accuracies[number])
    if told.accuracy is not None and (lacking := [seed for seed in seeds if seed not in best]):
        return f"no audited run of seed {lacking[0]}"
    if not alike(found := mean([best.get(seed) for seed in seeds]), told.accuracy):
        return _beside(found, told.accuracy)
    swept = sum([accuracy for accuracy in runs.accuracies if accuracy >= 0]) / len(runs.accuracies)
    if told.sweep_mean is not None and not alike(swept, told.sweep_mean):
        return f"mean of its sweep {_beside(swept, told.sweep_mean)}"
    return None


def _beside(runs: Score, evaluation: Score) -> str:
    """Both numbers, with as many digits as tell them apart."""
    short, long = ([_number(value, text) for value in (runs, evaluation)] for text in ("{:.6g}", "{!r}"))
    mine, theirs = short if short[0] != short[1] else long
    return f"{mine} in the runs, {theirs} in the evaluation"


def _number(value: Score, text: str) -> str:
    return "none" if value is None else text.format(value)


def _damage(text: str, at: Mapping[str, int], key: Key) -> str | None:
    """The line that can't be read: one of that setting, else the first."""
    whole, _, torn = text.rpartition("\n")
    reader, broken, start = csv.reader(io.StringIO(whole)), list[tuple[Line, str]](), 0
    try:
        for line in reader:
            if start and line and (reason := _reason(line, at)):
                broken.append((line[:2], f"line {start + 1}: {reason}"))
            start = reader.line_num
    except csv.Error as error:
        broken.append(((), f"line {start + 1}: {error}"))
    if torn:
        broken.append(((), f"line {reader.line_num + 1}: it is cut off"))
    return next((told for cells, told in broken if tuple(cells) == key), broken[0][1] if broken else None)


def _reason(line: Line, at: Mapping[str, int]) -> str | None:
    """Why a line can't be read."""
    if len(line) <= max(at[name] for name in _COLUMNS):
        return f"{len(line)} of {len(at)} columns"
    wrong = (name for name in _FIGURES if not _is_sound(name, line[at[name]]))
    return next((f"{name} is {one_line(line[at[name]], 40)!r}" for name in wrong), None)


def _is_sound(name: str, cell: str) -> bool:
    try:
        value = float(cell)
    except ValueError:
        return False
    return cell in ("0", "1") if name == "audited" else name != "accuracy" or 0 <= value <= 1 or value != value


def _text(path: Path) -> str:
    try:
        data = read_whole(path, _LIMIT)
    except FileNotFoundError:
        raise ValueError("runs.csv is missing") from None
    except OSError as error:
        raise ValueError(f"runs.csv {why(error)}") from error
    text = data.decode("utf-8-sig", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
