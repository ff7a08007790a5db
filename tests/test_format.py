"""Goal: the file is what docs/reference/file-format.md says, to the byte. Method: the package against the vectors
that the reference made; the program of section 13 and the sqlite3 module against files that the package made. Files
of older formats are made as the page of their time had it, and brought to the newest, also by processes that die on
the way."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest

import sqlstate
from sqlstate.format import constants as fmt
from sqlstate.format import merkle
from sqlstate.format.names import make_name, name_bytes, stored_name
from sqlstate.format.records import (
    Kind,
    Record,
    begin_bytes,
    chain_next,
    chain_zero,
    change_bytes,
    commit_bytes,
    record_bytes,
    short_bytes,
)
from sqlstate.sqlite import connection
from sqlstate.tables import audit, meta, wal
from tests import MIGRATIONS, ROOT
from tests.reference import audit as plain_audit
from tests.reference import plain
from tests.reference.notation import sha256
from tests.support.images import folder_image
from tests.vectors import make

if TYPE_CHECKING:
    from tests.conftest import OpenStore

VECTORS = ROOT / "tests" / "vectors"
PAGE = ROOT / "docs" / "reference" / "file-format.md"


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


def typed(value: dict[str, str] | None) -> Any:
    if value is None:
        return None
    of: dict[str, Any] = {"integer": int, "text": str, "blob": bytes.fromhex}
    return of[value["type"]](value["value"])


def name_of(case: dict[str, Any]) -> Any:
    return stored_name(case["collection"], typed(case["key"]))


@pytest.mark.parametrize("case", load("encoding")["names"], ids=lambda case: case["name"][:40])
def test_names_and_ranks_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    name = make_name(case["collection"], typed(case["key"]))

    assert name_bytes(name).hex() == case["name"]
    assert merkle.rank(name_bytes(name)) == case["rank"]


@pytest.mark.parametrize("case", load("encoding")["leaves"], ids=lambda case: case["leaf"][:12])
def test_leaves_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    assert merkle.leaf(name_bytes(name_of(case)), typed(case["value"])).hex() == case["leaf"]


def entries_of(case: dict[str, Any]) -> dict[Any, Any]:
    if "generated" in case:
        return {make_name("c", f"key{i:05d}"): str(i) for i in range(case["count"])}
    return {name_of(entry): typed(entry["value"]) for entry in case["entries"]}


@pytest.mark.parametrize("case", load("tree")["cases"], ids=lambda case: case["name"])
def test_a_store_has_the_root_and_the_rows_of_the_vectors(open_store: OpenStore, case: dict[str, Any]) -> None:
    store = open_store()
    with store.transaction() as txn:
        for name, stored in entries_of(case).items():
            txn._entries.put_stored(name, stored)
    with store._engine.reading() as connection:
        rows = set(connection.rows("SELECT level, collection, key, children FROM merkle"))

    assert store.head().root.hex() == case["root"]
    assert store.head().count == case["count"]
    assert store.stats().levels == case["levels"]
    if "merkle_rows" in case:
        assert rows == {
            (row["level"], row["collection"], typed(row["key"]), bytes.fromhex(row["children"]))
            for row in case["merkle_rows"]
        }


def record_of(row: dict[str, Any]) -> Record:
    fields: dict[str, Any] = dict.fromkeys(Record._fields)  # the vectors have what the bytes are made of
    fields |= {field: row[field] for field in COLUMNS_OF_1}
    for field in ("key", "value", "before"):
        fields[field] = typed(fields[field])
    return Record(**{**fields, "kind": Kind(row["kind"])})


def test_record_bytes_and_chain_are_those_of_the_vectors() -> None:
    vectors = load("chain")
    records = {row["lsn"]: row for row in vectors["wal"]}
    chain = chain_zero(bytes.fromhex(vectors["store_id"]))
    assert chain.hex() == vectors["chain_0"]
    for commit in vectors["commits"]:
        joined = b""
        for lsn in commit["lsn"]:
            ours = record_bytes(record_of(records[lsn]))
            assert ours.hex() == records[lsn]["bytes"]
            joined += ours
        digest = sha256(joined)
        assert digest.hex() == commit["records_hash"]
        facts = (commit["seq"], bytes.fromhex(commit["root"]), commit["count"], commit["at"])
        chain = chain_next(chain, facts, digest)
        assert chain.hex() == commit["chain"]


def test_the_digests_of_the_audit_trail_are_those_of_the_vectors() -> None:
    vectors = load("audit")
    digest = audit.digest_zero(bytes.fromhex(vectors["store_id"]))
    assert digest.hex() == vectors["digest_0"]
    for entry in vectors["audit"]:
        assert sha256(bytes.fromhex(entry["preimage"])).hex() == entry["digest"]
        place = (entry["seq"], bytes.fromhex(entry["chain"]))
        digest = audit.digest_next(digest, entry["number"], place, (entry["at"], entry["kind"], entry["detail"]))
        assert digest.hex() == entry["digest"]


@pytest.mark.parametrize("entry", load("audit")["audit"], ids=lambda entry: f"{entry['number']} {entry['kind']}")
def test_the_detail_of_an_entry_is_written_as_in_the_vectors(open_store: OpenStore, entry: dict[str, Any]) -> None:
    store = open_store()
    number = store._record(entry["kind"], json.loads(entry["detail"]))
    with store._engine.reading() as reader:
        assert reader.value("SELECT detail FROM audit WHERE number = ?", (number,)) == entry["detail"]


@pytest.mark.parametrize("case", load("audit")["markers"], ids=lambda case: f"{case['state']} {case['lsn']}")
def test_the_marker_has_the_bytes_of_the_vectors(case: dict[str, Any]) -> None:
    memory = connection.memory()
    memory.run("CREATE TABLE meta (name, value); INSERT INTO meta VALUES ('marker', x'')")
    assert meta.read_dirty_flag(memory) == meta.DirtyFlag()
    marker = meta.DirtyFlag(bool(case["state"]), bytes.fromhex(case["nonce"]), int(case["lsn"]), int(case["inode"]))
    meta.write_dirty_flag(memory, marker)

    assert memory.value("SELECT value FROM meta").hex() == case["marker"]
    assert meta.read_dirty_flag(memory) == marker
    memory.run("UPDATE meta SET value = substr(value, 1, 25)")  # as version 0.1.0 wrote it
    assert meta.read_dirty_flag(memory) == marker._replace(inode=0)


def test_the_short_form_of_a_commit_has_the_bytes_of_its_three_records() -> None:
    before, after = b"\x01" * 32, b"\x02" * 32

    for leaf in (before, None):
        assert short_bytes(7, leaf, after) == (
            begin_bytes(7, "", None) + change_bytes(8, 7, leaf, after) + commit_bytes(9, 7)
        )


# What takes away, inside a transaction, all that keeps the audit trail from being changed.
TRIGGERS = ("audit_no_update", "audit_no_delete", "audit_no_replace")
UNGUARDED = [f"DROP TRIGGER {name}" for name in TRIGGERS]


def reader_program() -> str:
    section = PAGE.read_text("utf-8").split("## 13.")[1]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_stranger_recomputes_root_and_chain_of_a_closed_file(tmp_path: Path, journal: Any) -> None:
    path = tmp_path / "s.db"
    with sqlstate.open(path, journal=journal) as store:
        store["c"].update({i: {"i": i} for i in range(700)})
        store["c"].update({"k": "é🙂", b"b": b"\xff", "n": None})
        store["c"][5] = "changed"
        del store["c"][6]
        drop = store.wal.append("BEGIN", note="dropped").txn
        txn = store.wal.append("BEGIN", note="staged").txn
        store.wal.append("PUT", txn=txn, collection="d", key=1, value=[1.5])
        store.wal.append("ROLLBACK", txn=drop)
        store.wal.mark_committed(txn)
        head = store.head()
    program = tmp_path / "reader.py"
    program.write_text(reader_program(), "utf-8", newline="\n")
    done = subprocess.run([sys.executable, "-I", program, path], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    digest = query(path, "SELECT digest FROM events ORDER BY number DESC LIMIT 1")[0][0]
    for line in (f"root {head.root.hex()}", f"chain {head.chain.hex()}", f"audit {digest}"):
        assert f"{line} as recorded" in done.stdout
    broken = {
        "chain": ["UPDATE wal SET value = '[2.5]' WHERE collection = 'd'"],
        "audit": [*UNGUARDED, "UPDATE audit SET at = replace(at, 'T', 't') WHERE number = 1"],
    }
    for what, statements in broken.items():
        copy = tmp_path / f"{what}.db"
        shutil.copy(path, copy)
        with closing(sqlite3.connect(copy)) as db, db:
            for statement in statements:
                db.execute(statement)
        done = subprocess.run([sys.executable, "-I", program, copy], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        wrong = [line.split()[0] for line in done.stdout.splitlines() if "but the file says" in line]
        assert wrong == [what]


def closed_store(path: Path) -> Path:
    with sqlstate.open(path) as store:
        store["users"]["ada"] = {"name": "Ada", "born": 1815}
        store["users"][b"\x01"] = b"\xff"
        with store.transaction("a note") as txn:
            txn.delete("users", b"\x01")
    return path


def query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def test_any_sqlite_tool_reads_the_file(path: Path) -> None:
    closed_store(path)

    assert query(path, "SELECT value ->> '$.name' FROM state WHERE key = 'ada'") == [("Ada",)]
    assert query(path, "SELECT * FROM entries") == [("users", "text", "ada", "json", '{"born":1815,"name":"Ada"}')]
    assert [row[0] for row in query(path, "SELECT seq FROM commits")] == [1, 2, 3]
    assert query(path, "SELECT kind, key, before, note FROM log WHERE txn = (SELECT max(txn) FROM log)") == [
        ("BEGIN", None, None, "a note"),
        ("DELETE", "01", "FF", None),
        ("COMMIT", None, None, None),
    ]
    assert query(path, "SELECT number, kind, seq, detail ->> '$.name' FROM events") == [
        (number, "migration", 0, file.name) for number, file in enumerate(MIGRATIONS, 1)
    ]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit SET detail = '{}'",
        "UPDATE audit SET number = 9 WHERE number = 2",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE number = 2",
        "REPLACE INTO audit SELECT 1, at, kind, seq, chain, detail, digest FROM audit WHERE number = 2",
        "INSERT OR REPLACE INTO audit SELECT 2, at, kind, seq, chain, detail, digest FROM audit WHERE number = 1",
        "INSERT OR IGNORE INTO audit SELECT 0, at, kind, seq, chain, detail, digest FROM audit WHERE number = 1",
        """INSERT INTO audit SELECT 2, at, kind, seq, chain, '{}', digest FROM audit WHERE number = 1
        ON CONFLICT DO UPDATE SET detail = '{}'""",
    ],
)
def test_the_triggers_refuse_to_change_the_audit_trail(path: Path, sql: str) -> None:
    closed_store(path)
    before = query(path, "SELECT * FROM audit")

    with (
        closing(sqlite3.connect(path)) as db,
        pytest.raises(sqlite3.IntegrityError, match=r"an audit ent|are appended"),
    ):
        db.execute(sql)
    assert query(path, "SELECT * FROM audit") == before
    assert plain.judge(path).findings == ()


# A file that the package made, one thing changed in it, and exactly what the judge must say.
BREAKS = {
    "sound": ([], set()),
    "I11": (["UPDATE meta SET value = CAST(substr(value, 1, 24) || x'00' AS BLOB) WHERE name = 'marker'"], {"I11"}),
    "I11 open": (
        ["UPDATE meta SET value = CAST(x'01' || substr(value, 2, 16) || zeroblob(8) AS BLOB) WHERE name = 'marker'"],
        {"I11"},
    ),
    "I12 detail": (["UPDATE audit SET detail = '{}' WHERE number = 1"], {"I12"}),
    "I12 a hole": (["UPDATE audit SET number = 9 WHERE number = 2"], {"I12"}),
    "I12 gone": (["DELETE FROM audit WHERE number = 1"], {"I12"}),
    "format 3.1": (["DELETE FROM meta WHERE name = 'marker'"], {"format 3.1"}),
    "format 3.5": (["UPDATE staged SET session = zeroblob(16)"], {"format 3.5"}),
    "format 3.7": (["UPDATE audit SET kind = 'crash' WHERE number = 2"], {"format 3.7"}),
    "format 3.7 trigger": (["DROP TRIGGER audit_no_delete"], {"format 3.7"}),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_file_of_the_package_with_one_thing_changed(path: Path, what: str) -> None:
    closed_store(path)
    with sqlstate.open(path) as store:
        store.stage("left").put("users", "ada", None)
    statements, expected = BREAKS[what]
    with closing(sqlite3.connect(path)) as db, db:
        triggers = db.execute("SELECT sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for statement in UNGUARDED:
            db.execute(statement)
        for statement in statements:
            if not statement.startswith("DROP TRIGGER"):
                db.execute(statement)
        dropped = {statement.split()[-1] for statement in statements if statement.startswith("DROP TRIGGER")}
        for (trigger,) in triggers:
            if trigger.split()[2] not in dropped:
                db.execute(trigger)
    assert {finding.split(":")[0] for finding in plain.judge(path).findings} == expected


def crashed(path: Path, tmp_path: Path) -> Path:
    """A store as a kill leaves it after its second commit."""
    copy = tmp_path / "crashed.db"
    with sqlstate.open(path) as store:
        for number in (1, 2):
            store["c"]["k"] = number
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    return copy


def test_the_detail_of_a_recovery_has_the_members_that_the_page_lists(path: Path, tmp_path: Path) -> None:
    with sqlstate.open(crashed(path, tmp_path)) as store:
        [entry] = [entry for entry in store.audit() if entry.kind == "recovery"]
    table = PAGE.read_text("utf-8").split("| member of `recovery` | value |")[1].split("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    members = {name for first, _ in rows for name in re.findall(r"`(\w+)`", first)}
    assert set(entry.detail) == members
    [journal] = [text for first, text in rows if first == "`journal`"]
    assert set(entry.detail["journal"]) == set(re.findall(r"`(\w+)`", journal))
    for name in ("before", "after"):
        assert set(entry.detail[name]) == {"seq", "root", "count", "at", "chain"}


def test_a_kill_leaves_the_marker_open_and_recovery_opens_it_with_another_nonce(path: Path, tmp_path: Path) -> None:
    copy = crashed(path, tmp_path)
    alone = shutil.copy(copy, tmp_path / "main alone.db")
    before = marker_of(Path(alone))
    with sqlstate.open(copy) as store:
        shutil.copy(copy, alone)
        opened = marker_of(Path(alone))
        last = [record.lsn for record in store.wal.read()][-1]
    closed = marker_of(copy)

    assert (before[0], opened[0], closed[0]) == (plain_audit.OPEN, plain_audit.OPEN, plain_audit.AT_REST)
    assert before[1:17] != opened[1:17] == closed[1:17]
    assert int.from_bytes(closed[17:25], "big") == last
    assert plain.judge(copy).findings == ()


def test_the_header_is_what_the_page_says(path: Path) -> None:
    closed_store(path)

    assert path.read_bytes()[68:72] == bytes.fromhex("53715374") == fmt.APPLICATION_ID.to_bytes(4)
    assert query(path, "PRAGMA user_version") == [(plain.FORMAT,)]
    assert query(path, "PRAGMA encoding") == [("UTF-8",)]
    assert {name for (name,) in query(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")} == {
        "meta", "state", "merkle", "wal", "staged", "audit", "log_blocks", "cut_commits", "claims", "digest_logs",
        "schema_migrations",
    }  # fmt: skip
    assert {name for (name,) in query(path, "SELECT name FROM sqlite_schema WHERE type = 'trigger'")} == set(TRIGGERS)
    assert dict(query(path, "SELECT name, value FROM meta WHERE name IN ('format', 'journal')")) == {
        "format": plain.FORMAT, "journal": "wal",
    }  # fmt: skip
    assert {name for (name,) in query(path, "SELECT name FROM meta")} == {
        "store_id", "format", "journal", "created", "marker", "log_limit",
    }  # fmt: skip


def marker_of(path: Path) -> bytes:
    [(marker,)] = query(path, "SELECT value FROM meta WHERE name = 'marker'")
    return bytes(marker)


def test_the_marker_goes_from_never_opened_to_open_and_to_rest(path: Path, tmp_path: Path) -> None:
    sqlstate.open(path).close()
    assert marker_of(path) == b""
    nonces = set()
    for number in (1, 2):
        with sqlstate.open(path) as store:
            store["c"]["k"] = number
            # The main file by itself: nothing may look at it while the store is open but a copy.
            shutil.copy(path, tmp_path / "main alone.db")
            opened = marker_of(tmp_path / "main alone.db")
            before = 3 * (number - 1)  # records of the puts before: BEGIN, PUT, COMMIT
            assert (len(opened), opened[0], opened[17:25]) == (33, plain_audit.OPEN, before.to_bytes(8, "big"))
            assert int.from_bytes(opened[25:], "big") == path.stat().st_ino
        closed = marker_of(path)
        assert closed == plain_audit.marker(plain_audit.AT_REST, opened[1:17], 3 * number, os.stat(path).st_ino)
        nonces.add(opened[1:17])
    assert len(nonces) == 2


def test_a_store_without_sqlites_wal_has_no_marker(path: Path) -> None:
    with sqlstate.open(path, journal="delete") as store:
        store["c"]["k"] = 1
    assert marker_of(path) == b""


def test_the_page_states_the_limits_of_the_code() -> None:
    page = PAGE.read_text("utf-8")
    for number in (fmt.NAME_BYTES_MAX, fmt.KEY_BYTES_MAX, fmt.VALUE_BYTES_MAX):
        assert f"{number:,}" in page
    assert str(fmt.APPLICATION_ID) in page
    assert f"multiple of {fmt.MILESTONE}" in page
    assert f"leaves {fmt.LOG_BLOCK} · block to" in page
    assert f"(16 - level) · 2^{fmt.NODE_ID_SHIFT}" in page
    assert fmt.LEVEL_MAX == 16


def test_one_commit_in_64_is_in_the_index(open_store: OpenStore) -> None:
    store = open_store()
    for i in range(200):
        store["c"]["k"] = i
    with store._engine.reading() as connection:
        plan = connection.rows(f"EXPLAIN QUERY PLAN {wal._MILESTONE}", (128,))
        assert any("wal_milestones" in row[3] for row in plan)
        assert wal.commit(connection, 130) == list(store.commits())[129]
        assert wal.commit(connection, 201) is None


# ---- Files of older formats ----

CREATE_SCHEMA_MIGRATIONS = """CREATE TABLE IF NOT EXISTS schema_migrations (
  number INTEGER PRIMARY KEY,
  name   TEXT NOT NULL,
  sha256 BLOB NOT NULL,
  at     TEXT NOT NULL
)"""
OLDER = range(1, plain.FORMAT)
COLUMNS_OF_1 = (
    "lsn", "txn", "kind", "session", "collection", "key", "value", "before", "seq", "root", "count", "at", "chain",
    "note",
)  # fmt: skip
TABLES_OF_1 = {"state": "*", "merkle": "*", "wal": ", ".join(COLUMNS_OF_1), "staged": "*"}
SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
# All that ended in the log of the vectors, whose numbers have a hole, and the same without the hole.
ENDED = [record for record in make.LOG if record.txn != 35]
NUMBERS = {record.lsn: number for number, record in enumerate(ENDED, 1)}
CLOSED_UP = [replace(record, lsn=NUMBERS[record.lsn], txn=NUMBERS[record.txn]) for record in ENDED]


def make_older(path: Path, log: list[plain.Record], journal: str = "wal", version: int = 1) -> plain.Commit:
    """Make a file as the page of its older format had it, and return its newest commit."""
    records, commits, entries = make.closed(make.STORE_ID, log)
    applied = list(enumerate(MIGRATIONS[:version], 1))
    facts = [("store_id", make.STORE_ID), ("format", version), ("journal", journal), ("created", make.at(0))]
    rows = sorted(plain.merkle_rows(entries), key=lambda row: (row[0], plain.sort_key(row[1], row[2])))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(CREATE_SCHEMA_MIGRATIONS)
        for number, file in applied:
            db.executescript(file.read_text("utf-8"))
            digest = hashlib.sha256(file.read_bytes()).digest()
            db.execute("INSERT INTO schema_migrations VALUES (?, ?, ?, ?)", (number, file.name, digest, make.at(0)))
        db.executemany("INSERT INTO meta VALUES (?, ?)", facts)
        db.executemany("INSERT INTO state VALUES (?, ?, ?)", entries)
        numbered = [((16 - row[0]) * 2**48 + number, *row) for number, row in enumerate(rows)]
        db.executemany("INSERT INTO merkle VALUES (?, ?, ?, ?, ?)", numbered)
        filled = [[getattr(record, column) for column in COLUMNS_OF_1] for record in records]
        columns, holes = ", ".join(COLUMNS_OF_1), ", ".join("?" * len(COLUMNS_OF_1))
        db.executemany(f"INSERT INTO wal ({columns}) VALUES ({holes})", filled)
        staged = [(record.txn, record.session) for record in log if record.lsn == 35]
        db.executemany("INSERT INTO staged VALUES (?, ?)", staged)
        db.executescript(f"PRAGMA application_id = {fmt.APPLICATION_ID}; PRAGMA user_version = {version}")
        if version > 1:
            digest = plain_audit.digest_zero(make.STORE_ID)
            for number, file in applied:
                detail = make.detail_text(make.migration(number, file.name))
                chain = plain.chain_zero(make.STORE_ID)
                entry = plain_audit.Entry(number, make.at(0), "migration", 0, chain, detail)
                digest = plain_audit.digest_next(digest, entry)
                db.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)", astuple(replace(entry, digest=digest)))
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA journal_mode = {journal}")
    return commits[-1]


def tables_of_1(path: Path) -> dict[str, list[Any]]:
    return {
        table: query(path, f"SELECT {columns} FROM {table} ORDER BY 1, 2") for table, columns in TABLES_OF_1.items()
    }


def check_brought_up(path: Path, newest: plain.Commit, version: int = 1) -> list[Any]:
    """The file is of the newest format, with the newest commit that it had; return the kinds of its audit entries.

    Args:
        path: the file.
        newest: its newest commit.
        version: the format that it had.
    """
    judgement = plain.judge(path, history=None)
    assert judgement.findings == ()
    assert (judgement.seq, judgement.root, judgement.chain) == (newest.seq, newest.root, newest.chain)
    added = list(enumerate(MIGRATIONS, 1))[version:]
    rows = query(path, f"SELECT number, name, sha256 FROM schema_migrations WHERE number > {version} ORDER BY number")
    assert rows == [(number, file.name, sha256(file.read_bytes())) for number, file in added]
    before = 0 if version == 1 else version  # format 1 had no audit trail
    entries = query(path, f"SELECT seq, chain, detail FROM audit WHERE number > {before} ORDER BY number")
    for (number, name, digest), (seq, chain, detail) in zip(rows, entries, strict=False):
        assert (seq, chain) == (newest.seq, newest.chain)
        assert json.loads(detail) == {"number": number, "name": name, "sha256": digest.hex()}
    return [kind for (kind,) in query(path, "SELECT kind FROM audit ORDER BY number")]


# The kinds of audit entries of a file that had an older format. Format 1 had no audit trail.
MIGRATED = {version: ["migration"] * (len(MIGRATIONS) - (version == 1)) for version in OLDER}


@pytest.mark.parametrize("version", OLDER)
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_file_of_an_older_format_is_brought_to_the_newest(path: Path, journal: str, version: int) -> None:
    newest = make_older(path, ENDED, journal, version)
    before = tables_of_1(path)

    with sqlstate.open(path) as store:
        assert store.head() == (newest.seq, newest.root, newest.count, newest.at, newest.chain)
        assert store.stats().format == plain.FORMAT
        assert [(entry.kind, entry.detail["number"]) for entry in store.audit()][version - len(MIGRATIONS) :] == [
            ("migration", number) for number in range(version + 1, len(MIGRATIONS) + 1)
        ]
        assert store.check_audit() == []
    assert tables_of_1(path) == before
    assert marker_of(path) == b""
    assert check_brought_up(path, newest, version) == MIGRATED[version]
    again = folder_image(path.parent)
    sqlstate.open(path).close()
    assert folder_image(path.parent) == again

    with sqlstate.open(path) as store:
        store["c"]["after"] = 1
        assert store.head().seq == newest.seq + 1
    assert plain.judge(path, history=None).findings == ()


@pytest.mark.parametrize("version", OLDER)
def test_the_tables_of_a_file_that_was_brought_up_are_those_of_a_new_one(
    path: Path, tmp_path: Path, version: int
) -> None:
    make_older(path, ENDED, version=version)
    sqlstate.open(path).close()
    sqlstate.open(tmp_path / "new.db").close()
    assert query(path, SCHEMA) == query(tmp_path / "new.db", SCHEMA)


@pytest.mark.parametrize("version", OLDER)
def test_what_a_dead_session_staged_in_an_older_format_is_rolled_back(path: Path, version: int) -> None:
    newest = make_older(path, make.LOG, version=version)
    with sqlstate.open(path) as store:
        assert store.recovery.rolled_back == (35,)
    assert check_brought_up(path, newest, version) == [*MIGRATED[version], "recovery"]


@pytest.mark.parametrize("version", OLDER)
def test_what_a_dead_session_staged_in_an_older_format_can_be_resumed(path: Path, version: int) -> None:
    newest = make_older(path, make.LOG, version=version)
    with sqlstate.open(path, recover="resume") as store:
        assert [left.txn for left in store.pending()] == [35]
        store.resume(35).commit()
        assert store.head().seq == newest.seq + 1
        assert store["a"][1] is False
    assert plain.judge(path, history=None).findings == ()


def crash_older(path: Path, tmp_path: Path, version: int) -> tuple[Path, plain.Commit, plain.Commit]:
    """Leave a file as a kill of an older version does: the newest commit is in the -wal alone.

    Returns the file, its newest commit, and the one before that.
    """
    newest = make_older(path, CLOSED_UP, version=version)
    before = [record for record in CLOSED_UP if (record.seq or 0) < 5 and record.lsn < newest.records[0].lsn]
    other = tmp_path / "before.db"
    folded = make_older(other, before, version=version)
    with closing(sqlite3.connect(other)) as db:
        if version > 1:
            with db:
                marker = plain_audit.marker(plain_audit.OPEN, bytes(range(16)), 0, 0)
                db.execute("UPDATE meta SET value = ? WHERE name = 'marker'", (marker,))
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("ATTACH ? AS full", (str(path),))
        with db:
            for table in TABLES_OF_1:
                db.execute(f"DELETE FROM {table}")
                db.execute(f"INSERT INTO {table} SELECT * FROM full.{table}")
        crashed = tmp_path / "crashed.db"
        for suffix in ("", "-wal"):
            shutil.copy(f"{other}{suffix}", f"{crashed}{suffix}")
    return crashed, newest, folded


@pytest.mark.parametrize("version", OLDER)
def test_a_file_of_an_older_format_that_was_not_closed_is_recovered_and_brought_up(
    path: Path, tmp_path: Path, version: int
) -> None:
    crashed, newest, _ = crash_older(path, tmp_path, version)

    with sqlstate.open(crashed) as store:
        assert store.head() == (newest.seq, newest.root, newest.count, newest.at, newest.chain)
        assert store.check_audit() == []
    assert check_brought_up(crashed, newest, version) == [*MIGRATED[version], *["recovery"] * (version > 1)]


@pytest.mark.parametrize("version", OLDER[1:])  # format 1 did not know that a -wal is missing
def test_a_file_of_an_older_format_without_its_wal_is_refused_and_can_be_accepted(
    path: Path, tmp_path: Path, version: int
) -> None:
    crashed, _, folded = crash_older(path, tmp_path, version)
    crashed.with_name("crashed.db-wal").unlink()
    with pytest.raises(sqlstate.JournalDamaged, match="there is no -wal"):
        sqlstate.open(crashed)
    with sqlstate.open(crashed, recover="accept") as store:
        assert store.head().seq == folded.seq
        assert store.check().ok
    assert check_brought_up(crashed, folded, version) == [*MIGRATED[version], "recovery"]


@pytest.mark.parametrize("version", OLDER)
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_file_of_an_older_format_is_refused_for_reading_with_what_to_do(
    path: Path, journal: str, version: int
) -> None:
    make_older(path, ENDED, journal, version)
    before = folder_image(path.parent)

    with pytest.raises(sqlstate.ReadOnly, match="open it for writing once") as caught:
        sqlstate.open(path, read_only=True)
    assert str(path) in str(caught.value)
    assert folder_image(path.parent) == before


DEAD = 9


def die(number: int, path: str) -> None:
    """Open a store, and die at the n-th change to its files; what was written before stays. Never returns."""
    left = number

    def step() -> None:
        nonlocal left
        left -= 1
        if not left:
            os._exit(DEAD)

    class File(apsw.VFSFile):
        def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802, the name that SQLite has for it
            step()
            super().xWrite(data, offset)

        def xTruncate(self, size: int) -> None:  # noqa: N802
            step()
            super().xTruncate(size)

        def xSync(self, flags: int) -> None:  # noqa: N802
            step()
            super().xSync(flags)

    class Dying(apsw.VFS):
        def __init__(self) -> None:
            super().__init__("dying", "")

        def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
            return File("", name, flags)

        def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
            step()
            super().xDelete(name, sync)

    vfs = Dying()
    sqlstate.open(path, vfs="dying").close()
    vfs.unregister()
    os._exit(0)


def die_at_each_change(folder: str) -> None:
    """Let a fork open a copy of the store in *folder*, for each n, until one lives; print how many died."""
    number, status = 0, DEAD
    while status == DEAD:
        number += 1
        copy = os.path.join(folder, f"{number}.db")
        shutil.copy(os.path.join(folder, "0.db"), copy)
        pid = os.fork()
        if pid == 0:
            try:
                die(number, copy)
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(number - 1 if status == 0 else "failed")  # noqa: T201


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("version", OLDER)
@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("log", [CLOSED_UP, ENDED], ids=["numbers without holes", "with a hole"])
@pytest.mark.slow
def test_a_death_on_the_way_to_the_newest_format_leaves_one_of_the_two_whole(
    tmp_path: Path, journal: str, log: list[plain.Record], version: int
) -> None:
    first = tmp_path / "0.db"
    newest = make_older(first, log, journal, version)
    before = tables_of_1(first) | {"meta": query(first, "SELECT * FROM meta ORDER BY name")}
    schema = query(first, SCHEMA)
    program = "import sys; from tests.test_format import die_at_each_change; die_at_each_change(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stdout.strip().isdigit(), done.stdout + done.stderr

    formats = []
    for number in range(1, int(done.stdout) + 1):
        path = tmp_path / f"{number}.db"
        # What SQLite makes of what is left, in a copy: it recovers as it reads.
        (tmp_path / "copy").mkdir()
        copy = tmp_path / "copy" / path.name
        for suffix in ("", "-wal", "-journal"):
            if (file := path.with_name(path.name + suffix)).exists():
                shutil.copy(file, copy.with_name(copy.name + suffix))
        [(found,)] = query(copy, "PRAGMA user_version")
        formats.append(found)
        assert query(copy, "PRAGMA integrity_check") == [("ok",)]
        assert tables_of_1(copy) == {table: before[table] for table in TABLES_OF_1}
        if found == version:
            assert query(copy, "SELECT * FROM meta ORDER BY name") == before["meta"]
            assert query(copy, SCHEMA) == schema
        else:
            assert check_brought_up(copy, newest, version) == MIGRATED[version]
        shutil.rmtree(copy.parent)

        with sqlstate.open(path) as store:
            assert store.head().chain == newest.chain
            assert next(store.audit()).kind == "migration"
            assert store.check_audit() == []
        assert check_brought_up(path, newest, version)[0] == "migration"
        assert query(path, "SELECT count(*) FROM audit WHERE kind = 'migration'") == [(len(MIGRATED[version]),)]
    assert formats == sorted(formats)
    # Without SQLite's WAL, the last change of all is the one that commits.
    assert set(formats) == ({version, plain.FORMAT} if journal == "wal" else {version})
    assert check_brought_up(tmp_path / f"{len(formats) + 1}.db", newest, version) == MIGRATED[version]
