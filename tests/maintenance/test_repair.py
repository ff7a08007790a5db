"""Goal: a damaged store gets back exactly what it held, as far as anything still proves it; what is lost is named,
nothing is invented, and at every moment a whole file has the store's name.

Method: closed stores are damaged from outside with sqlite3, in every table and in many ways. Afterwards the entries
are compared with those before the damage, and the file is judged by tests/reference/plain.py. Processes are killed at
each step.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sqlstate
from sqlstate.errors import Busy, Damaged, InvalidOption, NotAStore, RestoreRejected, StoreIOError, StoreMissing
from sqlstate.maintenance.repair import log
from sqlstate.maintenance.repair.repair import repair
from sqlstate.sqlite.connection import Connection, OutcomeUnknown
from sqlstate.tables.raw_rows import RawRecord
from tests.files.test_replace import names, without_privileges
from tests.maintenance.test_backup import cleared, each_kill
from tests.reference import plain
from tests.support.images import folder_image, image
from tests.support.older import make_older
from tests.support.system import has_mode, needs_fork

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlstate.maintenance.repair.report import RepairReport

Journal = Literal["wal", "delete"]
Entries = dict[tuple[Any, Any], tuple[type, Any]]

ENTRIES = 300


class Made:
    """A closed store with some history, a backup of it from before its last commits, and what it holds."""

    def __init__(self, folder: Path, journal: Journal = "wal") -> None:
        self.path = folder / "s.db"
        self.backup = folder / "backup.db"
        with sqlstate.open(self.path, journal=journal) as store:
            with store.transaction():
                store["c"].update({key: f"value {key}" for key in range(ENTRIES)})
            store["c"].update({key: b"new %d" % key for key in range(0, ENTRIES, 7)})
            with store.transaction():
                for key in range(0, ENTRIES, 31):
                    del store["c"][key]
            store["d"].update({"text": [1, {"a": None}], b"bytes": b"\0", -5: "é"})
            staged = store.stage(note="staged")
            staged.put("c", "staged", 1)
            staged.commit()
            store.backup(self.backup)
            store["c"]["later"] = "than the backup"
            self.store_id = store.store_id
            self.head = store.head()
        self.entries = entries(self.path)
        self.sound = image(self.path)

    def damage(self, *statements: str) -> bytes:
        """Damage the file, and return what is in it then."""
        with closing(sqlite3.connect(self.path)) as db, db:
            for statement in statements:
                db.execute(statement)
        return self.path.read_bytes()

    def is_mended(self, report: RepairReport) -> None:
        """The file holds exactly what it held, and is sound in every respect."""
        assert (report.ok, report.lost, report.before, report.after) == (True, (), "damaged", "sound")
        assert entries(self.path) == self.entries
        judgement = plain.judge(self.path)
        assert judgement.findings == ()
        assert (judgement.seq, judgement.root, judgement.chain) == (self.head.seq, self.head.root, self.head.chain)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def entries(path: Path) -> Entries:
    """Every row of state with the type of its value; text that is no UTF-8 with what it is not as escapes."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        rows = db.execute("SELECT collection, key, value FROM state")
        return {(collection, key): (type(value), value) for collection, key, value in rows}


def evidence_of(made: Made, damaged: bytes, report: RepairReport) -> None:
    """The damaged file is kept, byte for byte, under the name that its content gives it."""
    assert report.evidence == made.path.with_name(f"s.db.damaged-{sha256(damaged).hexdigest()[:16]}")
    assert report.evidence.read_bytes() == damaged


# ---- Every kind of damage ----

