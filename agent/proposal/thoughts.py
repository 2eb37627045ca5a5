"""A model's answer without the thinking that some servers leave in front of it, and without a fence around all of it."""

import re
from bisect import bisect_left

from .scan import FENCE

_TAG = re.compile(r"<(/?)(?:think|thinking|thought|reasoning|analysis|scratchpad)>", re.IGNORECASE)
_NAME = re.compile(r"^[ \t>*_`+#-]*name[ \t*_`]*(?::|$)", re.IGNORECASE | re.MULTILINE)
_FINAL = re.compile(r"<\|channel\|>final<\|message\|>")
_ENDS = re.compile(r"<\|(?:return|end)\|>\s*\Z")
_CHANNEL = re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>(?!final)")
WRAPPERS = {"markdown", "md", "text", "txt", ""}
"""What a fence around a whole answer calls itself."""


def without_thoughts(text: str) -> str:
    """The text without what stands between two tags, nor before a closing one alone, as where a server made the first one.

    A closing tag alone cuts no answer off: it counts where a name stands behind it, or none before. The mark of a final
    channel, as gpt-oss makes it, is such a tag.
    """
    text = _of_final_channel(text)
    names = [found.start() for found in _NAME.finditer(text)]
    kept, at, begun, named = [], 0, None, False
    for tag in _TAG.finditer(text):
        if not tag[1]:
            begun = tag.start() if begun is None else begun
            continue
        end = tag.start() if begun is None else begun
        named = named or bisect_left(names, at) < bisect_left(names, end)
        if begun is not None:
            kept.append(text[at:end])
            at, begun = tag.end(), None
        elif not named or (names and names[-1] > end):
            kept, at, named = [], tag.end(), False
    return "".join([*kept, text[at:]])


def _of_final_channel(text: str) -> str:
    names = [found.start() for found in _NAME.finditer(text)]
    marks = [mark for mark in _FINAL.finditer(text) if not names or names[-1] > mark.end()]
    return _ENDS.sub("", text[marks[-1].end() :]) if marks else text


def is_unfinished(text: str) -> bool:
    """Whether an answer, without its thoughts, begins with one that does not end."""
    return bool(_TAG.match(text.lstrip()) or _CHANNEL.match(text))


def unwrapped(text: str) -> str:
    """Without one fence around all of it."""
    lines = text.strip().split("\n")
    opens, body = FENCE.fullmatch(lines[0].strip()), "\n".join(lines[1:-1])
    wrapped = opens and len(lines) > 2 and opens[2].strip().lower() in WRAPPERS and lines[-1].strip() == opens[1]
    return body if wrapped and opens and opens[1] not in body else text
