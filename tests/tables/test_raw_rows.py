"""The border between a file that anybody can have edited and the code that trusts what it is given.

Method: stores are edited through plain SQLite, with the columns' types taken away for the moment (tests/crash/edits);
each reader must then say which field of which row is wrong. Python's own exceptions, put into our code on purpose,
must come out as they are: they are bugs, and no damage. tests/crash/edits does the same with thousands of edits.
"""

from __future__ import annotations

import pickle
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sqlstate
from sqlstate import Damaged
from sqlstate.cli.transfer import import_export as transfer
from sqlstate.format import constants as fmt
from sqlstate.format import names
from sqlstate.maintenance import closed_file, proven_tree
from sqlstate.maintenance.backup import verify_copy
from sqlstate.maintenance.check import audit as trail
from sqlstate.maintenance.check import entries, findings
from sqlstate.maintenance.repair import entries as repair_entries
from sqlstate.maintenance.repair import log as repair_log
from sqlstate.tables import merkle, raw_rows, state, wal
from sqlstate.tables.raw_rows import RawRecord
from tests.crash.edits import loose

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def made(path: Path) -> Path:
    with sqlstate.open(path) as store:
        store["c"].update({f"k{n}": n for n in range(50)})
        store["d"][1] = {"a": 1}
        store["d"][b"b"] = b"bytes"
    return path


def edit(path: Path, table: str, sql: str, *values: object) -> None:
    with loose(path, table) as db:
        db.execute(sql, values)


def finding(path: Path) -> list[str]:
    with sqlstate.open(path, read_only=True) as store:
        report = store.check()
    assert report.outcome == "damaged"
    return [each.what for each in report.findings]


# ---- Entries ----


NO_ENTRIES: dict[str, tuple[str, str]] = {
    "a key that is a fraction": ("UPDATE state SET key = 1.5 WHERE key = 1", "'d'[1.5] has 1.5 for its key"),
    "a key without content": ("UPDATE state SET key = '' WHERE key = 1", "'d'[''] has '' for its key"),
    "a value that is a number": ("UPDATE state SET value = 7 WHERE key = 1", "'d'[1] has 7 for its value"),
    "a value that is none": ("UPDATE state SET value = NULL WHERE key = 1", "'d'[1] has NULL for its value"),
}


@pytest.mark.parametrize("what", NO_ENTRIES)
def test_a_row_that_is_no_entry_is_named_by_what_reads_it(made: Path, what: str) -> None:
    sql, says = NO_ENTRIES[what]
    edit(made, "state", sql)
    with sqlstate.open(made, read_only=True) as store:
        reads: list[Callable[[], Any]] = [
            lambda: list(store["d"].items()),
            lambda: transfer.export_file(store.snapshot().__enter__(), made.with_name("out.jsonl")),
        ]
        if "value" in what:
            reads += [lambda: store["d"][1], lambda: store["d"].get(1), lambda: 1 in store["d"]]
            reads += [lambda: store.prove("d", 1), lambda: store["d"].get_many([b"b", 1])]
        for read in reads:
            with pytest.raises(Damaged) as raised:
                read()
            assert says in str(raised.value)
            assert "I1: " in str(raised.value)
    assert not made.with_name("out.jsonl").exists()
    assert any("'d'" in each for each in finding(made))


@pytest.mark.parametrize("value", [7, 1.5, None])
def test_a_put_over_a_value_that_is_none_is_refused(made: Path, value: Any) -> None:
    edit(made, "state", "UPDATE state SET value = ? WHERE key = 1", value)
    with sqlstate.open(made) as store:
        head = store.head()
        for write in (
            lambda: store["d"].__setitem__(1, "new"),
            lambda: store["d"].pop(1),
            lambda: store["d"].update({1: "new", 2: "other"}),
        ):
            with pytest.raises(Damaged, match=r"'d'\[1\] has .* for its value"):
                write()
        assert store.head() == head


