"""What a shell completes from a store: names of collections, and keys.

Completed words go onto the command line, and what stands in a store may have been written by others. So only words are
offered that no shell reads as anything but a word.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import sqlstate
from sqlstate.errors import StoreError
from sqlstate.format import constants as fmt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import click

    from sqlstate.format.names import Key

OFFERED_MAX: Final = 100
PATIENCE_SECONDS: Final = 0.5
# A minus sign would begin an option, and zsh reads an equals sign at the start as a command.
_PLAIN: Final = re.compile(r"(?![-=])[\w@%+./:=-]+|-[0-9]+")


def collections(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of the collections of FILE that begin with *incomplete*."""
    return _offered(context, incomplete, lambda store: store)


def keys(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the keys of COLLECTION that begin with *incomplete*, as --key-type writes them."""
    collection = context.params.get("collection")
    if not isinstance(collection, str):
        return []
    written = {"int": _ints, "hex": _hex}.get(context.params.get("key_type") or "str", _texts)
    return _offered(context, incomplete, lambda store: written(store[collection], _utf8(incomplete)))


def _offered(context: click.Context, incomplete: str, words: Any) -> list[str]:
    """Return the *words* of the store that begin as asked; none if it cannot be read, since nobody asked to open it."""
    file = os.path.expandvars(os.path.expanduser(context.params.get("file") or ""))  # the shell has not done it yet
    with (
        suppress(StoreError, OSError, ValueError),
        sqlstate.open(file, read_only=True, create=False, timeout=PATIENCE_SECONDS) as store,
    ):
        return _safe(words(store), _utf8(incomplete))
    return []


def _safe(words: Iterable[str], start: str) -> list[str]:
    found: list[str] = []
    for word in words:
        if word.startswith(start) and _PLAIN.fullmatch(word):
            found.append(word)
            if len(found) == OFFERED_MAX:
                break
    return found


def _utf8(text: str) -> str:
    with suppress(UnicodeError):
        return os.fsencode(text).decode()
    return text


def _texts(view: sqlstate.Collection[Any], start: str) -> Iterator[str]:
    span: dict[str, Any] = {"prefix": start} if start else {"start": "", "stop": b""}
    yield from map(str, view.keys(**span, limit=10 * OFFERED_MAX))


def _hex(view: sqlstate.Collection[Any], start: str) -> Iterator[str]:
    whole = bytes.fromhex(start[: len(start) // 2 * 2])
    span: dict[str, Any] = {"prefix": whole} if whole else {"start": b""}
    for key in view.keys(**span, limit=10 * OFFERED_MAX):
        yield bytes(key).hex()  # type: ignore[arg-type]  # the span has no others


def _ints(view: sqlstate.Collection[Any], start: str) -> Iterator[str]:
    for low, high in _spans(start):
        yield from map(str, view.keys(start=low, stop=high, limit=OFFERED_MAX))


def _spans(start: str) -> Iterator[tuple[Key, Key]]:
    """Yield the spans of the ints whose digits begin with *start*; the end of each is no longer in it."""
    match = re.fullmatch(r"(-?)(0|[1-9][0-9]*|)", start)
    if match is None:
        return
    if not match[2]:
        yield (fmt.INT_MIN, 0) if match[1] else (0, "")  # who wants a negative one has begun with the sign
        return
    low, high = int(match[2]), int(match[2]) + 1
    most = -fmt.INT_MIN if match[1] else fmt.INT_MAX
    while low <= most:
        last = min(high - 1, most)
        if match[1]:
            yield -last, -low + 1
        else:
            yield low, last + 1 if last < most else ""
        if not low:
            return
        low, high = low * 10, high * 10
