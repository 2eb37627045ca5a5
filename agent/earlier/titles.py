"""What the words over scores say of them: that they are no scores, that they are percentages, whose they are."""

import re

_OTHERWISE = re.compile(
    r"\u0394|\b(?:loss|losses|perplexity|perplexities|errors?(?! +(?!rates?\b|per\b|of\b|in\b|by\b|for\b|over\b)\w)|improvements?|gains?|deltas?(?![ -]+(?:rule|net))|hours?|minutes?|seconds?|times?|timings?|runtimes?|"
    r"latency|ranks?(?![ -]+(?:one|two|\d))|rankings?|predicted|predictions?|expected|expectations?|targets?|goals?|planned|std|(?:standard )?deviations?|spread|variances?)\b",
    re.IGNORECASE,
)  # fmt: skip
"""Words that what is measured goes by; not those that the systems of this field are called by: a delta rule, an error before its update."""
_DIFFERENCES = re.compile(r"\b(?:changes?|differences?|versus|vs)\b", re.IGNORECASE)
_RAISED = re.compile(r"\s*(?:[\w.]+(?:Error|Exception|Warning):|Traceback)")
_PERCENT = re.compile(r"(?<![\d.])(?<!\d )%|\b(?:per ?cent|pct)\b|\bx ?100\b|\b0 ?(?:-|\u2013|to) ?100\b", re.IGNORECASE)
_BASELINE = re.compile(r"\b(?:baselines?|reference)\b", re.IGNORECASE)
_WORDS = 9


def holds_no_scores(title: str, *, first: bool) -> bool:
    """Whether a few words say that what follows is measured otherwise, or not at all, or differences where scores came `first`."""
    if len(title.split()) >= _WORDS or title.rstrip().endswith(".") or _RAISED.match(title):
        return False
    return bool(_OTHERWISE.search(title) or (not first and _DIFFERENCES.search(title)))


def in_percent(title: str) -> bool:
    """Whether words over a column or a table say that it is of percentages: a sign behind a number does not."""
    return len(title.split()) < _WORDS and _PERCENT.search(title) is not None


def of_baseline(title: str) -> str | None:
    """The name in a title that speaks of a baseline, `baseline` where it gives no single one; None for any other title."""
    if len(title.split()) >= _WORDS or not _BASELINE.search(title):
        return None
    names = [word for word in re.findall(r"[\w.+-]+", _BASELINE.sub("", title)) if "_" in word or any(map(str.isdigit, word))]
    return names[0] if len(names) == 1 else "baseline"
