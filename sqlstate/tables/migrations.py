"""Applies the numbered SQL files of `migrations/`, each once, and records the digest of what it applied.

The files are in the wheel as `sqlstate/_migrations`; in a source tree they are next to the package.
"""

from __future__ import annotations

import os
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlstate.errors import Damaged, FormatTooNew, MigrationMismatch, NotAStore
from sqlstate.files import paths
from sqlstate.format import constants as fmt
from sqlstate.sqlite.main_file import HEADER_BYTES, SQLITE_MAGIC
from sqlstate.tables import raw_rows

if TYPE_CHECKING:
    from sqlstate.sqlite.connection import Connection, Row

_CREATE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
  number INTEGER PRIMARY KEY,
  name   TEXT NOT NULL,
  sha256 BLOB NOT NULL,
  at     TEXT NOT NULL
)
"""


class Migration(NamedTuple):
    """One file of `migrations/`."""

    number: int
    name: str
    sql: str
    sha256: bytes


@lru_cache(maxsize=1)
def shipped() -> tuple[Migration, ...]:
    """Return the migrations that this version ships, by number.

    Raises:
        MigrationMismatch: the files are missing from the installation, or their numbers have a hole.
    """
    migrations = []
    for number, (name, raw) in enumerate(_files(), 1):
        if not name.startswith(f"{number:04d}_"):
            raise MigrationMismatch(f"the installation's migrations have a hole: expected {number:04d}, found {name}")
        migrations.append(Migration(number, name, raw.decode(), sha256(raw).digest()))
    return tuple(migrations)


def is_new(path: str, header: bytes, *, undone: bool) -> bool:
    """Return True if a file is still empty, by its first 100 bytes, before SQLite touches it.

    Args:
        path: the file, for messages.
        header: its first bytes, as many as there are.
        undone: the creation was cut short, and SQLite will undo it.

    Raises:
        NotAStore: it belongs to another program.
        FormatTooNew: a newer version of sqlstate made it.
        Damaged: its format version does not exist.
    """
    if not header or undone:
        return True
    if not header.startswith(SQLITE_MAGIC) or len(header) < HEADER_BYTES:
        raise NotAStore(f"{path} is not an SQLite file, or is encrypted; nothing was changed. Choose another path")
    check_numbers(path, int.from_bytes(header[68:72]), int.from_bytes(header[60:64]))
    return False


def read_older(connection: Connection) -> None:
    """Let a connection read a store of an older format by the tables and columns of the newest, as far as we read them.

    What came later is empty.
    """
    if connection.value("PRAGMA user_version") < _CUT_SINCE:
        query_only = connection.value("PRAGMA query_only")  # which forbids temporary views too
        connection.run(f"PRAGMA query_only=0; {_AS_NEWEST}; PRAGMA query_only={query_only}")


_CUT_SINCE: Final = 4  # format version
_AS_NEWEST: Final = """
CREATE TEMP VIEW IF NOT EXISTS wal AS SELECT *, NULL AS records, NULL AS total, NULL AS digests FROM main.wal;
CREATE TEMP VIEW IF NOT EXISTS cut_commits AS SELECT NULL AS block, NULL AS chains, NULL AS digest WHERE 0;
"""


def is_older(header: bytes) -> bool:
    """Return True if a store has an older format than this version's, by its first 100 bytes."""
    return len(header) == HEADER_BYTES and int.from_bytes(header[60:64]) < fmt.FORMAT_VERSION


def check_header(connection: Connection) -> bool:
    """Return True if the file is a store, as SQLite sees it; False if it is an empty database.

    Raises:
        NotAStore, FormatTooNew, Damaged: as is_new().
    """
    # In one transaction: otherwise another process could make the store in between.
    with connection.one_state():
        application_id = connection.value("PRAGMA application_id")
        version = connection.value("PRAGMA user_version")
        empty = not connection.value("SELECT count(*) FROM sqlite_schema")
    if empty and not application_id and not version:
        return False
    check_numbers(connection.path, application_id, version)
    return True


