"""The address of a model's server, as a person writes it."""

from urllib.parse import urlsplit

_ASKED = "/chat/completions"


def check_address(text: str) -> str:
    """`text` itself where a server may be there; a ValueError says why not."""
    if not text.isprintable() or " " in text or len(text) > 500:
        raise ValueError("an address has no spaces, no control characters and at most 500 characters")
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or ""), parts.port
        host.encode("idna")
    except ValueError as error:
        raise ValueError(f"it is no address: {error}") from None
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise ValueError("an address begins with http:// or https:// and a host")
    if port == 0:
        raise ValueError("no server has port 0")
    if "?" in text or "#" in text:
        raise ValueError("an address ends before any ? or #")
    if parts.path.rstrip("/").endswith(_ASKED):
        raise ValueError(f"leave {_ASKED} away, which is added to it")
    return text
