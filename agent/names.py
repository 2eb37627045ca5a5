"""What a variant may be called: a slug that is safe as a folder, an argument and a word in a sentence."""

import keyword
import re

LONGEST = 96

_SLUG = re.compile(r"[a-z0-9_]{3,96}", re.ASCII)
_ENTRY_ID = re.compile(r"r?[0-9]+")  # would be read as an entry of history/
_DEVICES = {"con", "prn", "aux", "nul", "conin", "conout"} | {
    f"{d}{n}" for d in ("com", "lpt") for n in range(10)
}
_FOLDERS = {"agent", "benchmarks", "evaluator", "history", "prompts", "tests", "variants", "tmp", "venv"}
_FORMS = {"naive", "triton", "torch", "math", "einops", "typing"}
_WORDS = {"all", "any", "baseline", "best", "false", "head", "latest", "main", "name", "nan", "none", "null"}
_WORDS |= {"parent", "root", "slug", "test", "true", "variant"}
RESERVED = frozenset(
    _DEVICES | _FOLDERS | _FORMS | _WORDS | {w.lower() for w in (*keyword.kwlist, *keyword.softkwlist)}
)


class BadName(Exception):
    """A name that no variant may have; the message is one sentence."""


def check_name(text: str) -> str:
    """`text` itself where it may name a variant, else `BadName`."""
    shown = ascii(text if len(text) <= 60 else text[:57] + "...")
    if not _SLUG.fullmatch(text):
        raise BadName(f"The name {shown} is not a slug: use 3 to {LONGEST} characters out of a-z, 0-9 and _.")
    if text in RESERVED or text.startswith("__"):
        raise BadName(f"The name {shown} is reserved: choose one that says what the variant changes.")
    if _ENTRY_ID.fullmatch(text) or not any(c.isalpha() for c in text):
        raise BadName(
            f"The name {shown} reads like the number of an entry: choose one that says what it changes."
        )
    return text
