"""Measures the findings that docs/explanation/performance.md tells of: `python -m bench.findings`."""

from __future__ import annotations

import os
import random
import tempfile
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apsw

from bench import machine
from bench.entries import key
from bench.measure import Side, Timing, compare
from sqlstate.files import system

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO

_NODES: Final = 6_000  # as many as level 1 of a tree over 100,000 entries has
_SEEKS: Final = 40_000
_INSERTS: Final = 40_000
_SYNCS: Final = 3_000
_FRAMES_BYTES: Final = 6 * 4_120  # what a put writes to SQLite's WAL

_NODE_TABLE: Final = """
CREATE TABLE merkle (id INTEGER PRIMARY KEY, level INTEGER NOT NULL, collection TEXT NOT NULL, key NOT NULL,
  children BLOB NOT NULL);
CREATE UNIQUE INDEX merkle_name ON merkle (level, collection, key)
"""
_SEEK: Final = (
    "SELECT id FROM merkle WHERE level = ? AND (collection, key) <= (?, ?) ORDER BY collection DESC, key DESC LIMIT 1"
)
_LOG_TABLE: Final = "CREATE TABLE wal (lsn INTEGER PRIMARY KEY, txn INTEGER NOT NULL, kind TEXT NOT NULL{}, value)"
_CHECK: Final = " CHECK (kind IN ('BEGIN', 'PUT', 'DELETE', 'COMMIT', 'ROLLBACK'))"
_INSERT: Final = "INSERT INTO wal VALUES (?1, ?1, 'BEGIN', NULL), (?1 + 1, ?1, 'PUT', ?2), (?1 + 2, ?1, 'COMMIT', NULL)"


def range_seek() -> Timing:
    """Time a seek of a node: without ENABLE_QPSG, and with it."""
    rng = random.Random(1)
    names = [(1, "bench", key(rng.randrange(100_000))) for _ in range(_SEEKS)]
    sides = []
    for stable in (0, 1):
        connection = _nodes(stable)
        sides.append(Side(lambda *name, on=connection: on.execute(_SEEK, name).fetchone(), names))
    return compare(*sides, warmup=_SEEKS // 4)


def plans(stable: int) -> int:
    """Return how often SQLite plans the seek when it is run a hundred times with the same values."""
    connection = _nodes(stable)
    planned = 0

    def count(action: int, *_: object) -> int:  # called once for each SELECT that is planned
        nonlocal planned
        planned += action == apsw.SQLITE_SELECT
        return apsw.SQLITE_OK

    connection.authorizer = count
    for _ in range(100):
        connection.execute(_SEEK, (1, "bench", key(0))).fetchone()
    return planned


def _nodes(stable: int) -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, stable)
    connection.execute(_NODE_TABLE)
    nodes = ((number, 1, "bench", key(number * 100_000 // _NODES), bytes(640)) for number in range(_NODES))
    connection.executemany("INSERT INTO merkle VALUES (?, ?, ?, ?, ?)", nodes)
    return connection


def check_constraint() -> Timing:
    """Time the insert of three rows into a log: with a CHECK on the kind, and without."""
    rows = [(1 + 3 * number, bytes(100)) for number in range(_INSERTS)]
    sides = []
    for check in (_CHECK, ""):
        connection = apsw.Connection(":memory:")
        connection.execute(_LOG_TABLE.format(check))
        connection.execute("BEGIN")
        sides.append(Side(lambda *row, on=connection: on.execute(_INSERT, row), rows))
    return compare(*sides, warmup=_INSERTS // 4)


def sync_after_stat(folder: Path) -> Timing:
    """Time writing and syncing a put's pages: with os.stat() of the file before, and with system.Inode.now()."""
    places = range(0, 64 * _FRAMES_BYTES, _FRAMES_BYTES)
    arguments = [(place,) for place in islice(cycle(places), _SYNCS)]
    paths = folder / "stat", folder / "inode"
    for path in paths:
        path.write_bytes(bytes(64 * _FRAMES_BYTES))
    with paths[0].open("r+b", buffering=0) as first, paths[1].open("r+b", buffering=0) as second:
        return compare(
            Side(_look_write_sync(partial(os.stat, paths[0]), first), arguments),
            Side(_look_write_sync(system.Inode(str(paths[1])).now, second), arguments),
            warmup=_SYNCS // 4,
        )


def _look_write_sync(look: Callable[[], object], file: FileIO) -> Callable[[int], None]:
    def call(place: int) -> None:
        look()
        os.pwrite(file.fileno(), bytes(_FRAMES_BYTES), place)
        os.fdatasync(file.fileno())

    return call


def main() -> None:
    """Print all."""
    with tempfile.TemporaryDirectory(dir=machine.scratch()) as folder:
        synced = sync_after_stat(Path(folder))
    for what, timing in (
        ("range seek, without and with SQLITE_DBCONFIG_ENABLE_QPSG", range_seek()),
        ("insert of three log rows, with and without a CHECK of five texts", check_constraint()),
        ("write and sync of a put's pages, after os.stat() of the file and after its inode alone", synced),
    ):
        before, after = (median / 1000 for median in timing.medians)
        print(f"{what}: {before:.1f} µs and {after:.1f} µs, ratio {timing.ratio().median:.2f}")
    print(f"plans of the seek in 100 runs, without and with: {plans(0)} and {plans(1)}")


if __name__ == "__main__":
    main()
