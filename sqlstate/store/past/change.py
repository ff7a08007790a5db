"""A change: the value of an entry before and after a commit, read from the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from sqlstate.errors import Damaged, InvalidValue
from sqlstate.format.merkle import Leaf
from sqlstate.format.values import ABSENT, JSON, REDACTED
from sqlstate.tables import wal_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sqlstate.errors import StoreError
    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.format.values import Codec
    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.wal_changes import Logged, Touch, Values

T = TypeVar("T")

# As many changes are read at once, unless their values come to so many bytes.
CHANGES_AT_ONCE: Final = 256
BYTES_AT_ONCE: Final = 1 << 20


class Change(NamedTuple):
    """The value of one entry before and after one commit: a named tuple.

    Examples:
        >>> with store.transaction(note="move in") as txn:
        ...     txn.put("users", 1, "ada")
        >>> [change] = store.changes()
        >>> change.seq, change.note, change.collection, change.key, change.before, change.value
        (1, 'move in', 'users', 1, ABSENT, 'ada')
    """

    seq: int
    """Number of the commit."""
    at: str
    """When it was made: ISO 8601, UTC, microseconds."""
    note: str
    """Of the transaction in it that changed the entry last."""
    collection: str
    """Name of the entry's collection."""
    key: Any
    """Key of the entry: an int, str or bytes, or of the type that was asked for with `key=`."""
    before: Any
    """Value before the commit, ABSENT for none; or REDACTED: there was one, and the log has its digest alone."""
    value: Any
    """Value after it, likewise."""


def misfit(codec: Codec[Any], collection: str, key: object, error: InvalidValue) -> StoreError:
    """Return what to raise for *error*, which decoding the value of an entry raised: without a type it is damage."""
    if codec.typed:
        return error.located(collection, key)
    return Damaged(f"I1: {collection!r}[{key!r}] is not a JSON document; it was changed from outside. Restore a backup")


def decoded(codec: Codec[T], collection: str, key: Key, stored: Stored) -> T:
    """Return the value of an entry, from what is stored.

    Raises:
        InvalidValue: it is not of the codec's type.
        Damaged: it is no JSON document, and no type was asked for.
    """
    try:
        return codec.decode(stored)
    except InvalidValue as e:
        raise misfit(codec, collection, key, e) from None


def read(
    reading: Callable[[], AbstractContextManager[Connection]],
    touches: Sequence[tuple[Head, Name, Touch]],
    codec: Codec[Any],
) -> Iterator[Change]:
    """Yield the changes that *touches* are, with their values; what ended as it began is none.

    Args:
        reading: returns a block with a connection; nothing is held between the blocks.
        touches: how commits changed entries.
        codec: of the values and keys.
    """
    at = 0
    while at < len(touches):
        found: list[tuple[Head, Name, Touch, Values]] = []
        left = BYTES_AT_ONCE
        with reading() as connection:
            for touch in touches[at : at + CHANGES_AT_ONCE]:
                values = wal_changes.values(connection, *touch[1:])
                at += 1
                if not wal_changes.same(touch[1], *values):
                    found.append((*touch, values))
                    left -= sum(len(each) for each in values if each is not None)
                    if left <= 0:
                        break
        for head, name, touched, values in found:
            shown = (shown_as(name, each, codec) for each in values)
            key = codec.keys.given(name[0], name[2])
            yield Change(head.seq, head.at, touched.note, name[0], key, *shown)


def shown_as(name: Name, logged: Logged, codec: Codec[Any] = JSON) -> Any:
    """Return the value of an entry; ABSENT for none, REDACTED if it is known by its leaf alone."""
    if logged is None:
        return ABSENT
    return REDACTED if type(logged) is Leaf else decoded(codec, name[0], name[2], logged)
