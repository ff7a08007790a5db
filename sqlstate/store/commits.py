"""The commits of an open store: the newest, those before it, those to come, and proofs of what they are."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sqlstate import headlog
from sqlstate.errors import Busy, StoreFull
from sqlstate.format.names import check_number
from sqlstate.proving import commits as history
from sqlstate.proving.entries import Provable
from sqlstate.store import watch as watching
from sqlstate.store.access import refuse_inside
from sqlstate.store.watch import check_timeout
from sqlstate.tables import wal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.commit.group import GroupCommit
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.errors import CommitOutcomeUnknown
    from sqlstate.format.records import Head
    from sqlstate.headlog import SignedHead, Signer
    from sqlstate.proof import Proof
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine
    from sqlstate.tables.meta import Meta


class Commits(Provable):
    """What a Store says of its commits."""

    _engine: Engine
    _group: GroupCommit[Any]
    _meta: Meta
    _writer: WriteContext

    @property
    def durable(self) -> int:
        """Number of the newest durable commit. Nobody ever sees a commit before it is durable."""
        return self.head().seq

    def head(self) -> Head:
        """Return the newest commit: its number, root, count of entries, time, and the chain's digest."""
        with self._engine.reading() as connection:
            return wal.last(connection, self._meta)[1]

    def commits(self, first: int = 1) -> Iterator[Head]:
        """Yield the commits from number *first* on, in order, as they are now.

        Raises:
            InvalidOption: *first* is not a number from 0 to 2^63-1.
        """
        check_number("first", first)
        return self._engine.readers.scan(wal.commits, first)

    def watch(self, after: int | None = None, timeout: float | None = None) -> Iterator[Head]:
        """Yield the commits after number *after*, in order, each once, as they come: of this and other processes.

        It ends when the store is closed. Those of this handle are seen at once, others' within 20 ms. It keeps no
        writer waiting, and nothing from being moved out of SQLite's WAL, however long the caller takes for each.

        Args:
            after: a commit's number; None for the newest there is at the call.
            timeout: seconds after the newest commit that it has seen when it ends; 0 ends it once it has caught up.

        Raises:
            InvalidOption: *after* is not a number from 0 to 2^63-1, or *timeout* not a number of seconds.
        """
        if after is not None:
            check_number("after", after)
        if timeout is not None:
            check_timeout(timeout)
        newest = self.head().seq
        return watching.follow(self._engine, self._meta, newest if after is None else after, timeout)

    def committed(self, error: CommitOutcomeUnknown) -> bool:
        """Tell whether the very commit that *error* could not tell about is there. Ask a handle opened since.

        Args:
            error: as it was raised. Another commit that took its number is not taken for it.
        """
        with self._engine.reading() as connection:
            there = wal.commit(connection, error.seq)
        return there is not None and there.chain == error.chain

    def signed_head(self, signer: Signer) -> SignedHead:
        """Sign the newest commit, and with it all before: keep the text elsewhere, and check against it later.

        Args:
            signer: a private key. Its name is the origin that the text states.

        Raises:
            InvalidOption: the package `cryptography` is not there (the extra `sign`).
            Damaged: a commit in the log is not what it must be; nothing was signed.
            StoreUnusable: as prove_commit().
        """
        refuse_inside(self._writer, "signed_head")
        with self._state() as (connection, head):
            # Computed from the commits alone: a digest that rotted must not get under a signature.
            log = history.History(connection, self._meta, stored=False)
            return headlog.sign_head(signer, head, log.root(head.seq))

    def prove_commit(self, seq: int, size: int | None = None) -> Proof:
        """Return a proof of what commit *seq* is: its root, count and time, for who has a signed head.

        A handle that may write keeps digests of the log in the file first, if that was not done yet; it makes no
        commit.

        Args:
            seq: number of the commit, from 1.
            size: number of the commit of the signed head; None for the newest.

        Raises:
            InvalidOption: there is no such commit.
            Damaged: a commit in the log is not what it must be.
            StoreUnusable: a transaction or batch of this thread is open, or the store was closed.
        """
        self._fill_log_blocks("prove_commit")
        with self._state() as (connection, head):
            return history.prove_commit(connection, self._meta, seq, head.seq if size is None else size)

    def prove_consistency(self, old: int, new: int | None = None) -> Proof:
        """Return a proof that history up to commit *new* begins with history up to commit *old*, unchanged.

        Args:
            old: number of the commit of an earlier signed head, from 0.
            new: number of the commit of a later one; None for the newest.

        Raises:
            InvalidOption, Damaged, StoreUnusable: as prove_commit().
        """
        self._fill_log_blocks("prove_consistency")
        with self._state() as (connection, head):
            return history.prove_consistency(connection, self._meta, old, head.seq if new is None else new)

    def _fill_log_blocks(self, what: str) -> None:
        refuse_inside(self._writer, what)
        if not self._engine.read_only:
            with suppress(Busy, StoreFull):  # nothing was written, and a proof can do without
                history.extend(self._group)

    @contextmanager
    def _state(self) -> Iterator[tuple[Connection, Head]]:
        with self._engine.reading() as connection:
            yield connection, wal.last(connection, self._meta)[1]
