"""Goal: the index for histories changes what a history costs, and nothing else; it is there as a whole or not at all.

Method: histories with and without it are compared, the plans of all statements that a store runs are SQLite's own, and
a process dies at each step of making it.
"""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import apsw
import pytest

import sqlstate
from sqlstate.errors import Busy, Damaged, InvalidOption, ReadOnly, StoreUnusable
from sqlstate.sqlite.connection import Connection
from sqlstate.tables import wal_changes
from tests.reference import plain
from tests.support.child import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.conftest import OpenAsyncStore, OpenStore

KEYS = (0, 1, "1", b"1", "é", 2**63 - 1)
PAGES = (apsw.SQLITE_DBSTATUS_CACHE_HIT, apsw.SQLITE_DBSTATUS_CACHE_MISS)


def write(store: sqlstate.Store, rng: random.Random, commits: int = 60) -> None:
    """Write with every kind of transaction to few entries of two collections."""
    draft = store.stage()
    for number in range(commits):
        collection, key = rng.choice("cd"), rng.choice(KEYS)
        match rng.randrange(8):
            case 0:
                with store.batch() as batch:
                    for each in KEYS:
                        batch[collection][each] = number
                    batch[collection][key] = "again"
            case 1:
                store[collection].pop(key, None)
            case 2:
                draft.put(collection, key, number)
            case 3:
                draft.rollback() if rng.random() < 0.5 else _commit(draft)
                draft = store.stage(f"draft {number}")
            case _:
                with store.transaction(note=f"commit {number}") as txn:
                    txn.put(collection, key, number)
                    txn.put("other", number, number)


def _commit(draft: sqlstate.StagedTransaction) -> None:
    try:
        draft.commit()
    except sqlstate.Conflict:
        draft.rollback()


