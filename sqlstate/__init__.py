"""sqlstate: an application's state in one SQLite file, changed atomically, durable at return, provable by a root.

    import sqlstate

    with sqlstate.open("app.db") as store:
        store["settings"]["theme"] = {"name": "dark", "size": 11}

This module exports everything public; docs/reference/api/ describes it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlstate import aio as aio
    from sqlstate import cluster as cluster
    from sqlstate import errors as errors
    from sqlstate import headlog as headlog
    from sqlstate import proof as proof
    from sqlstate.commit.future import Future as Future
    from sqlstate.errors import BlocksEventLoop as BlocksEventLoop
    from sqlstate.errors import Busy as Busy
    from sqlstate.errors import CannotOpen as CannotOpen
    from sqlstate.errors import CommitOutcomeUnknown as CommitOutcomeUnknown
    from sqlstate.errors import Conflict as Conflict
    from sqlstate.errors import Damaged as Damaged
    from sqlstate.errors import EntryNotFound as EntryNotFound
    from sqlstate.errors import FormatTooNew as FormatTooNew
    from sqlstate.errors import ImportRejected as ImportRejected
    from sqlstate.errors import InvalidInput as InvalidInput
    from sqlstate.errors import InvalidKey as InvalidKey
    from sqlstate.errors import InvalidName as InvalidName
    from sqlstate.errors import InvalidOption as InvalidOption
    from sqlstate.errors import InvalidRecord as InvalidRecord
    from sqlstate.errors import InvalidValue as InvalidValue
    from sqlstate.errors import JournalDamaged as JournalDamaged
    from sqlstate.errors import LogCut as LogCut
    from sqlstate.errors import MigrationMismatch as MigrationMismatch
    from sqlstate.errors import NotAStore as NotAStore
    from sqlstate.errors import ProofInvalid as ProofInvalid
    from sqlstate.errors import ReadOnly as ReadOnly
    from sqlstate.errors import RecoveryDue as RecoveryDue
    from sqlstate.errors import RestoreRejected as RestoreRejected
    from sqlstate.errors import SQLiteTooOld as SQLiteTooOld
    from sqlstate.errors import StoreClosed as StoreClosed
    from sqlstate.errors import StoreError as StoreError
    from sqlstate.errors import StoreForked as StoreForked
    from sqlstate.errors import StoreFull as StoreFull
    from sqlstate.errors import StoreIOError as StoreIOError
    from sqlstate.errors import StoreMissing as StoreMissing
    from sqlstate.errors import StoreUnusable as StoreUnusable
    from sqlstate.errors import TransactionEnded as TransactionEnded
    from sqlstate.errors import ValueRedacted as ValueRedacted
    from sqlstate.errors import WalPinned as WalPinned
    from sqlstate.format.keys import pack_key as pack_key
    from sqlstate.format.keys import unpack_key as unpack_key
    from sqlstate.format.plain import plain as plain
    from sqlstate.format.records import Head as Head
    from sqlstate.format.records import Kind as Kind
    from sqlstate.format.records import Record as Record
    from sqlstate.format.values import ABSENT as ABSENT
    from sqlstate.format.values import REDACTED as REDACTED
    from sqlstate.headlog import SignedHead as SignedHead
    from sqlstate.headlog import Signer as Signer
    from sqlstate.importing.import_from import ImportReport as ImportReport
    from sqlstate.importing.import_from import Refused as Refused
    from sqlstate.importing.import_from import import_from as import_from
    from sqlstate.maintenance.backup.backup import BackupReport as BackupReport
    from sqlstate.maintenance.backup.restore import restore as restore
    from sqlstate.maintenance.check.check import CheckReport as CheckReport
    from sqlstate.maintenance.check.check import Finding as Finding
    from sqlstate.maintenance.compact import CompactReport as CompactReport
    from sqlstate.maintenance.repair.repair import repair as repair
    from sqlstate.maintenance.repair.report import RepairReport as RepairReport
    from sqlstate.proof import Proof as Proof
    from sqlstate.recovery.report import JournalReport as JournalReport
    from sqlstate.recovery.report import RecoveryReport as RecoveryReport
    from sqlstate.sqlite.counters import Counters as Counters
    from sqlstate.store.batch import Batch as Batch
    from sqlstate.store.blocks import Attempts as Attempts
    from sqlstate.store.collection import Collection as Collection
    from sqlstate.store.opening import open as open  # noqa: A004, the word every Python programmer looks for
    from sqlstate.store.past.at import PastView as PastView
    from sqlstate.store.past.change import Change as Change
    from sqlstate.store.past.diff import Difference as Difference
    from sqlstate.store.past.diff import diff as diff
    from sqlstate.store.past.log import Claims as Claims
    from sqlstate.store.past.log import CutReport as CutReport
    from sqlstate.store.past.merge import Collision as Collision
    from sqlstate.store.past.merge import MergeReport as MergeReport
    from sqlstate.store.past.merge import merge as merge
    from sqlstate.store.past.redaction import RedactReport as RedactReport
    from sqlstate.store.session import Uncommitted as Uncommitted
    from sqlstate.store.snapshot import Snapshot as Snapshot
    from sqlstate.store.staged import StagedTransaction as StagedTransaction
    from sqlstate.store.staged import WriteAheadLog as WriteAheadLog
    from sqlstate.store.store import Store as Store
    from sqlstate.store.transaction import Transaction as Transaction
    from sqlstate.store.upkeep import Stats as Stats
    from sqlstate.store.view import CollectionView as CollectionView
    from sqlstate.tables.audit import AuditEntry as AuditEntry
    from sqlstate.tables.schema import Sizes as Sizes

__version__ = "0.2.0"

# Imported when first used: verifying a proof needs no SQLite.
_MODULES = {
    "tables.audit": ("AuditEntry",),
    "maintenance.backup.backup": ("BackupReport",),
    "maintenance.backup.restore": ("restore",),
    "store.batch": ("Batch",),
    "store.blocks": ("Attempts",),
    "maintenance.check.check": (
        "CheckReport",
        "Finding",
    ),
    "maintenance.compact": ("CompactReport",),
    "store.collection": ("Collection",),
    "store.view": ("CollectionView",),
    "sqlite.counters": ("Counters",),
    "errors": (
        "BlocksEventLoop",
        "Busy",
        "CannotOpen",
        "CommitOutcomeUnknown",
        "Conflict",
        "Damaged",
        "EntryNotFound",
        "FormatTooNew",
        "ImportRejected",
        "InvalidInput",
        "InvalidKey",
        "InvalidName",
        "InvalidOption",
        "InvalidRecord",
        "InvalidValue",
        "JournalDamaged",
        "LogCut",
        "MigrationMismatch",
        "NotAStore",
        "ProofInvalid",
        "ReadOnly",
        "RecoveryDue",
        "RestoreRejected",
        "SQLiteTooOld",
        "StoreClosed",
        "StoreError",
        "StoreForked",
        "StoreFull",
        "StoreIOError",
        "StoreMissing",
        "StoreUnusable",
        "TransactionEnded",
        "ValueRedacted",
        "WalPinned",
    ),
    "commit.future": ("Future",),
    "headlog": (
        "SignedHead",
        "Signer",
    ),
    "importing.import_from": ("ImportReport", "Refused", "import_from"),
    "recovery.report": ("JournalReport", "RecoveryReport"),
    "store.opening": ("open",),
    "proof": ("Proof",),
    "maintenance.repair.repair": ("repair",),
    "maintenance.repair.report": ("RepairReport",),
    "store.session": ("Uncommitted",),
    "store.snapshot": ("Snapshot",),
    "store.staged": (
        "StagedTransaction",
        "WriteAheadLog",
    ),
    "store.store": ("Store",),
    "store.transaction": ("Transaction",),
    "store.past.change": ("Change",),
    "store.past.redaction": ("RedactReport",),
    "store.past.at": ("PastView",),
    "store.past.diff": ("Difference", "diff"),
    "store.past.log": ("Claims", "CutReport"),
    "store.past.merge": ("Collision", "MergeReport", "merge"),
    "format.keys": ("pack_key", "unpack_key"),
    "format.plain": ("plain",),
    "format.values": ("ABSENT", "REDACTED"),
    "store.upkeep": ("Stats",),
    "tables.schema": ("Sizes",),
    "format.records": (
        "Head",
        "Kind",
        "Record",
    ),
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}
# Modules that are used by their own names.
_NAMED = ("aio", "cluster", "errors", "headlog", "proof")

__all__ = sorted(_WHERE)  # noqa: PLE0605, a list of names it is


def __getattr__(name: str) -> Any:
    if name in _NAMED:
        return import_module(f"{__name__}.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_NAMED})
