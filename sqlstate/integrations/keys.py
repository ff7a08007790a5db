"""Keys of several parts, as text: `thread/namespace/checkpoint`. A part's own "%" and "/" become "%25" and "%2F"."""

from __future__ import annotations


def join(*parts: str) -> str:
    """Return the parts as one key, which no other parts make."""
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)


def prefix(*parts: str) -> str:
    """Return what the keys begin with that have these parts first, and more behind them."""
    return f"{join(*parts)}/"


def split(key: str) -> list[str]:
    """Return the parts of a key."""
    return [part.replace("%2F", "/").replace("%25", "%") for part in key.split("/")]
