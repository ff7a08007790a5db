"""A full check of a closed store."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

import apsw

import sqlstate
from bench.measure import Side, compare
from bench.report import timed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.report import Row
    from bench.run import Run

_TABLES: Final = ("state ORDER BY collection, key", "merkle ORDER BY id", "wal ORDER BY lsn", "audit ORDER BY number")
_CHECKS: Final = 3


def verify(run: Run) -> Iterator[Row]:
    """Check a store whole, against a loop that reads the same rows and hashes each once; each opens the file anew."""
    pair = run.pair(run.scale.large)
    pair.close()
    arguments = [(pair.ours.path,)] * (_CHECKS + 1)
    timing = compare(Side(_check, arguments), Side(_read_and_hash, arguments), block=_CHECKS, warmup=1)
    what = f"full check of {pair.entries:,} entries, and of the log that they came in"
    yield timed("verify/full", what, timing, against="read and hash", goal=run.goal(2.5))


def _check(path: Path) -> None:
    with sqlstate.open(path, read_only=True) as store:
        if not store.check().ok:
            raise ValueError(f"{path} is not sound")


def _read_and_hash(path: Path) -> None:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    for table in _TABLES:
        for row in connection.execute(f"SELECT * FROM {table}"):
            sha256(b"".join([_raw(column) for column in row])).digest()
    connection.close()


def _raw(column: object) -> bytes:
    if type(column) is bytes:
        return column
    return column.encode() if type(column) is str else str(column).encode()
