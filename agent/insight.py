"""An insight without a model: a template over measured numbers, and labelled as one."""

from collections import Counter

from .compare import Comparison, Setting, bar, judged
from .records import COLUMNS, Versus, mean_name


def measured_insight(comparison: Comparison, why: str = "no model was asked") -> str:
    """Markdown whose first line is the lesson; `why` no model wrote it."""
    lines = [
        _lesson(comparison),
        "",
        f"Written by a template over the measured scores; {why}.",
        "",
    ]
    lines += [_line(comparison, column) for column in COLUMNS]
    if comparison.settings:
        lines += ["", "Setting by setting:", "", *(_of_setting(comparison, setting) for setting in comparison.settings)]
    return "\n".join(lines) + "\n"


def _lesson(comparison: Comparison) -> str:
    most = "" if comparison.settings or comparison.mean_difference is None else _most(comparison)
    return f"{comparison.name} under {comparison.protocol}: {in_short(comparison)}.{most}"


def in_short(comparison: Comparison) -> str:
    """`mean of six 0.4994, -0.0044 against delta_net (within noise, noise 0.1031)`; or how its settings compare."""
    if comparison.settings:
        return _settings_in_short(comparison)
    head, difference = f"{mean_name(comparison.protocol)} {_number(comparison.mean)}", comparison.mean_difference
    if difference is None:
        return head
    if all(moved == 0.0 for moved in comparison.differences.values()):
        return f"{head}, and each of the six equal to {comparison.against}'s to the last digit: what was changed acts nowhere in them"
    limit = comparison.mean_noise
    beside = f", noise {limit:.4f}" if limit is not None else ", noise not measured"
    return f"{head}, {difference:+.4f} against {comparison.against} ({comparison.versus}{beside})"


def _settings_in_short(comparison: Comparison) -> str:
    head = f"{len(comparison.settings)} of {comparison.of} settings"
    known = [setting for setting in comparison.settings if setting.difference is not None]
    if not known:
        return head
    found = Counter(judged(setting.difference, bar(setting.sigma)) for setting in known)
    words: dict[Versus, str] = {word: word for word in ("better", "worse", "within noise")}
    words["unknown"] = "of noise not measured"
    told = ", ".join(f"{found[verdict]} {word}" for verdict, word in words.items() if found[verdict])
    return f"{head}, of {len(known)} that {comparison.against} has, too: {told}"


def _most(comparison: Comparison) -> str:
    """The column that moved most, up or down."""
    moved = {column: value for column, value in comparison.differences.items() if value}
    if not moved:
        return " No column moved."
    column = max(moved, key=lambda key: abs(moved[key]))
    return f" Moved most: {column} {moved[column]:+.4f}."


def _line(comparison: Comparison, column: str) -> str:
    difference, limit = comparison.differences[column], bar(comparison.noise.get(column))
    text = f"- {column}: {_number(comparison.scores.get(column))}{_moved(comparison, difference, limit)}"
    predicted = comparison.prediction.get(column)
    return text + (f"; predicted {predicted:+.3f}" if predicted is not None else "")


def _of_setting(comparison: Comparison, setting: Setting) -> str:
    moved = _moved(comparison, setting.difference, bar(setting.sigma))
    return f"- {setting.task} {setting.name}: {_number(setting.accuracy)}{moved}"


def _moved(comparison: Comparison, difference: float | None, limit: float | None) -> str:
    if difference is None:
        return ""
    other = "the parent" if comparison.against == comparison.parent else comparison.against
    beyond = "" if limit is None else " (above the noise)" if abs(difference) > limit else " (within the noise)"
    return f", {difference:+.4f} against {other}{beyond}"


def _number(value: float | None) -> str:
    return "not complete" if value is None else f"{value:.4f}"
