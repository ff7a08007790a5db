"""Goal: the file is what docs/reference/file-format.md says, to the byte. Method: the package against the vectors
that the reference made; the program of section 13 and the sqlite3 module against files that the package made."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import format as fmt
from sqlstate import merkle, wal
from sqlstate.encoding import make_name, name_bytes, stored_name
from sqlstate.wal import Kind, Record
from tests.reference import plain

if TYPE_CHECKING:
    from tests.conftest import OpenStore

VECTORS = Path(__file__).parent / "vectors"
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "file-format.md"


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


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
            txn.put_stored(name, stored)
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
    fields = {field: row[field] for field in Record._fields}
    for field in ("key", "value", "before"):
        fields[field] = typed(fields[field])
    return Record(**{**fields, "kind": Kind(row["kind"])})


def test_record_bytes_and_chain_are_those_of_the_vectors() -> None:
    vectors = load("chain")
    records = {row["lsn"]: row for row in vectors["wal"]}
    chain = wal.chain_zero(bytes.fromhex(vectors["store_id"]))
    assert chain.hex() == vectors["chain_0"]
    for commit in vectors["commits"]:
        joined = b""
        for lsn in commit["lsn"]:
            ours = wal.record_bytes(record_of(records[lsn]))
            assert ours.hex() == records[lsn]["bytes"]
            joined += ours
        digest = plain.sha256(joined)
        assert digest.hex() == commit["records_hash"]
        facts = (commit["seq"], bytes.fromhex(commit["root"]), commit["count"], commit["at"])
        chain = wal.chain_next(chain, facts, digest)
        assert chain.hex() == commit["chain"]


def test_the_short_form_of_a_commit_has_the_bytes_of_its_three_records() -> None:
    before, after = b"\x01" * 32, b"\x02" * 32

    for leaf in (before, None):
        assert wal.short_bytes(7, leaf, after) == (
            wal.begin_bytes(7, "", None) + wal.change_bytes(8, 7, leaf, after) + wal.commit_bytes(9, 7)
        )


def reader_program() -> str:
    section = PAGE.read_text().split("## 13.")[1]
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
    program.write_text(reader_program())
    done = subprocess.run([sys.executable, "-I", program, path], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert head.root.hex() in done.stdout
    assert head.chain.hex() in done.stdout
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE wal SET value = '[2.5]' WHERE collection = 'd'")
    done = subprocess.run([sys.executable, "-I", program, path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "chain" in done.stdout


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
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def test_the_header_is_what_the_page_says(path: Path) -> None:
    closed_store(path)

    assert path.read_bytes()[68:72] == bytes.fromhex("53715374") == fmt.APPLICATION_ID.to_bytes(4)
    assert query(path, "PRAGMA user_version") == [(1,)]
    assert query(path, "PRAGMA encoding") == [("UTF-8",)]
    assert {name for (name,) in query(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")} == {
        "meta", "state", "merkle", "wal", "staged", "schema_migrations",
    }  # fmt: skip
    assert {name for (name,) in query(path, "SELECT name FROM meta")} == {"store_id", "format", "journal", "created"}


def test_the_page_states_the_limits_of_the_code() -> None:
    page = PAGE.read_text()
    for number in (fmt.NAME_BYTES_MAX, fmt.KEY_BYTES_MAX, fmt.VALUE_BYTES_MAX):
        assert f"{number:,}" in page
    assert str(fmt.APPLICATION_ID) in page
    assert f"multiple of {fmt.MILESTONE}" in page
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
