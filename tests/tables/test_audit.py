"""The audit trail: what is entered, that it is chained and only ever appended to, and that tampering is found.

Method: the chain is computed here by hand; other programs try to change the table through SQLite in processes of
their own, or do change it, on closed files, with the triggers taken away.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from tests.support.child import Child
from tests.support.images import image
from tests.support.remote import Remote

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import OpenStore

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
MIGRATIONS = 3  # a new store begins with so many entries
Row = tuple[int, str, str, int, bytes, str, bytes]


def h(data: bytes) -> bytes:
    return sha256(data).digest()


def f(text: str) -> bytes:
    return len(text.encode()).to_bytes(4) + text.encode()


def chained(store_id: bytes, rows: list[Row]) -> list[Row]:
    """Give each row the digest that it must have: docs/reference/file-format.md, by hand."""
    digest = h(b"\x04" + store_id)
    done = []
    for number, at, kind, seq, chain, detail, _ in rows:
        digest = h(
            b"\x04"
            + digest
            + number.to_bytes(8)
            + f(at)
            + f(kind)
            + seq.to_bytes(8, signed=seq < 0)
            + chain
            + f(detail)
        )
        done.append((number, at, kind, seq, chain, detail, digest))
    return done


def read_rows(path: Path) -> tuple[bytes, list[Row]]:
    """Return store id and entries of a closed file."""
    with closing(sqlite3.connect(path)) as connection:
        ((store_id,),) = connection.execute("SELECT value FROM meta WHERE name = 'store_id'")
        return store_id, connection.execute("SELECT * FROM audit ORDER BY number").fetchall()


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write other entries into a closed file, past its triggers."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM audit")
        connection.executemany("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        for _, sql in triggers:
            connection.execute(sql)


def crash(path: Path, value: object = 1, *, stage: bool = False) -> None:
    with Remote.opened(path) as other:
        for number in range(3):
            other.ask("put", "c", "k", [number, value])
        if stage:
            txn = other.ask("stage")
            other.ask("stage_put", txn, "c", "k", "staged")
        other.kill()


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A closed store with three migrations, a recovery that rolled back, a resumption and a check in its trail."""
    path = tmp_path_factory.mktemp("events") / "test.db"
    crash(path, stage=True)
    with sqlstate.open(path) as store:
        store["c"]["k"] = "between"
        store.stage("left")
    with sqlstate.open(path, recover="resume") as store:
        store.resume(store.pending()[0].txn).rollback()
        store["c"]["k"] = "after"
        store._record("check", {"findings": []})
    return path.read_bytes()


@pytest.fixture
def eventful(path: Path, events: bytes) -> Path:
    """A file of this test with those events."""
    path.write_bytes(events)
    return path


# ---- What is entered ----


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_new_store_begins_its_trail_with_its_migrations(open_store: OpenStore, journal: str) -> None:
    store = open_store(journal=journal)
    entries = list(store.audit())
    assert [(entry.number, entry.kind, entry.seq, entry.detail["number"]) for entry in entries] == [
        (1, "migration", 0, 1), (2, "migration", 0, 2), (3, "migration", 0, 3),
    ]  # fmt: skip
    assert [entry.detail["name"] for entry in entries] == [
        "0001_initial.sql", "0002_crash_safety.sql", "0003_log_blocks.sql",
    ]  # fmt: skip
    for entry in entries:
        assert TIME.fullmatch(entry.at)
        assert set(entry.detail) == {"number", "name", "sha256"}
        assert len(bytes.fromhex(entry.detail["sha256"])) == len(entry.digest) == 32
        assert entry.chain == h(b"\x03" + store.store_id)
    assert store.check_audit() == []


