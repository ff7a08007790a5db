"""sqlstate: an application's state in one SQLite file, changed atomically, durable at return, provable by a root.

    import sqlstate

    with sqlstate.open("app.db") as store:
        store["settings"]["theme"] = {"name": "dark", "size": 11}

The face is what this module exports; docs/reference/api.md describes it.
"""

from sqlstate.collection import Collection, CollectionView
from sqlstate.errors import (
    Busy,
    CannotOpen,
    CommitOutcomeUnknown,
    Conflict,
    Damaged,
    EntryNotFound,
    FormatTooNew,
    ImportRejected,
    InvalidInput,
    InvalidKey,
    InvalidName,
    InvalidOption,
    InvalidRecord,
    InvalidValue,
    MigrationMismatch,
    NotAStore,
    ReadOnly,
    SQLiteTooOld,
    StoreClosed,
    StoreError,
    StoreForked,
    StoreFull,
    StoreIOError,
    StoreMissing,
    StoreUnusable,
    TransactionEnded,
)
from sqlstate.staging import Uncommitted, WriteAheadLog
from sqlstate.store import Stats, Store, open  # noqa: A004, the word every Python programmer looks for
from sqlstate.transaction import ABSENT, Snapshot, Transaction
from sqlstate.wal import Head, Kind, Record

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "Busy",
    "CannotOpen",
    "Collection",
    "CollectionView",
    "CommitOutcomeUnknown",
    "Conflict",
    "Damaged",
    "EntryNotFound",
    "FormatTooNew",
    "Head",
    "ImportRejected",
    "InvalidInput",
    "InvalidKey",
    "InvalidName",
    "InvalidOption",
    "InvalidRecord",
    "InvalidValue",
    "Kind",
    "MigrationMismatch",
    "NotAStore",
    "ReadOnly",
    "Record",
    "SQLiteTooOld",
    "Snapshot",
    "Stats",
    "Store",
    "StoreClosed",
    "StoreError",
    "StoreForked",
    "StoreFull",
    "StoreIOError",
    "StoreMissing",
    "StoreUnusable",
    "Transaction",
    "TransactionEnded",
    "Uncommitted",
    "WriteAheadLog",
    "open",
]
