"""A connection to a cluster, with the interface of one to a file: what the tables and commits run over.

Each read is one request, and says which moment it is of: the newest commit's chain, and the marker, which every write
renews. All reads of a transaction must be of one moment. Its writes are kept here until commit(), which sends them in
one request that first makes sure that the moment is still the newest.

A read after a write is asked together with the writes before it, in a request that the cluster undoes: SQLite itself
says what the transaction sees, and nothing here knows what a statement does.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlstate.cluster.literals import filled, literal, marked
from sqlstate.cluster.nodes import Lost
from sqlstate.cluster.reads import Moment, Reads, answers, undone
from sqlstate.commit.requests import Overtaken, TooLarge, until_first
from sqlstate.format import constants as fmt
from sqlstate.sqlite.connection import Connection, OutcomeUnknown, size_of
from sqlstate.tables import meta as metadata
from sqlstate.tables import wal_chain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlstate.cluster.nodes import Nodes
    from sqlstate.sqlite.connection import Row

REQUEST_BYTES: Final = 64 << 20
"""The largest write: each node's log takes it as a whole."""
_USUAL_MAX: Final = 16
_USUAL_ROWS: Final = 4


class ClusterConnection(Connection):
    """One connection to a cluster.

    Args:
        nodes: of the cluster.
    """

    __slots__ = ("_marks", "_nodes", "_reads", "_usual", "_writes", "nonce")

    nonce: bytes
    """In the marker of the newest write that was sent."""

    def __init__(self, nodes: Nodes) -> None:
        self.path = nodes.name
        self.cache = 0
        self.nonce = b""
        self.steady = self._steadily
        self._nodes = nodes
        self._usual: dict[str, None] = {}  # what a transaction that writes begins with
        self._end()

    def _end(self) -> None:
        self._reads: Reads | None = None  # of the open transaction
        self._writes: list[str] = []
        self._marks: list[int] = []  # of savepoints: how many writes there were

    # Transactions.

    def begin(self) -> None:
        """Begin a transaction that writes, at the newest moment."""
        self._end()
        self._reads = Reads(self._nodes, self._usual, pinned=True)
        self._reads.ask([])

    def begin_reading(self, expected: Iterable[str] = (), *, loose: bool = False) -> None:
        """Begin a transaction that reads; *expected* is asked together with the first statement.

        With *loose*, what it reads may be of several moments.
        """
        self._end()
        self._reads = Reads(self._nodes, expected, loose=loose)

    @contextmanager
    def one_state(self) -> Iterator[None]:
        """Make the statements of the block see one moment; an open transaction is used as it is."""
        if self._reads is not None:
            yield
            return
        self.begin_reading()
        try:
            yield
        finally:
            self._end()

    @property
    def moment(self) -> Moment | None:
        """What the open transaction has read is of it."""
        return None if self._reads is None else self._reads.moment

    @property
    def asked(self) -> list[str]:
        """What the open transaction has read, for begin_reading()."""
        return [] if self._reads is None else [*self._reads.known]

    def commit(self) -> None:
        """Commit the open transaction.

        Raises:
            Overtaken: the newest moment is another one; nothing was changed.
            TooLarge: so large a request cannot be sent; nothing was changed.
            StoreFull, StoreIOError: a node could not do it; nothing was changed.
            OutcomeUnknown: it may have been done, or may be done later.
        """
        if not self._writes:
            self._end()
            return
        moment = self.moment
        assert moment is not None  # noqa: S101, begin() has read it
        self.nonce = os.urandom(fmt.NONCE_BYTES)
        same = f"{wal_chain.NEWEST} IS {literal(moment.chain)} AND {metadata.MARKER} IS {literal(moment.marker)}"
        statements = [metadata.guard(same), *self._writes, metadata.renew_marker(self.nonce, wal_chain.LAST_LSN)]
        size = sum(map(len, statements))
        if size > REQUEST_BYTES:
            raise TooLarge(size, REQUEST_BYTES)
        try:
            error = self._nodes.execute(["; ".join(statements)])  # as one: rqlite's part of each is most of it
        except Lost as e:
            raise OutcomeUnknown(str(e)) from e
        if error:
            raise undone(self.path, error)
        self._end()

    def rollback(self) -> None:
        """Forget the open transaction, if there is one."""
        self._end()

    def in_transaction(self) -> bool:
        """Return True if a transaction is open."""
        return self._reads is not None

    def clean(self) -> bool:
        """Forget what is open; return True."""
        self._end()
        return True

    def close(self) -> None:
        """Forget what is open."""
        self._end()

    def interrupt_and_close(self) -> bool:
        """Forget what is open; return True."""
        return self.clean()

    @property
    def closed(self) -> bool:
        """False: there is nothing to close."""
        return False

    # Writes.

    def run(self, sql: str, values: Sequence[Any] = (), *, keep: bool = True) -> None:  # noqa: ARG002
        """Add a statement to what commit() sends."""
        if sql == "SAVEPOINT nested":
            self._marks.append(len(self._writes))
        elif sql == "RELEASE nested":
            self._marks.pop()
        elif sql == "ROLLBACK TO nested; RELEASE nested":
            del self._writes[self._marks.pop() :]
        else:
            self._writes.append(filled(sql, values))

    def run_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """Add a statement for each of *values* to what commit() sends."""
        self._writes += [filled(sql, each) for each in values]

    def write_blob(self, table: str, column: str, rowid: int, content: bytes) -> None:
        """Overwrite a blob."""
        self.run(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (content, rowid))

    # Reads.

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a statement."""
        statement = marked(sql, values)
        found = self._ask([statement])[0]
        pinned = self._reads is not None and self._reads.pinned
        if pinned and not values and len(found) <= _USUAL_ROWS and len(self._usual) < _USUAL_MAX:
            self._usual[statement] = None
        return found

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """Return the first row of a statement, or None."""
        return next(iter(self.rows(sql, values)), None)

    def chunk(
        self, sql: str, values: Sequence[Any], most: int, weight: Callable[[Row], int] | None = None
    ) -> tuple[list[Row], bool]:
        """Return rows of a statement until their weight reaches *most*, and whether that cut the result short."""
        found = self.rows(sql, values)
        for number, row in enumerate(found, 1):
            most -= size_of(row[-1]) if weight is None else weight(row)
            if most <= 0:
                return found[:number], True
        return found, False

    def iterate(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a statement, which are all read at once."""
        return iter(self.rows(sql, values))

    def rows_many(self, sql: str, values: Iterable[Sequence[Any]]) -> list[Row]:
        """Return the rows of a statement run once for each of *values*."""
        found = self._ask([marked(sql, each) for each in values])
        return [row for each in found for row in each]

    def _steadily(self, work: Callable[[], Any]) -> Any:
        """Return what *work* returns; after Overtaken it is called again, and what it asked before is asked at once."""
        if self._reads is None or self._reads.pinned:
            return work()

        def attempt() -> Any:
            try:
                return work()
            except Overtaken:
                self.begin_reading(self.asked)
                raise

        return until_first(attempt, self._nodes.timeout)

    def _ask(self, statements: list[str]) -> list[list[Row]]:
        reads = self._reads
        if reads is None:
            return answers(self.path, self._nodes.query(statements))
        return reads.after(self._writes, statements) if self._writes else reads.ask(statements)
