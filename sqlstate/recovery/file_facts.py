"""Reads a store's facts from its file, alone or with the pages of SQLite's journal, before SQLite touches it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlstate.sqlite.overlay import overlaid
from sqlstate.tables import audit, migrations, wal, wal_chain
from sqlstate.tables import meta as metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine
    from sqlstate.sqlite.overlay import Pages
    from sqlstate.tables.meta import DirtyFlag, Meta

# A commit with more records is not relinked when the main file is read alone.
RECORDS_RELINKED: Final = 5_000
# As many as a page can hold: in the middle of a checkpoint, a page can be half old and half new.
_RECORDS_LOOKED_AT: Final = 256
_AUDITED_SINCE: Final = 2  # format version


class Facts(NamedTuple):
    """The facts that a file holds about its store."""

    store_id: bytes
    flag: DirtyFlag
    lsn: int
    head: Head
    audited: int
    audit_digest: bytes


@contextmanager
def connected(engine: Engine, pages: Pages) -> Iterator[Connection]:
    """Give a connection that reads the file with *pages*, in one transaction, so that SQLite keeps its cache."""
    with overlaid(engine.real_path, pages, engine.vfs) as connection, connection.one_state():
        migrations.read_older(connection)
        yield connection


def read(connection: Connection) -> Facts:
    """Return the facts that a connection sees."""
    meta = read_meta(connection)
    audited = audit.last(connection) if _version(connection) >= _AUDITED_SINCE else (0, b"")
    return Facts(meta.store_id, metadata.read_dirty_flag(connection), *wal.last(connection, meta), *audited)


def read_meta(connection: Connection) -> Meta:
    """Return the facts in the table meta, also of an older format."""
    return metadata.read(connection, _version(connection))


def _version(connection: Connection) -> int:
    version: int = connection.value("PRAGMA user_version")
    return version


def is_coherent(connection: Connection, facts: Facts) -> bool:
    """Return True if the newest commit follows from the one before. In the middle of a checkpoint it may not."""
    meta = read_meta(connection)
    if not wal.ends_well(connection, _RECORDS_LOOKED_AT):
        return False
    if facts.audited and not audit.ends_well(connection, facts.store_id):
        return False
    if not facts.head.seq:
        return True
    end = wal.commit_lsn(connection, facts.head.seq)
    base = wal.base_of(connection, end)
    if end - base > RECORDS_RELINKED:
        return True
    for said, follows, _ in wal_chain.relink(connection, base, wal.head_at(connection, meta, base)):
        if said.seq == facts.head.seq:
            return said == follows
    return False
