"""Values that stay out of the log, or are taken out of it: superseded ones, those of some collections, redacted ones.

Chains, roots, checks and proofs stay as they were; the judge of every store that a fixture opens sees to that. What
must be gone is looked for in the bytes of all files of the store.
"""

from __future__ import annotations

import pickle
import random
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal

import pytest

import sqlstate
from sqlstate import ABSENT, REDACTED
from sqlstate.format.merkle import leaf
from sqlstate.format.names import make_name, name_bytes
from sqlstate.proof import verify_present
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import OpenStore

PAST = "the secret of ada"


def size_of_log(store: sqlstate.Store) -> int:
    return sum(len(each.value or "") + len(each.before or "") for each in store.wal.read())


def files_with(store: Path, text: str = PAST) -> list[str]:
    return [file.name for file in sorted(store.parent.iterdir()) if text.encode() in file.read_bytes()]


def shown(changes: Any) -> list[tuple[Any, ...]]:
    return [(each.seq, each.key, each.before, each.value) for each in changes]


# ---- Superseded puts of a staged transaction ----


def test_superseded_puts_of_a_staged_transaction_take_no_room_once_it_is_committed(store: sqlstate.Store) -> None:
    text = "x" * 20_000
    store["drafts"][1] = text
    with store.stage(note="300 keystrokes") as draft:
        for number in range(300):
            draft.put("drafts", 1, f"{text}{number}")
    assert size_of_log(store) < 3 * 20_100 + 300 * 64 + 100
    records = [each for each in store.wal.read() if each.session is not None and each.collection is not None]
    assert [each.digests for each in (records[0], records[1], records[-1])] == [1, 3, 2]
    assert records[0].before == f'"{text}"'
    assert records[-1].value == f'"{text}299"'
    assert records[0].value == leaf(name_bytes(make_name("drafts", 1)), f'"{text}0"')
    assert shown(store.changes(after=1)) == [(2, 1, text, f"{text}299")]
    assert store.undo(2).seq == 3
    assert store["drafts"][1] == text
    assert store.check("replay").findings == ()


def test_each_entry_of_a_staged_transaction_keeps_what_it_was_and_what_it_became(store: sqlstate.Store) -> None:
    store["c"].update({"a": 0, "b": 0})
    with store.stage() as draft:
        for key, value in ("a", 1), ("once", 1), ("b", 1), ("a", 2), ("new", 1), ("new", 2):
            draft.put("c", key, value)
        draft.delete("c", "b")
        draft.put("c", "passing", 1)
        draft.delete("c", "passing")
    assert shown(store.changes(after=1)) == [
        (2, "a", 0, 2),
        (2, "b", 0, ABSENT),
        (2, "new", ABSENT, 2),
        (2, "once", ABSENT, 1),
    ]
    assert [each.digests for each in store.wal.read() if each.session is not None] == [
        None, 1, None, 1, 2, 1, 2, 2, 1, 2, None,
    ]  # fmt: skip


def test_a_rolled_back_transaction_keeps_its_values(open_store: OpenStore) -> None:
    store = open_store()
    store.set_logging("c", "digests")
    draft = store.stage()
    for number in range(3):
        draft.put("c", 1, f"lost {number}")
    draft.rollback()
    assert [each.value for each in store.wal.read() if each.kind is sqlstate.Kind.PUT] == [
        f'"lost {number}"' for number in range(3)
    ]


