"""The log stays at its limit, and what was cut is gone as a whole: asked for it, a store says so and skips nothing.

Method: stores with small limits under every kind of writer, with drafts, feeds and other handles beside them, killed
and damaged; each file is judged by the reference when the test ends.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqlstate
from sqlstate import ABSENT, headlog
from sqlstate.commit import log_limit
from sqlstate.tables import meta, wal_changes, wal_cut
from tests.reference import plain
from tests.support.child import Child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import OpenAsyncStore, OpenStore

ROW = 200  # bytes of the log that a small put takes at least


def put(store: sqlstate.Store, commits: int, keys: int = 7) -> None:
    for number in range(commits):
        store["c"][number % keys] = number


def lines(store: sqlstate.Store) -> int:
    with store._engine.reading() as connection:
        found: int = connection.value("SELECT count(*) FROM wal")
    return found


# ---- The limit ----


def test_a_new_store_keeps_64_mib_of_its_log_and_an_option_says_else(open_store: OpenStore, path: Path) -> None:
    store = open_store()
    assert (store.log_limit, store.stats().log_limit, store.oldest) == (64 << 20, 64 << 20, 1)
    assert not [entry for entry in store.audit() if entry.kind == "setting"]
    with sqlstate.open(path.with_name("all.db"), log_limit=None) as other:
        assert other.log_limit is None
    store.close()
    with sqlstate.open(path, log_limit=5000) as store:
        assert store.log_limit == 5000
        assert [entry.detail for entry in store.audit() if entry.kind == "setting"] == [{"log_limit": 5000}]
    with sqlstate.open(path) as store:
        assert store.log_limit == 5000
        store.set_log_limit(None)
        store.set_log_limit(None)  # nothing changes, and nothing is written
        assert len([entry for entry in store.audit() if entry.kind == "setting"]) == 2


@pytest.mark.parametrize("limit", [-1, 1.5, "64", True, 2**62 + 1, b""])
def test_a_limit_that_is_none_is_refused(store: sqlstate.Store, path: Path, limit: Any) -> None:
    with pytest.raises(sqlstate.InvalidOption, match="log_limit="):
        store.set_log_limit(limit)
    with pytest.raises(sqlstate.InvalidOption, match="log_limit="):
        sqlstate.open(path.with_name("other.db"), log_limit=limit)
    assert not path.with_name("other.db").exists()


def test_for_reading_a_limit_can_be_given_only_as_it_is(path: Path) -> None:
    with sqlstate.open(path, log_limit=3000) as store:
        store["c"][1] = 1
    with sqlstate.open(path, read_only=True, log_limit=3000) as store:
        assert store.log_limit == 3000
    before = path.read_bytes()
    with pytest.raises(sqlstate.ReadOnly):
        sqlstate.open(path, read_only=True, log_limit=5000)
    assert path.read_bytes() == before


@pytest.mark.parametrize("limit", [0, 3000, 40_000])
@pytest.mark.parametrize("mode", ["full", "group"])
def test_the_log_stays_at_its_limit(open_store: OpenStore, limit: int, mode: Any) -> None:
    store = open_store(log_limit=limit, mode=mode)
    largest = 0
    for number in range(1200):
        store["c"][number % 50] = f"value {number}"
        largest = max(largest, store.stats().record_bytes)
    assert largest <= max(limit, limit // 8) + 256 * 400  # it looks once in 256 commits
    assert store.oldest > 1200 - 256 - 2 * limit // ROW - 2
    assert store.check("replay").ok


def test_a_limit_of_nothing_keeps_the_newest_commit_alone(open_store: OpenStore) -> None:
    store = open_store(log_limit=0)
    put(store, 20)
    assert (store.oldest, [head.seq for head in store.commits()]) == (20, [20])
    with store.batch() as batch:
        for number in range(300):
            batch["c"][number] = -number
    assert [head.seq for head in store.commits()] == [21]
    assert [(each.seq, each.before) for each in store.changes(20)][:1] == [(21, 14)]
    assert store.undo(21).count == 7
    store.revert(21)
    assert store["c"][299] == -299


def test_the_room_of_what_was_cut_is_used_again(open_store: OpenStore, path: Path) -> None:
    store = open_store(log_limit=60_000)
    sizes = []
    for round_ in range(8):
        for number in range(256):
            store["c"][number % 5] = f"{round_} {number} " * 20
        store._engine.checkpointer.run()
        sizes.append(path.stat().st_size)
    assert sizes[-1] <= sizes[3] + (256 * 4 * 32) + 4 * 4096, "but for 32 bytes of each commit, the file grows no more"


def test_no_commit_cuts_more_than_a_little_after_a_large_one(open_store: OpenStore) -> None:
    store = open_store(log_limit=50_000)
    store["c"].update(dict.fromkeys(range(9000), "a value of some bytes"))
    assert lines(store) == 9002
    left, most, commits = 9002, 0, 0
    while left > 500:
        store["d"][1] = commits
        now = lines(store)
        left, most, commits = now, max(most, left - now), commits + 1
        assert commits < 40
        if not commits % 5:
            assert store.check("replay").ok, "also while records that were cut are still there"
            assert next(store.commits()).seq == store.oldest == 2
            with pytest.raises(sqlstate.LogCut):
                next(store.changes())
            assert [change.key for change in store.changes(store.oldest - 1)] == [1] * commits
    assert 0 < most <= log_limit._ROWS
    assert len(store["c"]) == 9000


def test_records_that_were_cut_go_also_when_the_limit_does(open_store: OpenStore) -> None:
    store = open_store(log_limit=20_000)
    store["c"].update(dict.fromkeys(range(5000), "a value of some bytes"))
    put(store, 1)
    assert lines(store) > 3500, "most of them are still there"
    store.set_log_limit(None)
    for number in range(10):
        store["d"][1] = number
    assert lines(store) < 100
    assert [head.seq for head in store.commits()] == [*range(2, 13)]


def test_a_limit_that_another_handle_sets_holds_for_all(open_store: OpenStore) -> None:
    one, other = open_store(log_limit=None), open_store()
    put(one, 30)
    other.set_log_limit(0)
    put(one, 1)
    assert one.oldest == 31
    one.set_log_limit(None)
    put(other, 5, keys=5)
    assert [head.seq for head in one.commits()] == [31, 32, 33, 34, 35]


# ---- What was cut ----


def test_what_was_cut_is_asked_for_in_vain_and_nothing_is_skipped(store: sqlstate.Store) -> None:
    put(store, 10)
    report = store.cut(before=6)
    assert report == (5, 6, report.entry)
    assert [entry.detail for entry in store.audit() if entry.number == report.entry] == [{"commits": 5, "oldest": 6}]
    asked: list[Callable[[], object]] = [
        lambda: store.changes(),
        lambda: next(store.changes(4)),
        lambda: next(store.watch(4, timeout=0)),
        lambda: next(store.watch(4, timeout=0, changes=True)),
        lambda: next(store.commits(5)),
        lambda: store.at(4),
        lambda: store.at(0),
        lambda: store.at(datetime(2000, 1, 1, tzinfo=UTC)),
        lambda: store.undo(5),
        lambda: store.revert(4),
        lambda: store.prove_commit(5),
        lambda: store.claims.update({"feed": 4}),
    ]
    for ask in asked:
        with pytest.raises(sqlstate.LogCut, match="the oldest one there is commit 6") as caught:
            ask()
        assert caught.value.oldest == 6
    assert store.head().seq == 10
    assert [change.seq for change in store.changes(5)] == [6, 7, 8, 9, 10]
    assert [change.seq for change in store["c"].history(5)] == [6]
    with store.at(5) as past:
        assert (past.head.seq, dict(past["c"])) == (5, {0: 0, 1: 1, 2: 2, 3: 3, 4: 4})
    assert store.prove_commit(6).kind == "commit"
    store.undo(6)
    assert 5 not in store["c"]
    store.revert(5)
    assert dict(store["c"]) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}


def test_a_feed_that_is_overtaken_by_a_cut_is_told(store: sqlstate.Store) -> None:
    for number in range(40):
        with store.batch() as batch:
            for key in range(100):
                batch["c"][key] = [number, key]
    feed = store.changes()
    seen = [next(feed) for _ in range(150)]
    store.cut(before=30)
    with pytest.raises(sqlstate.LogCut) as caught:
        while True:
            seen.append(next(feed))
    assert caught.value.oldest == 30
    assert [each.seq for each in seen] == sorted(each.seq for each in seen)
    assert len({(each.seq, each.key) for each in seen}) == len(seen)
    whole = seen[-1].seq
    assert [each.key for each in seen if each.seq < whole] == [*range(100)] * (whole - 1)


def test_a_feed_that_is_overtaken_between_two_reads_of_the_log_is_told(store: sqlstate.Store) -> None:
    put(store, 540)
    feed = store.changes()
    seen = [next(feed) for _ in range(wal_changes.ROWS_AT_ONCE // 2)]  # a PUT and a COMMIT each
    store.cut(before=530)
    with pytest.raises(sqlstate.LogCut):
        next(feed)
    assert [each.seq for each in seen] == [*range(1, 513)]


def test_a_view_of_the_past_stays_as_it_is_while_others_cut(store: sqlstate.Store) -> None:
    put(store, 20)
    with store.at(3) as past:
        heads = store.commits()
        first = next(heads)
        store.cut(before=20)
        assert dict(past["c"]) == {0: 0, 1: 1, 2: 2}
    assert first.seq == 1
    assert [head.seq for head in store.commits()] == [20]


@pytest.mark.parametrize("before", [0, 1])
def test_there_may_be_nothing_to_cut(store: sqlstate.Store, before: int) -> None:
    assert store.cut(0) == (0, 1, 0)
    put(store, 3)
    assert store.cut(before) == (0, 1, 0)
    assert store.cut(3).commits == 2
    assert store.cut(2) == (0, 3, 0)
    assert store.cut(datetime(2001, 1, 1, tzinfo=UTC)) == (0, 3, 0)
    assert [entry.kind for entry in store.audit()].count("cut") == 1


@pytest.mark.parametrize("before", [5, -1, 2**63, 1.5, "3", True, None, datetime(2026, 1, 1)])  # noqa: DTZ001, that is it
def test_what_names_no_commit_cuts_nothing(store: sqlstate.Store, before: Any) -> None:
    put(store, 3)
    with pytest.raises(sqlstate.InvalidOption):
        store.cut(before)
    assert store.oldest == 1


def test_a_cut_by_time_keeps_what_was_made_since(store: sqlstate.Store) -> None:
    put(store, 6)
    at = datetime.fromisoformat([head.at for head in store.commits()][3])
    assert store.cut(before=at).oldest == 4
    assert store.cut(before=at + timedelta(days=1)).oldest == 7
    assert [head.seq for head in store.commits()] == []


def test_all_commits_can_be_cut_and_the_store_goes_on(open_store: OpenStore) -> None:
    store = open_store()
    draft = store.stage()
    draft.put("d", 1, 1)
    put(store, 5)
    head = store.head()
    assert store.cut(before=6)[:2] == (5, 6)
    assert (store.head(), store.oldest, [*store.commits()], [*store.changes(5)]) == (head, 6, [], [])
    assert store.check("replay").ok
    with store.at(5) as past:
        assert dict(past["c"]) == dict(store["c"])
    with pytest.raises(sqlstate.LogCut):
        store.undo(5)
    store.close()
    with sqlstate.open(store.path, recover="resume") as store:
        assert (store.head(), store.recovery.clean) == (head, True)
        assert store.resume(store.pending()[0].txn).commit().seq == 6
        assert store.undo(6).seq == 7
        assert store.cut(before=8).oldest == 8
        assert store.check().ok
    shutil.copy(store.path, store.path.with_name("copy.db"))
    assert sqlstate.repair(store.path.with_name("copy.db")).ok


# ---- What holds a cut up ----


def test_what_is_claimed_is_not_cut(open_store: OpenStore) -> None:
    store, other = open_store(log_limit=0), open_store()
    put(store, 3)
    store.claims["index"] = 3
    other.claims["b"] = 3
    put(other, 11, keys=11)
    newest = store.head().seq
    assert [change.seq for change in store.changes(store.claims["index"])] == [*range(4, newest + 1)]
    with pytest.raises(sqlstate.InvalidOption, match="'b' claims the commits after 3"):
        store.cut(before=10)
    store.claims["index"] = 9
    del other.claims["b"]
    store["c"]["last"] = 1
    assert store.oldest == 10
    assert (len(store.claims), store.claims.get("b"), [*store.claims]) == (1, None, ["index"])
    assert store.stats().claims == {"index": 9}
    said = [entry.detail for entry in store.audit() if entry.kind == "setting"]
    assert said == [{"claim": "index", "seq": 3}, {"claim": "b", "seq": 3}, {"claim": "b", "seq": None}]
    with pytest.raises(KeyError):
        del store.claims["b"]


@pytest.mark.parametrize(
    ("name", "seq"), [("", 1), (1, 1), ("x" * 256, 1), ("x", -1), ("x", 3), ("x", None), ("x", 1.0)]
)
def test_a_claim_that_is_none_is_refused(store: sqlstate.Store, name: Any, seq: Any) -> None:
    put(store, 2)
    with pytest.raises(sqlstate.InvalidInput):
        store.claims[name] = seq
    assert dict(store.claims) == {}


def test_a_claim_survives_a_kill_at_once(path: Path) -> None:
    source = """