@pytest.mark.parametrize("name", [b"\xff", "", "n" * 256])
def test_a_collection_that_can_be_none_is_never_listed_and_never_exported(made: Path, name: Any) -> None:
    edit(made, "state", "UPDATE state SET collection = ? WHERE key = 1", name)
    with sqlstate.open(made, read_only=True) as store:
        with pytest.raises(Damaged, match="cannot name a collection"):
            store.collections()
        with pytest.raises(Damaged, match=r"for its collection|entries to export"), store.snapshot() as snapshot:
            transfer.export_file(snapshot, made.with_name("out.jsonl"))
    assert not made.with_name("out.jsonl").exists()
    assert finding(made)


@pytest.mark.parametrize("sql", ["DELETE FROM state WHERE key = 'k7'", "UPDATE state SET collection = 7 WHERE key = 1"])
def test_an_export_has_as_many_entries_as_the_commit(made: Path, sql: str) -> None:
    edit(made, "state", sql)
    says = r"51 entries to export, and commit \d+ says 52"
    with (
        sqlstate.open(made, read_only=True) as store,
        store.snapshot() as snapshot,
        pytest.raises(Damaged, match=says),
    ):
        transfer.export_file(snapshot, made.with_name("out.jsonl"))
    assert not made.with_name("out.jsonl").exists()


# ---- Nodes ----


def test_counts_that_contradict_each_other_are_damage_and_no_value_error(path: Path) -> None:
    with sqlstate.open(path) as store:
        store["a"].update(dict.fromkeys(range(3000), 1))
        store["b"].update(dict.fromkeys(range(3000), 1))
    with closing(sqlite3.connect(path)) as db, db:
        ((level,),) = db.execute("SELECT max(level) FROM merkle")
        # As a page that was zeroed: the counts are gone, and the digests with them.
        db.execute("UPDATE merkle SET children = zeroblob(length(children)) WHERE level > 1 AND level = ?", (level,))
        for id_, children in db.execute("SELECT id, children FROM merkle WHERE level = 2").fetchall():
            huge = b"".join(b"\x3f" * 8 + children[at + 8 : at + 40] for at in range(0, len(children), 40))
            db.execute("UPDATE merkle SET children = ? WHERE id = ?", (huge, id_))
    with sqlstate.open(path, read_only=True) as store:
        for ask in (len, bool, list):
            for name in ("a", "b"):
                try:
                    ask(store[name])
                except sqlstate.StoreError:
                    continue
    assert finding(path)


def test_a_length_below_nothing_is_damage(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter((5, 9) * 3)
    monkeypatch.setattr(merkle, "_count_before", lambda *_: next(numbers))
    with sqlstate.open(made, read_only=True) as store:
        for ask in (len, bool, lambda view: len(view.keys())):
            with pytest.raises(Damaged, match="the counts in the tree contradict each other"):
                ask(store["c"])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("children", None), ("children", b""), ("children", b"x"), ("children", "text"), ("children", b"\xff" * 40),
        ("collection", b"c"), ("key", 1.5), ("key", None), ("level", "x"), ("level", 99), ("level", None),
    ],
)  # fmt: skip
def test_a_row_that_is_no_node_is_damage_wherever_it_is_read(made: Path, column: str, value: Any) -> None:
    edit(made, "merkle", f"UPDATE merkle SET {column} = ?", value)
    with sqlstate.open(made) as store:
        for use in (
            lambda: store["c"].__setitem__("k1", "new"),
            lambda: store["c"].__setitem__("new", "new"),
            lambda: store["c"].update({f"k{n}": "x" for n in range(40)}),
            lambda: store.prove("c", "k1"),
        ):
            with pytest.raises(Damaged):
                use()
        assert not store.check("quick").ok or column in ("collection", "key")  # names are for the full check
    assert finding(made)


# ---- The log ----