def test_ordinary_work_makes_no_entry(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    with store.stage() as txn:
        txn.put("c", "k", 2)
    store.stage().rollback()
    store.wal.append("BEGIN")
    assert [entry.kind for entry in store.audit()] == ["migration"] * MIGRATIONS


def test_an_entry_stands_at_the_newest_commit(eventful: Path) -> None:
    with sqlstate.open(eventful) as store:
        heads = {head.seq: head for head in store.commits()}
        entries = list(store.audit())
        assert [(entry.kind, entry.seq) for entry in entries] == [
            *[("migration", 0)] * MIGRATIONS, ("recovery", 3), ("recovery", 4), ("check", 5),
        ]  # fmt: skip
        assert all(entry.chain == heads[entry.seq].chain for entry in entries if entry.seq)
        assert entries[4].detail.keys() == {"resumed", "session", "by"}
        assert entries[5].detail == {"findings": []}
        assert store.check_audit() == []


def test_after_gives_the_entries_behind_a_number(eventful: Path) -> None:
    with sqlstate.open(eventful) as store:
        entries = list(store.audit())
        for after in range(8):
            assert list(store.audit(after)) == list(store.audit(after=after)) == entries[after:]
        for wrong in (-1, "1", 1.0, 2**63, None, True):
            with pytest.raises(sqlstate.InvalidOption, match="after"):
                list(store.audit(wrong))  # type: ignore[arg-type]


def test_record_appends_an_entry_and_returns_its_number(path: Path) -> None:
    detail = {"findings": ["é", 1, None], "b": {"z": 1, "a": 2}}
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1
        number = store._record("check", detail)
        assert number == MIGRATIONS + 1
        [entry] = store.audit(MIGRATIONS)
        assert (entry.number, entry.kind, entry.seq, entry.detail) == (number, "check", 1, detail)
        assert store.head().seq == 1, "an entry is no commit"
    _, rows = read_rows(path)
    assert rows[MIGRATIONS][5] == '{"b":{"a":2,"z":1},"findings":["é",1,null]}'


def test_an_entry_is_durable_when_it_is_there(path: Path, open_store: OpenStore) -> None:
    with Remote.opened(path) as other:
        txn = other.ask("stage")
        other.kill()
    with Remote.opened(path, recover="resume") as other:
        other.ask("resume", txn)
        before = other.ask("kinds")
        other.kill()
    store = open_store()
    assert [entry.kind for entry in store.audit()][: len(before)] == before
    assert before.count("recovery") == 2


# ---- The chain ----


def test_the_digests_are_those_of_the_formula(eventful: Path) -> None:
    with sqlstate.open(eventful) as store:
        entries = list(store.audit())
        store_id = store.store_id
    found_id, rows = read_rows(eventful)
    assert found_id == store_id
    assert rows == chained(store_id, rows)
    assert [(*entry[:5], json.dumps(entry.detail, ensure_ascii=False, sort_keys=True, separators=(",", ":")), entry[6])
            for entry in entries] == rows  # fmt: skip
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_the_view_shows_it_to_people(eventful: Path) -> None:
    _, rows = read_rows(eventful)
    with closing(sqlite3.connect(eventful)) as connection:
        shown = connection.execute("SELECT * FROM events ORDER BY number").fetchall()
    assert shown == [(*row[:4], row[4].hex(), row[5], row[6].hex()) for row in rows]


# ---- It is appended to, and nothing else ----


REFUSED = {
    "an update": ("UPDATE audit SET detail = '{}' WHERE number = 1", "an audit entry is never changed"),
    "an update of all": ("UPDATE audit SET kind = 'check'", "an audit entry is never changed"),
    "a delete": ("DELETE FROM audit WHERE number = 2", "an audit entry is never deleted"),
    "a delete of all": ("DELETE FROM audit", "an audit entry is never deleted"),
    "insert or replace": (
        "INSERT OR REPLACE INTO audit SELECT number, at, 'x', seq, chain, detail, digest FROM audit WHERE number = 2",
        "audit entries are appended",
    ),
    "replace": (
        "REPLACE INTO audit SELECT number, at, 'check', seq, chain, detail, digest FROM audit WHERE number = 1",
        "audit entries are appended",
    ),
    "insert or ignore": (
        "INSERT OR IGNORE INTO audit SELECT number, at, 'x', seq, chain, detail, digest FROM audit WHERE number = 1",
        "audit entries are appended",
    ),
    "an insert in a hole": (
        "INSERT INTO audit SELECT 0, at, kind, seq, chain, detail, digest FROM audit WHERE number = 1",
        "audit entries are appended",
    ),
    "an upsert": (
        "INSERT INTO audit SELECT * FROM audit WHERE number = 1 ON CONFLICT (number) DO UPDATE SET kind = 'check'",
        "audit entries are appended",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_program_cannot_change_an_entry_by_accident(path: Path, open_store: OpenStore, what: str) -> None:
    statement, says = REFUSED[what]
    store = open_store()
    store["c"]["k"] = 1
    store._record("check", {})
    before = list(store.audit())
    with Child("runs", path, statement) as child:
        child.expects(f"IntegrityError: {says}")
        child.ends()
    assert list(store.audit()) == before
    assert store.check_audit() == []


# ---- Tampering ----


Tamper = Callable[[list[Row]], list[Row]]


def _detail(number: int, change: Callable[[dict[str, Any]], object]) -> Tamper:
    def tamper(rows: list[Row]) -> list[Row]:
        row = rows[number - 1]
        detail = json.loads(row[5])
        change(detail)
        text = json.dumps(detail, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        assert text != row[5]
        rows[number - 1] = (*row[:5], text, row[6])
        return rows

    return tamper


def _field(number: int, index: int, value: object) -> Tamper:
    def tamper(rows: list[Row]) -> list[Row]:
        row: list[Any] = list(rows[number - 1])
        assert row[index] != value
        row[index] = value
        rows[number - 1] = tuple(row)
        return rows

    return tamper


def _without(number: int) -> Tamper:
    return lambda rows: rows[: number - 1] + rows[number:]


def _swapped(rows: list[Row]) -> list[Row]:
    one, two = rows[0], rows[1]
    return [(1, *two[1:]), (2, *one[1:]), *rows[2:]]


# What is changed, and part of the finding, if the digests stay as they are.
CLUMSY: dict[str, tuple[Tamper, str]] = {
    "the time": (_field(4, 1, "2020-01-01T00:00:00.000000Z"), "entry 4 was changed"),
    "the kind": (_field(4, 2, "check"), "entry 4 was changed"),
    "the commit": (_field(4, 3, 2), "entry 4 was changed"),
    "the commit's chain": (_field(4, 4, bytes(32)), "entry 4 was changed"),
    "the detail": (_detail(4, lambda detail: detail.update(in_doubt=None)), "entry 4 was changed"),
    "a space in the detail": (_field(6, 5, '{"findings": []}'), "entry 6 was changed"),
    "the digest": (_field(6, 6, bytes(32)), "entry 6 was changed"),
    "a digest that is none": (_field(6, 6, b""), "entry 6 was changed"),
    "the detail is a number": (_field(6, 5, 7), "entry 6 was changed"),
    "the first entry is gone": (_without(1), "entry 2 stands where entry 1 must be"),
    "one in the middle is gone": (_without(4), "entry 5 stands where entry 4 must be"),
    "two are exchanged": (_swapped, "entry 1 was changed"),
    "a commit before time": (_field(6, 3, -1), "entry 6 was changed"),
}

# The same by one who computes all digests anew: then the figures must give it away.
SKILFUL: dict[str, tuple[Tamper, str]] = {
    "a commit that is not there": (_field(6, 3, 99), "entry 6 (check) stands at a commit 99"),
    "another commit": (_field(6, 3, 4), "entry 6 (check) stands at a commit 4"),
    "another commit's chain": (_field(6, 4, bytes(32)), "entry 6 (check) stands at a commit 5"),
    "a kind that never was": (_field(6, 2, "holiday"), "entry 6 (holiday) is of an unknown kind"),
    "a detail that is no object": (_field(6, 5, "[]"), "entry 6 has a detail that is not a JSON object"),
    "a detail that is no JSON": (_field(6, 5, "{"), "entry 6 has a detail that is not a JSON object"),
    "a migration's number": (_detail(1, lambda detail: detail.update(number=9)), "names a migration 9"),
    "a migration's name": (_detail(2, lambda detail: detail.update(name="x.sql")), "names a migration 2"),
    "a migration's digest": (_detail(2, lambda detail: detail.update(sha256="00" * 32)), "names a migration 2"),
    "a digest that is no digits": (_detail(2, lambda detail: detail.update(sha256="xyz")), "entry 2 (migration) lacks"),
    "a rollback that never was": (
        _detail(4, lambda detail: detail.update(rolled_back=[1])), "rolled back a staged transaction 1",
    ),
    "the root after": (
        _detail(4, lambda detail: detail["after"].update(root="00" * 32)), "names a commit 3 after recovery",
    ),
    "the count after": (_detail(4, lambda detail: detail["after"].update(count=7)), "names a commit 3 after recovery"),
    "the time after": (_detail(4, lambda detail: detail["after"].update(at="x")), "names a commit 3 after recovery"),
    "the chain before": (
        _detail(4, lambda detail: detail["before"].update(chain="00" * 32)), "names a commit 1 before recovery",
    ),
    "the commit before": (_detail(4, lambda detail: detail["before"].update(seq=2)), "names a commit 2 before"),
    "more frames committed than valid": (
        _detail(4, lambda detail: detail["journal"].update(committed=10_000)), "counts more frames",
    ),
    "fewer frames committed": (
        _detail(4, lambda detail: detail["journal"].update(committed=1)), "counts more frames",
    ),
    "fewer frames in the file": (_detail(4, lambda detail: detail["journal"].update(frames=1)), "counts more frames"),
    "a smaller file": (_detail(4, lambda detail: detail["journal"].update(bytes=100)), "frames in 100 bytes"),
    "SQLite's frames": (_detail(4, lambda detail: detail["journal"].update(sqlite_frames=1)), "agree"),
    "that they agree": (_detail(4, lambda detail: detail["journal"].update(agrees=False)), "agree"),
    "a figure that is gone": (_detail(4, lambda detail: detail.pop("journal")), "entry 4 (recovery) lacks a figure"),
    "a figure of another kind": (
        _detail(4, lambda detail: detail.update(after="none")), "entry 4 (recovery) lacks a figure",
    ),
    "a resumption of what never was": (_detail(5, lambda detail: detail.update(resumed=[1])), "resumed a staged"),
}  # fmt: skip


def findings(path: Path) -> list[str]:
    before = image(path)
    with sqlstate.open(path) as store:
        found = store.check_audit()
    assert image(path) == before, "a check wrote something"
    return found


@pytest.mark.parametrize("what", CLUMSY)
def test_an_entry_that_was_changed_is_found(eventful: Path, what: str) -> None:
    tamper, says = CLUMSY[what]
    _, rows = read_rows(eventful)
    write_rows(eventful, tamper(rows))
    found = findings(eventful)
    assert found
    assert found[0].startswith(says)


@pytest.mark.parametrize("what", SKILFUL)
def test_an_entry_that_was_changed_with_all_digests_is_found_by_its_figures(eventful: Path, what: str) -> None:
    tamper, says = SKILFUL[what]
    store_id, rows = read_rows(eventful)
    write_rows(eventful, chained(store_id, tamper(rows)))
    found = findings(eventful)
    assert found
    assert any(says in each for each in found)


def test_entries_out_of_order_are_found(eventful: Path) -> None:
    """The trail is chained anew, and each entry is right by itself."""
    store_id, rows = read_rows(eventful)
    rows[4], rows[5] = (5, *rows[5][1:]), (6, *rows[4][1:])
    write_rows(eventful, chained(store_id, rows))
    assert findings(eventful) == ["entry 6 (recovery) stands at commit 4, out of order"]


def test_a_sound_trail_has_no_findings(eventful: Path) -> None:
    store_id, rows = read_rows(eventful)
    assert findings(eventful) == []
    write_rows(eventful, chained(store_id, rows))
    assert findings(eventful) == []


def test_a_setting_that_cannot_be_is_found(eventful: Path) -> None:
    with sqlstate.open(eventful) as store:
        store._record("setting", {"history_index": True})
        assert store.check_audit() == []
        for wrong in ({}, {"history_index": 1}, {"history_index": "on"}):
            number = store._record("setting", wrong)
            assert f"entry {number} (setting) " in store.check_audit()[-1]


@pytest.mark.parametrize("kind", ["backup", "restore"])
def test_the_figures_of_a_copy_are_compared_with_the_log(path: Path, open_store: OpenStore, kind: str) -> None:
    store = open_store()
    store["c"]["k"] = 1
    head = store.head()
    right = {"file": "copy.db", "bytes": 1, "seq": head.seq, "root": head.root.hex()}
    store._record(kind, right)
    assert store.check_audit() == []
    for wrong in (right | {"root": "00" * 32}, right | {"seq": 2}, {"file": "copy.db"}):
        number = store._record(kind, wrong)
        assert len(store.check_audit()) == number - MIGRATIONS - 1
    store.close()
    store_id, rows = read_rows(path)
    write_rows(path, chained(store_id, rows[: MIGRATIONS + 1]))  # for the judge


REPAIR = {
    "mended": {"entries": 1, "removed": 0, "nodes": 2, "records": 3}, "lost": [["c", "'k'"]], "lost_count": 1,
    "from": "backup.db", "evidence": "test.db.damaged-0123456789abcdef",
}  # fmt: skip
RIGHT_REPAIRS: list[dict[str, Any]] = [
    REPAIR,
    REPAIR | {"from": None},
    REPAIR | {"lost": [], "lost_count": 0},
    REPAIR | {"lost": [["c", str(n)] for n in range(100)], "lost_count": 12_345},
]
WRONG_REPAIRS: list[dict[str, Any]] = [
    *({name: value for name, value in REPAIR.items() if name != gone} for gone in REPAIR),
    REPAIR | {"mended": {"entries": 1, "removed": 0, "nodes": 2}},
    *(
        REPAIR | {"mended": {"entries": wrong, "removed": 0, "nodes": 2, "records": 3}}
        for wrong in (-1, "1", 1.0, True)
    ),
    REPAIR | {"mended": 5},
    *(REPAIR | {"lost_count": wrong} for wrong in (0, 2, 100, -1, "1", None)),
    REPAIR | {"lost": [["c", str(n)] for n in range(101)], "lost_count": 101},
    *(REPAIR | {"lost": [wrong]} for wrong in (["c"], ["c", "k", "v"], ["c", 1], [None, "k"], 5)),
    *(REPAIR | {"from": wrong} for wrong in ("", "..", "/elsewhere/backup.db", "a\0b", 5, ["backup.db"])),
    *(REPAIR | {"evidence": wrong} for wrong in (None, "", ".", "folder/test.db", 5)),
]


@pytest.mark.parametrize("detail", RIGHT_REPAIRS, ids=lambda detail: f"{detail['from']} {detail['lost_count']}")
def test_the_figures_of_a_repair_that_can_be_are_accepted(store: sqlstate.Store, detail: dict[str, Any]) -> None:
    store._record("repair", detail)
    assert store.check_audit() == []


@pytest.mark.parametrize("detail", WRONG_REPAIRS, ids=repr)
def test_the_figures_of_a_repair_that_cannot_be_are_found(store: sqlstate.Store, detail: dict[str, Any]) -> None:
    store._record("repair", detail)
    assert store.check_audit()
    assert all(finding.startswith(f"entry {MIGRATIONS + 1} (repair) ") for finding in store.check_audit())


def test_reading_an_entry_that_cannot_be_one_says_damaged(eventful: Path) -> None:
    _, rows = read_rows(eventful)
    write_rows(eventful, _field(6, 5, "[]")(rows))
    with sqlstate.open(eventful) as store:
        assert len(list(zip(range(5), store.audit(), strict=False))) == 5
        with pytest.raises(sqlstate.Damaged, match=r"audit entry 6.*check_audit"):
            list(store.audit())


def test_a_long_trail_is_read_as_it_goes(store: sqlstate.Store) -> None:
    for i in range(200):
        store._record("check", {"i": i})
    entries = store.audit(after=MIGRATIONS)
    assert next(entries).detail == {"i": 0}
    store._record("check", {"i": "more"})
    assert [entry.detail["i"] for entry in entries] == list(range(1, 200))  # of the state in which it began
    assert len(list(store.audit())) == MIGRATIONS + 201
