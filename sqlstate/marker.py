"""Keeps the marker right (I11): it is open in the main file before a commit that the main file lacks is acknowledged.

So a -wal that is missing is noticed: the main file says that there must be one. The marker is opened by the
first commit that finds it at rest, and a checkpoint carries it into the main file before that commit returns.
It is put to rest by close(), when a checkpoint has carried everything. Reading writes nothing.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from sqlstate import format as fmt
from sqlstate import meta as metadata
from sqlstate import wal
from sqlstate.errors import Busy, CommitOutcomeUnknown, StoreError, StoreFull, StoreIOError
from sqlstate.meta import Marker

if TYPE_CHECKING:
    from sqlstate.engine import Engine
    from sqlstate.meta import Meta


class Marking:
    """The marker around the commits of one handle. Stores without SQLite's WAL need none, and have none.

    Args:
        engine: the store's connections.
        meta: the store's facts.
    """

    __slots__ = ("_carried", "_engine", "_meta", "_nonce", "_seen", "recovery_due")

    recovery_due: bool
    """There was no room to note a recovery: the marker stays open, so that the next open does it."""

    def __init__(self, engine: Engine, meta: Meta) -> None:
        self._engine = engine
        self._meta = meta
        self._seen = -1  # the data version in which the marker was open
        self._nonce = b""  # of the marker that this handle saw last
        self._carried = False  # it is open, with that nonce, in the main file too
        self.recovery_due = False

    def begin(self) -> bool:
        """Begin a transaction on the writing connection, with the marker open in it.

        Returns whether this handle's last commit is the newest that anybody made.
        """
        connection = self._engine.writer
        connection.begin()
        if connection.data_version() == self._seen:
            return True
        try:
            self.ensure_open()
        except BaseException:
            connection.rollback()
            raise
        return False

    def ensure_open(self) -> None:
        """Open the marker, if it is at rest, inside the open transaction."""
        if self._engine.journal != "wal":
            return
        marker = metadata.read_marker(self._engine.writer)
        if not marker.open:
            self.renew()
        elif marker.nonce != self._nonce:  # another opened it, and may have died before it was carried over
            self._nonce, self._carried = marker.nonce, False

    def renew(self) -> None:
        """Open the marker with a new nonce, inside the open transaction: whoever saw the old one sees a change."""
        if self._engine.journal == "wal":
            self._nonce, self._carried = secrets.token_bytes(fmt.NONCE_BYTES), False
            lsn = wal.last(self._engine.writer, self._meta)[0]
            metadata.write_marker(self._engine.writer, Marker(open=True, nonce=self._nonce, lsn=lsn))

    def committed(self, seq: int = 0, chain: bytes = b"") -> None:
        """See to the marker after a commit; *seq* and *chain* are those of a numbered one.

        Raises:
            StoreIOError: the commit is durable, the checkpoint after it failed; the handle refuses further work.
            CommitOutcomeUnknown: the -wal was removed, and could not be carried into the main file.
        """
        engine = self._engine
        if not engine.opener.main_in_place():
            self._say_moved(seq, chain)
        if engine.journal != "wal":
            return
        self._seen = engine.writer.data_version()
        if not engine.opener.wal_in_place():
            self._rescue(seq, chain)
        if not self._carried:
            # A reader of an older commit can keep it from the main file; the next commit tries again.
            pages = engine.wal_pages
            with suppress(Busy, StoreFull):
                self._carried = engine.checkpoint(seq)[1] >= pages

    def rest(self) -> bool:
        """Put the marker to rest, before the handle is closed, if the main file can be made complete.

        Returns whether it is at rest: then SQLite may remove its -wal.

        Raises:
            StoreFull: there is no room to move SQLite's WAL into the main file; nothing is lost.
            StoreIOError: another error while that was done; nothing is lost either.
        """
        engine = self._engine
        if engine.journal != "wal":
            return True
        if engine.read_only or self.recovery_due:
            return False
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
            if metadata.read_marker(engine.writer).open:
                any(self._rested() for _ in range(_ATTEMPTS))
            return not metadata.read_marker(engine.writer).open
        return False

    def _rested(self) -> bool:
        """Try it once; False if somebody committed meanwhile."""
        engine, connection = self._engine, self._engine.writer
        lsn = wal.last(connection, self._meta)[0]
        frames, carried = engine.checkpoint()
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
        engine.checkpoint()
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
        if not safe or metadata.read_marker(engine.writer).open:
            raise CommitOutcomeUnknown(seq, what, chain)
        raise StoreIOError(
            f"{engine.path}: {what}. Everything up to and with {f'commit {seq}' if seq else 'this write'} is in the "
            "file itself; this handle refuses further work. Find out what removes such files, and open the store again",
            durable=seq or None,
        )


_ATTEMPTS = 3
