"""Text from strangers (a model, a server, an old record) made safe to print and to quote."""

import re
import unicodedata
from collections.abc import Sequence

_ESCAPE_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]P_^X].*?(?:\x07|\x1b\\|$)"  # OSC, DCS, APC, PM, SOS: titles, links, clipboard
    r"|\x1b.?"
    r"|\x9b[0-?]*[ -/]*[@-~]",
    re.MULTILINE,
)
# Cc controls, Cf invisible and direction marks, Cs lone surrogates, Co private use, Zl/Zp odd line ends.
_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: str) -> str:
    """`text` with no escape sequence, control or invisible character left; line ends and tabs stay.

    A byte of a file's name that is no text stands as \\xff.
    """
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    text = _ESCAPE_SEQUENCES.sub("", text.replace("\r\n", "\n"))
    text = "".join(c if c in "\n\t" or _is_byte(c) or unicodedata.category(c) not in _UNSAFE else " " for c in text)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_byte(letter: str) -> bool:
    return "\udc80" <= letter <= "\udcff"


def one_line(text: str, limit: int = 300) -> str:
    """`text` as one printable line of at most `limit` characters."""
    line = " ".join(printable(text[: 8 * limit]).split())
    return line if len(line) <= limit else line[: limit - 3].rstrip() + "..."


def bare(text: str) -> str:
    """`text` without the Markdown or quotation marks around it."""
    return text.strip(" \t*`\"'")


def some(names: Sequence[str], most: int) -> str:
    """The first of them, at most `most`, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def scrub(text: str, secrets: tuple[str, ...]) -> str:
    """`text` without any of the `secrets`; shorter than six characters is no secret but a word."""
    for secret in secrets:
        if len(secret) >= 6:
            text = text.replace(secret, "[key removed]")
    return text
