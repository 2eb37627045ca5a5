"""An insight without a model: a template over measured numbers, and labelled as one."""

from .compare import Comparison, bar, mean_bar, minus
from .records import COLUMNS, mean_name, mean_score


def measured_insight(comparison: Comparison) -> str:
    """Markdown whose first line is the lesson."""
    lines = [
        _lesson(comparison),
        "",
        "Written by a template over the measured scores; no model was asked.",
        "",
    ]
    return "\n".join(lines + [_line(comparison, column) for column in COLUMNS]) + "\n"


def _lesson(comparison: Comparison) -> str:
    mean, old = mean_score(dict(comparison.scores)), mean_score(dict(comparison.parent_scores))
    head = f"{comparison.name} under {comparison.protocol}: {mean_name(comparison.protocol)} {_number(mean)}"
    difference = minus(mean, old)
    if comparison.parent is None or difference is None:
        return f"{head}."
    limit = mean_bar(comparison.noise)
    beside = f", noise {limit:.4f}" if limit is not None else ", noise not measured"
    verdict = f"{difference:+.4f} against {comparison.parent} ({comparison.versus_parent}{beside})"
    return f"{head}, {verdict}.{_most(comparison)}"


def _most(comparison: Comparison) -> str:
    """The column that moved most, up or down."""
    moved = {column: value for column, value in comparison.differences.items() if value}
    if not moved:
        return " No column moved."
    column = max(moved, key=lambda key: abs(moved[key]))
    return f" Moved most: {column} {moved[column]:+.4f}."


def _line(comparison: Comparison, column: str) -> str:
    text = f"- {column}: {_number(comparison.scores.get(column))}"
    difference, limit = comparison.differences[column], bar(comparison.noise.get(column))
    if difference is not None:
        text += f", {difference:+.4f} against the parent"
        text += (
            ""
            if limit is None
            else " (above the noise)"
            if abs(difference) > limit
            else " (within the noise)"
        )
    predicted = comparison.prediction.get(column)
    return text + (f"; predicted {predicted:+.3f}" if predicted is not None else "")


def _number(value: float | None) -> str:
    return "not complete" if value is None else f"{value:.4f}"
