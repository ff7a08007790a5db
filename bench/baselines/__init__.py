"""The stores that are measured, each with what it promises. Keys are str, values bytes.

A baseline does what a user of that store would write. Unless its kind says otherwise, what has returned survives a
power cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Final, Literal

from bench.baselines.custom import CustomWal
from bench.baselines.files import Append, DirectWrite
from bench.baselines.ours import COLLECTION, Sqlstate
from bench.baselines.peers import DiskCache, Lmdb, RocksDict, SqliteDict, Zodb
from bench.baselines.protocol import Baseline, Entry, Ordered
from bench.baselines.sqlite import RawSQLite, RawWithLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["BASELINES", "COLLECTION", "Baseline", "Entry", "Kind", "Ordered", "RawSQLite", "Sqlstate"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of store, and how it is measured."""

    make: Callable[[Path], Baseline]
    title: str
    does: str
    """What a put has done when it returns."""
    durable: bool = True
    """Whether that survives a power cut."""
    package: str = ""
    """The package that it needs, beside sqlstate's own."""
    module: str = ""
    """The module of that package, if it has another name."""
    threads: Literal["own", "lock"] = "own"
    """Whether threads can share it as it is, or under a lock of ours around each put."""

    @property
    def missing(self) -> bool:
        """Whether its package cannot be imported."""
        try:
            import_module(self.module or self.package or "sqlstate")
        except ImportError:
            return True
        return False

    @property
    def version(self) -> str:
        """Its package with the version that is installed, or that it is missing."""
        return f"{self.package} missing" if self.missing else f"{self.package} {metadata.version(self.package)}"


BASELINES: Final = {
    "sqlstate": Kind(Sqlstate, "sqlstate", "its transaction is in SQLite's WAL, synced"),
    "sqlstate-group": Kind(
        partial(Sqlstate, mode="group"), 'sqlstate, mode="group"', "the same; threads share a commit"
    ),
    "raw": Kind(RawSQLite, "raw SQLite, one table", "its transaction is in SQLite's WAL, synced", threads="lock"),
    "raw-log": Kind(RawWithLog, "raw SQLite, table and log", "the same, with a row in a log table", threads="lock"),
    "append": Kind(Append, "append + fdatasync", "one write into a file made before, synced; no store", threads="lock"),
    "custom-wal": Kind(
        CustomWal, "custom WAL", "the log is synced, then one of 4,096 state files replaced, synced", threads="lock"
    ),
    "custom-wal-whole": Kind(
        partial(CustomWal, files=1), "custom WAL, one state file", "the same; the file holds all entries",
        threads="lock",
    ),
    "custom-wal-lazy": Kind(
        partial(CustomWal, files=1, every=1000), "custom WAL, state every 1,000",
        "the log is synced; the state file is replaced at each 1,000th write", threads="lock",
    ),
    "sqlitedict": Kind(
        partial(SqliteDict, durable=True), "sqlitedict, FULL", "`commit()` with `synchronous=FULL`, in SQLite's WAL",
        package="sqlitedict",
    ),
    "diskcache": Kind(
        partial(DiskCache, durable=True), "diskcache, FULL", "its transaction with `synchronous=FULL`; no eviction",
        package="diskcache",
    ),
    "zodb": Kind(Zodb, "ZODB, as it comes", "`commit()` into a FileStorage, synced", package="ZODB"),
    "lmdb": Kind(
        Lmdb, "LMDB, as it comes", "its pages are synced, then its meta page written through a synced descriptor",
        package="lmdb",
    ),
    "rocksdict": Kind(
        partial(RocksDict, durable=True), "rocksdict, sync", "RocksDB's log is synced; threads share a sync",
        package="rocksdict",
    ),
    "direct": Kind(
        DirectWrite, "direct write", "one JSON file rewritten in place, no sync: a kill in the middle loses all, "
        "a power cut what it likes", durable=False, threads="lock",
    ),
    "sqlitedict-default": Kind(
        partial(SqliteDict, durable=False), "sqlitedict, as it comes",
        "`commit()` with `synchronous=OFF`: a power cut loses commits, and can leave a file that SQLite cannot read",
        durable=False, package="sqlitedict",
    ),
    "diskcache-default": Kind(
        partial(DiskCache, durable=False), "diskcache, as it comes",
        "`synchronous=NORMAL`: a power cut loses the newest commits; beyond 1 GB it deletes the oldest entries",
        durable=False, package="diskcache",
    ),
    "rocksdict-default": Kind(
        partial(RocksDict, durable=False), "rocksdict, as it comes",
        "`sync` is off: a power cut loses the newest writes", durable=False, package="rocksdict",
    ),
}  # fmt: skip
