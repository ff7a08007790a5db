"""Open transactions: writes in memory, and the commit that they become part of."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlstate.commit.commit import BUFFER_BYTES, BUFFER_ENTRIES, Commit
from sqlstate.errors import InvalidOption, TransactionEnded
from sqlstate.format.names import Name, Stored, stored_name
from sqlstate.sqlite.blocks import Block
from sqlstate.store.access import condition, find_by_name, remove_by_name
from sqlstate.tables import merkle, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sqlstate.commit.pending import Savepoint
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.records import Head
    from sqlstate.sqlite.blocks import Over
    from sqlstate.sqlite.connection import Connection
    from sqlstate.store.access import Made
    from sqlstate.tables.state import Span


R = TypeVar("R")


class State(Enum):
    """How far an open transaction is."""

    BUFFERING = "open"
    """All that it wrote is in memory."""
    APPLIED = "applied"
    """Something of it reached the tables."""
    FAILED = "failed"
    """What reached the tables is not whole, and must never be committed; also while it is being carried there."""
    ENDED = "ended"
    """It was committed, handed over to its group, or undone."""


class OpenTransaction:
    """The private side of a Transaction: its writes in memory, and the commit that they become part of."""

    __slots__ = (
        "_buffer", "_bytes", "_carried", "_commit", "_connection", "_life", "_nested", "_outer", "_over", "_shared",
        "_state", "_thread", "changed",
    )  # fmt: skip

    def __init__(self, writer: WriteContext, note: str, commit: Commit, over: Over) -> None:
        commit.begin(note)
        self._commit = commit
        self._over = over  # dead once the block is over, which then need not have ended it
        self._shared = commit.transactions > 0  # with others, who must not be undone with this one
        self._outer: Savepoint | None = None  # before the first write of a shared one that reached the tables
        self._life = writer.engine.life
        self._connection = writer.engine.write_connection
        self._buffer: dict[Name, Stored | None] = {}
        self._bytes = 0
        self._carried = 0  # writes that reached the tables
        self.changed = 0
        """Entries that apply() found to differ, each time it was called."""
        self._nested: list[tuple[Savepoint, Over, int]] = []
        self._thread = threading.get_ident()
        self._state = State.BUFFERING

    upto = None
    find = find_by_name

    def get_stored(self, name: Name) -> Stored | None:
        """Return the stored value of an entry, or None."""
        self._check()
        try:
            return self._buffer[name]
        except KeyError:
            return self._commit.get(name)

    def get_many_stored(self, names: Sequence[Name]) -> list[Stored | None]:
        """Return the stored value of each entry, or None."""
        self._check()
        return [self.get_stored(name) for name in names]

    def put_stored(self, name: Name, stored: Stored) -> None:
        """Put an entry."""
        self._check()
        self._buffer[name] = stored
        self._bytes += len(stored)
        if self._bytes > BUFFER_BYTES or len(self._buffer) >= BUFFER_ENTRIES:
            self.apply()

    def put_all(self, entries: Iterable[tuple[Name, Stored]]) -> None:
        """Put entries one after the other; what makes an entry may read, or write, in this transaction."""
        self._check()
        for name, stored in entries:
            self._buffer[name] = stored
            self._bytes += len(stored)
            if self._bytes > BUFFER_BYTES or len(self._buffer) >= BUFFER_ENTRIES:
                self.apply()
        self._check()

    def holds(self, name: Name) -> bool:
        """Return True if it wrote this entry since apply()."""
        return name in self._buffer

    def delete_stored(self, name: Name) -> None:
        """Delete an entry, if there is one."""
        self._check()
        self._buffer[name] = None
        if len(self._buffer) >= BUFFER_ENTRIES:
            self.apply()

    remove = remove_by_name

    def scan(self, span: Span, make: Made[R], *, values: bool) -> Iterator[R]:
        """Yield what *make* makes of (key, stored value), in order, each as it is when its turn comes.

        An entry put ahead of the scan while it runs may be seen or not.
        """
        rest: Span | None = span
        while rest is not None:
            self.apply()
            rows, _, rest = state.chunk(self._connection, rest, values=values)
            buffer = self._buffer
            for row in rows:
                name = stored_name(span.collection, row[0])
                # Unless it was written since, what was read a moment ago still holds.
                if self._buffer is buffer and name not in buffer:
                    self._check()
                    yield from make([row], {type(row[1])})
                elif (stored := self.get_stored(name)) is not None:
                    yield from make([(row[0], stored)], {type(stored)})
        self._check()

    def count(self, start: Name, stop: Name) -> int:
        """Return the number of entries in [start, stop)."""
        self.apply()
        return merkle.count(self._connection, start, stop)

    def reading(self) -> AbstractContextManager[Connection]:
        """Return a block with the connection that this transaction writes with."""
        self._check()
        return nullcontext(self._connection)

    def collections(self) -> list[str]:
        """Return the names of all collections that have entries, as this transaction sees them."""
        self.apply()
        return state.collections(self._connection)

    def run(self, work: Callable[[OpenTransaction], R]) -> R:
        """Return what *work* returns of this transaction."""
        return work(self)

    def writing(self) -> Part:
        """Return a block that is part of this transaction, all or nothing by itself."""
        return Part(self)

    def follows(self, head: Head) -> bool:
        """Return True if it began with the state that *head* left: nothing was written in between."""
        return not self._shared and self._commit.base == head

    # What the store asks of it.

    def apply(self) -> None:
        """Carry the buffered writes into the tables, inside the open SQLite transaction."""
        self._check()
        if not self._connection.in_transaction():
            # After some errors, of a read too, SQLite rolls back by itself; what follows must not stand alone.
            self._state = State.FAILED
            self._check()
        if self._shared and self._outer is None:
            self._state = State.FAILED
            self._outer = self._commit.savepoint()
            self._state = State.APPLIED
        if not self._buffer:
            return
        self._state = State.FAILED  # until it is done
        values, self._buffer, self._bytes = self._buffer, {}, 0
        self.changed += self._commit.apply(values)
        self._carried += len(values)
        self._state = State.APPLIED

    def begin_inside(self, note: str, over: Over) -> OpenTransaction:
        """Begin a nested transaction: a savepoint.

        Raises:
            InvalidOption: a nested transaction has no note.
        """
        if note:
            raise InvalidOption("a nested transaction has no note of its own; give it to the outermost")
        self.apply()
        self._nested.append((self._commit.savepoint(), over, self._carried))
        return self

    def end_inside(self, over: Over, txn: OpenTransaction, *, keep: bool) -> None:  # noqa: ARG002, it is this one
        """End the newest nested transaction, whose block is *over* soon: keep its writes, or undo them."""
        self._check()  # which undoes those whose blocks were cut short
        if not self._nested or self._nested[-1][1] is not over:
            return
        if keep:
            self.apply()
            self._commit.release_savepoint()
            self._nested.pop()
        else:
            self._undo_nested()

    def _undo_nested(self) -> None:
        self._buffer, self._bytes = {}, 0
        self._commit.roll_back_to(self._nested[-1][0])
        self._carried = self._nested[-1][2]
        self._nested.pop()
        if self._state is State.FAILED:
            self._state = State.APPLIED

    @property
    def ended(self) -> bool:
        """Whether finish(), end() or abandon() has ended it."""
        return self._state is State.ENDED

    def finish(self) -> Head | None:
        """Commit; return the new head, or None if nothing changed. The transaction has ended."""
        try:
            self.apply()
            return self._commit.finish()
        except BaseException:
            self._commit.roll_back()
            raise
        finally:
            self._state = State.ENDED

    def end(self) -> bool:
        """End it without a commit of its own, and return True if it changed anything. If this fails, it is undone."""
        try:
            self._check()
            commit = self._commit
            if self._state is State.BUFFERING:  # no need to reach the tables by itself, or for a savepoint
                commit.add(self._buffer)
            else:
                self.apply()
                if commit.root == (commit.base.root if self._outer is None else self._outer.root):  # I10
                    self.abandon()
                    return False
                if self._outer is not None:
                    commit.release_savepoint()
            changed = commit.end()
            self._state = State.ENDED
        except BaseException:
            self.abandon()
            raise
        return changed

    def abandon(self) -> None:
        """Undo everything that it did, and nothing that others did before it. The transaction has ended."""
        if self._state is State.ENDED:
            return
        if not self._shared:
            self._commit.roll_back()
        elif self._outer is not None:
            self._commit.roll_back_to(self._outer)
        else:
            self._commit.spoil()
        self._state = State.ENDED

    @property
    def condition(self) -> str:
        """Whether it can be used, in a word, for a repr."""
        state = condition(self._life, ended=self._state is State.ENDED or self._over() is None)
        return "failed" if state == "open" and self._state is State.FAILED else state

    def __repr__(self) -> str:
        writes = self._carried + len(self._buffer)
        counted = f"{writes:,} write{'' if writes == 1 else 's'}"
        return f"<sqlstate.Transaction of {self._life.path!r}: {self.condition}, {counted}>"

    def _check(self) -> None:
        if self._state is State.ENDED or self._over() is None or self._thread != threading.get_ident():
            self._life.check_forked()
            raise TransactionEnded(
                "the transaction has ended, or belongs to another thread; begin one with store.transaction()"
            )
        if not self._life.usable:
            self._life.check()
        while self._nested and self._nested[-1][1]() is None:
            self._undo_nested()  # an exception kept its block from doing so
        if self._state is State.FAILED:
            raise TransactionEnded(
                "the transaction failed while it was applied; leave its block, and nothing is changed"
            )


class Outer(Protocol):
    """What a transaction can be part of: another one, or a batch."""

    def begin_inside(self, note: str, over: Over) -> OpenTransaction:
        """Begin a transaction inside, for a block."""

    def end_inside(self, over: Over, txn: OpenTransaction, *, keep: bool) -> None:
        """End it: keep what it wrote, or undo that."""


class Part(Block):
    """A block that is part of a transaction or a batch, all or nothing by itself."""

    __slots__ = ("_note", "_outer", "_txn")

    def __init__(self, outer: Outer, note: str = "") -> None:
        super().__init__()
        self._outer = outer
        self._note = note

    def enter(self) -> Any:
        """Begin it."""
        self._txn = self._outer.begin_inside(self._note, self.over)
        return self._txn

    def leave(self, kind: type[BaseException] | None, *_: object) -> None:
        """Keep what was written, or undo it."""
        self._outer.end_inside(self.over, self._txn, keep=kind is None)
