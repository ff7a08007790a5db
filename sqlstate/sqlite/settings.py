"""The SQLite library in use, and its settings that make a commit durable."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

import apsw

from sqlstate.errors import Busy, InvalidOption, SQLiteTooOld, StoreIOError
from sqlstate.files import system
from sqlstate.sqlite.lock_holders import pause

if TYPE_CHECKING:
    from sqlstate.sqlite.connection import Connection, Journal

CACHE_BYTES: Final = 72 << 20
CACHE_BYTES_MIN: Final = 1 << 20
CACHE_BYTES_MAX: Final = 1 << 40  # of the writer's share, SQLite's 32 bits can just hold the KiB
WAL_BYTES_MAX: Final = 64 << 20
SYNCHRONOUS: Final[dict[Journal, int]] = {"wal": 2, "delete": 3}  # FULL and EXTRA


class Caches(NamedTuple):
    """How many bytes of pages the connections of one handle may cache."""

    writer: int
    reader: int
    """Each of the two readers that are used first."""
    others: int
    """All further readers together."""

    @classmethod
    def of(cls, total: int) -> Caches:
        """Return the shares of *total*."""
        return cls(total * 3 // 10, total * 3 // 10, total // 10)


def apply(connection: Connection, journal: Journal, *, read_only: bool, cache: int) -> None:
    """Apply the settings that every connection of a store has; *cache* is the bytes of pages that it may cache."""
    level = SYNCHRONOUS[journal]
    connection.cache = cache
    settings = [
        f"synchronous={level}",
        f"cache_size=-{cache >> 10}",
        "mmap_size=0",
        "cell_size_check=1",
        "wal_autocheckpoint=0",
        "secure_delete=FAST",  # what is deleted is overwritten where its page is written anyway
        f"journal_size_limit={WAL_BYTES_MAX}",  # otherwise a -wal keeps the size it has grown to
        f"query_only={int(read_only)}",
    ]
    if system.SYNCS_IN_FULL:
        settings += ["fullfsync=1", "checkpoint_fullfsync=1"]
    for setting in settings:
        connection.rows(f"PRAGMA {setting}")
    if connection.value("PRAGMA synchronous") != level:
        raise StoreIOError(
            f"{connection.path}: SQLite did not accept synchronous={level}; commits would not be durable"
        )


def apply_to_new_file(connection: Connection) -> None:
    """Apply the settings for a new file that no other process knows, and that is synced as a whole at the end."""
    for setting in ("journal_mode=MEMORY", "synchronous=OFF", "mmap_size=0", "cell_size_check=1"):
        connection.rows(f"PRAGMA {setting}")


def set_journal(connection: Connection, journal: Journal) -> None:
    """Set the journal mode of the file; wait while others have it open.

    Raises:
        Busy: another connection had the file open for the whole timeout.
    """
    since = time.monotonic()
    until = since + connection.busy.timeout
    while True:
        try:
            if connection.value(f"PRAGMA journal_mode={journal}") == journal:
                return
        except Busy:  # SQLite does not call the busy handler here
            if time.monotonic() >= until:
                raise
        if time.monotonic() >= until:
            raise Busy(f"{connection.path}: the journal mode could not be set while others use the file; try again")
        time.sleep(pause(since, until))


def synchronous(connection: Connection) -> str:
    """Return how SQLite syncs: FULL or EXTRA."""
    return ("OFF", "NORMAL", "FULL", "EXTRA")[connection.value("PRAGMA synchronous")]


# 3.7.0 to 3.51.2 can lose committed data when two connections write and checkpoint at the same time.
# The fix was ported to two older lines; 3.52.0 was withdrawn.
SQLITE_MIN: Final = (3, 51, 3)


def check_sqlite() -> str:
    """Return the version of the SQLite library in use.

    Raises:
        SQLiteTooOld: it has the WAL-reset bug.
    """
    version = apsw.sqlite_lib_version()
    number = tuple(int(part) for part in version.split("."))
    backported = number[:2] in ((3, 44), (3, 50)) and number >= {44: (3, 44, 6), 50: (3, 50, 7)}[number[1]]
    if (number < SQLITE_MIN and not backported) or number[:2] == (3, 52):
        raise SQLiteTooOld(
            f"SQLite {version} can lose committed data in WAL mode; install apsw 3.51.3.0 or newer, "
            "built with its own SQLite"
        )
    return version


def check_vfs(vfs: str | None) -> None:
    """Raise InvalidOption if SQLite knows no VFS of that name."""
    if vfs is not None and vfs not in apsw.vfs_names():
        raise InvalidOption(f"vfs={vfs!r} is not registered with SQLite; there are {', '.join(apsw.vfs_names())}")
