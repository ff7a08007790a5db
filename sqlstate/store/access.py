"""What collections read and write through.

Each public object that has collections holds a private one that knows entries as they are stored: a Store holds a
StoreEntries, a Transaction an OpenTransaction, a Batch an OpenBatch, a Snapshot an OpenSnapshot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlstate.commit.clock import now
from sqlstate.errors import StoreUnusable
from sqlstate.format.names import make_name
from sqlstate.sqlite.pages import Page
from sqlstate.tables import audit, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlstate.commit.group import GroupCommit
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.life import Life
    from sqlstate.tables.state import Span

R = TypeVar("R")
T = TypeVar("T")
E_co = TypeVar("E_co", covariant=True)

if TYPE_CHECKING:
    Row = tuple[Key, Stored]
    Made = Callable[[list[Row], set[type]], Page[R]]
    """Turns some rows of a scan, whose values have these types, into what the scan yields."""


def as_stored(rows: list[Row], kinds: set[type]) -> Page[Row]:  # noqa: ARG001, as Made
    """Return a page of rows as they are."""
    return Page(rows)


def chunks(make: Made[R], *, values: bool) -> Callable[[Connection, Span], tuple[Page[R], Span | None]]:
    """Return a function that reads a chunk of a span, and returns what *make* makes of it, and what is left."""

    def read(connection: Connection, span: Span) -> tuple[Page[R], Span | None]:
        rows, kinds, rest = state.chunk(connection, span, values=values)
        return make(rows, kinds), rest

    return read


class Reads(Protocol):
    """What a collection reads through: a store, a transaction or a snapshot."""

    @property
    def condition(self) -> str:
        """Whether it can be used, in a word, for a repr."""

    def find(self, collection: str, key: Key) -> Stored | None:
        """Return the stored value of an entry, or None.

        Raises:
            InvalidKey: no entry can have the key.
        """

    def get_many_stored(self, names: Sequence[Name]) -> list[Stored | None]:
        """Return the stored value of each entry, or None, all of one moment."""

    def scan(self, span: Span, make: Made[R], *, values: bool) -> Iterator[R]:
        """Yield what *make* makes of the rows of a span, (key, stored value), in order.

        Without *values*, the second part of each is `''`.
        """

    def count(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Return a block with a connection that reads what this reads."""

    @property
    def upto(self) -> int | None:
        """Number of the last commit that this shows; None for the newest that reading() shows."""


class Named(Protocol):
    """What knows entries by their names."""

    def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""


def find_by_name(entries: Named, collection: str, key: Key) -> Stored | None:
    """Return the stored value of an entry, or None: find() of what only has get_stored()."""
    return entries.get_stored(make_name(collection, key))


class Writes(Reads, Named, Protocol):
    """An open transaction."""

    def put_stored(self, name: Name, stored: Stored) -> None:
        """Put an entry."""

    def put_all(self, entries: Iterable[tuple[Name, Stored]]) -> None:
        """Put entries, one after the other."""

    def delete_stored(self, name: Name) -> None:
        """Delete an entry, if there is one."""


def remove_by_name(entries: Writes, name: Name) -> bool:
    """Delete an entry; return whether there was one."""
    there = entries.get_stored(name) is not None
    if there:
        entries.delete_stored(name)
    return there


class Writable(Reads, Protocol):
    """What a collection writes through: a store or a transaction."""

    def put_stored(self, name: Name, stored: Stored) -> None:
        """Put an entry: a transaction of its own, or part of the one that is open."""

    def remove(self, name: Name) -> bool:
        """Delete an entry, as put_stored(); return whether there was one."""

    def run(self, work: Callable[[Writes], R]) -> R:
        """Return what *work* returns of one transaction, made for it, or of the one that is open.

        It may be called in another thread. It changes nothing if it raises.
        """

    def writing(self) -> AbstractContextManager[Writes]:
        """Return a block whose writes are one transaction, or part of the one that is open.

        An exception in the block undoes those of the block alone.
        """


class Face(Protocol[E_co]):
    """A public object with a private one behind it."""

    @property
    def _entries(self) -> E_co: ...


def entries_of(face: Face[E_co]) -> E_co:
    """Return the private object behind *face*, through which this package's own modules reach stored entries."""
    return face._entries  # noqa: SLF001, the one place


def condition(life: Life, *, ended: bool = False) -> str:
    """Return in a word, for a repr, whether a handle or what was taken from it can be used."""
    if life.forked:
        return "of the parent process"
    if life.closed or ended:
        return "closed" if life.closed else "ended"
    return "failed" if life.failure else "open"


def refuse_inside(writer: WriteContext, what: str) -> None:
    """Raise StoreUnusable if this thread has a transaction or batch open: *what* cannot be called inside one."""
    if writer.open_blocks.innermost() is not None:
        raise StoreUnusable(
            f"{writer.engine.path}: {what}() cannot be called inside a transaction or batch of the same thread; "
            "leave its block first. Nothing was changed"
        )


def in_one_write(group: GroupCommit[Any], what: str, work: Callable[[Connection, Head], T | None]) -> T | None:
    """Call *work* in a durable SQLite transaction that makes no commit, and return what it returns.

    Args:
        group: of the store.
        what: the method that was called, for messages.
        work: gets the writing connection and the newest commit; returns None if it changed nothing: nothing is written.

    Raises:
        StoreUnusable: this thread has a transaction or batch open.
        StoreError: what transaction() raises.
    """
    context = group.context
    refuse_inside(context, what)
    context.engine.life.check_writable()
    with group.writing():
        _, head = context.begin()
        done = work(context.engine.write_connection, head)
        if done is not None:
            context.commit_unnumbered(what)
        return done


def note(context: WriteContext, head: Head, event: tuple[str, Mapping[str, Any]]) -> int:
    """Append an audit entry of this kind and detail inside the open transaction, and return its number."""
    return audit.append(context.engine.write_connection, context.meta.store_id, head, now(), event)
