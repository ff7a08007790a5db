"""One call of every public method, to show that each of them refuses when the store cannot be used.

The methods are found by introspection. One that has neither a call nor a reason here fails the tests
that go through them, so a new method cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from contextlib import AbstractContextManager
from inspect import getattr_static
from types import FunctionType
from typing import Any, Final, NamedTuple

import sqlstate
from sqlstate.commit import requests
from sqlstate.headlog import Signer
from sqlstate.tables.state import Span

NAME: Final = ("c", 1, "k")
NEXT: Final = ("c\0", 0, 0)
SPAN: Final = Span("c")
SIGNER: Final = Signer.generate("example.com/calls")

# Python's own machinery, and what ends a use instead of being one.
_NO_USES: Final = frozenset(("__init__", "__repr__", "__del__", "__exit__"))


class Handles(NamedTuple):
    """A store and what was taken from it while it could be used."""

    store: Any
    collection: Any
    view: Any
    snapshot: Any
    wal: Any
    txn: Any = None
    staged: Any = None
    batch: Any = None


class Asked(requests.Call):
    """A function to be called with a transaction, whose outcome nobody waits for."""

    __slots__ = ()

    def resolve(self) -> None:
        """Tell nobody."""


Call = Callable[[Any], object]

PROVABLE: Final[dict[str, Call]] = {
    "prove": lambda store: store.prove("c", "k"),
    "prove_count": lambda store: store.prove_count("c"),
    "prove_many": lambda store: store.prove_many([("c", "k")]),
    "prove_range": lambda store: store.prove_range("c"),
}

STORE: Final[dict[str, Call]] = {
    "__contains__": lambda store: "c" in store,
    "__enter__": lambda store: store.__enter__(),
    "__iter__": lambda store: iter(store),
    "audit": lambda store: store.audit(),
    "backup": lambda store: store.backup(store.path.with_name("backup.db")),
    "salvage": lambda store: store.salvage(store.path.with_name("backup.db")),
    "barrier": lambda store: store.barrier(),
    "batch": lambda store: store.batch(),
    "check": lambda store: store.check("quick"),
    "check_audit": lambda store: store.check_audit(),
    "collections": lambda store: store.collections(),
    "commits": lambda store: store.commits(),
    "committed": lambda store: store.committed(sqlstate.CommitOutcomeUnknown(1, "")),
    "count": lambda store: store.count(NAME, NEXT),
    "durable": lambda store: store.durable,
    "enqueue": lambda store: store.enqueue(Asked(lambda _: None)),
    "get_stored": lambda store: store.get_stored(NAME),
    "head": lambda store: store.head(),
    "pending": lambda store: store.pending(),
    **PROVABLE,
    "prove_commit": lambda store: store.prove_commit(1),
    "prove_consistency": lambda store: store.prove_consistency(1),
    "put_stored": lambda store: store.put_stored(NAME, "1"),
    "record": lambda store: store.record("check", {}),
    "resume": lambda store: store.resume(1),
    "run": lambda store: store.run(lambda txn: txn.put("c", "k", 2)),
    "scan": lambda store: store.scan(SPAN, values=True),
    "signed_head": lambda store: store.signed_head(SIGNER),
    "snapshot": lambda store: store.snapshot(),
    "stage": lambda store: store.stage(),
    "stats": lambda store: store.stats(),
    "submit": lambda store: store.submit(lambda txn: txn.put("c", "k", 2)).result(),
    "transaction": lambda store: store.transaction(),
    "watch": lambda store: store.watch(timeout=0),
    "writing": lambda store: store.writing(),
}

WAL: Final[dict[str, Call]] = {
    "adopt": lambda wal: wal.adopt(1),
    "append": lambda wal: wal.append("BEGIN"),
    "mark_committed": lambda wal: wal.mark_committed(1),
    "pending": lambda wal: wal.pending(),
    "read": lambda wal: wal.read(),
    "staged": lambda wal: wal.staged(1, "c", "k"),
    "uncommitted": lambda wal: wal.uncommitted(),
}

VIEW: Final[dict[str, Call]] = {
    "__contains__": lambda view: "k" in view,
    "__eq__": lambda view: view == {},
    "__getitem__": lambda view: view["k"],
    "__iter__": lambda view: iter(view),
    "__len__": lambda view: len(view),
    "__reversed__": lambda view: reversed(view),
    "get": lambda view: view.get("k"),
    "items": lambda view: view.items(),
    "keys": lambda view: view.keys(),
    "values": lambda view: view.values(),
}

COLLECTION_WRITES: Final[dict[str, Call]] = {
    "__delitem__": lambda collection: collection.__delitem__("k"),
    "__setitem__": lambda collection: collection.__setitem__("k", 2),
    "clear": lambda collection: collection.clear(),
    "pop": lambda collection: collection.pop("k"),
    "popitem": lambda collection: collection.popitem(),
    "replace": lambda collection: collection.replace({}),
    "setdefault": lambda collection: collection.setdefault("new", 1),
    "update": lambda collection: collection.update({"k": 2}),
}

SNAPSHOT: Final[dict[str, Call]] = {
    "collections": lambda snapshot: snapshot.collections(),
    "count": lambda snapshot: snapshot.count(NAME, NEXT),
    "get_stored": lambda snapshot: snapshot.get_stored(NAME),
    **PROVABLE,
    "scan": lambda snapshot: snapshot.scan(SPAN, values=True),
    "scan_all": lambda snapshot: snapshot.scan_all(),
}

TRANSACTION: Final[dict[str, Call]] = {
    "collections": lambda txn: txn.collections(),
    "count": lambda txn: txn.count(NAME, NEXT),
    "delete": lambda txn: txn.delete("c", "k"),
    "delete_stored": lambda txn: txn.delete_stored(NAME),
    "expect": lambda txn: txn.expect("c", "k", 1),
    "get": lambda txn: txn.get("c", "k"),
    "get_stored": lambda txn: txn.get_stored(NAME),
    "put": lambda txn: txn.put("c", "k", 2),
    "put_stored": lambda txn: txn.put_stored(NAME, "2"),
    "run": lambda txn: txn.run(lambda same: same.put("c", "k", 2)),
    "scan": lambda txn: txn.scan(SPAN, values=True),
    "writing": lambda txn: txn.writing(),
}

STAGED: Final[dict[str, Call]] = {
    "commit": lambda staged: staged.commit(),
    "delete": lambda staged: staged.delete("c", "k"),
    "get": lambda staged: staged.get("c", "k"),
    "put": lambda staged: staged.put("c", "k", 2),
    "rollback": lambda staged: staged.rollback(),
}

BATCH: Final[dict[str, Call]] = {
    "collections": lambda batch: batch.collections(),
    "count": lambda batch: batch.count(NAME, NEXT),
    "delete": lambda batch: batch.delete("c", "k"),
    "flush": lambda batch: batch.flush(),
    "get": lambda batch: batch.get("c", "k"),
    "get_stored": lambda batch: batch.get_stored(NAME),
    "put": lambda batch: batch.put("c", "k", 2),
    "put_stored": lambda batch: batch.put_stored(NAME, "2"),
    "run": lambda batch: batch.run(lambda txn: txn.put("c", "k", 2)),
    "scan": lambda batch: batch.scan(SPAN, values=True),
    "transaction": lambda batch: batch.transaction(),
    "writing": lambda batch: batch.writing(),
}

_HANDLE = "makes a handle without asking the file; every method of the handle refuses"
_FACT = "a fact that was read when the store was opened"
_ENDS = "ends the use; it has nothing to refuse"
_STORE_ONLY = "what the store asks of it; leaving the block shows it"

EXEMPT: Final[dict[type, dict[str, str]]] = {
    sqlstate.Store: {
        "__getitem__": _HANDLE,
        "close": _ENDS,
        "collection": _HANDLE,
        "look_after": _STORE_ONLY,
        "path": _FACT,
        "reclaim": _STORE_ONLY,
        "recovery": _FACT,
        "store_id": _FACT,
        "wal": _HANDLE,
    },
    sqlstate.WriteAheadLog: {"release": _ENDS},
    sqlstate.Collection: {},
    sqlstate.CollectionView: {},
    sqlstate.Snapshot: {"__enter__": _HANDLE, "__getitem__": _HANDLE, "close": _ENDS, "collection": _HANDLE},
    sqlstate.Transaction: {
        "__getitem__": _HANDLE,
        "abandon": _STORE_ONLY,
        "apply": _STORE_ONLY,
        "begin_inside": _STORE_ONLY,
        "collection": _HANDLE,
        "end": _STORE_ONLY,
        "end_inside": _STORE_ONLY,
        "ended": _STORE_ONLY,
        "finish": _STORE_ONLY,
    },
    sqlstate.StagedTransaction: {"__enter__": _HANDLE},
    sqlstate.Batch: {
        "__getitem__": _HANDLE,
        "begin_inside": _STORE_ONLY,
        "collection": _HANDLE,
        "end": _STORE_ONLY,
        "end_inside": _STORE_ONLY,
    },
}

CALLS: Final[dict[type, dict[str, Call]]] = {
    sqlstate.Store: STORE,
    sqlstate.WriteAheadLog: WAL,
    sqlstate.Collection: VIEW | COLLECTION_WRITES,
    sqlstate.CollectionView: VIEW,
    sqlstate.Snapshot: SNAPSHOT,
    sqlstate.Transaction: TRANSACTION,
    sqlstate.StagedTransaction: STAGED,
    sqlstate.Batch: BATCH,
}

STORE_WRITES: Final = (
    "barrier", "batch", "enqueue", "put_stored", "record", "resume", "run", "stage", "submit", "transaction", "writing",
)  # fmt: skip

# Each changes something; on a store for reading each is refused with ReadOnly.
WRITES: Final[dict[type, dict[str, Call]]] = {
    sqlstate.Store: {name: STORE[name] for name in STORE_WRITES},
    sqlstate.WriteAheadLog: {name: WAL[name] for name in ("adopt", "append", "mark_committed")},
    sqlstate.Collection: COLLECTION_WRITES,
}


def public_methods(cls: type) -> list[str]:
    """Return the names of all functions and properties of *cls* that a caller can use, by introspection."""
    return sorted(
        name
        for name in dir(cls)
        if isinstance(getattr_static(cls, name), FunctionType | property)
        and (not name.startswith("_") or name.startswith("__"))
        and name not in _NO_USES
        and getattr(object, name, None) is not getattr(cls, name)
    )


def used_methods(cls: type) -> list[str]:
    """Return those of public_methods() that ask something of the file: the ones without a reason in EXEMPT."""
    return [name for name in public_methods(cls) if name not in EXEMPT[cls]]


def call(cls: type, name: str, handles: Handles) -> None:
    """Call the method *name* of *cls*, and use its result up.

    Raises:
        KeyError: it has no call here; add one.
    """
    exhaust(CALLS[cls][name](handle_of(cls, handles)))


def handle_of(cls: type, handles: Handles) -> Any:
    """Return the one of *handles* that is of *cls*."""
    return {
        sqlstate.Store: handles.store,
        sqlstate.WriteAheadLog: handles.wal,
        sqlstate.Collection: handles.collection,
        sqlstate.CollectionView: handles.view,
        sqlstate.Snapshot: handles.snapshot,
        sqlstate.Transaction: handles.txn,
        sqlstate.StagedTransaction: handles.staged,
        sqlstate.Batch: handles.batch,
    }[cls]


def exhaust(result: object) -> None:
    """Use up what a method returned: enter a block, iterate what can be iterated."""
    if isinstance(result, AbstractContextManager):
        with result:
            pass
    elif isinstance(result, Iterable):
        if isinstance(result, Sized):
            len(result)
        for _ in result:
            pass


def refusals(handles: Handles, classes: Iterable[type] = tuple(CALLS)) -> dict[str, str]:
    """Call every method of *classes*; return for each what it raised, or "nothing"."""
    found = {}
    for cls in classes:
        for name in used_methods(cls):
            try:
                call(cls, name, handles)
            except Exception as e:  # noqa: BLE001, whatever it raises is what the caller asks for
                found[f"{cls.__name__}.{name}"] = type(e).__name__
            else:
                found[f"{cls.__name__}.{name}"] = "nothing"
    return found
