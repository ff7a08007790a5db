"""Goal: whatever an application does, the store holds what a dict would, and its root is that of the definition.
Method: a Hypothesis state machine against plain dicts: typed keys and values, transactions with savepoints that
fail, staged transactions, snapshots, closing and opening; the reference rebuilds the root after every step."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import sqlstate
from sqlstate import ABSENT, Conflict
from sqlstate.transaction import JSON
from tests.reference import plain

COLLECTIONS = ["a", "a\0", "b", "é"]
keys = st.sampled_from(
    [0, 1, -1, 2**63 - 1, -(2**63), "0", "1", "k", "k\0", "ka", "🙂", b"0", b"k", b"\x00", b"\xff"]
) | (st.integers(0, 60))
values = st.sampled_from(
    [None, True, 0, 1, 1.0, -0.0, "", "x", [], [1, {"a": None}], {}, {"b": 1, "a": [2]}, b"", b"x"]
)
collections = st.sampled_from(COLLECTIONS)
entries = st.dictionaries(keys, values, max_size=40)

Model = dict[str, dict[Any, Any]]


class Undone(Exception):
    """Ends a block so that its writes are undone."""


class StoreMachine(RuleBasedStateMachine):
    """One store, and the dicts that say what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "m.db"
        self.model: Model = {name: {} for name in COLLECTIONS}
        self.staged: dict[int, list[tuple[str, Any, Any, Any]]] = {}
        self.seq = 0

    @initialize(journal=st.sampled_from(["wal", "wal", "delete"]))
    def begin(self, journal: Any) -> None:
        self.store = sqlstate.open(self.path, journal=journal)

    def expect_commit(self, before: Model) -> None:
        self.seq += not same(before, self.model)

    @rule(name=collections, key=keys, value=values)
    def put(self, name: str, key: Any, value: Any) -> None:
        before = copy.deepcopy(self.model)
        self.store[name][key] = value
        self.model[name][key] = value
        self.expect_commit(before)

    @rule(name=collections, key=keys)
    def pop(self, name: str, key: Any) -> None:
        before = copy.deepcopy(self.model)
        assert same(self.store[name].pop(key, ABSENT), self.model[name].pop(key, ABSENT))
        self.expect_commit(before)

    @rule(name=collections, key=keys, value=values)
    def setdefault(self, name: str, key: Any, value: Any) -> None:
        before = copy.deepcopy(self.model)
        assert same(self.store[name].setdefault(key, value), self.model[name].setdefault(key, value))
        self.expect_commit(before)

    @rule(name=collections, new=entries)
    def update(self, name: str, new: dict[Any, Any]) -> None:
        before = copy.deepcopy(self.model)
        self.store[name].update(new)
        self.model[name].update(new)
        self.expect_commit(before)

    @rule(name=collections, new=entries)
    def replace(self, name: str, new: dict[Any, Any]) -> None:
        before = copy.deepcopy(self.model)
        self.store[name].replace(new)
        self.model[name] = dict(new)
        self.expect_commit(before)

    @rule(name=collections)
    def clear(self, name: str) -> None:
        before = copy.deepcopy(self.model)
        self.store[name].clear()
        self.model[name].clear()
        self.expect_commit(before)

    @rule(
        steps=st.lists(
            st.tuples(st.sampled_from(["put", "delete", "update", "nest", "undo"]), collections, keys, values, entries),
            max_size=10,
        ),
        fails=st.booleans(),
    )
    def transact(self, steps: list[Any], fails: bool) -> None:
        before = copy.deepcopy(self.model)
        try:
            with self.store.transaction("model") as txn:
                self.run_steps(txn, steps)
                for name in COLLECTIONS:
                    assert same(dict(txn[name]), self.model[name])
                    assert len(txn[name]) == len(self.model[name])
                if fails:
                    raise Undone
        except Undone:
            self.model = before
        self.expect_commit(before)

    def run_steps(self, txn: sqlstate.Transaction, steps: list[Any]) -> None:
        for at, (what, name, key, value, new) in enumerate(steps):
            if what == "put":
                txn.put(name, key, value)
                self.model[name][key] = value
            elif what == "delete":
                assert txn.delete(name, key) == (key in self.model[name])
                self.model[name].pop(key, None)
            elif what == "update":
                txn[name].update(new)
                self.model[name].update(new)
            else:
                kept = copy.deepcopy(self.model)
                try:
                    with self.store.transaction() as inner:
                        self.run_steps(inner, steps[at + 1 :])
                        if what == "undo":
                            raise Undone
                except Undone:
                    self.model = kept
                return

    @rule(changes=st.lists(st.tuples(collections, keys, values | st.just(ABSENT)), max_size=6))
    def stage(self, changes: list[Any]) -> None:
        txn = self.store.wal.append("BEGIN").txn
        seen: dict[Any, Any] = {}
        self.staged[txn] = []
        for name, key, value in changes:
            here = (name, type(key), key)
            first = self.model[name].get(key, ABSENT)
            if value is ABSENT and seen.get(here, first) is ABSENT:
                continue
            given = {} if value is ABSENT else {"value": value}
            self.store.wal.append("DELETE" if value is ABSENT else "PUT", txn=txn, collection=name, key=key, **given)
            seen[here] = value
            self.staged[txn].append((name, key, value, first))

    @precondition(lambda self: self.staged)
    @rule(data=st.data(), commit=st.booleans())
    def end_staged(self, data: st.DataObject, commit: bool) -> None:
        txn = data.draw(st.sampled_from(sorted(self.staged)))
        changes = self.staged[txn]
        if not commit:
            self.store.wal.append("ROLLBACK", txn=txn)
        elif any(not same(self.model[name].get(key, ABSENT), first) for name, key, _, first in changes):
            with pytest.raises(Conflict):
                self.store.wal.mark_committed(txn)
            return
        else:
            before = copy.deepcopy(self.model)
            self.store.wal.mark_committed(txn)
            for name, key, value, _ in changes:
                if value is ABSENT:
                    self.model[name].pop(key, None)
                else:
                    self.model[name][key] = value
            self.expect_commit(before)
        del self.staged[txn]

    @rule(name=collections, key=keys, value=values)
    def snapshot_stays(self, name: str, key: Any, value: Any) -> None:
        if self.store.stats().journal == "delete":
            return  # there a snapshot keeps writers waiting, by design
        before = copy.deepcopy(self.model)
        with self.store.snapshot() as view:
            self.put(name, key, value)
            assert same({each: dict(view[each]) for each in COLLECTIONS}, before)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.judge()
        self.store = sqlstate.open(self.path)

    @invariant()
    def the_store_holds_what_the_dicts_hold(self) -> None:
        with self.store.snapshot() as view:
            head = view.head
            held = {name: dict(view[name]) for name in COLLECTIONS}
            assert view.collections() == [name for name in COLLECTIONS if self.model[name]]
        assert same(held, self.model)
        assert head.seq == self.seq
        assert head.count == sum(map(len, self.model.values()))
        stored = [(name, key, encode(value)) for name, part in self.model.items() for key, value in part.items()]
        assert head.root == plain.root(stored)
        assert [left.txn for left in self.store.wal.uncommitted()] == sorted(self.staged)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.judge()
        self.folder.cleanup()

    def judge(self) -> None:
        assert plain.judge(self.path).findings == ()


def encode(value: Any) -> str | bytes:
    return JSON.encode(value)


def same(a: Any, b: Any) -> bool:
    """Equality as the store sees it: 1, 1.0 and True differ, so do 0.0 and -0.0."""
    if a is ABSENT or b is ABSENT:
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return {(type(k), k): fingerprint(v) for k, v in a.items()} == {
            (type(k), k): fingerprint(v) for k, v in b.items()
        }
    return bool(fingerprint(a) == fingerprint(b))


def fingerprint(value: Any) -> Any:
    if isinstance(value, dict):
        return {(type(k), k): fingerprint(v) for k, v in value.items()}
    return type(value), encode(value)


StoreMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStore = StoreMachine.TestCase
