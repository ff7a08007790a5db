"""Goal: a check calls every sound store sound, names what is damaged and only that, and changes nothing.

Method: stores made by random commits of every kind are checked on both levels; stores changed from outside through
Python's sqlite3, a cell, a row or a recomputed history at a time, are checked, and the findings compared with what
was changed. Campaign 13 of tests/crash does the same with single bytes at random.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sqlstate
from sqlstate import headlog
from sqlstate.cli import main
from sqlstate.errors import InvalidOption
from sqlstate.format import merkle
from sqlstate.format.names import make_name, name_bytes
from sqlstate.format.records import chain_next, chain_zero, short_bytes
from sqlstate.format.values import Codec
from sqlstate.maintenance.check import check
from sqlstate.maintenance.check.replay import LogRoots
from sqlstate.proving.entries import is_document
from sqlstate.sqlite.connection import Connection
from sqlstate.tables import meta as metadata
from tests.crash.campaign import check as campaign
from tests.reference.notation import json_faults

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import OpenStore

ENTRIES = 700
LEVELS: tuple[check.Level, ...] = ("quick", "full", "replay")


def change(path: Path, *statements: str | tuple[str, tuple[Any, ...]]) -> None:
    """Run statements from outside, with the triggers of audit away."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            sql, bound = (statement, ()) if isinstance(statement, str) else statement
            assert db.execute(sql, bound).rowcount != 0, sql
        for _, sql in triggers:
            db.execute(sql)


def checked(path: Path, level: check.Level = "full", **options: Any) -> check.CheckReport:
    """Check a store without changing it."""
    before = path.read_bytes()
    with sqlstate.open(path, read_only=True, create=False) as store:
        report = store.check(level, **options)
    assert path.read_bytes() == before
    assert [entry.name for entry in os.scandir(path.parent) if entry.name.startswith(path.name)] == [path.name]
    return report


def said(report: check.CheckReport) -> list[tuple[Any, ...]]:
    """Return kinds and names of the findings."""
    return [(each.kind, each.collection, each.key, each.seq, each.lsn, each.level) for each in report.findings]


@pytest.fixture
def made(path: Path) -> Path:
    """A closed store of some hundred entries, three levels, some commits, one of them staged."""
    with sqlstate.open(path) as store:
        with store.transaction() as txn:
            for number in range(ENTRIES):
                txn.put("items", number, {"n": number})
        for number in range(5):
            store["items"][number] = f"value {number}"
        txn_number = store.wal.append("BEGIN", note="draft").txn
        store.wal.append("PUT", txn=txn_number, collection="drafts", key="a", value=1)
        store.wal.mark_committed(txn_number)
        del store["items"][9]
        store["texts"]["ä"] = "x"
        store["texts"]["b"] = b"bytes"
    return path


def leaf(collection: str, key: Any, value: str | bytes) -> bytes:
    return merkle.leaf(name_bytes(make_name(collection, key)), value)


# ---- Sound stores ----

NAMES = st.tuples(
    st.sampled_from(["a", "a\0", "b", "ä"]),
    st.one_of(st.integers(-3, 40), st.sampled_from(["x", "x\0", "y", "ü"]), st.sampled_from([b"x", b"x\0", b"\xff"])),
)
VALUES = st.one_of(st.none(), st.integers(0, 9), st.binary(max_size=3))
CHANGES = st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=9)
STEPS = st.lists(
    st.tuples(st.sampled_from(["transaction", "batch", "staged", "rolled back", "left", "backup"]), CHANGES), max_size=9
)


def do(store: sqlstate.Store, how: str, changes: list[tuple[tuple[str, Any], Any]]) -> None:
    """Make the changes; None deletes."""
    if how == "backup":
        store.backup(store.path.with_name("backup.db"))
        return
    if how in ("transaction", "batch"):
        with store.batch() if how == "batch" else store.transaction():
            for (collection, key), value in changes:
                if value is None:
                    store[collection].pop(key, None)
                else:
                    store[collection][key] = value
        return
    wal = store.wal
    txn = wal.append("BEGIN").txn
    for (collection, key), value in changes:
        if value is not None:
            wal.append("PUT", txn=txn, collection=collection, key=key, value=value)
    if how == "staged" and any(value is not None for _, value in changes):
        wal.mark_committed(txn)
    elif how == "rolled back":
        wal.append("ROLLBACK", txn=txn)