@pytest.mark.parametrize("column", ["lsn", "seq", "count"])
@pytest.mark.parametrize("number", [2**63 - 1, 2**62 + 1, -1])
def test_a_number_without_room_for_another_is_damage(made: Path, column: str, number: int) -> None:
    edit(made, "wal", f"UPDATE wal SET {column} = ? WHERE lsn = (SELECT max(lsn) FROM wal)", number)
    says = "its log ends with record" if (column, number) == ("lsn", -1) else r"2\^62"  # it went to the start
    with pytest.raises(Damaged, match=says), sqlstate.open(made) as store:
        store["c"]["k"] = 1


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("at", "now", "has 'now' for its at"),
        ("at", None, "has NULL for its at"),
        ("root", b"short", "for its root, which must be 32 bytes"),
        ("chain", "text", "for its chain, which must be 32 bytes"),
        ("count", "many", "has 'many' for its count"),
        ("seq", 1.5, "has 1.5 for its seq"),
    ],
)
def test_a_commit_with_a_field_that_is_none_is_named(made: Path, column: str, value: Any, says: str) -> None:
    edit(made, "wal", f"UPDATE wal SET {column} = ? WHERE seq = 2 AND root IS NOT NULL", value)
    with sqlstate.open(made, read_only=True) as store:
        with pytest.raises(Damaged, match=r"for its|which must be"):
            list(store.wal.read())
        with pytest.raises(Damaged):
            list(store.commits())
            store.prove_commit(2)
    assert any(says in each for each in finding(made)), finding(made)


@pytest.mark.parametrize(
    ("column", "value"),
    [("txn", "x"), ("txn", None), ("txn", 2**63 - 1), ("session", 1), ("collection", b"c"), ("key", 2.5), ("value", 3),
     ("before", 4), ("note", b"x"), ("kind", b"PUT"), ("kind", None)],
)  # fmt: skip
def test_a_record_with_a_field_that_is_none_is_damage(made: Path, column: str, value: Any) -> None:
    edit(made, "wal", f"UPDATE wal SET {column} = ? WHERE lsn = 2", value)
    with sqlstate.open(made, read_only=True) as store, pytest.raises(Damaged, match=r"I7: .*record 2 "):
        list(store.wal.read())
    assert any("record 2 " in each for each in finding(made))
    report = sqlstate.repair(made)
    assert report.before == "damaged"


# ---- The other tables ----


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("DELETE FROM schema_migrations WHERE number = 2", "no row of migration 2"),
        ("DELETE FROM schema_migrations WHERE number > 1", "has 1 migrations, and the file says that its format is"),
        ("DELETE FROM schema_migrations", "has 0 migrations, and the file says that its format is"),
        (
            "UPDATE schema_migrations SET sha256 = 'x' WHERE number = 1",
            "has 'x' for its sha256, which must be 32 bytes",
        ),
        ("UPDATE schema_migrations SET at = 'x' WHERE number = 1", "has 'x' for its at"),
        ("UPDATE schema_migrations SET number = 9 WHERE number = 1", "no row of migration 1"),
    ],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_migration_rows_that_cannot_be_are_damage(made: Path, sql: str, says: str, read_only: bool) -> None:
    edit(made, "schema_migrations", sql)
    with pytest.raises(Damaged, match=says):
        sqlstate.open(made, read_only=read_only)
    with pytest.raises(Damaged, match=says):
        sqlstate.repair(made)


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("UPDATE schema_migrations SET at = '2020-01-01T00:00:00.000000Z' WHERE number = 1", "its first migration was"),
        ("UPDATE schema_migrations SET at = '2020-01-01T00:00:00.000000Z' WHERE number = 2", "names a migration 2"),
        ("UPDATE meta SET value = '2020-01-01T00:00:00.000000Z' WHERE name = 'created'", "the table meta says"),
        ("INSERT INTO meta VALUES ('more', 1)", "a row 'more', which no store has"),
    ],
)
def test_facts_that_contradict_each_other_are_found(made: Path, sql: str, says: str) -> None:
    edit(made, sql.split()[1].replace("INTO", "meta"), sql)
    assert any(says in each for each in finding(made)), finding(made)