def check_numbers(path: str, application_id: int, version: int) -> None:
    """Raise unless two numbers of a file's header are those of a store that this version can use.

    Raises:
        NotAStore, FormatTooNew, Damaged: as is_new().
    """
    if application_id != fmt.APPLICATION_ID:
        raise NotAStore.about(
            path, "it is an SQLite file of another program", "nothing was changed. Choose another path for the store"
        )
    if version > fmt.FORMAT_VERSION:
        raise FormatTooNew.about(
            path,
            f"it has format {version}, and this version of sqlstate knows up to {fmt.FORMAT_VERSION}",
            "install a newer one. Nothing was changed",
        )
    if version < 1:
        raise Damaged.found(path, f"it says that it is a store of format {version}, which does not exist")


def pending(connection: Connection, migrations: tuple[Migration, ...]) -> tuple[Migration, ...]:
    """Return those of *migrations* that the file does not have yet.

    Raises:
        MigrationMismatch: the file has an unknown migration, or one that was changed since.
        Damaged: the recorded migrations are malformed, or contradict the format version.
    """
    there = applied(connection)
    version = connection.value("PRAGMA user_version")
    if len(there) < version:  # each format was made by a migration
        what = f"schema_migrations has {len(there)} migrations, and the file says that its format is {version}"
        raise Damaged.found(connection.path, what)
    for (_, name, digest, _), ours in zip(there, migrations, strict=False):
        if (name, digest) != (ours.name, ours.sha256):
            raise MigrationMismatch.about(
                connection.path,
                f"migration {name} in the file is not the {ours.name} of this installation",
                "reinstall the version of sqlstate that made the file. Nothing was changed",
            )
    if len(there) > len(migrations):
        raise MigrationMismatch.about(
            connection.path,
            f"it has migration {there[-1][1]}, which this version of sqlstate does not know",
            "install a newer one. Nothing was changed",
        )
    return migrations[len(there) :]


def applied(connection: Connection) -> list[Row]:
    """Return (number, name, sha256, at) of the migrations that the file has, in order.

    Raises:
        Damaged: a row is malformed, or one is missing between others.
    """
    rows = connection.rows("SELECT number, name, sha256, at FROM schema_migrations ORDER BY number")
    for expected, row in enumerate(rows, 1):
        raw_rows.MIGRATIONS.check(row, connection.path)
        if row[0] != expected:
            raise Damaged.found(connection.path, f"schema_migrations has no row of migration {expected}")
    return rows


def empty_file(path: str) -> NotAStore:
    """Return the error for an empty file where a store must already be."""
    return NotAStore(f"{path} is an empty file; open it for writing with create=True to make a store of it")


def apply(connection: Connection, migrations: tuple[Migration, ...], at: str) -> None:
    """Apply *migrations* and record them, inside the caller's transaction."""
    connection.run(_CREATE)
    for migration in migrations:
        connection.run(migration.sql)
        connection.run(
            "INSERT INTO schema_migrations (number, name, sha256, at) VALUES (?, ?, ?, ?)",
            (migration.number, migration.name, migration.sha256, at),
        )
    connection.run(f"PRAGMA application_id={fmt.APPLICATION_ID}; PRAGMA user_version={fmt.FORMAT_VERSION}")


def _files() -> list[tuple[str, bytes]]:
    """Return name and content of each migration, by name."""
    folder = _folder()
    found = []
    for name in sorted(os.listdir(folder)):
        if name.endswith(".sql"):
            with open(os.path.join(folder, name), "rb") as file:
                found.append((name, file.read()))
    return found


def _folder() -> str:
    """Return the folder of the migrations: of an installation, or of the source tree."""
    folder = paths.shipped("_migrations", "migrations")
    if folder is None:
        raise MigrationMismatch("the installation has no migrations; install sqlstate-store again")
    return folder