DAMAGE = {
    "a value": ["UPDATE state SET value = '\"x\"' WHERE key = 5"],
    "a value's type": ["UPDATE state SET value = CAST(value AS TEXT) WHERE key = 7"],
    "a value that is no text": ["UPDATE state SET value = CAST(x'ff00' AS TEXT) WHERE key = 5"],
    "a value that is a number": ["UPDATE state SET value = 1.5 WHERE key IN (5, 'text')"],
    "a key": ["UPDATE state SET key = 100005 WHERE key = 5"],
    "a key's type": ["UPDATE state SET key = '5' WHERE key = 5"],
    "a key that is no text": ["UPDATE state SET key = CAST(x'ff' AS TEXT) WHERE key = 5"],
    "a key that is a number": ["UPDATE state SET key = 5.5 WHERE key = 5"],
    "a collection": ["UPDATE state SET collection = 'x' WHERE key = 5"],
    "a collection that is bytes": ["UPDATE state SET collection = x'63' WHERE key = 5"],
    "a row": ["DELETE FROM state WHERE key = 5"],
    "the first row": ["DELETE FROM state WHERE collection = 'c' AND key = 1"],
    "the last row": ["DELETE FROM state WHERE collection = 'd' AND typeof(key) = 'blob'"],
    "all rows": ["DELETE FROM state"],
    "a row added": ["INSERT INTO state VALUES ('c', 5000, '1')"],
    "rows added that are none": ["INSERT INTO state VALUES ('', 'a', 1.5), ('c', 1.5, 'x'), ('zz', '', x'00')"],
    "a deleted row is back": ["INSERT INTO state VALUES ('c', 31, '\"value 31\"')"],
    "a node": ["UPDATE merkle SET children = zeroblob(40) WHERE level = 2"],
    "a node that is none": ["UPDATE merkle SET children = 'x' WHERE level = 1 AND key = ''"],
    "a node's name": ["UPDATE merkle SET key = key + 1000 WHERE level = 1 AND collection = 'c'"],
    "nodes that are gone": ["DELETE FROM merkle WHERE level = 1"],
    "the top node": ["DELETE FROM merkle WHERE level = (SELECT max(level) FROM merkle)"],
    "nodes added": ["INSERT INTO merkle (level, collection, key, children) VALUES (1, 'c', 9999, zeroblob(80))"],
    "all nodes": ["DELETE FROM merkle"],
    "a record's value": ["UPDATE wal SET value = '\"x\"' WHERE lsn = 20"],
    "the newest value": ["UPDATE wal SET value = '\"x\"' WHERE key = 'later'"],
    "a record's value before": [
        "UPDATE wal SET before = NULL WHERE lsn = (SELECT max(lsn) FROM wal WHERE before IS NOT NULL)"
    ],
    "values of several records": ["UPDATE wal SET value = CAST(x'ff' AS TEXT) WHERE lsn IN (20, 21, 22)"],
    "values of each commit": ["UPDATE wal SET before = 'x' WHERE before IS NOT NULL AND lsn % 2"],
    "what a record does not have": ["UPDATE wal SET count = 9, root = x'00', note = 'x' WHERE lsn = 20"],
    "a chain": ["UPDATE wal SET chain = zeroblob(32) WHERE seq = 3"],
    "the newest root and count": [
        "UPDATE wal SET root = zeroblob(32), count = 1 WHERE seq = (SELECT max(seq) FROM wal)",
    ],
    "the newest root that is no digest": ["UPDATE wal SET root = 'x' WHERE seq = (SELECT max(seq) FROM wal)"],
    "a count that is none": ["UPDATE wal SET count = -1 WHERE seq = (SELECT max(seq) FROM wal)"],
    "a record added": ["INSERT INTO wal (lsn, txn, kind) VALUES (100000, 100000, 'BEGIN')"],
    "several at once": [
        "DELETE FROM merkle WHERE level = 2",
        "UPDATE state SET value = x'' WHERE key IN (5, 100, 250)",
        "UPDATE state SET key = key + 5000 WHERE key IN (40, 41)",
        "DELETE FROM state WHERE key IN (60, 61, 62)",
        "INSERT INTO state VALUES ('b', 1, '1'), ('e', 1, '1')",
        "UPDATE wal SET value = '1' WHERE key = 10",
    ],
    "hundreds at once": ["DELETE FROM merkle", "UPDATE state SET value = '1' WHERE key % 3 != 0"],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_from_its_own_log_the_store_gets_back_exactly_what_it_held(made: Made, damage: list[str]) -> None:
    damaged = made.damage(*damage)
    (made.path).chmod(0o640)
    dry = repair(made.path, dry_run=True)
    report = repair(made.path)
    made.is_mended(report)
    evidence_of(made, damaged, report)
    assert has_mode(made.path, 0o640)
    assert dry.mended == report.mended
    assert any(report.mended.values())


FROM_BACKUP = {
    "a value, and its record": [
        "UPDATE state SET value = '\"x\"' WHERE key = 5",
        "UPDATE wal SET value = '\"y\"' WHERE key = 5",
    ],
    "a row, and its record": ["DELETE FROM state WHERE key = 5", "DELETE FROM wal WHERE key = 5"],
    "a record": ["DELETE FROM wal WHERE lsn = 20"],
    "a record's key": ["UPDATE wal SET key = 77777 WHERE lsn = 20"],
    "a record's kind": ["UPDATE wal SET kind = 'PTU' WHERE lsn = 20"],
    "a record among others": ["UPDATE wal SET lsn = -7 WHERE lsn = 20"],
    "a whole commit": ["DELETE FROM wal WHERE txn = (SELECT txn FROM wal WHERE seq = 2 AND kind = 'COMMIT')"],
    "all up to the last commit": ["DELETE FROM wal WHERE lsn < (SELECT max(txn) FROM wal)"],
    "everything but the last commit": [
        "DELETE FROM wal WHERE lsn < (SELECT max(txn) FROM wal)",
        "DELETE FROM state",
        "DELETE FROM merkle WHERE level < 2",
    ],
}


@pytest.mark.parametrize("damage", FROM_BACKUP.values(), ids=FROM_BACKUP.keys())
def test_from_an_older_backup_comes_what_the_log_has_not(made: Made, damage: list[str]) -> None:
    damaged = made.damage(*damage)
    assert not repair(made.path, dry_run=True).ok
    report = repair(made.path, source=made.backup)
    made.is_mended(report)
    evidence_of(made, damaged, report)


@pytest.mark.parametrize("damage", FROM_BACKUP.values(), ids=FROM_BACKUP.keys())
@pytest.mark.parametrize("version", range(1, plain.FORMAT))
def test_a_backup_of_an_older_format_helps_as_well(made: Made, damage: list[str], version: int) -> None:
    make_older(made.backup, version)
    before = folder_image(made.path.parent)["backup.db"]
    made.damage(*damage)
    made.is_mended(repair(made.path, source=made.backup))
    assert folder_image(made.path.parent)["backup.db"] == before


def test_a_backup_that_is_damaged_itself_still_helps_with_what_proves_itself(made: Made) -> None:
    both = ["UPDATE state SET value = 'x' WHERE key IN (5, 6)", "UPDATE wal SET value = 'y' WHERE key IN (5, 6)"]
    made.damage(*both)
    with closing(sqlite3.connect(made.backup)) as db, db:
        db.execute("UPDATE state SET value = 'lies' WHERE key = 5")
        db.execute("UPDATE wal SET value = 'lies' WHERE key = 5")
        db.execute("DELETE FROM merkle")
    report = repair(made.path, source=made.backup)
    assert (report.entries, report.lost[0]) == (1, ("c", 5))
    assert entries(made.path) == {**made.entries, ("c", 5): (str, "x")}


def test_a_store_of_the_journal_mode_delete_stays_one(tmp_path: Path) -> None:
    made = Made(tmp_path, "delete")
    made.damage("DELETE FROM merkle", "UPDATE state SET value = '1' WHERE key % 2")
    made.is_mended(repair(made.path))
    assert names(tmp_path) == ["backup.db", "s.db", next(name for name in names(tmp_path) if "damaged" in name)]


def test_bytes_that_rotted_in_an_index_are_made_anew(made: Made) -> None:
    content = bytearray(made.path.read_bytes())
    with closing(sqlite3.connect(made.path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'merkle_name'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    place = content.rindex(b"c", (root - 1) * size, root * size)
    content[place] = ord("b")
    made.path.write_bytes(content)
    assert [row for row in plain.judge(made.path).findings if "SQLite" in row]
    made.is_mended(repair(made.path))


def test_a_key_that_rotted_on_its_page_goes_where_it_belongs(made: Made) -> None:
    content = made.path.read_bytes()
    place = content.index(b"clater") + 1
    made.path.write_bytes(content[:place] + b"\0" + content[place + 1 :])
    made.is_mended(repair(made.path))


def test_the_repaired_store_is_opened_written_and_repaired_again(made: Made) -> None:
    made.damage(*DAMAGE["several at once"])
    first = repair(made.path, source=made.backup)
    with sqlstate.open(made.path) as store:
        assert store.recovery.clean
        assert store.check_audit() == []
        (entry,) = [entry for entry in store.audit() if entry.kind == "repair"]
        assert entry.number == first.entry
        assert entry.detail == {
            "mended": first.mended,
            "schema": [],
            "lost": [],
            "lost_count": 0,
            "from": "backup.db",
            "evidence": first.evidence.name if first.evidence else None,
        }
        store["c"]["after"] = 1
    made.entries[("c", "after")] = (str, "1")
    made.damage("DELETE FROM state WHERE key = 'after'")
    second = repair(made.path)
    assert second.ok
    assert entries(made.path) == made.entries
    assert plain.judge(made.path).findings == ()
    assert {path.name for path in made.path.parent.glob("*.damaged-*")} == {
        report.evidence.name for report in (first, second) if report.evidence
    }


def test_wrong_digests_of_the_log_over_the_commits_are_dropped_and_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with sqlstate.open(path) as store:
        for number in range(520):
            store["c"][number % 7] = number
        proof = store.prove_consistency(100)
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute("UPDATE log_blocks SET digest = zeroblob(32) WHERE block = 1").rowcount == 1
    report = repair(path)
    assert (report.ok, report.before, report.after) == (True, "damaged", "sound")
    with sqlstate.open(path) as store:
        assert store.prove_consistency(100) == proof
    assert plain.judge(path).findings == ()


# ---- What stays lost ----


def test_an_entry_that_nothing_holds_any_more_is_named_and_left(made: Made) -> None:
    made.damage(
        "UPDATE state SET value = '\"x\"' WHERE key = 5",
        "UPDATE wal SET value = '\"y\"' WHERE key = 5",
        "UPDATE state SET value = '\"x\"' WHERE key = 200",
    )
    report = repair(made.path)
    assert (report.entries, report.after) == (1, "damaged")
    assert ("c", 5) in report.lost
    assert ("c", 200) not in report.lost
    assert entries(made.path) == {**made.entries, ("c", 5): (str, '"x"')}
    with sqlstate.open(made.path) as store:
        assert [entry.detail["lost"] for entry in store.audit() if entry.kind == "repair"] == [[["c", "5"]]]


def test_an_entry_that_is_gone_is_named_after_the_log(made: Made) -> None:
    made.damage("DELETE FROM state WHERE key = 5", "UPDATE wal SET value = '\"y\"' WHERE key = 5")
    assert ("c", 5) in repair(made.path).lost
    assert ("c", 5) not in entries(made.path)


def test_an_entry_without_a_name_is_told_by_its_neighbours(made: Made) -> None:
    made.damage("DELETE FROM state WHERE key = 5", "DELETE FROM wal WHERE key = 5")
    assert "1 entry between 'c'[4] and 'c'[6]" in repair(made.path).lost


def test_where_nothing_can_be_done_nothing_is_written(made: Made) -> None:
    made.damage("DELETE FROM wal WHERE lsn = 20")
    before = folder_image(made.path.parent)
    report = repair(made.path)
    assert (report.ok, report.evidence, report.entry, report.after) == (False, None, None, None)
    assert report.lost == ("records of commit 1: its chain does not follow from them",)
    assert folder_image(made.path.parent) == before


STATEMENTS = [
    "UPDATE OR IGNORE state SET value = {junk} WHERE {rows}",
    "UPDATE OR IGNORE state SET key = {junk} WHERE {rows}",
    "UPDATE OR IGNORE state SET collection = {junk} WHERE {rows}",
    "DELETE FROM state WHERE {rows}",
    "INSERT OR IGNORE INTO state VALUES ('c', {junk}, {junk})",
    "UPDATE OR IGNORE merkle SET children = {junk} WHERE id % {step} = 1",
    "UPDATE OR IGNORE merkle SET key = {junk} WHERE id % {step} = 1",
    "DELETE FROM merkle WHERE id % {step} = 1",
    "UPDATE wal SET value = {junk} WHERE lsn % {step} = 1",
    "UPDATE wal SET before = {junk} WHERE lsn % {step} = 1",
    "UPDATE wal SET key = {junk} WHERE lsn % {step} = 1",
    "UPDATE wal SET kind = {junk} WHERE lsn % {step} = 1",
    "UPDATE wal SET chain = {junk} WHERE lsn % {step} = 1",
    "DELETE FROM wal WHERE lsn % {step} = 1",
]
JUNK = ["x'ff'", "CAST(x'fffe' AS TEXT)", "17", "1.5", "'abc'", "'\"value 17\"'", "zeroblob(40)"]
damages = st.lists(
    st.builds(
        lambda statement, junk, step: statement.format(
            junk=junk, step=step, rows=f"typeof(key) = 'integer' AND key % {step} = 1"
        ),
        st.sampled_from(STATEMENTS),
        st.sampled_from(JUNK),
        st.sampled_from([2, 17, 101, 293]),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(damage=damages, with_backup=st.booleans())
@pytest.mark.slow
def test_after_any_damage_each_entry_is_the_original_or_as_damaged_and_named(
    tmp_path_factory: pytest.TempPathFactory, damage: list[str], with_backup: bool
) -> None:
    made = template(tmp_path_factory)
    damaged = made.damage(*damage)
    as_damaged = entries(made.path)
    try:
        report = repair(made.path, source=made.backup if with_backup else None)
    except Damaged:
        assert made.path.read_bytes() == damaged
        assert names(made.path.parent) == ["backup.db", "s.db"]
        return
    after = entries(made.path)
    lost = {each for each in report.lost if not isinstance(each, str)}
    # A name that no row has any more comes from the log: where commits of it are lost, it can be another's.
    sentences = [each for each in report.lost if isinstance(each, str)]
    nameless = any("between" in each or "records of commit" in each for each in sentences)
    for name in {*made.entries, *after}:
        if after.get(name) != made.entries.get(name):
            assert after.get(name) == as_damaged.get(name), f"{name} was invented"
            assert nameless or name in lost or not is_name(name), f"{name} is not named"
    if report.ok and report.evidence:
        made.is_mended(report)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(damage=damages)
@pytest.mark.slow
def test_after_any_damage_a_check_names_each_entry_that_differs_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, damage: list[str]
) -> None:
    made = template(tmp_path_factory)
    made.damage(*damage)
    now = entries(made.path)
    differing = {name for name in {*now, *made.entries} if now.get(name) != made.entries.get(name)}
    try:
        with sqlstate.open(made.path, read_only=True) as store:
            report = store.check()
    except sqlstate.StoreError:
        return  # the newest commit is damaged, and opening says so
    assert not (differing and report.ok)
    named = {(each.collection, each.key) for each in report.findings if each.kind in ("entry", "missing", "extra")}
    if {"unreadable", "root"} & {each.kind for each in report.findings} or (None, None) in named:
        return  # what cannot be named is described
    names = {name for name in differing if is_name(name) and type(name[0]) is str and type(name[1]) is not float}
    assert names <= named
    assert {name for name in named if None not in name} <= differing


def is_name(name: tuple[Any, Any]) -> bool:
    """Tell whether what is named is no text that is torn, which is named otherwise."""
    return "\\udc" not in ascii(name)


_template: dict[str, Made] = {}


def template(factory: pytest.TempPathFactory) -> Made:
    """The same store as often as it is wanted."""
    if not _template:
        _template["made"] = Made(factory.mktemp("template"))
    made = _template["made"]
    for name in names(made.path.parent):
        if name not in ("s.db", "backup.db"):
            (made.path.parent / name).unlink()
    made.path.write_bytes(made.sound.content)
    return made


# ---- Nothing else happens ----


def test_a_sound_store_is_not_touched(made: Made) -> None:
    before = folder_image(made.path.parent)
    report = repair(made.path, source=made.backup)
    assert (report.ok, report.before, report.after, report.evidence) == (True, "sound", None, None)
    assert not any(report.mended.values())
    assert folder_image(made.path.parent) == before


@pytest.mark.parametrize("damage", ["several at once", "all nodes", "a record's value"])
def test_a_dry_run_writes_nothing_at_all(made: Made, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made.damage(*DAMAGE[damage])
    before = folder_image(made.path.parent)
    monkeypatch.setenv("TMPDIR", "/nowhere")
    report = repair(made.path, source=made.backup, dry_run=True)
    assert any(report.mended.values())
    assert (report.before, report.after, report.evidence, report.entry) == ("damaged", None, None, None)
    assert folder_image(made.path.parent) == before


def test_a_copy_that_cannot_be_written_is_told_as_an_error_of_ours(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = made.damage("UPDATE state SET value = '1' WHERE key = 17")

    def fail(_: Connection) -> None:
        raise OutcomeUnknown("disk I/O error")

    monkeypatch.setattr(Connection, "commit", fail)
    with pytest.raises(StoreIOError, match="nothing was put in its place"):
        repair(made.path)
    assert made.path.read_bytes() == damaged
    assert names(made.path.parent) == ["backup.db", "s.db"]


def test_what_a_killed_repair_left_is_removed_also_where_nothing_is_to_be_repaired(made: Made) -> None:
    with sqlstate.open(made.path) as store:
        store_id = store.store_id
    left = made.path.with_name(f".s.db.sqlstate-{store_id.hex()}-{'0' * 16}.tmp")
    left.write_bytes(b"half")
    assert repair(made.path, dry_run=True).before == "sound"
    assert left.exists()
    assert repair(made.path).before == "sound"
    assert not left.exists()


def test_evidence_of_an_earlier_repair_is_kept_and_never_overwritten(made: Made) -> None:
    damaged = made.damage(*DAMAGE["a value"])
    first = repair(made.path)
    made.path.write_bytes(damaged)
    second = repair(made.path)
    assert first.evidence == second.evidence
    evidence_of(made, damaged, second)
    assert second.evidence is not None
    made.path.write_bytes(damaged)
    second.evidence.write_bytes(b"something else")
    with pytest.raises(InvalidOption, match="something else"):
        repair(made.path)
    assert made.path.read_bytes() == damaged
    assert second.evidence.read_bytes() == b"something else"


def test_progress_ends_with_all_of_it(made: Made) -> None:
    made.damage(*DAMAGE["several at once"])
    seen: list[tuple[int, int]] = []
    repair(made.path, progress=lambda *step: seen.append(step))
    assert seen[-1][0] == seen[-1][1] > 0
    assert all(done <= total for done, total in seen)


# ---- Killed at any moment ----


@needs_fork
@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.slow
def test_one_that_is_killed_at_any_step_leaves_a_whole_file_at_the_name(tmp_path: Path, journal: Journal) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    made = Made(folder, journal)
    damaged = made.damage(*DAMAGE["several at once"])
    outcomes = set()

    def work(progress: Callable[[int, int], None]) -> None:
        repair(made.path, progress=progress)

    for _, was_cut in each_kill(folder, work, 8):
        cleared(folder, made.store_id)
        there = made.path.read_bytes()
        kept = [name for name in names(folder) if "damaged" in name]
        assert sorted(names(folder)) == sorted(["backup.db", "s.db", *kept])
        for name in kept:
            assert (folder / name).read_bytes() == damaged
        if there == damaged:
            outcomes.add("damaged")
            assert was_cut
            assert repair(made.path).ok
        else:
            outcomes.add("mended")
            assert kept
        assert entries(made.path) == made.entries
        assert plain.judge(made.path).findings == ()
    assert outcomes == {"damaged", "mended"}


# ---- Refused ----


def refuses(made: Made, error: type[Exception], match: str, **options: Any) -> None:
    before = folder_image(made.path.parent)
    with pytest.raises(error, match=match):
        repair(made.path, **options)
    assert folder_image(made.path.parent) == before


def test_a_store_that_somebody_has_open_is_refused(made: Made) -> None:
    made.damage(*DAMAGE["a value"])
    with sqlstate.open(made.path) as store:
        assert len(store["c"])
        with pytest.raises(Busy, match="open"):
            repair(made.path)
        with pytest.raises(Busy, match="open"):
            repair(made.path, dry_run=True)


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_store_that_was_not_closed_is_refused(made: Made, suffix: str) -> None:
    made.damage(*DAMAGE["a value"])
    made.path.with_name(f"s.db{suffix}").write_bytes(b"commits")
    refuses(made, Busy, "recover")
    made.path.with_name(f"s.db{suffix}").write_bytes(b"")
    assert repair(made.path).ok


def test_what_is_no_store_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(StoreMissing):
        repair(tmp_path / "nothing.db")
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "text.db").write_text("text" * 100, "utf-8", newline="\n")
    for name in ("folder.db", "text.db"):
        with pytest.raises(NotAStore):
            repair(tmp_path / name)
    with closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(NotAStore):
        repair(tmp_path / "other.db")


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (["DELETE FROM meta WHERE name = 'store_id'"], "restore a backup"),
        (["DROP TABLE staged"], "[Rr]estore a backup"),
        (["DELETE FROM wal"], "commits are missing"),
        (["DELETE FROM wal WHERE lsn = (SELECT max(lsn) FROM wal)"], "commits are missing"),
        (
            ["UPDATE wal SET kind = 'x' WHERE lsn = (SELECT max(lsn) FROM wal)"],
            "newest commit record in the log is malformed",
        ),
        (["DELETE FROM wal WHERE key % 2", "DELETE FROM state WHERE key % 2 = 0", "DELETE FROM merkle"], "root"),
    ],
)
def test_where_nothing_proves_anything_it_says_so_and_changes_nothing(
    made: Made, damage: list[str], match: str
) -> None:
    made.damage(*damage)
    refuses(made, Damaged, match)


def test_a_log_cut_off_behind_an_earlier_commit_does_not_take_the_entries_back(tmp_path: Path) -> None:
    made = Made(tmp_path, "delete")  # without a marker that says where the log ends
    made.damage("DELETE FROM wal WHERE lsn >= (SELECT max(txn) FROM wal)")
    refuses(made, Damaged, "end of the log")


def test_pages_that_sqlite_cannot_read_are_left_to_backups(made: Made) -> None:
    with closing(sqlite3.connect(made.path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'wal'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    content = bytearray(made.path.read_bytes())
    content[(root - 1) * size : root * size] = bytes(size)
    made.path.write_bytes(content)
    refuses(made, Damaged, "[Rr]estore a backup|restore a backup")


def test_a_backup_that_is_none_is_refused(made: Made, tmp_path: Path) -> None:
    made.damage(*DAMAGE["a value"])
    refuses(made, StoreMissing, "no file", source=tmp_path / "nothing")
    refuses(made, InvalidOption, "itself", source=made.path)
    (tmp_path / "text").write_text("text" * 100, "utf-8", newline="\n")
    refuses(made, RestoreRejected, "not an SQLite file", source=tmp_path / "text")
    (tmp_path / "other").mkdir()
    refuses(made, RestoreRejected, "another store", source=Made(tmp_path / "other").path)
    with sqlstate.open(made.backup) as store:
        assert len(store["c"])
        with pytest.raises(RestoreRejected, match="open"):
            repair(made.path, source=made.backup)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no other users")
def test_a_file_that_may_not_be_written_is_looked_at_and_not_repaired(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = template(tmp_path_factory)
    made.damage(*DAMAGE["a value"])
    content = made.path.read_bytes()
    with without_privileges() as folder:
        path = folder / "s.db"
        path.write_bytes(content)
        path.chmod(0o400)
        before = folder_image(folder)
        assert repair(path, dry_run=True).entries == 1
        with pytest.raises(sqlstate.ReadOnly, match="may not be written"):
            repair(path)
        assert folder_image(folder) == before


# ---- The log by itself ----


def test_of_a_log_of_another_history_nothing_is_taken(made: Made, tmp_path: Path) -> None:
    """The backup went on by itself: its commits hold too, and are not those of this store."""
    with sqlstate.open(made.backup) as store:
        for number in range(5):
            store["c"]["elsewhere"] = number
    damaged = made.damage("UPDATE state SET value = '\"x\"' WHERE key = 5")
    report = repair(made.path, source=made.backup)
    made.is_mended(report)
    evidence_of(made, damaged, report)


def test_the_commits_of_a_sound_log_hold(made: Made) -> None:
    with closing(sqlite3.connect(made.path)) as db:
        rows = db.execute(f"SELECT {', '.join(sqlstate.Record._fields)} FROM wal ORDER BY lsn").fetchall()
        links = list(log.follow(map(RawRecord._make, rows), (0, plain.chain_zero(made.store_id))))
    assert [link.seq for link in links] == list(range(1, made.head.seq + 1))
    assert all(link.holds for link in links)


# ---- On the command line ----


def run(*arguments: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "sqlstate", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_the_verb_repairs_and_says_what_it_did(made: Made) -> None:
    damaged = made.damage(*DAMAGE["several at once"])
    code, out, _ = run("repair", made.path, "--dry-run", "--json")
    dry = json.loads(out)
    assert (code, dry["dry_run"], dry["before"], dry["after"], dry["lost"]) == (0, True, "damaged", None, [])
    assert made.path.read_bytes() == damaged
    code, out, error = run("repair", made.path, "--json")
    facts = json.loads(out)
    assert (code, error, facts["after"], facts["mended"]) == (0, "", "sound", dry["mended"])
    assert entries(made.path) == made.entries
    code, out, _ = run("repair", made.path)
    assert (code, json.loads(out)["before"], json.loads(out)["evidence"]) == (0, "sound", None)


def test_the_verb_ends_with_3_when_something_stays_lost(made: Made) -> None:
    made.damage(*FROM_BACKUP["a value, and its record"])
    code, out, _ = run("repair", made.path, "--json")
    assert (code, json.loads(out)["lost"][0]) == (3, ["c", "5"])
    code, out, _ = run("repair", made.path, "--from", made.backup, "--json")
    assert (code, json.loads(out)["lost"], json.loads(out)["mended"]["entries"]) == (0, [], 1)
    assert run("repair", made.path, "--from", made.path.with_name("none"))[0] == 5


@pytest.mark.parametrize("junk", ["CAST(x'fffe' AS TEXT)", "1.5", "NULL", "zeroblob(0)"])
@pytest.mark.parametrize("column", ["collection", "key"])
def test_a_record_of_what_no_entry_can_be_named_is_no_bug_of_repair(path: Path, column: str, junk: str) -> None:
    with sqlstate.open(path) as store:
        store["c"].update({i: i for i in range(20)})
        store["c"][1] = "again"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE wal SET {column} = {junk} WHERE lsn % 2 = 1 AND kind = 'PUT'")
    with suppress(sqlstate.StoreError):
        repair(path)