@settings(deadline=None, max_examples=30)
@given(steps=STEPS, bulk=st.integers(0, 60))
def test_every_sound_store_is_called_sound(
    steps: list[tuple[str, Any]], bulk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("check") / "test.db"
    with sqlstate.open(path) as store:
        if bulk:
            store["bulk"].update({number: number for number in range(bulk)})
        for how, changes in steps:
            do(store, how, changes)
        for level in LEVELS:
            report = store.check(level)
            assert (report.outcome, report.findings) == ("sound", ())
    report = checked(path)
    assert (report.outcome, report.findings) == ("sound", ())
    assert report.head is not None
    assert (report.entries, report.commits) == (report.head.count, report.head.seq)
    assert checked(path, "quick").ok


@settings(deadline=None, max_examples=60)
@given(commits=st.lists(st.dictionaries(NAMES, st.one_of(st.none(), st.integers(0, 9)), max_size=30)))
def test_the_logs_root_is_the_root_that_the_entries_have(commits: list[dict[tuple[str, Any], int | None]]) -> None:
    roots = LogRoots()
    now: dict[Any, int] = {}
    for commit in commits:
        for key, value in commit.items():
            name = make_name(*key)
            raw = name_bytes(name)
            if value is None:
                now.pop(name, None)
            else:
                now[name] = value
            roots.put(name, raw, None if value is None else merkle.leaf(raw, str(value)))
        builder = merkle.RootBuilder()
        for name in sorted(now):
            raw = name_bytes(name)
            builder.add(merkle.leaf(raw, str(now[name])), merkle.rank(raw))
        assert roots.root() == builder.finish()


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_store_in_use_is_checked_as_one_commit(open_store: OpenStore, journal: Any) -> None:
    store = open_store(journal=journal)
    store["a"].update({number: number for number in range(100)})
    report = store.check()
    assert report.ok
    assert (report.entries, report.records, report.commits, report.level) == (100, 102, 1, "full")
    assert report.head == store.head()


def test_progress_grows_up_to_the_whole(made: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = checked(made, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (report.entries + report.nodes + report.records,) * 2


def test_foreign_tables_are_named_and_let_be(made: Path) -> None:
    change(made, "CREATE TABLE _litestream_seq (id INTEGER)", "CREATE VIEW theirs AS SELECT 1")
    report = checked(made)
    assert (report.outcome, report.foreign) == ("sound", ("_litestream_seq", "theirs"))


def test_a_store_id_that_was_changed_is_named(made: Path) -> None:
    change(made, ("UPDATE meta SET value = ? WHERE name = 'store_id'", (bytes(16),)))
    with closing(Connection(str(made), 1.0, read_only=True)) as connection:
        report = check.examine(connection, metadata.read(connection))
    assert ("meta", None, None, None, None, None) in said(report)


def test_a_store_id_is_not_blamed_for_a_commit_and_an_audit_entry_that_names_the_first_one(made: Path) -> None:
    change(
        made,
        "UPDATE wal SET note = 'x' WHERE lsn = 1",
        "DELETE FROM audit WHERE number = 1",  # entry 2 stands where entry 1 must be
    )
    report = checked(made)
    assert "entry 1 " in " ".join(each.what for each in report.findings)
    assert {each.kind for each in report.findings} == {"commit", "audit"}


# ---- Entries and nodes ----


def test_a_changed_value_is_named_with_the_leaf_that_the_tree_proves(made: Path) -> None:
    change(made, "UPDATE state SET value = '{\"n\":0}' WHERE key = 123")
    report = checked(made)
    assert report.outcome == "damaged"
    [finding] = report.findings
    assert (finding.kind, finding.collection, finding.key) == ("entry", "items", 123)
    assert finding.expected == leaf("items", 123, '{"n":123}')


def test_a_value_that_is_no_text_is_named(made: Path) -> None:
    change(made, ("UPDATE state SET value = CAST(? AS TEXT) WHERE key = 123", (b'{"n":\xff23}',)))
    assert said(checked(made)) == [("entry", "items", 123, None, None, None)]


NO_DOCUMENTS = ["[1", "1e999", '"\\ud800"', "1 2", "", '{"a":1,}', "9" * 400, "[" * 201 + "]" * 201]


@given(
    text=st.one_of(
        st.text('[]{}",:0123456789.eE+-\\ud8 \n', max_size=12),
        st.builds(
            lambda part, times, last: part * times + last,
            st.sampled_from(["[", "9", "[9,", " "]),
            st.integers(190, 420),
            st.sampled_from(["", "]", "0", ".", "e1"]),
        ),
        st.builds(lambda depth: "[" * depth + "]" * depth, st.integers(190, 1200)),
    )
)
@example(text="[" * 200 + "]" * 200)
@example(text='["' + "[" * 300 + '"]')
@example(text="1" + "0" * 308)
@example(text="1" + "0" * 309)
@settings(max_examples=400)
def test_a_text_is_a_document_exactly_if_the_judge_takes_it_for_one(text: str) -> None:
    assert is_document(text) == (json_faults(text) == [])


@pytest.mark.parametrize("text", NO_DOCUMENTS, ids=lambda text: text[:9])
@pytest.mark.parametrize("entries", [0, 400])
def test_a_text_that_is_no_document_is_named_though_every_digest_is_right(
    path: Path, monkeypatch: pytest.MonkeyPatch, text: str, entries: int
) -> None:
    with sqlstate.open(path) as store:
        store["c"].update({n: n for n in range(entries)})
        with monkeypatch.context() as patched:
            patched.setattr(Codec, "encode", lambda *_: text)
            store["c"]["k"] = 2
        report = store.check()
        assert [(each.kind, each.collection, each.key) for each in report.findings] == [("entry", "c", "k")]
        assert "I1: 'c'['k'] is not a JSON document" in str(report.findings[0])
        store["c"]["k"] = 2
        assert store.check().ok
    path.unlink()  # its history is what no judge accepts


@pytest.mark.parametrize("value", [5, 1.5])
def test_a_value_of_another_class_is_named(made: Path, value: Any) -> None:
    change(made, ("UPDATE state SET value = ? WHERE key = 123", (value,)))
    assert said(checked(made)) == [("entry", "items", 123, None, None, None)]


def test_missing_and_extra_entries_are_named(made: Path) -> None:
    change(
        made,
        "DELETE FROM state WHERE key IN (77, 78, 600)",
        "INSERT INTO state VALUES ('items', 5000, '1'), ('a', 1, '2'), ('items', 'k', '3')",
    )
    found = {(each.kind, each.collection, each.key) for each in checked(made).findings}
    assert found == {
        ("missing", "items", 77), ("missing", "items", 78), ("missing", "items", 600),
        ("extra", "items", 5000), ("extra", "a", 1), ("extra", "items", "k"),
    }  # fmt: skip


def test_a_changed_key_is_a_missing_and_an_extra_entry(made: Path) -> None:
    change(made, "UPDATE state SET key = 123456 WHERE key = 123", "UPDATE state SET key = '45' WHERE key = 45")
    found = {(each.kind, each.key) for each in checked(made).findings}
    assert found == {("missing", 123), ("extra", 123456), ("missing", 45), ("extra", "45")}


def test_an_empty_state_is_all_missing(made: Path) -> None:
    change(made, "DELETE FROM state")
    report = checked(made)
    assert report.head is not None
    assert [each.kind for each in report.findings] == ["missing"] * report.head.count


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_changed_node_is_named_and_nothing_else(made: Path, level: int) -> None:
    with closing(sqlite3.connect(made)) as db:
        id_, children = db.execute("SELECT max(id), children FROM merkle WHERE level = ?", (level,)).fetchone()
    children = children[:19] + bytes([children[19] ^ 1]) + children[20:]
    change(made, ("UPDATE merkle SET children = ? WHERE id = ?", (children, id_)))
    report = checked(made)
    assert {(each.kind, each.level) for each in report.findings} == {("node", level)}
    assert all(each.expected is not None for each in report.findings)


@pytest.mark.parametrize("change_", ["DELETE FROM merkle", "UPDATE merkle SET level = level + 1"])
def test_a_tree_that_is_gone_is_damage_of_nodes_and_not_of_entries(made: Path, change_: str) -> None:
    change(made, change_)
    report = checked(made)
    assert {each.kind for each in report.findings} <= {"node", "unreadable"}
    assert report.outcome == "damaged"


@pytest.mark.parametrize("level", [1, 2])
def test_a_missing_node_is_named_and_entries_are_not_blamed(made: Path, level: int) -> None:
    change(made, ("DELETE FROM merkle WHERE id = (SELECT max(id) FROM merkle WHERE level = ?)", (level,)))
    assert {(each.kind, each.level) for each in checked(made).findings} == {("node", level)}


def test_an_entry_and_the_node_over_it_are_both_said_to_be_damaged(made: Path) -> None:
    change(
        made,
        "UPDATE state SET value = '0' WHERE key = 300",
        "UPDATE merkle SET children = zeroblob(length(children)) "
        "WHERE level = 1 AND collection = 'items' AND key <= 300 AND key > 200",
    )
    kinds = {each.kind for each in checked(made).findings}
    assert "node" in kinds
    assert "entry" in kinds


UNDER_300 = "WHERE level = 1 AND collection = 'items' AND key <= 300 AND key > 200"
BOTH = (
    "UPDATE state SET value = '0' WHERE key = 300",
    f"UPDATE merkle SET children = zeroblob(length(children)) {UNDER_300}",
)


def test_an_entry_below_a_lost_node_is_named_with_the_leaf_that_the_log_proves(made: Path) -> None:
    change(made, *BOTH)
    [finding] = [each for each in checked(made).findings if each.kind == "entry"]
    assert (finding.collection, finding.key, finding.expected) == ("items", 300, leaf("items", 300, '{"n":300}'))


def test_entries_below_a_lost_node_that_the_log_does_not_tell_are_named_by_what_is_around_them(made: Path) -> None:
    change(made, *BOTH, "UPDATE wal SET value = '0' WHERE key = 300 AND kind = 'PUT'")
    report = checked(made)
    assert {each.kind for each in report.findings} == {"node", "unreadable", "commit"}
    [finding] = [each for each in report.findings if each.kind == "unreadable"]
    assert "cannot be proven: the node over them is lost" in finding.what
    assert "between 'items'[" in finding.what
    assert report.outcome == "damaged"


def test_where_nothing_leads_to_the_root_entries_are_compared_with_the_lowest_nodes(made: Path) -> None:
    change(
        made,
        "UPDATE state SET value = '0' WHERE key = 300",
        "UPDATE merkle SET children = zeroblob(length(children)) WHERE level = (SELECT max(level) FROM merkle)",
        "UPDATE wal SET value = '0' WHERE key = 300 AND kind = 'PUT'",
    )
    report = checked(made)
    assert {(each.kind, each.key) for each in report.findings} == {("root", None), ("entry", 300), ("commit", None)}
    assert "does not prove itself either" in next(each.what for each in report.findings if each.kind == "entry")


@pytest.mark.parametrize("level", [1, 2])
def test_each_node_of_a_level_is_named_once(made: Path, level: int) -> None:
    with closing(sqlite3.connect(made)) as db:
        [(count,)] = db.execute("SELECT count(*) FROM merkle WHERE level = ?", (level,)).fetchall()
    change(made, ("UPDATE merkle SET children = zeroblob(length(children)) WHERE level = ?", (level,)))
    report = checked(made)
    assert {(each.kind, each.level) for each in report.findings} == {("node", level)}
    assert len(report.findings) == len({each.place for each in report.findings}) == count


def test_a_node_of_another_name_is_found(made: Path) -> None:
    change(made, "UPDATE merkle SET key = key + 1 WHERE id = (SELECT max(id) FROM merkle WHERE level = 1)")
    assert {(each.kind, each.level) for each in checked(made).findings} == {("node", 1)}


# ---- The log ----


@pytest.mark.parametrize(
    ("sql", "finding"),
    [
        # Key 4 was put in commit 1, and put again in commit 6.
        ("UPDATE wal SET value = '{\"n\":5}' WHERE lsn = 6", ("commit", None, None, 1, 702)),
        ("UPDATE wal SET before = '{\"n\":5}' WHERE seq IS NULL AND key = 4 AND before IS NOT NULL", "record 4"),
        ("UPDATE wal SET key = 100000 WHERE lsn = 300", ("commit", None, None, 1, 702)),
        ("UPDATE wal SET note = 'x' WHERE lsn = 1", ("commit", None, None, 1, 702)),
        ("UPDATE wal SET root = zeroblob(32) WHERE seq = 3", ("commit", None, None, 3, 708)),
        ("UPDATE wal SET count = 12 WHERE seq = 3", ("commit", None, None, 3, 708)),
        ("UPDATE wal SET chain = zeroblob(32) WHERE seq = 3", ("commit", None, None, 3, 708)),
        ("UPDATE wal SET at = 'never' WHERE seq = 3", ("commit", None, None, 3, 708)),
        ("UPDATE wal SET txn = 2 WHERE lsn = 3", ("record", "items", 1, 1, 3)),
        ("UPDATE wal SET kind = 'PIT' WHERE lsn = 3", ("record", None, None, 1, 3)),
        ("UPDATE wal SET kind = 'DELETE' WHERE lsn = 3", ("record", "items", 1, 1, 3)),
        ("UPDATE wal SET seq = 9 WHERE lsn = 708", ("record", None, None, 3, 708)),
        ("UPDATE wal SET value = NULL WHERE lsn = 3", ("record", "items", 1, 1, 3)),
        ("UPDATE wal SET value = 5 WHERE lsn = 3", ("record", "items", 1, 1, 3)),
        ("UPDATE wal SET key = NULL WHERE lsn = 3", ("record", "items", None, 1, 3)),
    ],
)
def test_a_changed_record_is_named_and_no_other(made: Path, sql: str, finding: Any) -> None:
    change(made, sql)
    report = checked(made)
    if finding == "record 4":
        finding = ("record", "items", 4, 6, 716)
    assert [each[:5] for each in said(report)] == [finding]


def test_a_name_with_braces_is_told_as_it_is(path: Path) -> None:
    with sqlstate.open(path) as store:
        store["a"]["{lsn}"] = 1
        store["a"]["{lsn}"] = 2
    change(path, "UPDATE wal SET before = '7' WHERE lsn = 5")
    [finding] = checked(path).findings
    assert (finding.kind, finding.key, finding.lsn) == ("record", "{lsn}", 5)
    assert "'{lsn}'" in finding.what


def test_a_changed_record_is_named_though_others_of_the_log_are_damaged_too(made: Path) -> None:
    change(
        made,
        "UPDATE wal SET note = 'x' WHERE lsn = 1",  # of what stands before commit 2, nothing is known then
        "UPDATE wal SET before = '0' WHERE lsn = 716",
        "UPDATE wal SET before = '0' WHERE lsn = 722",
    )
    with closing(sqlite3.connect(made)) as db:
        seqs = [db.execute("SELECT seq FROM wal WHERE lsn = ?", (lsn,)).fetchone()[0] for lsn in (717, 723)]
    assert [each[:4] for each in said(checked(made))] == [("commit", None, None, seq) for seq in (1, *seqs)]


def test_a_commit_that_is_gone_is_found(made: Path) -> None:
    change(made, "DELETE FROM wal WHERE lsn BETWEEN 706 AND 708")
    assert all(each.seq is not None and each.kind in ("record", "commit") for each in checked(made).findings)
    assert not checked(made).ok


def test_the_root_that_the_newest_commit_records_is_compared_with_the_tree(made: Path) -> None:
    change(made, "UPDATE wal SET root = zeroblob(32) WHERE root IS NOT NULL AND seq = (SELECT max(seq) FROM wal)")
    kinds = {each.kind for each in checked(made).findings}
    assert kinds <= {"root", "commit"}
    assert "root" in kinds
    assert not checked(made, "quick").ok


def rewritten(path: Path, value: str, before: str) -> None:
    """Put an entry twice, then change the first value and the second's `before`, and recompute both chains."""
    with sqlstate.open(path) as store:
        store["a"]["x"] = 1
        store["a"]["x"] = 2
        meta = store._meta
    with closing(sqlite3.connect(path)) as db:
        heads = db.execute("SELECT seq, root, count, at FROM wal WHERE root IS NOT NULL ORDER BY lsn").fetchall()
    first = sha256(short_bytes(1, None, leaf("a", "x", value))).digest()
    chain = chain_next(chain_zero(meta.store_id), heads[0], first)
    second = sha256(short_bytes(4, leaf("a", "x", before), leaf("a", "x", "2"))).digest()
    after = chain_next(chain, heads[1], second)
    change(
        path,
        ("UPDATE wal SET value = ? WHERE lsn = ?", (value, 2)),
        ("UPDATE wal SET chain = ?, records = ? WHERE lsn = ?", (chain, first, 3)),
        ("UPDATE wal SET before = ? WHERE lsn = ?", (before, 5)),
        ("UPDATE wal SET chain = ?, records = ? WHERE lsn = ?", (after, second, 6)),
    )


def test_a_record_that_does_not_go_on_from_the_one_before_is_named_though_every_chain_follows(path: Path) -> None:
    rewritten(path, "7", "1")
    [finding] = checked(path).findings
    assert said(checked(path)) == [("record", "a", "x", 2, 5, None)]
    assert finding.what.startswith("I8: ")


def test_an_old_state_with_a_recomputed_chain_is_found_by_a_replay(path: Path) -> None:
    rewritten(path, "7", "7")
    assert checked(path).ok
    [finding] = checked(path, "replay").findings
    assert (finding.kind, finding.seq) == ("commit", 1)
    assert finding.what.startswith("I8: ")


def test_a_replay_says_which_root_a_commit_was_made_with(made: Path) -> None:
    with closing(sqlite3.connect(made)) as db:
        [(root,)] = db.execute("SELECT root FROM wal WHERE root IS NOT NULL AND seq = 3").fetchall()
    change(made, "UPDATE wal SET root = zeroblob(32) WHERE seq = 3")
    [finding] = checked(made, "replay").findings
    assert (finding.kind, finding.seq, finding.expected) == ("commit", 3, root)


def test_the_staged_table_is_compared_with_the_log(path: Path) -> None:
    with sqlstate.open(path) as store:
        store["a"][1] = 1
        txn = store.wal.append("BEGIN").txn
        store.wal.append("PUT", txn=txn, collection="a", key=2, value=2)
        assert store.check().ok
        store.wal.append("ROLLBACK", txn=txn)
    change(path, "INSERT INTO staged VALUES (1, zeroblob(16))")
    assert said(checked(path)) == [("staged", None, None, None, 1, None)]
    assert said(checked(path, "quick")) == [("staged", None, None, None, 1, None)]


# ---- Other tables ----


def test_an_audit_entry_that_was_changed_is_named(made: Path) -> None:
    change(made, ("UPDATE audit SET detail = CAST(? AS TEXT) WHERE number = 2", (b'{"\xff":1}',)))
    [finding] = checked(made).findings
    assert finding.kind == "audit"
    assert "entry 2" in finding.what


def test_a_view_that_is_gone_is_found(made: Path) -> None:
    change(made, "DROP VIEW log")
    with closing(Connection(str(made), 1.0, read_only=True)) as connection:
        meta = metadata.read(connection)
        for level in LEVELS:
            report = check.examine(connection, meta, level)
            assert [each.kind for each in report.findings] == ["schema"]


def test_a_page_that_is_overwritten_is_damage(made: Path) -> None:
    file = bytearray(made.read_bytes())
    at = file.find(b'{"n":345}') // 4096 * 4096
    file[at : at + 4096] = bytes(4096)
    made.write_bytes(file)
    with sqlstate.open(made, read_only=True) as store:
        report = store.check()
    assert report.outcome == "damaged"
    assert "sqlite" in {each.kind for each in report.findings}


# ---- Against ----


def test_a_root_of_an_earlier_commit_is_accepted_and_another_is_not(path: Path) -> None:
    with sqlstate.open(path) as store:
        empty = store.head().root
        store["a"][1] = 1
        earlier = store.head().root
        store["a"][1] = 2
        for root in (earlier, empty, store.head().root):
            assert store.check("quick", against=root).ok
        assert said(store.check(against=bytes(32))) == [("against", None, None, None, None, None)]


def test_a_signed_head_must_be_of_this_history(path: Path) -> None:
    pytest.importorskip("cryptography")
    signer = headlog.Signer.generate("example.org/app")
    with sqlstate.open(path) as store:
        for number in range(5):
            store["a"][number] = number
        signed = store.signed_head(signer)
        store["a"][9] = 9
        assert store.check(against=signed).ok
    other = path.with_name("other.db")
    with sqlstate.open(other) as store:
        store["a"][0] = 0
        assert [each.kind for each in store.check(against=signed).findings] == ["against"]
        for number in range(5):
            store["a"][number] = number
        assert [each.kind for each in store.check(against=signed).findings] == ["against"]


@pytest.mark.parametrize("against", [b"short", "ab" * 32, 5])
def test_something_else_cannot_be_checked_against(store: sqlstate.Store, against: Any) -> None:
    with pytest.raises(InvalidOption):
        store.check(against=against)
    with pytest.raises(InvalidOption):
        store.check("deep")  # type: ignore[arg-type]


def test_the_report_as_a_dict_is_json(made: Path) -> None:
    change(made, "UPDATE state SET value = '1' WHERE key = 123", "UPDATE merkle SET level = 9 WHERE level = 3")
    facts = checked(made).as_dict()
    assert facts["outcome"] == "damaged"
    assert {"kind", "what"} <= facts["findings"][0].keys()


def test_findings_beyond_the_limit_are_counted(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlstate.maintenance.check.findings.FINDINGS_MAX", 10)
    change(made, "DELETE FROM state")
    report = checked(made)
    assert report.head is not None
    assert len(report.findings) == 10
    assert report.more == report.head.count - 10


# ---- The verb ----


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.output


def test_the_verb_tells_the_outcome_by_its_exit_code(made: Path) -> None:
    code, out = run("check", str(made))
    assert code == 0
    assert '"outcome":"sound"' in out
    change(made, "UPDATE state SET value = '1' WHERE key = 123")
    code, out = run("check", str(made), "--json")
    assert code == 3
    assert '"kind":"entry"' in out
    assert run("check", str(made), "--quick")[0] == 0
    assert run("check", str(made), "--quick", "--replay")[0] == 2
    assert run("check", str(made), "--against", "00" * 32)[0] == 3
    assert run("check", str(made), "--key", "x")[0] == 2
    assert run("check", str(made), "--against", str(made))[0] == 2
    assert run("check", str(made.with_name("none.db")))[0] == 5


def test_the_verb_writes_a_finding_a_line_on_a_terminal(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlstate.cli.options.on_terminal", lambda: True)
    change(made, "UPDATE state SET value = '1' WHERE key = 123", "CREATE TABLE theirs (x)")
    code, out = run("check", str(made))
    assert code == 3
    assert out.startswith("entry: I2: 'items'[123] is not what the tree says")
    assert "DAMAGED" in out
    assert "theirs" in out


@pytest.mark.slow
def test_single_bytes_changed_from_outside_are_all_found_and_named() -> None:
    campaign(13)
