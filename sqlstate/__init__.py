"""sqlstate: an application's state in one SQLite file, changed atomically, durable at return, provable by a root.

    import sqlstate

    with sqlstate.open("app.db") as store:
        store["settings"]["theme"] = {"name": "dark", "size": 11}

The face is what this module exports; docs/reference/api.md describes it.
"""

from sqlstate.audit import AuditEntry
from sqlstate.backup import BackupReport
from sqlstate.batch import Batch
from sqlstate.collection import Collection, CollectionView
from sqlstate.counters import Counters
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
    JournalDamaged,
    MigrationMismatch,
    NotAStore,
    ReadOnly,
    RecoveryDue,
    RestoreRejected,
    SQLiteTooOld,
    StoreClosed,
    StoreError,
    StoreForked,
    StoreFull,
    StoreIOError,
    StoreMissing,
    StoreUnusable,
    TransactionEnded,
    WalPinned,
)
from sqlstate.group import Future
from sqlstate.inspection import JournalReport
from sqlstate.opening import open, restore  # noqa: A004, the word every Python programmer looks for
from sqlstate.recovery import RecoveryReport
from sqlstate.staging import StagedTransaction, Uncommitted, WriteAheadLog
from sqlstate.store import Stats, Store
from sqlstate.transaction import ABSENT, Snapshot, Transaction
from sqlstate.wal import Head, Kind, Record

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "AuditEntry",
    "BackupReport",
    "Batch",
    "Busy",
    "CannotOpen",
    "Collection",
    "CollectionView",
    "CommitOutcomeUnknown",
    "Conflict",
    "Counters",
    "Damaged",
    "EntryNotFound",
    "FormatTooNew",
    "Future",
    "Head",
    "ImportRejected",
    "InvalidInput",
    "InvalidKey",
    "InvalidName",
    "InvalidOption",
    "InvalidRecord",
    "InvalidValue",
    "JournalDamaged",
    "JournalReport",
    "Kind",
    "MigrationMismatch",
    "NotAStore",
    "ReadOnly",
    "Record",
    "RecoveryDue",
    "RecoveryReport",
    "RestoreRejected",
    "SQLiteTooOld",
    "Snapshot",
    "StagedTransaction",
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
    "WalPinned",
    "WriteAheadLog",
    "open",
    "restore",
]
