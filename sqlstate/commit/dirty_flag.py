"""Keeps the dirty flag right (I11).

The flag is set in the main file before a commit that the main file lacks is acknowledged. So opening notices a missing
-wal: the main file says that there must be one. The first commit that finds the flag clean sets it, and a checkpoint
carries the flag into the main file before that commit returns. close() clears the flag once a checkpoint has carried
everything. Reading writes nothing.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sqlstate.commit.acknowledged import Notes, Position
from sqlstate.errors import Busy, CommitOutcomeUnknown, StoreError, StoreFull, StoreIOError
from sqlstate.format import constants as fmt
from sqlstate.tables import audit, schema, wal
from sqlstate.tables import meta as metadata
from sqlstate.tables.meta import DirtyFlag

if TYPE_CHECKING:
    from sqlstate.sqlite.engine import Engine
    from sqlstate.tables.meta import Meta


class FlagKeeper:
    """Sets, renews and clears the dirty flag around the commits of one handle. Only stores in WAL mode have one.

    Args:
        engine: the store's connections.
        meta: the store's facts.
    """

    __slots__ = (
        "_audited",
        "_carried",
        "_engine",
        "_meta",
        "_nonce",
        "_notes",
        "_retry_at",
        "_retry_time",
        "_schema",
        "_seen",
        "_set_at",
        "_tries",
        "recovery_due",
    )  # fmt: skip

    recovery_due: bool
    """Whether a recovery could not be recorded for lack of room: the flag stays set, so that the next open does it."""

    def __init__(self, engine: Engine, meta: Meta) -> None:
        self._engine = engine
        self._meta = meta
        self._notes = Notes(engine.real_path, meta.store_id)
        self._audited = 0  # number of the newest audit entry
        self._schema: int | None = None  # the version of SQLite's that was found to be ours
        self.recovery_due = False
        self._forget()

    def _forget(self) -> None:
        """Return to the state of a handle that has seen no flag yet."""
        self._notes.close()
        self._seen = -1  # the data version in which the flag was set
        self._follow(b"")

    def _follow(self, nonce: bytes) -> None:
        """Make the flag with *nonce* the one that this handle keeps; nothing else is known of that flag yet."""
        self._nonce = nonce
        self._carried = False  # the flag is set, with that nonce, in the main file too
        self._set_at = 0  # frames of SQLite's WAL up to the flag; 0 before this handle's first commit with the flag
        self._tries = 0  # checkpoints that did not carry the flag
        self._retry_at, self._retry_time = 0, 0.0  # frames and time at which the next checkpoint is tried

    def begin(self) -> bool:
        """Begin a transaction on the writing connection, and set the dirty flag in it.

        Returns True if this handle made the newest commit.
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
            self.ensure_dirty()
        except BaseException:
            connection.rollback()
            raise
        return False

    def _check_schema(self) -> None:
        """Raise if another program has changed the schema since the last call."""
        connection = self._engine.write_connection
        version = connection.value("PRAGMA schema_version")
        if version != self._schema:
            schema.check(connection)
            self._schema = version

    def ensure_dirty(self) -> None:
        """Set the flag, if it is clean, inside the open transaction."""
        if self._engine.journal != "wal":
            return
        connection = self._engine.write_connection
        flag = metadata.read_dirty_flag(connection)
        if not flag.dirty:
            self.renew()
        elif flag.nonce != self._nonce:  # another handle set it, and may have died before a checkpoint carried it
            if self._notes.join(flag.nonce):
                self._follow(flag.nonce)
            else:
                self.renew()
        self._audited = audit.last(connection)[0]

    def renew(self) -> None:
        """Set the flag with a new nonce, inside the open transaction: handles that saw the old nonce see a change."""
        if self._engine.journal == "wal":
            connection = self._engine.write_connection
            self._follow(os.urandom(fmt.NONCE_BYTES))
            lsn, head = wal.last(connection, self._meta)
            self._notes.begin(self._nonce, Position(lsn, audit.last(connection)[0], head.chain))
            flag = DirtyFlag(dirty=True, nonce=self._nonce, lsn=lsn, inode=self._engine.opener.inode)
            metadata.write_dirty_flag(connection, flag)

    def after_commit(self, seq: int = 0, chain: bytes = b"", lsn: int = 0) -> None:
        """Note a commit among the acknowledged ones, and carry the flag into the main file if it is not there yet.

        Args:
            seq: number of the commit, 0 if it has none.
            chain: of the newest numbered commit, if the caller knows it.
            lsn: of the newest record, if the caller knows it.

        Raises:
            StoreIOError: the commit is durable, the checkpoint after it failed; the handle refuses further work.
            CommitOutcomeUnknown: the -wal was removed, and its commits could not be moved into the main file.
        """
        engine = self._engine
        if not engine.opener.main_in_place():
            self._refuse_moved(seq, chain)
        if engine.journal != "wal":
            return
        self._seen = engine.write_connection.data_version()
        if not engine.opener.wal_in_place():
            self._rescue_unlinked_wal(seq, chain if seq else b"")
        if not self._noted(lsn, chain):
            self._notes.invalidate()
            self._forget()  # the next commit sets the flag with a new nonce
        if not self._carried:
            self._carry(seq)

    def _noted(self, lsn: int, chain: bytes) -> bool:
        """Note a commit that is about to be acknowledged; return False if that failed. LSN 0: look it up."""
        if not lsn and self._notes.kept:
            connection = self._engine.write_connection
            try:
                lsn, head = wal.last(connection, self._meta)
                chain, self._audited = head.chain, audit.last(connection)[0]
            except StoreError:
                return False
        return self._notes.write(lsn, self._audited, chain)

    def _carry(self, seq: int) -> None:
        """Checkpoint, so that the flag is in the main file, unless a reader of an older commit prevents it.

        While that reader stays, a checkpoint after each commit achieves nothing and costs more than the commit. So
        after the first few, the next one is tried when SQLite's WAL has grown by a quarter or a second has passed.
        """
        engine = self._engine
        pages = engine.checkpointer.wal_pages
        self._set_at = min(self._set_at or pages, pages)  # fewer pages: SQLite restarted its WAL
        if pages < self._retry_at and time.monotonic() < self._retry_time:
            return
        with suppress(Busy, StoreFull):
            self._carried = engine.checkpointer.run(seq)[1] >= self._set_at
            self._tries += 1
            if self._tries >= _TRIES:
                self._retry_at, self._retry_time = pages + pages // 4, time.monotonic() + _SECONDS_BETWEEN

    def clear(self) -> bool:
        """Clear the flag, before the handle is closed, if the main file can be made complete.

        The caller holds the writer lock. Returns True if the flag is clean: then SQLite may remove its -wal.

        Raises:
            StoreFull: there is no room to move SQLite's WAL into the main file; nothing is lost.
            StoreIOError: the operating system refused something else; nothing is lost.
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
            return self._clear()
        except StoreFull as e:
            raise StoreFull(
                f"{engine.path}: the store is closed, and the disk is full: what is in its -wal could not be moved "
                "into the file. Nothing is lost: the -wal stays next to the file and belongs to it, and both can be "
                "read as they are. Free space on their file system; then open the store and close it"
            ) from e

    def _clear(self) -> bool:
        connection = self._engine.write_connection
        with suppress(Busy):  # others write; the last of them to close clears the flag
            if metadata.read_dirty_flag(connection).dirty:
                any(self._tried_to_clear() for _ in range(_ATTEMPTS))
            if not metadata.read_dirty_flag(connection).dirty:
                self._notes.remove()
                return True
        return False

    def _tried_to_clear(self) -> bool:
        """Try once to clear the flag; return False if another handle committed meanwhile."""
        engine, connection = self._engine, self._engine.write_connection
        lsn = wal.last(connection, self._meta)[0]
        frames, carried = engine.checkpointer.run()
        if carried < frames:
            return True  # a reader of another handle holds the checkpoint up, and will be the last to close
        connection.begin()
        try:
            flag = metadata.read_dirty_flag(connection)
            if wal.last(connection, self._meta)[0] != lsn:
                connection.rollback()
                return False
            metadata.write_dirty_flag(connection, flag._replace(dirty=False, lsn=lsn))
            engine.commit_unnumbered("closing")
        except BaseException:
            if engine.usable:
                connection.rollback()
            raise
        engine.checkpointer.run()
        return True

    def _refuse_moved(self, seq: int, chain: bytes) -> None:
        """Carry all commits into the file, which has lost its name, so that it is whole; then refuse further work."""
        engine = self._engine
        what = engine.opener.moved()
        if engine.journal == "wal":
            with suppress(StoreError):
                self._tried_to_clear()
        engine.fail(what)
        if seq:
            raise CommitOutcomeUnknown(seq, f"{what}; what was committed is in that file alone", chain)
        raise StoreIOError(
            f"{engine.path}: {what}. What was written is in that file alone; this handle refuses further work. Open "
            "the store where it is now"
        )

    def _rescue_unlinked_wal(self, seq: int, chain: bytes) -> None:
        """Carry the commits in an unlinked -wal, which only this process still has open, into the file; then refuse."""
        engine = self._engine
        what = "its -wal was removed or replaced while the store was open"
        try:
            self._carried = True
            safe = self._tried_to_clear()
        except StoreError as e:
            engine.fail(what)
            raise CommitOutcomeUnknown(seq, f"{what}, and saving its content failed: {e}", chain) from e
        engine.fail(what)
        if not safe or metadata.read_dirty_flag(engine.write_connection).dirty:
            raise CommitOutcomeUnknown(seq, what, chain)
        raise StoreIOError(
            f"{engine.path}: {what}. Everything up to and with {f'commit {seq}' if seq else 'this write'} is in the "
            "file itself; this handle refuses further work. Find out what removes such files, and open the store again",
            durable=seq or None,
        )


_ATTEMPTS: Final = 3
_TRIES: Final = 8
_SECONDS_BETWEEN: Final = 1.0