def test_a_fact_that_is_there_twice_is_damage(made: Path) -> None:
    with closing(sqlite3.connect(made)) as db:
        db.execute("PRAGMA writable_schema = ON")
        ((sql,),) = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'meta'").fetchall()
        wide = "CREATE TABLE meta (name, value, PRIMARY KEY (name, value)) WITHOUT ROWID"
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'meta'", (wide,))
        db.commit()
        db.execute("PRAGMA writable_schema = RESET")
        db.execute("INSERT INTO meta VALUES ('journal', 'delete')")
        db.commit()
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'meta'", (sql,))
        db.commit()
    with pytest.raises(Damaged, match="a name twice"):
        sqlstate.open(made)


@pytest.mark.parametrize(
    ("column", "value"),
    [("at", 7), ("kind", None), ("seq", "x"), ("seq", -1), ("chain", b"x"), ("detail", b"{}"), ("detail", "[" * 5000),
     ("digest", None), ("number", -5)],
)  # fmt: skip
def test_an_audit_entry_with_a_field_that_is_none_is_found(made: Path, column: str, value: Any) -> None:
    edit(made, "audit", f"UPDATE audit SET {column} = ? WHERE number = 1", value)
    with sqlstate.open(made, read_only=True) as store:
        if column != "number":
            with pytest.raises(Damaged, match="audit entry"):
                list(store.audit())
        assert store.check_audit()
    assert finding(made)


# ---- Our own bugs ----


BUGS = [AttributeError("oops"), TypeError("oops"), KeyError("oops"), IndexError("oops"), ValueError("oops"),
        AssertionError("oops"), ZeroDivisionError("oops"), OverflowError("oops")]  # fmt: skip


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
@pytest.mark.parametrize(
    ("module", "name"),
    [(findings, "leaf"), (raw_rows, "record_bytes"), (trail, "_check_migration"), (entries, "node_digest"),
     (merkle, "top_rows"), (state, "size")],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)  # fmt: skip
def test_a_bug_of_ours_is_no_damage_of_the_file(
    made: Path, monkeypatch: pytest.MonkeyPatch, bug: Exception, module: Any, name: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise bug

    monkeypatch.setattr(module, name, fail)
    with sqlstate.open(made, read_only=True) as store, pytest.raises(type(bug), match="oops"):
        store.check("quick" if name == "top_rows" else "full")


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
@pytest.mark.parametrize(
    ("module", "name"),
    [(proven_tree, "leaves_of"), (proven_tree, "pairs_of"), (proven_tree, "committed"), (repair_log, "canonical"),
     (repair_log, "_judge"), (repair_entries, "node_digest"), (state, "write"), (entries, "leaf_of")],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)  # fmt: skip
def test_a_bug_of_ours_in_a_repair_is_no_damage_of_the_file(
    made: Path, monkeypatch: pytest.MonkeyPatch, bug: Exception, module: Any, name: str
) -> None:
    edit(made, "state", "UPDATE state SET value = '7' WHERE key = 1")
    edit(made, "merkle", "UPDATE merkle SET children = zeroblob(40) WHERE level = 1")
    damaged = made.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise bug

    monkeypatch.setattr(module, name, fail)
    with pytest.raises(type(bug), match="oops"):
        sqlstate.repair(made)
    assert made.read_bytes() == damaged
    assert [each.name for each in made.parent.iterdir()] == [made.name]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
@pytest.mark.parametrize(
    ("module", "name"),
    [(entries, "leaf_of"), (verify_copy, "facts_of"), (closed_file, "set_journaling"), (wal, "last")],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_a_bug_of_ours_in_a_backup_or_a_restore_is_no_damage_of_the_file(
    made: Path, monkeypatch: pytest.MonkeyPatch, bug: Exception, module: Any, name: str
) -> None:
    copy = made.with_name("copy.db")
    with sqlstate.open(made) as store:
        store.backup(copy)

        def fail(*_: object, **__: object) -> None:
            raise bug

        with monkeypatch.context() as patched:
            patched.setattr(module, name, fail)
            with pytest.raises(type(bug), match="oops"):
                store.backup(made.with_name("other.db"))
            with pytest.raises(type(bug), match="oops"):
                sqlstate.restore(copy, made.with_name("restored.db"))
    assert sorted(each.name for each in made.parent.iterdir()) == ["copy.db", made.name]


def test_no_row_is_read_by_numbers_of_its_columns() -> None:
    numbered = re.compile(r"\b(?:row|record|each|found)\[(?:-?\d+)?:?(?:-?\d+)?\]")
    for file in sorted((Path(sqlstate.__file__).parent / "maintenance").rglob("*.py")):
        assert numbered.findall(file.read_text("utf-8")) == [], file


def test_a_table_tells_the_first_field_that_is_wrong() -> None:
    assert raw_rows.STATE.fits(("c", 1, "1"))
    assert raw_rows.STATE.wrong(("c", 1, "1")) == ""
    assert raw_rows.STATE.wrong(("c", 1.5, None)).startswith("I1: 'c'[1.5] has 1.5 for its key, which must be")
    with pytest.raises(
        Damaged, match=r"^I1: /p: 'c'\['k'\] has NULL for its value, which must be text or bytes; restore"
    ):
        raw_rows.STATE.check(("c", "k", None), "/p")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("2026-11-23T17:09:46.000000Z", True),
        ("2026-11-23T17:09:46.000000z", False),
        ("2026-13-23T17:09:46.000000Z", False),
        ("2026-11-23T24:09:46.000000Z", False),
        ("2026-11-23T17:09:46Z", False),
        ("\uff12026-11-23T17:09:46.000000Z", False),
        ("2026-11-23T17:09:46.000000Z\n", False),
        (b"2026-11-23T17:09:46.000000Z", False),
    ],
)
def test_a_time_is_spelled_in_one_way(text: Any, is_one: bool) -> None:
    assert raw_rows.is_time(text) is is_one


