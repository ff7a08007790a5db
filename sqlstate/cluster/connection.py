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
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.cluster.literals import filled, literal, marked, rows
from sqlstate.cluster.nodes import Lost
from sqlstate.commit.requests import Overtaken, TooLarge
from sqlstate.errors import Damaged, NotAStore, StoreError, StoreFull, StoreIOError
from sqlstate.format import constants as fmt
from sqlstate.sqlite.connection import Connection, OutcomeUnknown, size_of
from sqlstate.tables import meta as metadata
from sqlstate.tables import wal_chain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlstate.cluster.nodes import Nodes, Result
    from sqlstate.sqlite.connection import Row

REQUEST_BYTES: Final = 64 << 20
"""The largest write: each node's log takes it as a whole."""
_STATE: Final = f"SELECT {wal_chain.NEWEST}, {metadata.MARKER}"
_USUAL_MAX: Final = 16
_USUAL_ROWS: Final = 4
_GUARD_FAILED: Final = "NOT NULL constraint failed: meta.value"


class Moment(NamedTuple):
    """What was read is of it. No two states of a cluster have the same."""

    chain: bytes | None
    """Of the newest commit in the log; None without one."""
    marker: bytes


class ClusterConnection(Connection):
    """One connection to a cluster.

    Args:
        nodes: of the cluster.
    """

    __slots__ = ("_expected", "_known", "_marks", "_moment", "_nodes", "_open", "_usual", "_writer", "_writes", "nonce")

    nonce: bytes
    """In the marker of the newest write that was sent."""

    def __init__(self, nodes: Nodes) -> None:
        self.path = nodes.name
        self.cache = 0
        self.nonce = b""
        self._nodes = nodes
        self._usual: dict[str, None] = {}  # what a transaction that writes begins with
        self._end()

    def _end(self) -> None:
        self._open = self._writer = False
        self._moment: Moment | None = None
        self._expected: list[str] = []
        self._known: dict[str, list[Row]] = {}  # what was read, before the first write
        self._writes: list[str] = []
        self._marks: list[int] = []  # of savepoints: how many writes there were

    # Transactions.

    def begin(self) -> None:
        """Begin a transaction that writes, at the newest moment."""
        self._end()
        self._open = self._writer = True
        self._expected = [*self._usual]
        self._ask([])

    def begin_reading(self, expected: Iterable[str] = ()) -> None:
        """Begin a transaction that reads; *expected* is asked together with the first statement."""
        self._end()
        self._open = True
        self._expected = [*expected]

    @contextmanager
    def one_state(self) -> Iterator[None]:
        """Make the statements of the block see one moment; an open transaction is used as it is."""
        if self._open:
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
        return self._moment

    @property
    def asked(self) -> list[str]:
        """What the open transaction has read, for begin_reading()."""
        return [*self._known]

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
        moment = self._moment
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
            raise self._undone(error)
        self._end()

    def rollback(self) -> None:
        """Forget the open transaction, if there is one."""
        self._end()

    def in_transaction(self) -> bool:
        """Return True if a transaction is open."""
        return self._open

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
        if self._writer and not values and len(found) <= _USUAL_ROWS and len(self._usual) < _USUAL_MAX:
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

    def _ask(self, statements: list[str]) -> list[list[Row]]:
        """Return the rows of marked statements, all of the transaction's moment."""
        if not self._open:
            return self._answers(self._nodes.query(statements))
        if self._writes:
            return self._after_writes(statements)
        missing = [each for each in dict.fromkeys([*statements, *self._expected]) if each not in self._known]
        self._expected = []
        if missing or self._moment is None:
            found = self._at_moment(missing)
            self._known.update(zip(missing, found, strict=True))
        return [self._known[each] for each in statements]

    def _at_moment(self, missing: list[str]) -> list[list[Row]]:
        moment, found = self._read(missing)
        if self._moment not in (None, moment):
            if self._writer:
                raise self._overtaken()
            # What was read may be the same in the newer moment: then all of it is of that.
            earlier = [*self._known]
            moment, found = self._read([*earlier, *missing])
            if found[: len(earlier)] != [*self._known.values()]:
                self._known.update(dict.fromkeys(missing, []))  # so that the next attempt asks for them at once
                raise self._overtaken()
            found = found[len(earlier) :]
        self._moment = moment
        return found

    def _read(self, statements: list[str]) -> tuple[Moment, list[list[Row]]]:
        state, *found = self._answers(self._nodes.query([marked(_STATE, ()), *statements]))
        return Moment(*state[0]), found

    def _after_writes(self, statements: list[str]) -> list[list[Row]]:
        """Return the rows of statements as the writes so far make them, in a request that is undone."""
        asked = [marked(_STATE, ()), "; ".join(self._writes), *statements, metadata.REFUSED]
        results = self._nodes.try_out(asked)
        if len(results) == len(asked):
            results.pop()
        state, *found = self._answers([results[0], *results[2:]], results)
        if Moment(*state[0]) != self._moment:
            raise self._overtaken()
        return found

    def _answers(self, results: Sequence[Result], among: Sequence[Result] = ()) -> list[list[Row]]:
        error = next((str(each["error"]) for each in among or results if "error" in each), "")
        if error:
            raise self._undone(error)
        return [rows(each.get("values")) for each in results]

    def _overtaken(self) -> Overtaken:
        return Overtaken(self.path)

    def _undone(self, error: str) -> StoreError:
        """Return our exception for an error of SQLite's on a node, which undid the request."""
        if _GUARD_FAILED in error or "already exists" in error:
            return self._overtaken()
        if "no such table" in error or "no such column" in error:
            return NotAStore(f"{self.path}: the cluster does not hold a store any more ({error}); nothing was changed")
        if "disk is full" in error:
            return StoreFull(f"{self.path}: the disk of a node is full; nothing was changed. Free space there")
        if "malformed" in error:
            return Damaged(f"{self.path}: SQLite on a node found damage ({error}); nothing was changed")
        return StoreIOError(f"{self.path}: a node refused a statement ({error}); nothing was changed")
