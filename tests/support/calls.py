"""One call of every public method, to show that each of them refuses when the store cannot be used.

The methods are found by introspection. One that has neither a call nor a reason here fails the tests
that go through them, so a new method cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from contextlib import AbstractContextManager
from functools import cache
from inspect import getattr_static
from types import FunctionType
from typing import Any, Final, NamedTuple

import sqlstate
from sqlstate.commit import requests
from sqlstate.headlog import Signer


@cache
def signer() -> Signer:
    """Return one that is the same each time."""
    return Signer.generate("example.com/calls")


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
    past: Any = None


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

FACES: Final[dict[str, Call]] = {
    "__contains__": lambda of: "c" in of,
    "__iter__": lambda of: iter(of),
    "__len__": lambda of: len(of),
    "collections": lambda of: of.collections(),
    "get": lambda of: of.get("c", "k"),
}

FACE_WRITES: Final[dict[str, Call]] = {
    "__delitem__": lambda of: of.__delitem__("c"),
    "__setitem__": lambda of: of.__setitem__("c", {"k": 2}),
    "delete": lambda of: of.delete("c", "k"),
    "put": lambda of: of.put("c", "k", 2),
}

STORE: Final[dict[str, Call]] = {
    **FACES,
    **FACE_WRITES,
    "__enter__": lambda store: store.__enter__(),
    "at": lambda store: store.at(1),
    "audit": lambda store: store.audit(),
    "backup": lambda store: store.backup(store.path.with_name("backup.db")),
    "salvage": lambda store: store.salvage(store.path.with_name("backup.db")),
    "barrier": lambda store: store.barrier(),
    "batch": lambda store: store.batch(),
    "changes": lambda store: store.changes(),
    "check": lambda store: store.check("quick"),
    "claims": lambda store: dict(store.claims),
    "cut": lambda store: store.cut(before=1),
    "log_limit": lambda store: store.log_limit,
    "oldest": lambda store: store.oldest,
    "set_log_limit": lambda store: store.set_log_limit(None),
    "check_audit": lambda store: store.check_audit(),
    "commits": lambda store: store.commits(),
    "compact": lambda store: store.compact(),
    "committed": lambda store: store.committed(sqlstate.CommitOutcomeUnknown(1, "")),
    "durable": lambda store: store.durable,
    "head": lambda store: store.head(),
    "index_history": lambda store: store.index_history(),
    "pending": lambda store: store.pending(),
    **PROVABLE,
    "prove_commit": lambda store: store.prove_commit(1),
    "prove_consistency": lambda store: store.prove_consistency(1),
    "digest_logs": lambda store: store.digest_logs(),
    "redact": lambda store: store.redact("c", "k"),
    "set_logging": lambda store: store.set_logging("c", "digests"),
    "resume": lambda store: store.resume(1),
    "revert": lambda store: store.revert(0),
    "run": lambda store: store.run(lambda txn: txn.put("c", "k", 2)),
    "signed_head": lambda store: store.signed_head(signer()),
    "sizes": lambda store: store.sizes(),
    "snapshot": lambda store: store.snapshot(),
    "stage": lambda store: store.stage(),
    "stats": lambda store: store.stats(),
    "submit": lambda store: store.submit(lambda txn: txn.put("c", "k", 2)).result(),
    "transaction": lambda store: store.transaction(),
    "undo": lambda store: store.undo(1),
    "watch": lambda store: store.watch(timeout=0),
}

WAL: Final[dict[str, Call]] = {
    "append": lambda wal: wal.append("BEGIN"),
    "mark_committed": lambda wal: wal.mark_committed(1),
    "read": lambda wal: wal.read(),
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
    "get_many": lambda view: view.get_many(["k"]),
    "history": lambda view: view.history("k"),
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
    **FACES,
    **PROVABLE,
}

TRANSACTION: Final[dict[str, Call]] = {
    **FACES,
    **FACE_WRITES,
    "expect": lambda txn: txn.expect("c", "k", 1),
}

STAGED: Final[dict[str, Call]] = {
    "commit": lambda staged: staged.commit(),
    "delete": lambda staged: staged.delete("c", "k"),
    "get": lambda staged: staged.get("c", "k"),
    "put": lambda staged: staged.put("c", "k", 2),
    "rollback": lambda staged: staged.rollback(),
}

BATCH: Final[dict[str, Call]] = {
    **FACES,
    **FACE_WRITES,
    "flush": lambda batch: batch.flush(),
    "transaction": lambda batch: batch.transaction(),
}

_HANDLE = "makes a handle without asking the file; every method of the handle refuses"
_FACT = "a fact that was read when the store was opened"
_ENDS = "ends the use; it has nothing to refuse"
_TRUE = "says that there is a handle, in any state of it"

CLAIM_WRITES: Final[dict[str, Call]] = {
    "__delitem__": lambda claims: claims.__delitem__("index"),
    "__setitem__": lambda claims: claims.__setitem__("index", 1),
    "clear": lambda claims: claims.clear(),
    "pop": lambda claims: claims.pop("index"),
    "popitem": lambda claims: claims.popitem(),
    "setdefault": lambda claims: claims.setdefault("index", 1),
    "update": lambda claims: claims.update(index=1),
}

CLAIMS: Final[dict[str, Call]] = CLAIM_WRITES | {
    "__contains__": lambda claims: "index" in claims,
    "__eq__": lambda claims: claims == {},
    "__getitem__": lambda claims: claims["index"],
    "__iter__": lambda claims: iter(claims),
    "__len__": lambda claims: len(claims),
    "get": lambda claims: claims.get("index"),
    "items": lambda claims: claims.items(),
    "keys": lambda claims: claims.keys(),
    "values": lambda claims: claims.values(),
}

_BLOCK = {"__bool__": _TRUE, "__getitem__": _HANDLE, "collection": _HANDLE}
_SNAPSHOT = _BLOCK | {"__enter__": _HANDLE, "close": _ENDS}

EXEMPT: Final[dict[type, dict[str, str]]] = {
    sqlstate.Store: {
        "__bool__": _TRUE,
        "__getitem__": _HANDLE,
        "close": _ENDS,
        "collection": _HANDLE,
        "path": _FACT,
        "recovery": _FACT,
        "store_id": _FACT,
        "wal": _HANDLE,
    },
    sqlstate.WriteAheadLog: {},
    sqlstate.Collection: {},
    sqlstate.CollectionView: {},
    sqlstate.Snapshot: _SNAPSHOT,
    sqlstate.PastView: _SNAPSHOT,
    sqlstate.Transaction: _BLOCK,
    sqlstate.StagedTransaction: {"__enter__": _HANDLE},
    sqlstate.Batch: _BLOCK,
    sqlstate.Claims: {},
}

CALLS: Final[dict[type, dict[str, Call]]] = {
    sqlstate.Store: STORE,
    sqlstate.WriteAheadLog: WAL,
    sqlstate.Collection: VIEW | COLLECTION_WRITES,
    sqlstate.CollectionView: VIEW,
    sqlstate.Snapshot: SNAPSHOT,
    sqlstate.PastView: FACES,
    sqlstate.Transaction: TRANSACTION,
    sqlstate.StagedTransaction: STAGED,
    sqlstate.Batch: BATCH,
    sqlstate.Claims: CLAIMS,
}

STORE_WRITES: Final = (
    *FACE_WRITES, "barrier", "batch", "compact", "cut", "redact", "resume", "revert", "run", "set_log_limit",
    "set_logging", "stage", "submit", "transaction", "undo",
)  # fmt: skip

# Each changes something; on a store for reading each is refused with ReadOnly.
WRITES: Final[dict[type, dict[str, Call]]] = {
    sqlstate.Store: {name: STORE[name] for name in STORE_WRITES},
    sqlstate.WriteAheadLog: {name: WAL[name] for name in ("append", "mark_committed")},
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
        sqlstate.PastView: handles.past,
        sqlstate.Transaction: handles.txn,
        sqlstate.StagedTransaction: handles.staged,
        sqlstate.Batch: handles.batch,
        sqlstate.Claims: handles.store.claims,
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
