"""Keeps the marker right (I11): it is open in the main file before a commit that the main file lacks is acknowledged.

So a -wal that is missing is noticed: the main file says that there must be one. The marker is opened by the
first commit that finds it at rest, and a checkpoint carries it into the main file before that commit returns.
It is put to rest by close(), when a checkpoint has carried everything. Reading writes nothing.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sqlstate.commit.acknowledged import Notes, Position
from sqlstate.errors import Busy, CommitOutcomeUnknown, StoreError, StoreFull, StoreIOError
from sqlstate.format import constants as fmt
from sqlstate.tables import audit, schema, wal
from sqlstate.tables import meta as metadata
from sqlstate.tables.meta import Marker

if TYPE_CHECKING:
    from sqlstate.sqlite.engine import Engine
    from sqlstate.tables.meta import Meta


class Marking:
    """The marker around the commits of one handle. Stores without SQLite's WAL need none, and have none.

    Args:
        engine: the store's connections.
        meta: the store's facts.
    """

    __slots__ = (
        "_audited", "_carried", "_engine", "_meta", "_nonce", "_notes", "_opened_at", "_retry_at", "_retry_time",
        "_schema", "_seen", "_tries", "recovery_due",
    )  # fmt: skip

    recovery_due: bool
    """There was no room to note a recovery: the marker stays open, so that the next open does it."""

    def __init__(self, engine: Engine, meta: Meta) -> None:
        self._engine = engine
        self._meta = meta
        self._notes = Notes(engine.real_path, meta.store_id)
        self._audited = 0  # number of the newest audit entry
        self._schema: int | None = None  # the version of SQLite's that was found to be ours
        self.recovery_due = False
        self._forget()

    def _forget(self) -> None:
        """Begin as a handle that has seen no marker yet."""
        self._notes.close()
        self._seen = -1  # the data version in which the marker was open
        self._be_at(b"")

    def _be_at(self, nonce: bytes) -> None:
        """Note the marker that this handle saw last: nothing is known of it but its *nonce*."""
        self._nonce = nonce
        self._carried = False  # it is open, with that nonce, in the main file too
        self._opened_at = 0  # so many frames of SQLite's WAL hold it; 0 before this handle's first commit with it
        self._tries = 0  # checkpoints that did not carry it
        self._retry_at, self._retry_time = 0, 0.0  # frames and time at which the next one is made

    def begin(self) -> bool:
        """Begin a transaction on the writing connection, with the marker open in it.

        Returns whether this handle's last commit is the newest that anybody made.
        """
        engine, connection = self._engine, self._engine.write_connection
        if engine.journal != "wal" and not engine.opener.main_in_place():  # SQLite would refuse to begin
            what = engine.opener.moved()
            engine.fail(what)
            raise StoreIOError(
                f"{engine.path}: {what}. Nothing was changed; this handle refuses further work. Open the store where "
                "it is now"
            )
        connection.begin()
        if connection.data_version() == self._seen:
            return True
        try:
            self._check_schema()
            self.ensure_open()
        except BaseException:
            connection.rollback()
            raise
        return False

    def _check_schema(self) -> None:
        """Raise if somebody has put something on our tables, or taken something of ours, since this was last asked."""
        connection = self._engine.write_connection
        version = connection.value("PRAGMA schema_version")
        if version != self._schema:
            schema.check(connection)
            self._schema = version

    def ensure_open(self) -> None:
        """Open the marker, if it is at rest, inside the open transaction."""
        if self._engine.journal != "wal":
            return
        connection = self._engine.write_connection
        marker = metadata.read_marker(connection)
        if not marker.open:
            self.renew()
        elif marker.nonce != self._nonce:  # another opened it, and may have died before it was carried over
            if self._notes.join(marker.nonce):
                self._be_at(marker.nonce)
            else:
                self.renew()
        self._audited = audit.last(connection)[0]

    def renew(self) -> None:
        """Open the marker with a new nonce, inside the open transaction: whoever saw the old one sees a change."""
        if self._engine.journal == "wal":
            connection = self._engine.write_connection
            self._be_at(secrets.token_bytes(fmt.NONCE_BYTES))
            lsn, head = wal.last(connection, self._meta)
            self._notes.begin(self._nonce, Position(lsn, audit.last(connection)[0], head.chain))
            marker = Marker(open=True, nonce=self._nonce, lsn=lsn, inode=self._engine.opener.inode)
            metadata.write_marker(connection, marker)

    def committed(self, seq: int = 0, chain: bytes = b"", lsn: int = 0) -> None:
        """See to the marker after a commit; *seq* is that of a numbered one.

        *chain* is that of the newest numbered commit, and *lsn* the number of the newest record, where they are known.

        Raises:
            StoreIOError: the commit is durable, the checkpoint after it failed; the handle refuses further work.
            CommitOutcomeUnknown: the -wal was removed, and could not be carried into the main file.
        """
        engine = self._engine
        if not engine.opener.main_in_place():
            self._say_moved(seq, chain)
        if engine.journal != "wal":
            return
        self._seen = engine.write_connection.data_version()
        if not engine.opener.wal_in_place():
            self._rescue(seq, chain if seq else b"")
        if not self._noted(lsn, chain):
            self._notes.spoil()
            self._forget()  # the next commit opens the marker anew
        if not self._carried:
            self._carry(seq)

    def _noted(self, lsn: int, chain: bytes) -> bool:
        """Note a commit that is about to be acknowledged; without an LSN, it is not known where the log ends."""
        if not lsn and self._notes.kept:
            connection = self._engine.write_connection
            try:
                lsn, head = wal.last(connection, self._meta)
                chain, self._audited = head.chain, audit.last(connection)[0]
            except StoreError:
                return False
        return self._notes.write(lsn, self._audited, chain)

    def _carry(self, seq: int) -> None:
        """Carry the marker into the main file, if readers let it.

        A reader of an older commit keeps it from there. To try at each of many commits is in vain then, and costs more
        than they do: after the first few it is tried when SQLite's WAL has grown by a quarter, and once a second.
        """
        engine = self._engine
        pages = engine.checkpointer.wal_pages
        self._opened_at = min(self._opened_at or pages, pages)  # fewer: SQLite began its WAL anew
        if pages < self._retry_at and time.monotonic() < self._retry_time:
            return
        with suppress(Busy, StoreFull):
            self._carried = engine.checkpointer.run(seq)[1] >= self._opened_at
            self._tries += 1
            if self._tries >= _TRIES:
                self._retry_at, self._retry_time = pages + pages // 4, time.monotonic() + _SECONDS_BETWEEN

    def rest(self) -> bool:
        """Put the marker to rest, before the handle is closed, if the main file can be made complete.

        The caller holds the writer lock. Returns whether it is at rest: then SQLite may remove its -wal.

        Raises:
            StoreFull: there is no room to move SQLite's WAL into the main file; nothing is lost.
            StoreIOError: another error while that was done; nothing is lost either.
        """
        engine = self._engine
        if engine.life.failure or not engine.connected:
            return False
        engine.write_connection.rollback()  # of a block that was cut short
        if engine.journal != "wal":
            return True
        if engine.read_only or self.recovery_due:
            return False
        self._forget()
        try:
            return self._rest()
        except StoreFull as e:
            raise StoreFull(
                f"{engine.path}: the store is closed, and the disk is full: what is in its -wal could not be moved "
                "into the file. Nothing is lost: the -wal stays beside the file and belongs to it, and both can be "
                "read as they are. Free space on their file system; then open the store and close it"
            ) from e

    def _rest(self) -> bool:
        engine = self._engine
        with suppress(Busy):  # others write; the last of them does it
            if metadata.read_marker(engine.write_connection).open:
                any(self._rested() for _ in range(_ATTEMPTS))
            is_open = metadata.read_marker(engine.write_connection).open
            if not is_open:
                self._notes.remove()
            return not is_open
        return False

    def _rested(self) -> bool:
        """Try it once; False if somebody committed meanwhile."""
        engine, connection = self._engine, self._engine.write_connection
        lsn = wal.last(connection, self._meta)[0]
        frames, carried = engine.checkpointer.run()
        if carried < frames:
            return True  # a reader of another handle holds it up, and will be the last to close
        connection.begin()
        try:
            marker = metadata.read_marker(connection)
            if wal.last(connection, self._meta)[0] != lsn:
                connection.rollback()
                return False
            metadata.write_marker(connection, marker._replace(open=False, lsn=lsn))
            engine.commit_other("closing")
        except BaseException:
            if engine.usable:
                connection.rollback()
            raise
        engine.checkpointer.run()
        return True

    def _say_moved(self, seq: int, chain: bytes) -> None:
        """Carry all into the file, which has lost its name, so that it is whole where it is now; then refuse."""
        engine = self._engine
        what = engine.opener.moved()
        if engine.journal == "wal":
            with suppress(StoreError):
                self._rested()
        engine.fail(what)
        if seq:
            raise CommitOutcomeUnknown(seq, f"{what}; what was committed is in that file alone", chain)
        raise StoreIOError(
            f"{engine.path}: {what}. What was written is in that file alone; this handle refuses further work. Open "
            "the store where it is now"
        )

    def _rescue(self, seq: int, chain: bytes) -> None:
        """Carry what is in a -wal that was unlinked, and that only we still have, into the main file; then refuse."""
        engine = self._engine
        what = "its -wal was removed or replaced while the store was open"
        try:
            self._carried = True
            safe = self._rested()
        except StoreError as e:
            engine.fail(what)
            raise CommitOutcomeUnknown(seq, f"{what}, and saving its content failed: {e}", chain) from e
        engine.fail(what)
        if not safe or metadata.read_marker(engine.write_connection).open:
            raise CommitOutcomeUnknown(seq, what, chain)
        raise StoreIOError(
            f"{engine.path}: {what}. Everything up to and with {f'commit {seq}' if seq else 'this write'} is in the "
            "file itself; this handle refuses further work. Find out what removes such files, and open the store again",
            durable=seq or None,
        )


_ATTEMPTS: Final = 3
_TRIES: Final = 8
_SECONDS_BETWEEN: Final = 1.0