def histories(view: Any) -> dict[Any, list[Any]]:
    return {(name, key): list(view[name].history(key)) for name in ("c", "d", "none") for key in KEYS}


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("seed", range(3))
def test_histories_are_the_same_with_the_index_and_without(open_store: OpenStore, journal: Any, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311, no secret
    store = open_store(journal=journal)
    write(store, rng)
    before = histories(store)
    assert any(before.values())
    assert store.index_history() is True
    assert histories(store) == before
    write(store, rng)
    found = histories(store)
    with store.snapshot() as now, store.at(store.head().seq // 2) as past:
        assert histories(now) == found
        looked_back = histories(past)
    assert store.index_history(drop=True) is True
    assert histories(store) == found
    with store.at(store.head().seq // 2) as past:
        assert histories(past) == looked_back
    assert store.check("replay").ok


def test_it_stays_in_the_file_and_the_trail_says_so(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    store["c"]["k"] = 1
    assert not store.stats().history_index
    assert store.index_history(drop=True) is False
    assert store.index_history() is True
    assert store.index_history() is False
    store["c"]["k"] = 2
    store.close()
    again = open_store()
    assert again.stats().history_index
    assert again.index_history() is False
    backup = again.backup(path.with_name("backup.db")).path
    assert again.index_history(drop=True) is True
    head = again.head()
    assert head.seq == 2, "it makes no commit"
    assert [(each.detail, each.seq) for each in again.audit() if each.kind == "setting"] == [
        ({"history_index": True}, 1), ({"history_index": False}, 2),
    ]  # fmt: skip
    assert again.check_audit() == []
    with sqlstate.open(sqlstate.restore(backup, path.with_name("restored.db")).path) as copy:
        assert copy.stats().history_index
        assert copy.check().ok


def test_each_history_reads_few_pages_however_long_the_log(open_store: OpenStore) -> None:
    store = open_store()

    def looked_at() -> int:
        with store._engine.reading() as connection:
            before = sum(connection._sqlite.status(each)[0] for each in PAGES)
            wal_changes.of_entry(connection, "c", 1)
            return int(sum(connection._sqlite.status(each)[0] for each in PAGES) - before)

    for number in range(5):
        store["c"][1] = number
        store["c"].update({key: f"{number} {key}" for key in range(2, 1_500)})
    without = looked_at()
    store.index_history()
    few = looked_at()
    assert few < without
    for number in range(5):
        store["c"].update({key: f"more {number} {key}" for key in range(2, 1_500)})
    assert looked_at() <= few + 3
    with store._engine.reading() as connection:
        [(*_, plan)] = connection.rows(f"EXPLAIN QUERY PLAN {wal_changes._OF_ENTRY}", ("c", 1))
    assert plan == "SEARCH wal USING INDEX wal_history (collection=? AND key=?)"


@pytest.mark.parametrize("statistics", [False, True], ids=["", "with statistics"])
def test_no_other_statement_is_planned_otherwise(
    path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, statistics: bool
) -> None:
    """Neither those of a put, nor of drafts: they keep their own indexes."""
    asked: dict[str, Sequence[Any]] = {}

    def listens(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Connection, sql: str, values: Sequence[Any] = (), *rest: Any, **options: Any) -> Any:
            asked[sql] = values
            return real(self, sql, values, *rest, **options)

        return call

    store = open_store()
    with monkeypatch.context() as patch:
        for name in ("rows", "row", "value", "iterate", "chunk", "run"):
            patch.setattr(Connection, name, listens(getattr(Connection, name)))
        write(store, random.Random(1))  # noqa: S311, no secret
        histories(store)
        draft = store.stage()
        draft.put("c", 1, 2)
        assert draft.get("c", 1) == 2
        draft.commit()
        list(store.changes())
        list(store.wal.read())
        with store.at(3) as past:
            dict(past["c"])
        store.undo(store.head().seq)
        store.prove_commit(2)
        store.check()
        store.stats()
    about_the_log = [sql for sql in asked if "wal" in sql and sql.lstrip().startswith(("SELECT", "INSERT"))]
    assert len(about_the_log) > 20
    assert any("txn = ? AND session IS NOT NULL AND collection = ?" in sql for sql in about_the_log)
    store.close()

    def plans() -> dict[str, Any]:
        if statistics:
            with closing(sqlite3.connect(path)) as db:
                db.execute("ANALYZE")
        with sqlstate.open(path) as again, again._engine.reading() as connection:
            return {
                sql: [row[3] for row in connection.rows(f"EXPLAIN QUERY PLAN {sql}", asked[sql])]
                for sql in about_the_log
            }

    before = plans()
    with sqlstate.open(path) as again:
        again.index_history()
    after = plans()
    other = [sql for sql in before if before[sql] != after[sql]]
    assert other == [wal_changes._OF_ENTRY]
    assert "SEARCH wal USING INDEX wal_history (collection=? AND key=?)" in after[other[0]]


@pytest.mark.parametrize("drop", ["", "drop"], ids=["made", "dropped"])
def test_a_death_at_any_step_leaves_all_of_it_or_nothing(tmp_path: Path, drop: str) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    with sqlstate.open(folder / "test.db") as store:
        store["c"].update({f"k{number}" * 9: number for number in range(400)})
        if drop:
            store.index_history()
        content = dict(store["c"])
    deaths = []
    with Child("indexes_cut_short", folder, "test.db", drop) as child:
        while isinstance(said := child.says(), dict):
            deaths.append(said)
        assert said == "done"
        child.ends()
    assert len(deaths) > 10
    states = []
    for number, death in enumerate(deaths, 1):
        assert (death["head"][0], death["content"]) == (1, {"c": content})
        assert (death["report"]["damage"], death["findings"]) == ("", [])
        made = [{"history_index": True}] if drop else []
        there = death["history_index"]
        assert death["settings"] == made + ([] if there == bool(drop) else [{"history_index": not drop}])
        states.append(there)
        assert plain.judge(tmp_path / f"store-{number}" / "test.db").findings == ()
        with sqlstate.open(tmp_path / f"store-{number}" / "test.db") as store:
            assert store.check().ok
    assert states == sorted(states, reverse=bool(drop))
    assert set(states) == {True, False}


def test_a_killed_process_that_made_it_is_recovered(path: Path, open_store: OpenStore) -> None:
    """Its last SQLite transaction made the index alone, and is in the -wal alone."""
    program = """
import os, sys
import sqlstate
from tests.support.actor import say
store = sqlstate.open(sys.argv[1])
for number in range(300):
    store["c"][number] = number
store.index_history()
say("made")
os.kill(os.getpid(), 9)
"""
    with Child("program", program, path) as child:
        child.expects("made")
        child.kill()
    store = open_store()
    assert not store.recovery.clean
    assert store.recovery.damage == ""
    assert store.stats().history_index
    assert store.check().ok
    assert [each.value for each in store["c"].history(7)] == [7]


def test_other_handles_go_on_with_it(open_store: OpenStore) -> None:
    one, other = open_store(), open_store()
    other["c"]["k"] = 1
    view = other["c"].history("k")
    assert one.index_history()
    assert [each.value for each in view] == [1]
    other["c"]["k"] = 2
    assert [each.value for each in other["c"].history("k")] == [2, 1]
    assert one.index_history(drop=True)
    other["c"]["k"] = 3
    assert [each.value for each in other["c"].history("k")] == [3, 2, 1]
    with other.snapshot() as past:
        assert one.index_history()
        assert [each.value for each in past["c"].history("k")] == [3, 2, 1]
    assert other.check().ok


def test_where_it_cannot_be_made_nothing_is_changed(path: Path, open_store: OpenStore) -> None:
    store = open_store(timeout=0.05)
    store["c"]["k"] = 1
    for block in (store.transaction, store.batch):
        with block(), pytest.raises(StoreUnusable, match=r"index_history\(\) cannot be called inside"):
            store.index_history()
    with sqlstate.open(path, read_only=True) as reader, pytest.raises(ReadOnly):
        reader.index_history()
    with Child("locks", path) as child:
        child.expects("locked")
        with pytest.raises(Busy):
            store.index_history()
        child.tell()
        child.ends()
    assert not store.stats().history_index
    assert [each.kind for each in store.audit() if each.kind == "setting"] == []
    assert store.index_history()


@pytest.mark.parametrize(
    "what", ["TABLE Wal_History (x)", "VIEW wal_history AS SELECT 1", "INDEX wal_history ON t (x)"]
)
def test_a_name_that_another_program_has_is_said(path: Path, open_store: OpenStore, what: str) -> None:
    store = open_store()
    store["c"]["k"] = 1
    store.close()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"CREATE TABLE t (x); CREATE {what}")
    again = open_store()
    assert not again.stats().history_index
    again["c"]["k"] = 2
    with pytest.raises(InvalidOption, match=r"wal_history of another program; rename it\. Nothing was changed"):
        again.index_history()
    assert again.index_history(drop=True) is False
    again["c"]["k"] = 3
    assert [each.value for each in again["c"].history("k")] == [3, 2, 1]
    assert again.check().ok


def test_one_that_lacks_records_is_damage_and_mended(path: Path) -> None:
    with sqlstate.open(path) as store:
        store.index_history()
        for number in range(50):
            store["c"][number % 5] = number
        expected = list(store["c"].history(3))
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript("DROP INDEX wal_history; CREATE INDEX wal_history ON wal (collection, key) WHERE kind = 'PUT' "
                         "AND lsn < 20; PRAGMA writable_schema = 1")  # fmt: skip
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'wal_history'", (wal_changes.MAKE_HISTORY_INDEX,))
    with sqlstate.open(path) as store:
        report = store.check()
        assert report.outcome == "damaged"
        assert any("wal_history" in each.what for each in report.findings), report
    mended = sqlstate.repair(path)
    assert (mended.before, mended.after) == ("damaged", "sound")
    with sqlstate.open(path) as store:
        assert list(store["c"].history(3)) == expected


def test_a_writer_is_refused_by_one_that_was_changed(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    store["c"]["k"] = 1
    with Child("runs", path, "CREATE INDEX wal_history ON wal (at)") as child:
        child.expects([])
        child.ends()
    for write_ in (lambda: store["c"].__setitem__("k", 2), store.index_history):
        with pytest.raises(Damaged, match="index wal_history on wal was changed from outside"):
            write_()
    with Child("runs", path, "DROP INDEX wal_history") as child:
        child.expects([])
        child.ends()
    store["c"]["k"] = 2


@pytest.mark.anyio
async def test_tasks_make_it_too(opens: OpenAsyncStore) -> None:
    store = await opens()
    await store.put("c", "k", 1)
    assert await store.index_history()
    assert (await store.stats()).history_index
    assert [each.value async for each in store["c"].history("k")] == [1]
    assert await store.index_history(drop=True)
    assert not await store.index_history(drop=True)