def test_an_open_staged_transaction_with_a_digest_for_a_value_is_never_committed(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with sqlstate.open(path) as store:
        store.stage().put("c", "k", "v")
    with sqlstate.open(path, recover="resume") as store:
        store["other"]["k"] = 1
    digest = leaf(name_bytes(make_name("c", "k")), '"v"')
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE wal SET value = ?, digests = 1 WHERE kind = 'PUT' AND collection = 'c'", (digest,))
    with sqlstate.open(path, recover="resume") as store:
        [left] = store.pending()
        findings = store.check().findings
        assert ["has a digest for a value" in each.what for each in findings] == [True]
        with pytest.raises(sqlstate.Damaged, match="is not what was written"):
            store.resume(left.txn)
        assert "c" not in store


# ---- Collections that log digests only ----


def put(store: sqlstate.Store, value: str) -> None:
    store["cache"]["k"] = value


def put_for_large(store: sqlstate.Store, value: str) -> None:
    store["cache"]["k"] = value * 100_000


def put_bytes(store: sqlstate.Store, value: str) -> None:
    store["cache"]["k"] = value.encode() * 100_000


def delete_and_put(store: sqlstate.Store, value: str) -> None:
    store["cache"].pop("k", None)
    store["cache"]["k"] = value


def transact(store: sqlstate.Store, value: str) -> None:
    with store.transaction("note") as txn:
        txn["cache"]["k"] = value
        txn["cache"].update(dict.fromkeys(range(40), value))
        with store.transaction() as inner:
            inner["cache"]["nested"] = value


def batch(store: sqlstate.Store, value: str) -> None:
    with store.batch() as block:
        for number in range(40):
            block["cache"][number] = value
        block.flush()
        with store.transaction() as txn:
            txn["cache"]["k"] = value
        block["cache"].pop(3)


def submit(store: sqlstate.Store, value: str) -> None:
    def one(txn: sqlstate.Transaction) -> None:
        txn.put("cache", str(len(txn["cache"])), value)

    for each in [store.submit(one) for _ in range(9)]:
        each.result()
    store.run(lambda txn: txn.put("cache", "k", value))


def stage(store: sqlstate.Store, value: str) -> None:
    with store.stage() as draft:
        draft.put("cache", "k", "passing" + value)
        draft.put("cache", "k", value)


def replace(store: sqlstate.Store, value: str) -> None:
    store["cache"].replace(dict.fromkeys(range(300), value))
    store["cache"].clear()
    store["cache"]["k"] = value


WAYS: list[Callable[[sqlstate.Store, str], None]] = [
    put, put_for_large, put_bytes, delete_and_put, transact, batch, submit, stage, replace,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_log_has_no_value_of_such_a_collection_however_it_is_written(
    open_store: OpenStore, way: Callable[[sqlstate.Store, str], None]
) -> None:
    store = open_store()
    put(store, "before the setting")
    store.set_logging("cache", "digests")
    for number in range(3):
        way(store, f"value {number} of them")
    records = [each for each in store.wal.read() if each.collection is not None][1:]
    assert all(
        each.digests == (each.value is not None) + 2 * (each.before is not None)
        and len(each.value or each.before or "") == 32
        for each in records
    )
    store["other"]["k"] = "kept"
    assert [each.value for each in store.wal.read()][-2] == '"kept"'
    assert store.check("replay").findings == ()
    verify_present(store.prove("cache", "k"), store.head().root, "cache", "k", store["cache"]["k"])


def test_the_total_of_such_a_collection_is_that_of_the_digests(store: sqlstate.Store) -> None:
    store.set_logging("cache", "digests")
    with store.transaction() as txn:
        txn["cache"].update(dict.fromkeys(range(50), "x" * 10000))
    assert list(store.wal.read())[-1].total is not None
    assert list(store.wal.read())[-1].total < 50 * 200  # type: ignore[operator]


def test_a_setting_is_in_the_file_and_in_the_audit_trail_once(open_store: OpenStore, tmp_path: Path) -> None:
    store, path = open_store(tmp_path / "s.db"), tmp_path / "s.db"
    other = open_store(path)
    other["cache"]["k"] = 1
    for _ in range(2):
        store.set_logging("cache", "digests")
    store.set_logging("é" * 100, "digests")
    other["cache"]["k"] = 2  # by another handle, which must have seen it
    assert [each.digests for each in other.wal.read() if each.collection] == [None, 3]
    said = subprocess.run(
        [sys.executable, "-c", f"import sqlstate; s = sqlstate.open({str(path)!r}); s['cache']['k'] = 3; s.close()"],
        check=False,
    )
    assert said.returncode == 0
    assert [each.digests for each in other.wal.read() if each.collection] == [None, 3, 3]
    assert store.digest_logs() == ["cache", "é" * 100]
    for _ in range(2):
        other.set_logging("cache", "values")
    store["cache"]["k"] = 4
    assert [each.digests for each in other.wal.read() if each.collection] == [None, 3, 3, None]
    assert [each.detail for each in store.audit() if each.kind == "setting"] == [
        {"collection": "cache", "log": "digests"},
        {"collection": "é" * 100, "log": "digests"},
        {"collection": "cache", "log": "values"},
    ]
    assert store.check_audit() == []


def test_settings_are_refused_with_a_sentence(store: sqlstate.Store) -> None:
    with pytest.raises(sqlstate.InvalidOption, match="use 'values' or 'digests'"):
        store.set_logging("c", "nothing")  # type: ignore[arg-type]
    with pytest.raises(sqlstate.InvalidName):
        store.set_logging("", "digests")
    with store.transaction(), pytest.raises(sqlstate.StoreUnusable, match="set_logging"):
        store.set_logging("c", "digests")
    assert store.digest_logs() == []


# ---- What readers see ----


def test_what_the_log_does_not_have_is_shown_as_redacted(store: sqlstate.Store) -> None:
    store.set_logging("cache", "digests")
    for value in 1, 2, 3:
        store["cache"]["k"] = value
    del store["cache"]["k"]
    assert shown(store.changes()) == [
        (1, "k", ABSENT, REDACTED), (2, "k", REDACTED, REDACTED), (3, "k", REDACTED, REDACTED),
        (4, "k", REDACTED, ABSENT),
    ]  # fmt: skip
    assert shown(store["cache"].history("k")) == shown(store.changes())[::-1]
    assert next(iter(store.watch(after=3, timeout=5, changes=True)))[1][0].before is REDACTED
    store["cache"]["k"] = 2  # the entry has a value again that the log does not have
    assert shown(store.changes(upto=3))[1:] == [(2, "k", REDACTED, 2), (3, "k", 2, REDACTED)]
    assert repr(REDACTED) == "REDACTED"
    assert pickle.loads(pickle.dumps(REDACTED)) is REDACTED  # noqa: S301, our own value
    with pytest.raises(sqlstate.InvalidValue):
        store["c"]["k"] = REDACTED


def test_a_commit_that_ends_as_it_began_has_no_change_though_its_values_are_not_known(store: sqlstate.Store) -> None:
    store.set_logging("cache", "digests")
    store["cache"]["k"] = 1
    with store.batch() as block:
        block["cache"]["k"] = 2
        block["cache"]["k"] = 1
    assert shown(store.changes(after=1)) == []


def test_a_view_of_the_past_tells_which_value_is_not_known_and_counts_all(store: sqlstate.Store) -> None:
    store.set_logging("cache", "digests")
    store["cache"].update({key: key for key in range(5)})
    store["cache"].update({1: "new", 3: "new"})
    del store["cache"][4]
    with store.at(1) as past:
        cache = past["cache"]
        assert (len(cache), [*cache], past.collections(), past.head.count) == (5, [0, 1, 2, 3, 4], ["cache"], 5)
        assert (1 in cache, 4 in cache, 5 in cache, cache[0]) == (True, True, False, 0)
        for read in (lambda: cache[1], lambda: cache.get(4), lambda: dict(cache), lambda: cache.get_many([0, 3])):
            with pytest.raises(sqlstate.ValueRedacted, match="the log has its digest only") as caught:
                read()
        assert pickle.loads(pickle.dumps(caught.value)).entries == [("cache", 3)]  # noqa: S301, our own exception
        found = iter(cache.items())
        assert next(found) == (0, 0)
        with pytest.raises(sqlstate.ValueRedacted):
            next(found)
        found = iter(cache.items(reverse=True, start=2, stop=4))
        with pytest.raises(sqlstate.ValueRedacted):
            next(found)
        assert list(cache.items(start=2, stop=3)) == [(2, 2)]
    store["cache"][4] = 4
    with store.at(1) as past:
        assert past["cache"][4] == 4


def test_differences_are_found_by_digests(store: sqlstate.Store) -> None:
    store.set_logging("cache", "digests")
    store["cache"].update({key: key for key in range(5)})
    store["cache"].update({1: "new", 3: "new"})
    store["cache"][3] = 3
    del store["cache"][4]
    with store.at(1) as past, store.at(2) as then:
        assert [each[1:] for each in sqlstate.diff(past, store)] == [(1, REDACTED, "new"), (4, REDACTED, ABSENT)]
        assert [each[1:] for each in sqlstate.diff(past, then)] == [(1, REDACTED, "new"), (3, 3, REDACTED)]


def test_undo_and_revert_refuse_what_they_do_not_know_and_change_nothing(store: sqlstate.Store) -> None:
    store.set_logging("cache", "digests")
    with store.transaction() as txn:
        txn["cache"].update({1: "a", 2: "b"})
        txn["c"]["k"] = 1
    with store.transaction() as txn:
        txn["cache"].update({1: "x", 2: "y", 3: "z"})
        txn["c"]["k"] = 2
    head = store.head()
    for call, seq in (store.undo, 2), (store.revert, 1):
        with pytest.raises(sqlstate.ValueRedacted, match="and of 1 more entries") as caught:
            call(seq)
        assert caught.value.entries == [("cache", 1), ("cache", 2)]
    assert store.head() == head
    store["cache"][1] = "later"
    with pytest.raises(sqlstate.Conflict) as conflict:  # a later commit counts first
        store.undo(2)
    assert (conflict.value.expected, conflict.value.actual) == (REDACTED, "later")
    store["cache"].update({1: "a", 2: "b"})
    assert store.revert(1).seq == 5  # what is needed is there
    assert (dict(store["cache"]), store["c"]["k"]) == ({1: "a", 2: "b"}, 1)
    store.set_logging("cache", "values")
    store["cache"][9] = "new"
    store.undo(6)
    assert 9 not in store["cache"]


@pytest.mark.parametrize("side", ["ours", "theirs", "both"])
def test_a_merge_needs_no_value_that_the_logs_do_not_have(open_store: OpenStore, tmp_path: Path, side: str) -> None:
    ours = open_store(tmp_path / "ours.db")
    ours["c"].update(dict.fromkeys(range(6), "base"))
    ours.backup(tmp_path / "theirs.db")
    theirs = open_store(tmp_path / "theirs.db")
    for each in (ours,) if side == "ours" else (theirs,) if side == "theirs" else (ours, theirs):
        each.set_logging("c", "digests")
    ours["c"].update({0: "ours", 1: "ours", 2: "same", 4: "passing"})
    ours["c"][4] = "base"
    theirs["c"].update({1: "theirs", 2: "same", 3: "theirs", 4: "theirs"})
    del theirs["c"][5]
    report = sqlstate.merge(ours, theirs)
    [found] = report.collisions
    assert (found.key, found.ours, found.theirs) == (1, "ours", "theirs")
    assert found.base is (REDACTED if side != "ours" else found.base)
    assert dict(ours["c"]) == {0: "ours", 1: "ours", 2: "same", 3: "theirs", 4: "theirs"}


# ---- Redaction ----


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("seed", range(6))
def test_what_was_redacted_is_in_no_file_of_the_store(
    open_store: OpenStore, tmp_path: Path, journal: Literal["wal", "delete"], seed: int
) -> None:
    path, rng = tmp_path / "s.db", random.Random(seed)  # noqa: S311, no secret
    store = open_store(path, journal=journal)
    sizes = [10, 200, 900, 3_000, 50_000]
    for number in range(60):
        store["users"][rng.randrange(30)] = "z" * rng.choice(sizes)
        value = f"{PAST}{number}" + "s" * rng.choice(sizes)
        if number % 5 == 0:
            store["users"]["ada"] = value.encode() if number % 2 else value
        if number % 9 == 0:
            store["users"].pop(rng.randrange(30), None)
        if number % 13 == 0:
            draft = store.stage()
            for part in range(3):
                draft.put("users", "ada", f"{value}{part}")
            draft.commit() if number % 2 else draft.rollback()
    head, proof = store.head(), store.prove_commit(3)
    del store["users"]["ada"]
    report = store.redact("users", "ada")
    assert report.overwritten
    assert report.records > 20
    assert files_with(path) == []
    store["users"][1] = "later"
    assert (next(store.commits(head.seq)), store.prove_commit(3, head.seq)) == (head, proof)
    assert store.check("replay").findings == ()
    store.close()
    assert files_with(path) == []


def test_the_present_value_stays_and_everything_else_too(open_store: OpenStore, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = open_store(path)
    for value in "old", "older", "now":
        store["users"].update({1: value, "1": value, b"1": value})
        store["other"][1] = value
    before = shown(store.changes())
    report = store.redact("users", 1)
    assert report == sqlstate.RedactReport("users", 1, 3, report.entry, overwritten=True)
    assert (store["users"][1], store.head().seq) == ("now", 6)
    assert [old for old, new in zip(before, shown(store.changes()), strict=True) if old != new] == [
        each for each in before if each[1] == 1 and each[0] % 2
    ]
    entry = list(store.audit())[-1]
    assert (entry.number, entry.kind, entry.detail["records"]) == (report.entry, "redact", 3)
    assert "users" not in str(entry.detail)
    again = store.redact("users", 1)
    assert (again.records, again.entry) == (0, None)
    assert store.redact("users", "nobody").records == 0
    assert store.check_audit() == []


def test_a_reader_keeps_the_values_and_the_report_says_so(store: sqlstate.Store) -> None:
    for value in "old", "new":
        store["users"][1] = value
    with store.snapshot():
        store["users"][2] = "later"
        assert not store.redact("users", 1).overwritten
        store["users"][3] = "goes on"
    assert store.redact("users", 1) == sqlstate.RedactReport("users", 1, 0, None, overwritten=True)


def test_a_staged_transaction_that_has_not_ended_keeps_its_values(store: sqlstate.Store) -> None:
    store["users"][1] = "old"
    draft = store.stage()
    draft.put("users", 1, "new")
    with pytest.raises(sqlstate.InvalidRecord, match=rf"staged transaction {draft.txn} has not ended"):
        store.redact("users", 1)
    assert [each.digests for each in store.wal.read() if each.collection] == [None, None]
    assert store.redact("users", 2).records == 0
    draft.commit()
    assert store.redact("users", 1).records == 2


def test_redaction_is_refused_inside_a_block(store: sqlstate.Store) -> None:
    store["users"][1] = "old"
    for block in store.transaction, store.batch:
        with block(), pytest.raises(sqlstate.StoreUnusable, match="redact"):
            store.redact("users", 1)
    with pytest.raises(sqlstate.InvalidKey):
        store.redact("users", None)  # type: ignore[arg-type]
    assert store.redact("users", 1).records == 1


def test_a_rolled_back_draft_is_forgotten_too(open_store: OpenStore, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = open_store(path)
    with sqlstate.open(path) as other:
        other.stage().put("users", 1, PAST)
    store.close()
    with sqlstate.open(path) as store:  # rolls it back
        assert store.redact("users", 1).records == 1
        assert files_with(path) == []
    assert files_with(path) == []
    assert plain.judge(path).findings == ()


def test_two_handles_and_a_redaction_between_their_commits(open_store: OpenStore, tmp_path: Path) -> None:
    one, two = (open_store(tmp_path / "s.db") for _ in range(2))
    for number in range(4):
        one["users"][1] = f"one {number}"
        two["users"][1] = f"two {number}"
        one.redact("users", 1)
        two["users"][2] = number
    assert one["users"][1] == "two 3"
    assert one.check("replay").findings == ()


# ---- Killed ----

WRITER = f"""
import sys
import threading
import sqlstate

with sqlstate.open(sys.argv[1]) as store:
    for number in range(10_000):
        store["users"]["ada"] = f"{PAST} {{number}}" + "s" * (number % 7 * 900)
        with store.stage() as draft:
            for part in range(5):
                draft.put("users", "ada", f"{PAST} {{number}} {{part}}" + "t" * (part * 900))
        print("commit", store.head().seq, store.head().chain.hex(), flush=True)
        del store["users"]["ada"]
        report = store.redact("users", "ada")
        print("redacted", store.head().seq, store.head().chain.hex(), report.records, flush=True)
"""


def kill_once(path: Path, rng: random.Random) -> None:
    """Kill a process that writes, supersedes and redacts values, and look at what is there."""
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline().split()]
        threading.Timer(rng.uniform(0, 0.15), writer.kill).start()
        lines += [line.split() for line in writer.stdout if line.endswith("\n")]
    _, seq, chain, *_ = lines[-1]
    with sqlstate.open(path) as store:
        head = next(store.commits(int(seq)))
        assert head.chain.hex() == chain
        assert store.check("replay").findings == ()
        # What was redacted stays redacted, and no redaction is half done: digests, then values.
        redacted = max((int(line[1]) for line in lines if line[0] == "redacted"), default=0)
        seq_of, whole = 1 << 62, []
        for each in reversed(list(store.wal.read())):
            seq_of = each.seq or seq_of
            if each.collection is not None and each.digests != (each.value is not None) + 2 * (each.before is not None):
                whole.append(seq_of)
        assert all(each > redacted for each in whole)
        store["users"].pop("ada", None)
        store.redact("users", "ada")
    assert plain.judge(path).findings == ()
    assert files_with(path) == []


def test_a_kill_leaves_each_redaction_done_or_not_done(tmp_path: Path) -> None:
    rng = random.Random(4)  # noqa: S311, no secret
    for _ in range(4):
        kill_once(tmp_path / "s.db", rng)