import sys, sqlstate
store = sqlstate.open(sys.argv[1], log_limit=0)
for number in range(5):
    store["c"][number] = number
for number in range(60):
    store.claims[f"feed {number}" * 9] = 5
store.claims["feed"] = 5
print("true", flush=True)
sys.stdin.readline()
"""
    with Child("program", source, path) as child:
        child.expects(what=True)
        child.kill()
    with sqlstate.open(path) as store:
        assert (len(store.claims), store.claims["feed"]) == (61, 5)
        put(store, 14, keys=14)
        assert store.oldest == 6


def test_an_open_draft_stays_whole_wherever_the_log_begins(open_store: OpenStore) -> None:
    store = open_store(log_limit=0)
    draft, other = store.stage("a letter"), store.stage()
    draft.put("letters", 1, "Dear")
    other.put("c", 1, "other")
    put(store, 30, keys=1)
    draft.put("letters", 1, "Dear you")
    other.rollback()
    put(store, 30, keys=1)
    assert store.oldest == 60
    assert [(record.lsn, record.kind.value) for record in store.wal.read()][:3] == [
        (1, "BEGIN"),
        (3, "PUT"),
        (95, "PUT"),
    ]
    assert store.check("replay").ok
    store.close()
    with sqlstate.open(store.path, recover="resume") as store:
        [left] = store.pending()
        draft = store.resume(left.txn)
        assert draft.get("letters", 1) == "Dear you"
        assert store.check().ok
        head = draft.commit()
        assert [(each.key, each.before, each.value) for each in store.changes(head.seq - 1)] == [
            (1, ABSENT, "Dear you")
        ]
        assert [each.seq for each in store["letters"].history(1)] == [head.seq]
        put(store, 1, keys=1)
        assert store.oldest == head.seq + 1
        assert not [record for record in store.wal.read() if record.session is not None]
        assert store.check("replay").ok


def test_drafts_that_always_overlap_hold_no_cut_up(open_store: OpenStore) -> None:
    store = open_store(log_limit=0)
    drafts = [store.stage() for _ in range(3)]
    for number in range(60):
        drafts.append(store.stage())
        drafts[-1].put("c", number, number)
        oldest = drafts.pop(0)
        oldest.put("d", number, number)
        oldest.commit()
        assert len(list(store.commits())) == 1
    assert lines(store) < 40
    assert store.check("replay").ok


# ---- Proofs ----


@pytest.mark.parametrize("moments", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_heads_that_were_signed_before_a_cut_verify_and_are_consistent(open_store: OpenStore, moments: int) -> None:
    store = open_store(log_limit=20_000)
    signer = sqlstate.Signer.generate("example.com/app")
    texts = []
    for number in range(moments):
        for key in range(1 + number % 7):
            store["c"][key] = number
        texts.append(store.signed_head(signer).text)
        if number % 20 == 11:
            store.cut(before=store.head().seq - 3)
    assert store.oldest > store.head().seq - 400
    newest = headlog.verify_head(store.signed_head(signer).text, signer.public)
    for text in texts:
        head = headlog.verify_head(text, signer.public)
        headlog.verify_consistency(store.prove_consistency(head.seq, newest.seq), head, newest)
        assert store.check("quick", against=head).ok
    forged = sqlstate.Signer.generate("example.com/app")
    with sqlstate.open(store.path.with_name("other.db")) as other:
        put(other, 50, keys=50)
        false = headlog.verify_head(other.signed_head(forged).text, forged.public)
    with pytest.raises(sqlstate.ProofInvalid):
        headlog.verify_consistency(store.prove_consistency(false.seq, newest.seq), false, newest)
    assert not store.check("quick", against=false).ok


def test_the_log_over_the_commits_is_the_same_before_and_after_a_cut(store: sqlstate.Store) -> None:
    put(store, 600)
    signer = sqlstate.Signer.generate("example.com/app")
    before = store.signed_head(signer).text, store.prove_consistency(257, 600), store.prove_commit(590)
    for number in (3, 256, 257, 258, 511, 520, 590):
        store.cut(before=number)
        assert (store.signed_head(signer).text, store.prove_consistency(257, 600), store.prove_commit(590)) == before


# ---- Damage ----

DAMAGE = {
    "a chain that was cut": "UPDATE cut_commits SET chains = zeroblob(length(chains)) WHERE block = 0",
    "no chain": "UPDATE cut_commits SET chains = x'' WHERE block = 1",
    "a chain too many": "UPDATE cut_commits SET chains = chains || zeroblob(32) WHERE block = 1",
    "its digest": "UPDATE cut_commits SET digest = zeroblob(32) WHERE block = 1",
    "a row is gone": "DELETE FROM cut_commits WHERE block = 0",
    "the last row is gone": "DELETE FROM cut_commits WHERE block = 1",
    "a row too many": "INSERT INTO cut_commits VALUES (2, zeroblob(32), zeroblob(32))",
    "rows of another type": "UPDATE cut_commits SET chains = 5",
    "the beginning": "UPDATE meta SET value = zeroblob(195) WHERE name = 'log_start'",
    "the beginning is short": "UPDATE meta SET value = substr(value, 1, 194) WHERE name = 'log_start'",
    "the beginning is text": "UPDATE meta SET value = 'x' WHERE name = 'log_start'",
    "the beginning is gone": "DELETE FROM meta WHERE name = 'log_start'",
    "a record": "UPDATE wal SET value = '5' WHERE kind = 'PUT' AND lsn > 900",
    "a record that was cut": "INSERT INTO wal (lsn, txn, kind, note) VALUES (4, 4, 'BEGIN', '')",
    "the first record is gone": "DELETE FROM wal WHERE lsn = (SELECT min(lsn) FROM wal)",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_in_a_cut_log_is_named(path: Path, what: str) -> None:
    with sqlstate.open(path) as store:
        put(store, 400)
        store.cut(before=310)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(DAMAGE[what])
    assert plain.judge(path).findings
    with sqlstate.open(path, read_only=True) as store:
        report = store.check()
        assert report.outcome == "damaged", what
    path.unlink()


CUT = [
    ("meta", "value", "name = 'log_start'"),
    ("cut_commits", "chains", "block = 1"),
    ("cut_commits", "digest", "block = 0"),
]


@pytest.fixture(scope="module")
def a_cut_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bytes") / "s.db"
    with sqlstate.open(path) as store:
        put(store, 300)
        store.cut(before=290)
    return path


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_each_changed_byte_of_what_a_cut_left_is_named(a_cut_store: Path, data: st.DataObject) -> None:
    path = a_cut_store.with_name("copy.db")
    shutil.copy(a_cut_store, path)
    table, column, where = data.draw(st.sampled_from(CUT))
    with closing(sqlite3.connect(path)) as db, db:
        (old,) = db.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchone()
        at = data.draw(st.integers(0, len(old) - 1))
        new = old[:at] + bytes([old[at] ^ data.draw(st.integers(1, 255))]) + old[at + 1 :]
        db.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (new,))
    with sqlstate.open(path, read_only=True) as store:
        assert not store.check().ok


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE meta SET value = 'NaN' WHERE name = 'log_limit'",
        "UPDATE meta SET value = -1 WHERE name = 'log_limit'",
        "INSERT INTO meta VALUES ('log_unsized', 1.5)",
        "INSERT INTO claims (name, seq) VALUES (x'00', 1)",
        "INSERT INTO claims (name, seq) VALUES ('feed', -1)",
    ],
)
def test_a_setting_that_is_none_is_named_and_mended(path: Path, edit: str) -> None:
    with sqlstate.open(path) as store:
        put(store, 3)
        store.claims["index"] = 2
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(edit)
    with sqlstate.open(path, read_only=True) as store:
        assert [finding.kind for finding in store.check().findings] == ["setting"]
    with pytest.raises(sqlstate.RestoreRejected):
        sqlstate.restore(path, path.with_name("restored.db"))
    assert sqlstate.repair(path).ok
    with sqlstate.open(path) as store:
        put(store, 3)
        assert dict(store.claims) == {"index": 2}
        assert store.check().ok


def test_an_old_record_that_is_damaged_keeps_nobody_from_writing(path: Path) -> None:
    with sqlstate.open(path, log_limit=None) as store:
        put(store, 20)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE wal SET root = x'00' WHERE seq = 3")
    with sqlstate.open(path, log_limit=0) as store:
        put(store, 5)
        assert (store.oldest, store.head().seq) == (1, 25)
        assert not store.check().ok
        with pytest.raises(sqlstate.Damaged):
            store.cut(before=20)
        assert store.oldest == 1
    path.unlink()


def test_a_repair_mends_a_record_of_a_cut_log_and_takes_nothing_that_was_cut(path: Path, tmp_path: Path) -> None:
    with sqlstate.open(path) as store:
        put(store, 20)
        store.backup(tmp_path / "backup.db")
        put(store, 20)
        store.cut(before=12)
        head = store.head()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE wal SET value = '9' WHERE kind = 'PUT' AND lsn = 14 * 3 - 1")
        db.execute("UPDATE wal SET before = NULL WHERE kind = 'PUT' AND lsn = 30 * 3 - 1")
    assert sqlstate.repair(path, source=tmp_path / "backup.db").ok
    with sqlstate.open(path) as store:
        assert (store.head(), store.oldest) == (head, 12)
        assert store.check("replay").ok


# ---- Crashes ----


@pytest.mark.parametrize("how", ["by hand", "by commits"])
def test_a_kill_in_the_midst_of_a_cut_leaves_all_of_it_or_nothing(path: Path, how: str) -> None:
    rng = random.Random(how)  # noqa: S311, no secret
    source = """