def test_an_error_about_a_file_has_its_parts_as_attributes() -> None:
    """The path and the sentence may hold what the parts are joined with."""
    error = Damaged.found("/a: b; c.db", "a row says '; restore a backup'", "I5")
    for each in (error, pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert str(each) == "I5: /a: b; c.db: a row says '; restore a backup'; restore a backup"
        assert (each.what, each.do) == ("I5: a row says '; restore a backup'", "restore a backup")
    assert (Damaged("whole").what, Damaged("whole").do) == ("whole", "")


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "lsn": st.sampled_from([2, 0, -1, fmt.NUMBER_MAX + 1, "2", None]),
    "txn": st.sampled_from([1, 0, -1, 1.0, fmt.NUMBER_MAX + 1, "1", None]),
    "kind": st.sampled_from(["PUT", "DELETE", "BEGIN", "put", None]),
    "session": st.sampled_from([None, bytes(16), "s"]),
    "collection": st.sampled_from(["c", "", "c" * 256, "é" * 128, b"c", 1, None]),
    "key": st.sampled_from([1, "k", b"k", "", b"", 1.5, None, "k" * (fmt.KEY_BYTES_MAX + 1)]),
    "value": st.sampled_from(["1", "", b"1", 1, None, raw_rows.InvalidText(b"\xff")]),
    "before": st.sampled_from([None, "1", b"", 1.5, raw_rows.InvalidText(b"\xff")]),
} | {name: st.sampled_from([None, 1, b"x"]) for name in ("seq", "root", "count", "at", "chain", "note")}
USUAL = RawRecord(2, 1, "PUT", None, "c", 1, "1", None)


@given(
    usual=st.sampled_from([USUAL, USUAL._replace(before=b"0"), USUAL._replace(kind="DELETE", value=None, before="0")]),
    others=st.dictionaries(st.sampled_from(sorted(FIELDS)), st.none(), max_size=2).flatmap(
        lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names})
    ),
)
def test_a_direct_change_is_one_that_fits(usual: RawRecord, others: dict[str, Any]) -> None:
    row = usual._replace(**others)
    is_direct = row.kind in ("PUT", "DELETE") and row.session is None and row.chain is None
    fits = is_direct and raw_rows.RECORDS[row.kind].fits(row)
    expected = names.name_bytes(names.stored_name(row.collection, row.key)) if fits else None
    assert raw_rows.direct_change(tuple(row)) == expected
