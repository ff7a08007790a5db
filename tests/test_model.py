"""Goal: whatever an application does, the store holds what a dict would, and its root is that of the definition.
Method: a Hypothesis state machine against plain dicts: typed keys and values, transactions with savepoints that
fail, staged transactions, snapshots, changes, earlier commits, undo, revert, cuts, redaction, collections that log
digests only, closing and opening; the reference rebuilds the root after every step."""

from __future__ import annotations

import copy
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import sqlstate
from sqlstate import ABSENT, REDACTED, Conflict, InvalidRecord, ValueRedacted
from sqlstate.format.values import JSON
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

COLLECTIONS = ["a", "a\0", "b", "é"]
keys = st.sampled_from(
    [0, 1, -1, 2**63 - 1, -(2**63), "0", "1", "k", "k\0", "ka", "🙂", b"0", b"k", b"\x00", b"\xff"]
) | (st.integers(0, 60))
values = st.sampled_from(
    [None, True, 0, 1, 1.0, -0.0, "", "x", [], [1, {"a": None}], {}, {"b": 1, "a": [2]}, b"", b"x"]
)
collections = st.sampled_from(COLLECTIONS)
entries = st.dictionaries(keys, values, max_size=40)
asked = st.lists(keys, max_size=20)

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
        # Of each staged transaction, what it touched: the value before that, and the one that it wrote.
        self.staged: dict[int, dict[tuple[str, Any], tuple[Any, Any]]] = {}
        self.handles: dict[int, sqlstate.StagedTransaction] = {}
        self.past = [copy.deepcopy(self.model)]  # after each commit
        self.redacted: set[tuple[str, Any]] = set()
        self.digest_logs: set[str] = set()
        self.unlogged: set[str] = set()  # collections that ever were among these
        self.audited = 0  # entries of redactions and settings
        self.recoveries = 0

    @initialize(
        journal=st.sampled_from(["wal", "wal", "delete"]),
        limit=st.sampled_from([None, None, 4000, 0]),
        mode=st.sampled_from(["full", "full", "group"]),
    )
    def begin(self, journal: Any, limit: int | None, mode: Any) -> None:
        self.store = sqlstate.open(self.path, journal=journal, log_limit=limit, mode=mode)
        self.oldest = 1
        self.claims: dict[str, int] = {}

    @property
    def seq(self) -> int:
        return len(self.past) - 1

    def expect_commit(self, before: Model) -> None:
        if not same(before, self.model):
            self.past.append(copy.deepcopy(self.model))

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

    @rule(name=collections, asked=asked)
    def get_many(self, name: str, asked: list[Any]) -> None:
        assert alike(self.store[name].get_many(asked), self.model[name], asked)

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
            st.tuples(
                st.sampled_from(["put", "delete", "update", "get_many", "nest", "undo"]),
                collections,
                keys,
                values,
                entries,
            ),
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
            elif what == "get_many":
                assert alike(txn[name].get_many(new), self.model[name], new)
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

    @rule()
    def stage(self) -> None:
        txn = self.store.stage("model")
        self.handles[txn.txn] = txn
        self.staged[txn.txn] = {}

    def seen(self, txn: int, name: str, key: Any) -> Any:
        """What the staged transaction *txn* sees of an entry."""
        return self.staged[txn].get((name, key), (None, self.model[name].get(key, ABSENT)))[1]

    def touched(self, txn: int, name: str, key: Any, value: Any) -> None:
        first, _ = self.staged[txn].get((name, key), (self.model[name].get(key, ABSENT), None))
        self.staged[txn][name, key] = (first, value)

    @precondition(lambda self: self.staged)
    @rule(data=st.data(), name=collections, key=keys, value=values, by_log=st.booleans())
    def stage_put(self, data: st.DataObject, name: str, key: Any, value: Any, by_log: bool) -> None:
        txn = data.draw(st.sampled_from(sorted(self.staged)))
        assert same(self.handles[txn].get(name, key, ABSENT), self.seen(txn, name, key))
        if by_log:
            self.store.wal.append("PUT", txn=txn, collection=name, key=key, value=value)
        else:
            self.handles[txn].put(name, key, value)
        self.touched(txn, name, key, value)
        assert same(self.handles[txn].get(name, key, ABSENT), value)

    @precondition(lambda self: self.staged)
    @rule(data=st.data(), name=collections, key=keys)
    def stage_delete(self, data: st.DataObject, name: str, key: Any) -> None:
        txn = data.draw(st.sampled_from(sorted(self.staged)))
        there = self.seen(txn, name, key) is not ABSENT
        assert self.handles[txn].delete(name, key) is there
        if there:
            self.touched(txn, name, key, ABSENT)
        assert self.handles[txn].get(name, key, ABSENT) is ABSENT

    @precondition(lambda self: self.staged)
    @rule(data=st.data(), end=st.sampled_from(["commit", "commit", "mark", "rollback"]))
    def end_staged(self, data: st.DataObject, end: str) -> None:
        txn = data.draw(st.sampled_from(sorted(self.staged)))
        changes = self.staged[txn]
        commit = self.handles[txn].commit if end == "commit" else lambda: self.store.wal.mark_committed(txn)
        if end == "rollback":
            self.handles[txn].rollback()
        elif any(not same(self.model[name].get(key, ABSENT), first) for (name, key), (first, _) in changes.items()):
            with pytest.raises(Conflict):
                commit()
            return
        else:
            before = copy.deepcopy(self.model)
            head = commit()
            for (name, key), (_, value) in changes.items():
                if value is ABSENT:
                    self.model[name].pop(key, None)
                else:
                    self.model[name][key] = value
            self.expect_commit(before)
            assert head.seq == self.seq
        del self.staged[txn], self.handles[txn]

    @rule(name=collections, key=keys, value=values)
    def snapshot_stays(self, name: str, key: Any, value: Any) -> None:
        if self.store.stats().journal == "delete":
            return  # there a snapshot keeps writers waiting, by design
        before = copy.deepcopy(self.model)
        with self.store.snapshot() as view:
            self.put(name, key, value)
            assert same({each: dict(view[each]) for each in COLLECTIONS}, before)

    def changed(self, seq: int) -> dict[tuple[str, Any], tuple[Any, Any]]:
        """What commit *seq* changed: values before and after, by collection and key, in order."""
        return differences(self.past[seq - 1], self.past[seq])

    @precondition(lambda self: self.seq)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        before = data.draw(st.integers(0, self.seq + 1))
        held = [seq for seq in self.claims.values() if seq < before - 1]
        if held and before > self.oldest:
            with pytest.raises(sqlstate.InvalidOption, match="claims"):
                self.store.cut(before)
            return
        report = self.store.cut(before)
        assert report.commits == max(0, before - self.oldest)
        assert report.oldest == self.store.oldest == max(self.oldest, before)
        self.oldest = report.oldest

    @rule(data=st.data(), name=st.sampled_from(["feed", "index"]), ends=st.booleans())
    def claim(self, data: st.DataObject, name: str, ends: bool) -> None:
        if ends:
            assert self.store.claims.pop(name, None) == self.claims.pop(name, None)
            return
        seq = data.draw(st.integers(0, self.seq))
        if seq < self.oldest - 1:
            with pytest.raises(sqlstate.LogCut):
                self.store.claims[name] = seq
            return
        self.store.claims[name] = self.claims[name] = seq
        assert dict(self.store.claims) == self.claims

    @precondition(lambda self: self.oldest > 1)
    @rule(data=st.data())
    def ask_for_what_was_cut(self, data: st.DataObject) -> None:
        seq = data.draw(st.integers(0, self.oldest - 2))
        for ask in (
            lambda: self.store.at(seq),
            lambda: next(self.store.changes(seq)),
            lambda: next(self.store.commits(seq)),
            lambda: self.store.undo(seq + 1),
            lambda: self.store.revert(seq),
            lambda: self.store.prove_commit(seq + 1),
        ):
            with pytest.raises(sqlstate.LogCut) as caught:
                ask()
            assert caught.value.oldest == self.oldest
        assert self.store.prove_consistency(seq).kind == "consistency"

    @rule(data=st.data(), name=collections, key=keys)
    def look_back(self, data: st.DataObject, name: str, key: Any) -> None:
        seq = data.draw(st.integers(self.oldest - 1, self.seq))
        with self.store.at(seq) as past:
            assert past.head.seq == seq
            assert past.head.count == sum(map(len, self.past[seq].values()))
            assert past.collections() == [each for each in COLLECTIONS if self.past[seq][each]]
            for each in COLLECTIONS:
                self.expect_past(past[each], each, self.past[seq][each])
            assert [len(past[each]) for each in COLLECTIONS] == [len(self.past[seq][each]) for each in COLLECTIONS]
            assert list(past[name].keys(reverse=True)) == [*past[name]][::-1]
            bounds = {"start": key, "limit": 3}
            assert (
                list(past[name].keys(**bounds)) == [each for each in past[name] if in_order(each) >= in_order(key)][:3]
            )
            found = [((each.collection, each.key), (each.a, each.b)) for each in sqlstate.diff(past, self.store)]
            expected = differences(self.past[seq], self.model)
            assert [*map(fingerprint_all, (which for which, _ in found))] == [*map(fingerprint_all, expected)]
            for (which, values), right in zip(found, expected.values(), strict=True):
                self.expect_shown(which, values, right)

    def may_be_unknown(self, which: tuple[str, Any]) -> bool:
        """Whether the log may have digests in the place of values of an entry."""
        return which[0] in self.unlogged or any(one_key(which, each) for each in self.redacted)

    def expect_shown(self, which: tuple[str, Any], shown: tuple[Any, ...], right: tuple[Any, ...]) -> None:
        for value, expected in zip(shown, right, strict=True):
            if value is REDACTED:
                assert expected is not ABSENT
                assert self.may_be_unknown(which)
            else:
                assert same(value, expected)

    def expect_past(self, found: Any, name: str, expected: dict[Any, Any]) -> None:
        """A collection of the past has all keys, and each value that is not REDACTED."""
        assert {(type(key), key) for key in found} == {(type(key), key) for key in expected}
        known = {}
        for key, value in expected.items():
            assert key in found
            try:
                known[key] = found[key]
            except ValueRedacted:
                assert self.may_be_unknown((name, key))
            else:
                assert same(known[key], value)
        if len(known) == len(expected):
            assert same(dict(found), expected)
        else:
            with pytest.raises(ValueRedacted):
                dict(found)

    @rule(name=collections, key=keys)
    def redact(self, name: str, key: Any) -> None:
        head = self.store.head()
        if any(one_key((name, key), each) for changes in self.staged.values() for each in changes):
            with pytest.raises(InvalidRecord):
                self.store.redact(name, key)
            return
        report = self.store.redact(name, key)
        assert report.overwritten
        self.audited += report.entry is not None
        self.redacted.add((name, key))
        assert self.store.head() == head
        digests = [
            (each.value is None or (each.digests or 0) & 1) and (each.before is None or (each.digests or 0) & 2)
            for each in self.store.wal.read()
            if each.collection is not None and one_key((name, key), (each.collection, each.key))
        ]
        assert all(digests)

    @rule(name=collections, log=st.sampled_from(["values", "digests"]))
    def set_logging(self, name: str, log: Any) -> None:
        self.audited += (name in self.digest_logs) != (log == "digests")
        self.store.set_logging(name, log)
        (self.digest_logs.add if log == "digests" else self.digest_logs.discard)(name)
        self.unlogged |= self.digest_logs
        assert self.store.digest_logs() == sorted(self.digest_logs)

    @rule(data=st.data(), name=st.none() | collections)
    def read_changes(self, data: st.DataObject, name: str | None) -> None:
        after = data.draw(st.integers(self.oldest - 1, self.seq))
        upto = data.draw(st.integers(after, self.seq))
        found = [*self.store.changes(after, upto=upto, collection=name)]
        expected = [
            (seq, *which, *values)
            for seq in range(after + 1, upto + 1)
            for which, values in self.changed(seq).items()
            if name in (None, which[0])
        ]
        places = [fingerprint_all((each.seq, *each[3:5])) for each in found]
        assert places == [fingerprint_all(each[:3]) for each in expected]
        for each, right in zip(found, expected, strict=True):
            self.expect_shown((each.collection, each.key), each[5:], right[3:])

    @rule(name=collections, key=keys)
    def read_history(self, name: str, key: Any) -> None:
        expected = [
            (seq, *self.changed(seq)[name, key])
            for seq in range(self.seq, self.oldest - 1, -1)
            if any(one_key((name, key), each) for each in self.changed(seq))
        ]
        found = [(each.seq, each.before, each.value) for each in self.store[name].history(key)]
        assert [each[0] for each in found] == [each[0] for each in expected]
        for each, right in zip(found, expected, strict=True):
            self.expect_shown((name, key), each[1:], right[1:])

    @rule(drop=st.booleans())
    def index_history(self, drop: bool) -> None:
        there = self.store.stats().history_index
        assert self.store.index_history(drop=drop) is (there == drop)
        assert self.store.stats().history_index is not drop

    @precondition(lambda self: self.seq)
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        if self.oldest > self.seq:
            return
        seq = data.draw(st.integers(self.oldest, self.seq))
        before, changes = copy.deepcopy(self.model), self.changed(seq)
        conflicts = [which for which, (_, value) in changes.items() if not same(self.value(which), value)]
        if conflicts:
            with pytest.raises(Conflict) as caught:
                self.store.undo(seq)
            assert caught.value.entries == conflicts
            return
        head = self.unless_unknown(lambda: self.store.undo(seq))
        if head is None:
            return
        for (name, key), (value, _) in changes.items():
            if value is ABSENT:
                self.model[name].pop(key)
            else:
                self.model[name][key] = value
        self.expect_commit(before)
        assert head == self.store.head()

    def unless_unknown(self, work: Callable[[], sqlstate.Head]) -> sqlstate.Head | None:
        """Do what needs values of the past; None if the log does not have them: then nothing was changed."""
        before = self.store.head()
        try:
            return work()
        except ValueRedacted as e:
            unknown = e.entries
        assert all(map(self.may_be_unknown, unknown))
        assert self.store.head() == before
        return None

    def value(self, which: tuple[str, Any]) -> Any:
        return self.model[which[0]].get(which[1], ABSENT)

    @rule(data=st.data())
    def revert(self, data: st.DataObject) -> None:
        seq = data.draw(st.integers(self.oldest - 1, self.seq))
        before = copy.deepcopy(self.model)
        head = self.unless_unknown(lambda: self.store.revert(seq))
        if head is None:
            return
        self.model = copy.deepcopy(self.past[seq])
        self.expect_commit(before)
        assert head == self.store.head()

    @rule(puts=st.lists(st.tuples(collections, keys, values), max_size=6), waits=st.booleans())
    def hand_over(self, puts: list[Any], waits: bool) -> None:
        """Functions of a transaction each, run here or by the store's own thread."""
        for name, key, value in puts:
            before = copy.deepcopy(self.model)
            change = partial(sqlstate.Transaction.put, collection=name, key=key, value=value)
            self.store.run(change) if waits else self.store.submit(change).result()
            self.model[name][key] = value
            self.expect_commit(before)

    @rule(puts=st.lists(st.tuples(collections, keys, values | st.just(ABSENT)), max_size=12))
    def batch(self, puts: list[Any]) -> None:
        before = copy.deepcopy(self.model)
        with self.store.batch() as batch:
            for name, key, value in puts:
                if value is ABSENT:
                    batch[name].pop(key, None)
                    self.model[name].pop(key, None)
                else:
                    batch[name][key] = value
                    self.model[name][key] = value
        commits = self.store.head().seq - self.seq
        assert commits in (0, 1)
        assert commits or same(before, self.model)
        if commits:  # a batch whose transactions undo each other is a commit all the same
            self.past.append(copy.deepcopy(self.model))

    @rule(recover=st.sampled_from(["rollback", "resume"]))
    def reopen(self, recover: Any) -> None:
        self.store.close()
        self.judge()
        left = tuple(sorted(self.staged))
        self.store = sqlstate.open(self.path, recover=recover)
        report = self.store.recovery
        assert (report.clean, report.damage) == (True, "")
        if recover == "resume":
            assert (report.rolled_back, report.pending, report.entry) == ((), left, None)
            assert tuple(each.txn for each in self.store.pending()) == left
            self.handles = {txn: self.store.resume(txn) for txn in left}
            self.recoveries += len(left)
        else:
            assert (report.rolled_back, report.pending) == (left, ())
            self.recoveries += bool(left)
            self.staged, self.handles = {}, {}
        assert [entry.kind for entry in self.store.audit()].count("recovery") == self.recoveries
        assert self.store.check_audit() == []

    @invariant()
    def the_store_holds_what_the_dicts_hold(self) -> None:
        self.compared()
        assert [left.txn for left in self.store.wal.uncommitted()] == sorted(self.staged)
        assert self.store.pending() == []

    def compared(self) -> sqlstate.Head:
        """Compare the newest commit with the model; return it."""
        with self.store.snapshot() as view:
            head = view.head
            held = {name: dict(view[name]) for name in COLLECTIONS}
            assert view.collections() == [name for name in COLLECTIONS if self.model[name]]
        assert same(held, self.model)
        assert head.seq == self.seq
        assert self.oldest <= self.store.oldest <= min([self.seq + 1, *(seq + 1 for seq in self.claims.values())])
        self.oldest = self.store.oldest  # commits cut others
        assert head.count == sum(map(len, self.model.values()))
        stored = [(name, key, encode(value)) for name, part in self.model.items() for key, value in part.items()]
        assert head.root == plain.root(stored)
        return head

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.judge()
        self.folder.cleanup()

    def judge(self) -> None:
        assert plain.judge(self.path).findings == ()


