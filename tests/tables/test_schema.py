"""What others did to a store's schema: told, refused where it is written, and mended; and what of theirs is welcome.

Method: closed and open stores are changed through plain SQLite, in another process where the store is open.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import Damaged
from sqlstate.cli.transfer import import_export as transfer
from sqlstate.tables import schema
from tests.support.child import Child

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import OpenStore

# What is done, and what is said of it: by a check, and by a repair.
MENDABLE: dict[str, tuple[str, str, str]] = {
    "a view is gone": ("DROP VIEW entries", "view entries is missing", "view entries was made again"),
    "all views are gone": (
        "DROP VIEW entries; DROP VIEW commits; DROP VIEW log; DROP VIEW events",
        "view events is missing",
        "view log was made again",
    ),
    "a view was changed": (
        "DROP VIEW log; CREATE VIEW log AS SELECT 1 AS x",
        "view log was changed from outside",
        "view log was made again",
    ),
    "a view in capitals": (
        "DROP VIEW log; CREATE VIEW LOG AS SELECT 1 AS x",
        "view log was changed from outside",
        "view log was made again",
    ),
    "a trigger is gone": (
        "DROP TRIGGER audit_no_delete",
        "trigger audit_no_delete on audit is missing",
        "trigger audit_no_delete on audit was made again",
    ),
    "a trigger does nothing": (
        "DROP TRIGGER audit_no_update; CREATE TRIGGER audit_no_update AFTER UPDATE ON audit BEGIN SELECT 1; END",
        "trigger audit_no_update on audit was changed from outside",
        "trigger audit_no_update on audit was made again",
    ),
    "an index is gone": (
        "DROP INDEX merkle_name",
        "index merkle_name on merkle is missing",
        "index merkle_name on merkle was made again",
    ),
    "an index that is not unique": (
        "DROP INDEX merkle_name; CREATE INDEX merkle_name ON merkle (level, collection, key)",
        "index merkle_name on merkle was changed from outside",
        "index merkle_name on merkle was made again",
    ),
    "an index of another table": (
        "DROP INDEX wal_staged; CREATE TABLE theirs (x); CREATE INDEX wal_staged ON theirs (x)",
        "index wal_staged on wal is missing",
        "index wal_staged on wal was made again",
    ),
    "an index too many": (
        "CREATE INDEX more ON state (value)",
        "index more on state is not the store's",
        "index more on state was removed",
    ),
    "a unique index": (
        'CREATE UNIQUE INDEX "m""o re" ON state (value)',
        "index m\"o re on state is not the store's",
        'index m"o re on state was removed',
    ),
    "an index on the log": (
        "CREATE UNIQUE INDEX more ON wal (kind, lsn)",
        "index more on wal is not the store's",
        "index more on wal was removed",
    ),
    "a trigger": (
        "CREATE TRIGGER more AFTER INSERT ON state BEGIN DELETE FROM merkle; END",
        "trigger more on state is not the store's",
        "trigger more on state was removed",
    ),
    "a trigger on a view": (
        "CREATE TRIGGER more INSTEAD OF INSERT ON entries BEGIN DELETE FROM state; END",
        "trigger more on entries is not the store's",
        "trigger more on entries was removed",
    ),
}
MENDABLE |= {
    f"an index for histories that is {what}": (
        f"CREATE {unique} INDEX {name} ON wal {columns}",
        "index wal_history on wal was changed from outside",
        "index wal_history on wal was made again",
    )
    for what, unique, name, columns in (
        ("of other columns", "", "wal_history", "(collection)"),
        ("unique", "UNIQUE", "wal_history", "(collection, key, lsn) WHERE kind IN ('PUT', 'DELETE')"),
        ("in capitals", "", "WAL_HISTORY", "(collection, key) WHERE kind IN ('PUT', 'DELETE')"),
        ("of all records", "", "wal_history", "(collection, key)"),
    )
}
LOST: dict[str, tuple[str, str]] = {
    "a table is gone": ("DROP TABLE log_blocks", "table log_blocks is missing or was changed"),
    "a table was renamed": ("ALTER TABLE staged RENAME TO other", "table staged is missing or was changed"),
    "a column was added": ("ALTER TABLE state ADD COLUMN other TEXT", "table state is missing or was changed"),
    "a column that is computed": (
        "ALTER TABLE state ADD COLUMN other TEXT GENERATED ALWAYS AS (collection)",
        "table state is missing or was changed",
    ),
}
WELCOME = {
    "a table with an index": "CREATE TABLE theirs (x); CREATE UNIQUE INDEX more ON theirs (x)",
    "a trigger of theirs that writes to ours": (
        "CREATE TABLE theirs (x); CREATE TRIGGER more AFTER INSERT ON theirs BEGIN DELETE FROM state; END"
    ),
    "a foreign key": "CREATE TABLE theirs (x REFERENCES wal (lsn) ON DELETE CASCADE, y REFERENCES meta (name))",
    "a view over ours": "CREATE VIEW theirs AS SELECT * FROM state JOIN entries USING (key)",
    "an index for histories": "CREATE INDEX wal_history ON wal (collection, key) WHERE kind IN ('PUT', 'DELETE')",
    "a table with the name of that": "CREATE TABLE theirs (x); CREATE TABLE wal_history (x)",
    "statistics": "ANALYZE",
    "nothing that lasts": "CREATE TEMP TRIGGER more AFTER INSERT ON state BEGIN DELETE FROM state; END",
}


def alter(path: Path, statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(statements)


@pytest.fixture
def made(path: Path) -> Path:
    with sqlstate.open(path) as store:
        store["c"].update({f"k{n}": n for n in range(60)})
    return path


@pytest.mark.parametrize("what", MENDABLE)
def test_what_was_done_to_the_schema_is_told_and_refused_and_mended(made: Path, what: str) -> None:
    statements, said, done = MENDABLE[what]
    before = made.read_bytes()
    alter(made, statements)
    with sqlstate.open(made) as store:  # for writing: what is there can be read
        assert len(store["c"]) == 60
        assert store["c"]["k7"] == 7
        with store.snapshot() as snapshot:
            assert transfer.export_file(snapshot, made.with_name("out.jsonl")).entries == 60
        for level in ("quick", "full"):
            report = store.check(level)
            assert report.outcome == "damaged"
            assert any(said in each.what for each in report.findings if each.kind == "schema"), report
        head = store.head()
        for write in (
            lambda: store["c"].__setitem__("k7", 8),
            lambda: store["c"].update(a=1, b=2),
            lambda: store.stage().put("c", "k", 1),
            lambda: store._record("check", {}),
        ):
            with pytest.raises(Damaged, match=r"nothing was written.*sqlstate.repair") as raised:
                write()
            assert said in str(raised.value)
        assert store.head() == head

    dry = sqlstate.repair(made, dry_run=True)
    assert done in dry.schema
    mended = sqlstate.repair(made)
    assert (mended.before, mended.after, mended.lost) == ("damaged", "sound", ())
    assert done in mended.schema
    assert mended.evidence is not None
    assert mended.evidence.exists()
    with sqlstate.open(made) as store:
        assert store.check().ok
        assert store.check_audit() == []
        (entry,) = [entry for entry in store.audit() if entry.kind == "repair"]
        assert entry.detail["schema"] == list(mended.schema)
        store["c"]["k7"] = 8
        assert store.check().ok
    assert sqlite_schema(made) >= sqlite_schema_of(before, made)
    assert sqlstate.repair(made).before == "sound"


def sqlite_schema(path: Path) -> set[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return set(db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema"))


def sqlite_schema_of(content: bytes, beside: Path) -> set[tuple[Any, ...]]:
    copy = beside.with_name("as-it-was.db")
    copy.write_bytes(content)
    return sqlite_schema(copy)


@pytest.mark.parametrize("what", LOST)
def test_a_table_that_was_changed_is_refused_by_all_that_would_trust_it(made: Path, what: str) -> None:
    statements, said = LOST[what]
    alter(made, statements)
    before = made.read_bytes()
    for use in (
        lambda: sqlstate.open(made),
        lambda: sqlstate.open(made, read_only=True),
        lambda: sqlstate.repair(made),
    ):
        with pytest.raises(Damaged, match=said):
            use()
    assert made.read_bytes() == before


@pytest.mark.parametrize("what", WELCOME)
def test_what_others_have_of_their_own_is_welcome(made: Path, what: str) -> None:
    alter(made, WELCOME[what])
    with sqlstate.open(made) as store:
        store["c"]["k7"] = 8
        del store["c"]["k8"]
        report = store.check()
        assert report.ok
        assert ("theirs" in report.foreign) == ("theirs" in WELCOME[what])
        store.backup(made.with_name("backup.db"))
    assert sqlstate.repair(made).before == "sound"


def test_a_table_of_others_with_the_name_of_ours_stays(made: Path) -> None:
    alter(made, "DROP VIEW log; DROP VIEW events; CREATE TABLE log (x); INSERT INTO log VALUES (7)")
    report = sqlstate.repair(made)
    assert report.schema == ("view events was made again",)
    assert any("table log has a name that the store needs" in str(each) for each in report.lost)
    assert not report.ok
    with closing(sqlite3.connect(made)) as db:
        assert db.execute("SELECT x FROM log").fetchall() == [(7,)]
        db.execute("ALTER TABLE log RENAME TO theirs")
    assert sqlstate.repair(made).ok
    with sqlstate.open(made) as store:
        assert store.check().ok


@pytest.mark.parametrize("mode", ["full", "group"])
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_an_index_that_comes_while_the_store_is_open_is_refused_at_the_next_write(
    path: Path, open_store: OpenStore, mode: Any, journal: Any
) -> None:
    store = open_store(mode=mode, journal=journal)
    store["c"]["k"] = 1
    with Child("runs", path, "CREATE UNIQUE INDEX more ON state (value)") as child:
        child.expects([])
        child.ends()
    for write in (lambda: store["c"].__setitem__("k", 2), lambda: store["c"].update(a=1, b=1), store.stage):
        with pytest.raises(Damaged, match="index more on state is not the store's"):
            write()
    assert store["c"]["k"] == 1
    with Child("runs", path, "DROP INDEX more") as child:
        child.expects([])
        child.ends()
    store["c"].update(a=1, b=1)
    assert store.check().ok


def test_a_store_that_was_not_closed_recovers_whatever_stands_on_it(path: Path) -> None:
    """Its repair needs it closed, and what is in its -wal moved into the file."""
    with Child("commits", path, 1, "wal") as child:
        child.expects("ready")
        child.says()
        child.kill()
    alter(path, "DROP VIEW entries; CREATE INDEX more ON audit (at)")
    with sqlstate.open(path) as store:
        assert store.check().outcome == "damaged"
    assert sqlstate.repair(path).after == "sound"


def test_the_schema_is_asked_for_once_and_then_only_when_it_was_changed(
    path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    check = schema.check

    def counted(connection: Any) -> None:
        nonlocal asked
        asked += 1
        check(connection)

    monkeypatch.setattr(schema, "check", counted)
    store = open_store()
    for n in range(5):
        store["c"][n] = n
    assert asked == 1
    with Child("runs", path, "CREATE TABLE theirs (x)") as child:
        child.expects([])
        child.ends()
    for n in range(5):
        store["c"][n] = -n
    assert asked == 2