import sys, sqlstate
by_hand = sys.argv[2] == "by hand"
store = sqlstate.open(sys.argv[1], log_limit=None if by_hand else 3000)
for number in range(10**9):
    seq = store.head().seq + 1
    store["c"][number % 7] = seq
    if by_hand and not number % 3:
        store.cut(before=seq)
    print(seq, flush=True)
"""
    for _ in range(3):
        with Child("program", source, path, how) as child:
            said = [child.says() for _ in range(rng.randrange(3, 60))]
            said += child.kill()
        with sqlstate.open(path) as store:
            seq = store.head().seq
            assert seq >= said[-1]
            assert seq in store["c"].values()
            assert store.check("replay").ok


def test_an_exception_in_the_midst_of_a_cut_changes_nothing(
    store: sqlstate.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, 9)
    for name in ("remove",):
        with monkeypatch.context() as patched:
            patched.setattr(wal_cut, name, lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                store.cut(before=5)
    with monkeypatch.context() as patched:
        patched.setattr(meta, "write_log_start", lambda *_: 1 / 0)
        store.set_log_limit(0)
        with pytest.raises(ZeroDivisionError):
            put(store, 1)
    store.set_log_limit(None)
    assert (store.oldest, store.head().seq) == (1, 9)
    assert store.cut(before=5).commits == 4
    put(store, 1)
    assert store.check("replay").ok


# ---- Many at once ----


def test_readers_of_changes_beside_writers_that_cut_see_each_commit_or_are_told(open_store: OpenStore) -> None:
    store = open_store(log_limit=2000, mode="group")
    stop = threading.Event()
    failures: list[BaseException] = []
    overtaken: list[tuple[int, int]] = []

    def follow() -> None:
        try:
            after = 0
            while not stop.is_set():
                try:
                    for head in store.watch(after, timeout=0.01):
                        assert head.seq == after + 1
                        after = head.seq
                except sqlstate.LogCut as e:
                    overtaken.append((after, e.oldest))
                    after = e.oldest - 1
        except BaseException as e:  # noqa: BLE001, shown below
            failures.append(e)

    def write() -> None:
        for number in range(250):
            store["c"][number % 9] = number

    followers = [threading.Thread(target=follow) for _ in range(2)]
    writers = [threading.Thread(target=write) for _ in range(4)]
    for thread in (*followers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in followers:
        thread.join()
    assert failures == []
    assert all(oldest > after + 1 for after, oldest in overtaken)
    assert store.oldest > 1
    assert store.check("replay").ok


@pytest.mark.anyio
async def test_tasks_cut_claim_and_set_the_limit(opens: OpenAsyncStore) -> None:
    store = await opens(log_limit=None)
    for number in range(9):
        await store.put("c", number % 2, number)
    await store.claim("feed", 4)
    with pytest.raises(sqlstate.InvalidOption):
        await store.cut(before=7)
    assert (await store.cut(before=4)).commits == 3
    await store.claim("feed", None)
    await store.claim("feed", None)
    assert await store.claims() == {}
    await store.set_log_limit(0)
    await store.put("c", 1, 1)
    assert await store.log_limit() == 0
    with pytest.raises(sqlstate.LogCut):
        [change async for change in store.changes(8)]
    assert [change.seq async for change in store.changes(9)] == [10]


# ---- A copy ----


def test_copies_that_parted_before_the_log_begins_are_merged_in_two_ways_or_not_at_all(
    store: sqlstate.Store, tmp_path: Path
) -> None:
    store["c"].update({"both": 1, "gone here": 1, "gone there": 1, "here": 1, "there": 1})
    store.backup(tmp_path / "copy.db")
    with sqlstate.open(tmp_path / "copy.db") as copy:
        for changed, change in ((store, "here"), (copy, "there")):
            changed["c"][change] = 2
            changed["c"]["both"] = change
            changed["c"][f"new {change}"] = 3
            del changed["c"][f"gone {change}"]
        store.cut(before=3)
        before = store.head()
        for dry_run in (True, False):
            with pytest.raises(sqlstate.LogCut, match="two-way merge"):
                sqlstate.merge(store, copy, dry_run=dry_run)
        assert store.head() == before
        report = sqlstate.merge(store, copy, two_way=True, prefer="theirs")
        assert [(each.key, each.base) for each in report.collisions] == [
            (key, ABSENT) for key in ("both", "here", "there")
        ]
        assert report.common == 1
    assert dict(store["c"]) == {
        "both": "there", "gone here": 1, "gone there": 1, "here": 1, "there": 2, "new here": 3, "new there": 3,
    }  # fmt: skip
