"""The commits of an open store: the newest, those before it, those to come, and proofs of what they are."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, overload

from sqlstate.errors import Busy, StoreFull
from sqlstate.format.names import check_number
from sqlstate.proving.entries import Provable
from sqlstate.store import watch as watching
from sqlstate.store.access import refuse_inside
from sqlstate.store.past.changes import Wanted, check_watch, with_changes
from sqlstate.tables import wal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.commit.group import GroupCommit
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.errors import CommitOutcomeUnknown
    from sqlstate.format.keys import Bound
    from sqlstate.format.records import Head
    from sqlstate.headlog import SignedHead, Signer
    from sqlstate.proof import Proof
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine
    from sqlstate.store.past.change import Change
    from sqlstate.tables.meta import Meta


# Signed heads and their proofs are imported when one is asked for: an open store needs neither.


class Commits(Provable):
    """What a Store knows of its commits."""

    _engine: Engine
    _group: GroupCommit[Any]
    _meta: Meta
    _writer: WriteContext

    @property
    def durable(self) -> int:
        """The number of the newest durable commit; nobody sees a commit before it is durable. Cost: 1 statement."""
        return self.head().seq

    def head(self) -> Head:
        """Return the newest commit. A store without commits has seq 0, and the time when it was made.

        Cost: 1 statement.

        Raises:
            StoreClosed: the store was closed.

        Examples:
            >>> store["settings"]["lang"] = "fr"
            >>> head = store.head()
            >>> head.seq, head.count, len(head.root)
            (1, 1, 32)
        """
        with self._engine.reading() as connection:
            return wal.last(connection, self._meta)[1]

    @property
    def oldest(self) -> int:
        """The number of the oldest commit in the log, or of the next one if there is none. Cost: 1 statement."""
        with self._engine.reading() as connection:
            return wal.start(connection, self._meta)[1].seq + 1

    def commits(self, first: int | None = None) -> Iterator[Head]:
        """Yield the commits from number *first* on, in order, as they are at the first step.

        Cost: 2 statements for each 256 commits.

        Args:
            first: a number from 0 to 2^63-1; None for the oldest in the log.

        Raises:
            InvalidOption: *first* is not such a number.
            LogCut: while iterating: the next commit was cut from the log.
            TransactionEnded: the store was closed meanwhile.

        Examples:
            >>> for lang in "fr", "de":
            ...     store["settings"]["lang"] = lang
            >>> [head.seq for head in store.commits()]
            [1, 2]
        """
        return self._engine.readers.scan(wal.commits, -1 if first is None else check_number("first", first))

    @overload
    def watch(self, after: int | None = None, timeout: float | None = None) -> Iterator[Head]: ...
    @overload
    def watch(
        self,
        after: int | None = None,
        timeout: float | None = None,
        *,
        changes: Literal[True],
        collection: str | None = None,
        prefix: Bound | None = None,
        key: Any = None,
    ) -> Iterator[tuple[Head, list[Change]]]: ...
    def watch(
        self,
        after: int | None = None,
        timeout: float | None = None,
        *,
        changes: bool = False,
        collection: str | None = None,
        prefix: Bound | None = None,
        key: Any = None,
    ) -> Iterator[Head] | Iterator[tuple[Head, list[Change]]]:
        """Yield the commits after number *after*, each once and in order, as this and other processes make them.

        It ends when the store is closed. Commits of this handle arrive at once, those of others within 20 ms. It holds
        no state between its steps, and keeps nobody waiting, however long the caller takes.

        Cost: 1 statement, 50 times a second while it waits, for all watchers of a handle together.

        Args:
            after: number of a commit; None for the newest at the call.
            timeout: seconds without a commit after which it ends; 0 ends it once it has caught up, None never does.
            changes: yield pairs of a commit and the list of its changes, as changes() gives them, which are all in
                memory then.
            collection: with *changes*: name of the only collection wanted. Commits without such changes are left out.
            prefix: with *changes*: only the keys that begin with it, likewise.
            key: with *changes*: type of the keys, as for collection().

        Raises:
            InvalidOption: *after* is not a number from 0 to 2^63-1, *timeout* not a number of seconds; or *collection*
                or *prefix* is given without *changes*; or *key* is no type of keys.
            InvalidName, InvalidKey: no entry can be in the collection, or have a key with the prefix.

        Examples:
            >>> for lang in "fr", "de":
            ...     store["settings"]["lang"] = lang
            >>> [head.seq for head in store.watch(after=1, timeout=0)]
            [2]
            >>> for head, changes in store.watch(after=1, timeout=0, changes=True):
            ...     print(head.seq, [(change.key, change.before, change.value) for change in changes])
            2 [('lang', 'fr', 'de')]
        """
        wanted = check_watch(after, timeout, Wanted(collection, prefix, key=key), changes=changes)
        newest = self.head().seq
        heads = watching.follow(self._engine, self._meta, newest if after is None else after, timeout)
        return heads if wanted is None else with_changes(self._engine, heads, wanted)

    def committed(self, error: CommitOutcomeUnknown) -> bool:
        """Return True if the commit whose outcome *error* left unknown is in the store. Ask a handle opened since.

        Cost: 2 statements.

        Args:
            error: as it was raised. Another commit that took its number is not taken for it.

        Raises:
            StoreClosed: the store was closed.

        Examples:
            >>> def put_user(store):
            ...     try:
            ...         store["users"][1] = "ada"
            ...     except sqlstate.CommitOutcomeUnknown as error:
            ...         store.close()
            ...         with sqlstate.open(store.path) as again:
            ...             return again.committed(error)
            ...     return True
            >>> put_user(store)
            True
        """
        with self._engine.reading() as connection:
            there = wal.commit(connection, error.seq)
        return there is not None and there.chain == error.chain

    def signed_head(self, signer: Signer) -> SignedHead:
        """Sign the newest commit, and with it all commits before. Keep the text elsewhere, and check against it later.

        Cost: reads the log as a whole.

        Args:
            signer: a private key and the origin that it signs for.

        Raises:
            InvalidOption: the package `cryptography` is missing (the extra `sign`).
            Damaged: a commit in the log is not as it was written. Nothing was signed.
            StoreUnusable: this thread has a transaction or batch open, or the store was closed.

        Examples:
            >>> signer = sqlstate.Signer.generate("example.com/app")
            >>> store["settings"]["lang"] = "fr"
            >>> store.signed_head(signer).seq
            1
        """
        refuse_inside(self._writer, "signed_head")
        with self._state() as (connection, head):
            # Computed from the commits alone: a digest that rotted must not get under a signature.
            from sqlstate import headlog  # noqa: PLC0415, see above
            from sqlstate.proving import commits as history  # noqa: PLC0415, see above

            log = history.History(connection, self._meta, stored=False)
            return headlog.sign_head(signer, head, log.root(head.seq))

    def prove_commit(self, seq: int, size: int | None = None) -> Proof:
        """Return a proof of the root, count and time of commit *seq*, for a verifier holding a signed head.

        `sqlstate.headlog.verify_commit()` checks it. A handle that may write keeps digests of the log in the file; it
        makes no commit.

        Cost: some statements, and the records of that commit are read and hashed; if they are 1,024 or more, only if
        this handle has neither made nor proven it lately. The first call reads the log as a whole, and makes 1 sync.

        Args:
            seq: number of the commit, from 1.
            size: number of the commit of the signed head; None for the newest.

        Raises:
            InvalidOption: there is no such commit.
            Damaged: a commit in the log is not as it was written.
            StoreUnusable: this thread has a transaction or batch open, or the store was closed.

        Examples:
            >>> signer = sqlstate.Signer.generate("example.com/app")
            >>> store["settings"]["lang"] = "fr"
            >>> head = sqlstate.headlog.verify_head(store.signed_head(signer).text, signer.public)
            >>> sqlstate.headlog.verify_commit(store.prove_commit(1), head, 1).count
            1
        """
        self._fill_log_blocks("prove_commit")
        with self._state() as (connection, head):
            from sqlstate.proving import commits as history  # noqa: PLC0415, see above

            size = head.seq if size is None else size
            return history.prove_commit(connection, self._meta, seq, size)

    def prove_consistency(self, old: int, new: int | None = None) -> Proof:
        """Return a proof that history up to commit *new* begins with the unchanged history up to commit *old*.

        `sqlstate.headlog.verify_consistency()` checks it.

        Cost: as prove_commit().

        Args:
            old: number of the commit of an earlier signed head, from 0.
            new: number of the commit of a later one; None for the newest.

        Raises:
            InvalidOption, Damaged, StoreUnusable: as prove_commit().

        Examples:
            >>> signer = sqlstate.Signer.generate("example.com/app")
            >>> heads = []
            >>> for lang in "fr", "de":
            ...     store["settings"]["lang"] = lang
            ...     heads.append(sqlstate.headlog.verify_head(store.signed_head(signer).text, signer.public))
            >>> sqlstate.headlog.verify_consistency(store.prove_consistency(1, 2), *heads)
        """
        self._fill_log_blocks("prove_consistency")
        with self._state() as (connection, head):
            from sqlstate.proving import commits as history  # noqa: PLC0415, see above

            return history.prove_consistency(connection, self._meta, old, head.seq if new is None else new)

    def _fill_log_blocks(self, what: str) -> None:
        from sqlstate.proving import commits as history  # noqa: PLC0415, see above

        refuse_inside(self._writer, what)
        if not self._engine.read_only:
            with suppress(Busy, StoreFull):  # nothing was written, and a proof can do without
                history.extend(self._group)

    @contextmanager
    def _state(self) -> Iterator[tuple[Connection, Head]]:
        with self._engine.reading() as connection:
            yield connection, wal.last(connection, self._meta)[1]
