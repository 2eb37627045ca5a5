"""What a terminal, a log or a mail put around the lines of a record, taken off."""

import re

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_DAMAGE = re.compile("(?<=[\\w.])[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]+(?=[\\w.])")  # left out of a number, it would make another
_QUOTED = re.compile("> ?")
_LOGGED = re.compile(
    r"\[?(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:[.,]\d+)?(?:Z|[ \t]*[+-]\d\d:?\d\d)?\]?[ \t]*(?:[-|:][ \t]*)?(?:[\w.]+(?:[ \t]*[-|:][ \t]*|[ \t]+))?"
    r"\[?(?:DEBUG|INFO|WARNING|WARN|ERROR)\]?(?:[ \t]+[-|:][ \t]|:[ \t]?|[ \t])?"
)
_PREFIXES = {"a mark of quotation": _QUOTED, "the time and level of a log": _LOGGED}


_FORMS = {b"PK\x03\x04": "a ZIP archive", b"\x1f\x8b": "compressed by gzip", b"%PDF": "a PDF", b"<!doctype html": "HTML", b"<html": "HTML"}


def other_form(data: bytes) -> str | None:
    """What a file is that holds no printed text; None where it may hold one."""
    begin = data[:1000].lstrip(b"\xef\xbb\xbf \t\r\n")[:20]
    found = next((form for mark, form in _FORMS.items() if begin.startswith(mark) or begin.lower().startswith(mark)), None)
    return found if data.strip() else "empty"


def undressed(text: str, oddities: list[str]) -> tuple[str, str | None]:
    """The text without colours, characters that show nothing, and what every line begins with; and the time of its first line in a log."""
    text = _COLOUR.sub("", coloured := text)
    if 0 < (count := len(_DAMAGE.findall(text))) < len(text) / 20:  # as many as letters: each letter takes two bytes
        text = coloured = _DAMAGE.sub("\ufffd", text)
        oddities.append(f"{count} control characters within words stand as \ufffd each")
    plain = _UNSEEN.sub("", text)
    if plain != coloured:
        oddities.append("colours and characters that show nothing are left out")
    logged = _LOGGED.match(plain.lstrip("\n"))
    for what, prefix in _PREFIXES.items():
        lines = plain.split("\n")
        told = [line for line in lines if line.strip()]
        if len(told) > 2 and all(map(prefix.match, told)):
            plain = "\n".join(prefix.sub("", line, count=1) for line in lines)
            oddities.append(f"every line begins with {what}, which is left out")
    return plain, logged[1] if logged else None