def in_order(key: Any) -> tuple[int, Any]:
    return [int, str, bytes].index(type(key)), key


def one_key(a: tuple[str, Any], b: tuple[str, Any]) -> bool:
    return a == b and type(a[1]) is type(b[1])


def differences(a: Model, b: Model) -> dict[tuple[str, Any], tuple[Any, Any]]:
    """The entries that differ between two states: the values in both, by collection and key, in order."""
    found: dict[tuple[str, Any], tuple[Any, Any]] = {}
    for name in COLLECTIONS:
        for key in sorted({*a[name], *b[name]}, key=in_order):
            values = a[name].get(key, ABSENT), b[name].get(key, ABSENT)
            if not same(*values):
                found[name, key] = values
    return found


def expect_equal(found: dict[tuple[str, Any], Any], expected: dict[tuple[str, Any], Any]) -> None:
    assert [*map(fingerprint_all, found)] == [*map(fingerprint_all, expected)]
    assert [*map(fingerprint_all, found.values())] == [*map(fingerprint_all, expected.values())]


def fingerprint_all(values: tuple[Any, ...]) -> list[Any]:
    return [None if value is ABSENT else fingerprint(value) for value in values]


def encode(value: Any) -> str | bytes:
    return JSON.encode(value)


def alike(found: dict[Any, Any], model: dict[Any, Any], asked: Iterable[Any]) -> bool:
    """Whether *found* is what get_many(asked) gives of *model*, in the order of asking."""
    wanted = {key: model[key] for key in asked if key in model}
    return [*found] == [*wanted] and same(found, wanted)


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
