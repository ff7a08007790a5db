"""What opening does after a crash: what it finds, what it says of it, what it does about it, and that it does so once.

Method: processes killed with SIGKILL where the test wants it, folders compared byte by byte, and SQLite's own counts.
What may not be lost, in masses and at every byte, is tests/crash's matter.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate.files import system
from sqlstate.recovery import inspect as inspection
from sqlstate.recovery import recover as recovery
from sqlstate.recovery.inspect import inspect
from sqlstate.recovery.report import WAYS
from sqlstate.sqlite import raw_file
from tests import MIGRATIONS, ROOT
from tests.reference import plain
from tests.support.child import Child
from tests.support.failing import FailingVFS
from tests.support.images import folder_image
from tests.support.remote import Remote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlstate.recovery.report import Inspection
    from sqlstate.sqlite.engine import Engine
    from tests.conftest import OpenStore

JOURNALS = ("wal", "delete")
WAL_HEADER, FRAME_HEADER, PAGE = 32, 24, 4096


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def frames(path: Path) -> int:
    """Whole frames in the -wal: by its size."""
    return (path.with_name(path.name + "-wal").stat().st_size - WAL_HEADER) // (FRAME_HEADER + PAGE)


def recoveries(store: sqlstate.Store) -> list[sqlstate.AuditEntry]:
    return [entry for entry in store.audit() if entry.kind == "recovery"]


def killed(path: Path, commits: int = 3, **options: Any) -> None:
    """Leave a store whose process was killed after so many commits."""
    with Remote.opened(path, **options) as other:
        for number in range(1, commits + 1):
            other.ask("put", "c", "k", number)
        other.kill()


def killed_while_staging(path: Path) -> int:
    """Leave a store with a staged transaction of a dead session, and return its number."""
    with Remote.opened(path) as other:
        txn: int = other.ask("stage", "draft")
        other.ask("stage_put", txn, "drafts", "letter", "Dear")
        other.kill()
    return txn


def closed_while_staging(path: Path) -> int:
    """The same, closed well: there is nothing else to recover."""
    with sqlstate.open(path) as store:
        txn = store.stage("draft")
        txn.put("drafts", "letter", "Dear")
    return txn.txn


# ---- Nothing to recover ----


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_new_store_is_clean_and_its_report_says_so(open_store: OpenStore, journal: str) -> None:
    store = open_store(journal=journal)
    report = store.recovery
    assert (report.clean, report.shared, report.due, report.damage, report.entry) == (True, False, False, "", None)
    assert (report.rolled_back, report.pending, report.in_doubt, report.removed) == ((), (), None, ())
    assert (report.journal, report.evidence) == (sqlstate.JournalReport(), ())
    assert (report.after, report.checked) == (store.head(), "nothing to check")
    assert (report.sqlite, report.verdict) == (store.stats().sqlite, "has the WAL-reset fix")
    assert report.seconds >= report.scan_seconds >= 0.0


@pytest.mark.parametrize("read_only", [False, True], ids=["for writing", "for reading"])
@pytest.mark.parametrize("recover", WAYS)
@pytest.mark.parametrize("journal", JOURNALS)
def test_a_store_that_was_closed_is_clean_and_opening_it_writes_nothing(
    path: Path, journal: Any, recover: Any, read_only: bool
) -> None:
    with sqlstate.open(path, journal=journal) as store:
        store["c"]["k"] = 1
    before = folder_image(path.parent)
    with sqlstate.open(path, recover=recover, read_only=read_only) as store:
        report = store.recovery
        assert (report.clean, report.due, report.entry, report.in_doubt) == (True, False, None, None)
        assert report.after == store.head()
        assert recoveries(store) == []
    assert folder_image(path.parent) == before
    assert names(path.parent) == ["test.db"]


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_process_that_was_killed_before_it_wrote_leaves_a_clean_store(
    path: Path, open_store: OpenStore, journal: str
) -> None:
    """Opening and reading write nothing, so there is nothing that a kill could interrupt."""
    open_store(journal=journal).close()
    with Remote.opened(path) as other:
        assert other.ask("get", "c", "k") is None
        other.kill()
    store = open_store()
    assert (store.recovery.clean, store.recovery.entry, store.recovery.damage) == (True, None, "")


def test_a_kill_between_two_transactions_of_a_rollback_journal_store_leaves_no_trace(
    path: Path, open_store: OpenStore
) -> None:
    killed(path, journal="delete")
    assert names(path.parent) == ["test.db"]
    store = open_store()
    assert (store.recovery.clean, store.recovery.journal.kind, store.recovery.entry) == (True, "none", None)
    assert store["c"]["k"] == 3


# ---- After a kill ----


def test_the_report_after_a_kill_says_what_sqlite_recovered_and_what_is_in_doubt(
    path: Path, open_store: OpenStore
) -> None:
    with Remote.opened(path) as other:
        for number in range(1, 6):
            other.ask("put", "c", f"k{number}", number)
        head = other.ask("head")
        other.kill()
    size, there = path.with_name("test.db-wal").stat().st_size, frames(path)
    store = open_store()
    report = store.recovery
    journal = report.journal
    assert (journal.kind, journal.bytes, journal.page_size, journal.frames) == ("wal", size, PAGE, there)
    # The connection of recovery itself has begun no -wal of its own yet when SQLite is asked.
    assert (journal.valid, journal.committed, journal.sqlite_frames, journal.agrees) == (there, there, there, True)
    assert (journal.uncommitted, journal.torn_bytes, journal.stale, journal.proved, journal.rot) == (0, 0, 0, 0, False)
    # The main file had all of the first commit, so the second one began the -wal anew.
    assert journal.commits == 4
    assert (report.clean, report.shared, report.due, report.damage) == (False, False, False, "")
    assert report.in_doubt == 5
    assert report.before is not None
    # The first commit of a session is carried into the main file before it returns.
    assert report.before.seq == 1
    assert report.after == store.head()
    after = report.after
    assert [after.seq, after.root.hex(), after.count, after.at, after.chain.hex()] == head
    assert report.checked.startswith("4 commits follow from each other by chain; 4 of 4 entries")
    assert (report.rolled_back, report.pending, report.removed, report.evidence) == ((), (), (), ())


def test_a_recovery_is_one_audit_entry_and_the_next_open_is_clean(path: Path) -> None:
    killed(path)
    with sqlstate.open(path) as store:
        [entry] = recoveries(store)
        report = store.recovery
        assert (entry.number, entry.seq, entry.chain) == (report.entry, 3, store.head().chain)
        assert entry.detail["how"] == "rollback"
        said = report.as_dict()
        assert {name: said[name] for name in entry.detail if name not in ("how", "evidence")} == {
            name: value for name, value in entry.detail.items() if name not in ("how", "evidence")
        }
        assert set(said) - set(entry.detail) == {"entry", "due", "seconds"}
        assert store.check_audit() == []
    before = folder_image(path.parent)
    with sqlstate.open(path) as store:
        assert (store.recovery.clean, store.recovery.entry) == (True, None)
        assert [each.number for each in recoveries(store)] == [entry.number]
    assert folder_image(path.parent) == before
    assert plain.judge(path).findings == ()


def test_each_crash_is_an_entry_of_its_own(path: Path, open_store: OpenStore) -> None:
    for _ in range(3):
        killed(path)
        with sqlstate.open(path) as store:
            assert store.recovery.entry is not None
    store = open_store()
    assert len(recoveries(store)) == 3
    assert store.check_audit() == []


def test_the_report_is_plain_json(path: Path) -> None:
    txn = killed_while_staging(path)
    with sqlstate.open(path) as store:
        said = store.recovery.as_dict()
        head = store.head()
    assert json.loads(json.dumps(said)) == said
    assert set(said) == {field.name for field in fields(sqlstate.RecoveryReport)}
    assert set(said["journal"]) == {field.name for field in fields(sqlstate.JournalReport)}
    assert said["after"] == {
        "seq": head.seq, "root": head.root.hex(), "count": head.count, "at": head.at, "chain": head.chain.hex(),
    }  # fmt: skip
    assert said["rolled_back"] == [txn]
    nothing = sqlstate.RecoveryReport(clean=True).as_dict()
    assert json.loads(json.dumps(nothing)) == nothing


def test_a_transaction_that_was_cut_short_is_an_uncommitted_tail(path: Path, open_store: OpenStore) -> None:
    with Remote.opened(path) as other:
        for number in range(1, 5):
            other.ask("put", "c", "k", number)
        committed = frames(path)
        other.ask("spill", "big", 300)
        other.kill()
    there = frames(path)
    assert there > committed, "SQLite wrote nothing before the COMMIT"
    store = open_store()
    report = store.recovery
    assert (report.journal.committed, report.journal.sqlite_frames) == (committed, committed)
    # A page that is spilled twice breaks the chain of checksums, which SQLite would have mended at COMMIT.
    assert report.journal.valid > committed
    assert report.journal.uncommitted == report.journal.valid - committed
    assert (report.journal.frames, report.journal.rot) == (there, False)
    assert (report.clean, report.damage, report.in_doubt) == (False, "", 4)
    assert (list(store), store["c"]["k"]) == (["c"], 4)


def test_a_transaction_cut_short_in_a_rollback_journal_store_is_rolled_back_and_reported(
    path: Path, open_store: OpenStore
) -> None:
    with Remote.opened(path, journal="delete") as other:
        for key in range(300):
            other.ask("put", "c", key, "y" * 3000)
        original = other.ask("head")
        other.ask("spill", "c", 300)
        other.kill()
    assert path.with_name("test.db-journal").stat().st_size > 0
    store = open_store()
    report = store.recovery
    assert (report.clean, report.damage, report.journal.kind, report.journal.rot) == (False, "", "rollback", False)
    assert report.journal.committed > 0
    assert report.journal.bytes > report.journal.committed * PAGE
    assert (report.journal.valid, report.journal.sqlite_frames) == (report.journal.frames, None)
    assert report.checked.startswith("1 commits follow from each other by chain; 1 of 1 entries")
    assert report.in_doubt == 300
    head = store.head()
    assert [head.seq, head.root.hex(), head.count, head.at, head.chain.hex()] == original
    assert report.after == head
    assert [entry.number for entry in recoveries(store)] == [report.entry]
    store.close()
    again = open_store()
    assert (again.recovery.clean, again.recovery.entry) == (True, None)
    assert set(again["c"].values()) == {"y" * 3000}


@pytest.mark.parametrize("commits", [0, 1])
def test_a_kill_while_the_store_is_closed_loses_nothing(tmp_path: Path, commits: int) -> None:
    """At each step of close(), of a handle that has committed."""
    folder = tmp_path / "store"
    folder.mkdir()
    with sqlstate.open(folder / "test.db") as store:
        for number in range(commits):
            store["c"]["k"] = number
    deaths = []
    with Child("closes_cut_short", folder, "test.db") as child:
        while isinstance(said := child.says(), dict):
            deaths.append(said)
        assert said == "done"
        child.ends()
    assert len(deaths) > 5
    for death in deaths:
        assert (death["head"][0], death["content"]) == (commits + 1, {"c": {"k": "new"}})
        assert (death["report"]["damage"], death["findings"]) == ("", [])
        assert len(death["entries"]) == (not death["report"]["clean"])
        assert death["report"]["in_doubt"] == (None if death["report"]["clean"] else commits + 1)
    states = [(death["report"]["clean"], len(death["before"])) for death in deaths]
    assert states[0] == (False, 4)
    assert states[-1] == (True, 1), "the last of them was not cut short at all"


# ---- Those who only look ----


def test_a_store_that_is_opened_for_reading_is_not_recovered(path: Path) -> None:
    killed(path)
    before = folder_image(path.parent)
    for _ in range(2):
        with sqlstate.open(path, read_only=True) as store:
            report = store.recovery
            assert (report.clean, report.due, report.entry, report.in_doubt) == (False, True, None, 3)
            assert (report.journal.agrees, report.after) == (True, store.head())
            assert store["c"]["k"] == 3
            assert recoveries(store) == []
        assert folder_image(path.parent) == before
    with sqlstate.open(path) as store:
        assert len(recoveries(store)) == 1


def test_staged_work_of_the_dead_is_due_to_be_rolled_back_when_a_store_is_opened_for_reading(path: Path) -> None:
    txn = closed_while_staging(path)
    before = folder_image(path.parent)
    with sqlstate.open(path, read_only=True) as store:
        report = store.recovery
        assert (report.clean, report.due, report.pending, report.rolled_back) == (True, True, (txn,), ())
        assert [each.txn for each in store.pending()] == [txn]
    assert folder_image(path.parent) == before


def everything(folder: Path) -> dict[str, bytes]:
    """Also the -shm: for forensics nothing may be touched."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("read_only", [False, True], ids=["for writing", "for reading"])
def test_refuse_raises_with_the_report_and_touches_nothing(path: Path, read_only: bool) -> None:
    killed(path)
    before, there = folder_image(path.parent), everything(path.parent)
    with pytest.raises(sqlstate.RecoveryDue, match="nothing was changed") as caught:
        sqlstate.open(path, recover="refuse", read_only=read_only)
    assert str(path) in str(caught.value)
    report = caught.value.report
    assert (report.clean, report.due, report.in_doubt, report.entry) == (False, True, 3, None)
    assert report.journal.frames == frames(path)
    assert report.after.seq == 3
    assert (folder_image(path.parent), everything(path.parent)) == (before, there)


def test_refuse_raises_for_a_hot_rollback_journal_too(path: Path) -> None:
    with Remote.opened(path, journal="delete") as other:
        other.ask("put", "c", "k", 1)
        other.ask("spill", "c", 300)
        other.kill()
    before = folder_image(path.parent)
    with pytest.raises(sqlstate.RecoveryDue) as caught:
        sqlstate.open(path, recover="refuse")
    assert (caught.value.report.journal.kind, caught.value.report.after.seq) == ("rollback", 1)
    assert folder_image(path.parent) == before


@pytest.mark.parametrize("journal", JOURNALS)
def test_refuse_raises_for_staged_work_of_the_dead(path: Path, journal: Any) -> None:
    sqlstate.open(path, journal=journal).close()
    txn = closed_while_staging(path)
    before = folder_image(path.parent)
    with pytest.raises(sqlstate.RecoveryDue) as caught:
        sqlstate.open(path, recover="refuse")
    assert caught.value.report.clean
    assert caught.value.report.due
    assert folder_image(path.parent) == before
    with sqlstate.open(path, recover="resume") as store:
        assert [each.txn for each in store.pending()] == [txn]


# ---- Others at work ----


def test_a_store_that_others_have_open_is_shared_and_nothing_is_recovered(path: Path, open_store: OpenStore) -> None:
    with Remote.opened(path) as other:
        other.ask("put", "c", "k", 1)
        other.ask("put", "c", "k", 2)
        for recover in WAYS:
            with sqlstate.open(path, recover=recover) as store:
                report = store.recovery
                assert (report.shared, report.due, report.entry, report.in_doubt) == (True, False, None, None)
                assert (report.journal.kind, report.damage) == ("none", "")
                assert store["c"]["k"] == 2
        other.ask("put", "c", "k", 3)
        other.ask("close")
        other.ends()
    store = open_store()
    assert (store.recovery.clean, recoveries(store), store["c"]["k"]) == (True, [], 3)


def test_who_opens_beside_a_survivor_of_a_kill_recovers_nothing_but_dead_sessions(
    path: Path, open_store: OpenStore
) -> None:
    with Remote.opened(path) as survivor:
        own = survivor.ask("stage", "lives")
        txn = killed_while_staging(path)
        with sqlstate.open(path) as store:
            report = store.recovery
            assert (report.shared, report.rolled_back, report.in_doubt) == (True, (txn,), None)
            [entry] = recoveries(store)
            assert (entry.number, entry.detail["rolled_back"]) == (report.entry, [txn])
        assert survivor.ask("uncommitted") == [own]
        survivor.ask("stage_put", own, "c", "k", 1)
        assert survivor.ask("commit", own) == 1
        survivor.ask("close")
        survivor.ends()
    store = open_store()
    assert (len(recoveries(store)), store["c"]["k"], store.check_audit()) == (1, 1, [])


def race(path: Path, racers: int = 3) -> list[Remote | str]:
    """Let processes open a store at one moment; return each, or the name of what it raised. Kills them all."""
    with ExitStack() as stack:
        others = [stack.enter_context(Remote(path, timeout=30)) for _ in range(racers)]
        for other in others:
            other.tell()
        return [other.outcome() for other in others]


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.slow
def test_of_processes_that_race_to_open_an_unclean_store_one_recovers_it(tmp_path: Path, journal: str) -> None:
    folder = tmp_path / "left"
    folder.mkdir()
    with Remote.opened(folder / "test.db", journal=journal) as other:
        for number in range(2):
            other.ask("put", "c", "k", number)
        txn = other.ask("stage")
        other.ask("stage_put", txn, "c", "k", 2)
        if journal == "delete":
            other.ask("spill", "c", 300)
        other.kill()
    for attempt in range(8):
        place = tmp_path / str(attempt)
        shutil.copytree(folder, place)
        outcomes = race(place / "test.db")
        reports = [each.report for each in outcomes if not isinstance(each, str)]
        assert len(reports) == len(outcomes), f"{outcomes}: a sound store was refused"
        written = {report["entry"] for report in reports if report["entry"]}
        with sqlstate.open(place / "test.db") as store:
            assert store["c"]["k"] == 1
            assert store.check_audit() == []
            # Another entry is of those that were killed here.
            entries = [entry for entry in recoveries(store) if entry.number in written]
            assert [entry.number for entry in recoveries(store) if entry.number != store.recovery.entry] == sorted(
                written
            )
            # Each thing is said once. Of the crash and of the work of the dead, two openers may each say one.
            assert [entry.detail["rolled_back"] for entry in entries if entry.detail["rolled_back"]] == [[txn]]
            assert [entry.detail["clean"] for entry in entries].count(False) == 1
            assert len(entries) <= 2
        assert plain.judge(place / "test.db").findings == ()


@pytest.mark.parametrize("then", ["stays", "commits", "stages", "closes", "is killed"])
@pytest.mark.parametrize("journal", JOURNALS)
def test_who_was_slower_than_another_between_its_look_and_its_recovery_says_nothing_twice(
    path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, journal: str, then: str
) -> None:
    with Remote.opened(path, journal=journal) as dead:
        dead.ask("put", "c", "k", 1)
        dead.ask("put", "c", "k", 2)
        txn = dead.ask("stage")
        if journal == "delete":
            dead.ask("spill", "c", 300)
        dead.kill()
    faster: list[Remote] = []

    def inspect_and_wait(engine: Engine, **options: Any) -> Inspection:
        found = inspect(engine, **options)
        if not faster:
            other = stack.enter_context(Remote.opened(path))
            assert (other.report["entry"], other.report["rolled_back"]) == (len(MIGRATIONS) + 1, [txn])
            if then == "commits":
                other.ask("put", "c", "more", 1)
            elif then == "stages":
                other.ask("stage")
            elif then == "closes":
                other.ask("close")
            elif then == "is killed":
                other.kill()
            faster.append(other)
        return found

    with ExitStack() as stack:
        with monkeypatch.context() as patch:
            patch.setattr("sqlstate.store.opening.inspect", inspect_and_wait)
            store = open_store()
        assert faster, "nobody was faster"
        report = store.recovery
        assert (report.damage, report.rolled_back) == ("", ())
        assert store["c"]["k"] == 2
        assert [entry.detail["clean"] for entry in recoveries(store)] == [False]
        assert report.entry is None
        assert store.check_audit() == []


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_crash_is_told_though_another_has_ended_the_work_of_the_dead_meanwhile(
    path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, journal: str
) -> None:
    """The other comes once this one had SQLite recover: it sees no crash, rolls back, and opens the marker."""
    with Remote.opened(path, journal=journal) as dead:
        dead.ask("put", "c", "k", 1)
        txn = dead.ask("stage")
        if journal == "delete":
            dead.ask("spill", "c", 300)
        dead.kill()
    path.with_name(f"{path.name}-acknowledged").unlink(missing_ok=True)  # with it, the other goes on with the marker
    recover = recovery.recover
    others: list[Remote] = []

    def wait_and_recover(*arguments: Any) -> sqlstate.RecoveryReport:
        if not others:
            others.append(stack.enter_context(Remote.opened(path)))
            others[0].ask("put", "c", "more", 2)
        return recover(*arguments)

    with ExitStack() as stack:
        monkeypatch.setattr(recovery, "recover", wait_and_recover)
        store = open_store()
        assert others[0].report["rolled_back"] == [txn]
        told = [(entry.detail["clean"], entry.detail["rolled_back"]) for entry in recoveries(store)]
        assert told == [(True, [txn]), (False, [])]
        assert (store.recovery.clean, store["c"]["k"], store["c"]["more"]) == (False, 1, 2)
        assert store.check_audit() == []


@pytest.mark.slow
def test_a_crash_is_told_though_what_its_wal_kept_tells_of_the_crash_before(path: Path) -> None:
    """The entry of the recovery before is in the -wal alone, and what comes behind it is damaged."""
    killed(path)
    code = (
        "import os, sys, sqlstate\n"
        "from sqlstate.commit.dirty_flag import FlagKeeper\n"
        "FlagKeeper._carry = lambda *_: None  # it dies before its first checkpoint\n"
        "store = sqlstate.open(sys.argv[1])\n"
        "assert store.recovery.entry\n"
        "store['c']['k'] = 'more'\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    name = path.with_name(f"{path.name}-wal")
    wal = bytearray(name.read_bytes())
    wal[-100] ^= 1
    name.write_bytes(wal)
    with sqlstate.open(path, recover="accept") as store:
        assert (store.recovery.damage, store.recovery.shared) == ("rot", False)
        assert store.recovery.entry is not None
        assert [entry.detail["damage"] for entry in recoveries(store)] == ["", "rot"]


def test_of_processes_that_race_to_open_a_store_with_a_damaged_wal_none_gets_in(tmp_path: Path) -> None:
    """None may take another's look at the file for a handle that lives, and has judged it."""
    folder = tmp_path / "left"
    folder.mkdir()
    killed(folder / "test.db", commits=6)
    wal = bytearray((folder / "test.db-wal").read_bytes())
    wal[WAL_HEADER + FRAME_HEADER + PAGE + FRAME_HEADER + 100] ^= 1  # in the second frame; SQLite drops five commits
    (folder / "test.db-wal").write_bytes(wal)
    for attempt in range(8):
        place = tmp_path / str(attempt)
        shutil.copytree(folder, place)
        before = folder_image(place)
        assert race(place / "test.db") == ["JournalDamaged"] * 3
        after = folder_image(place)
        assert {name: after[name] for name in before} == before


# ---- A crash of the recovery ----


def orphan(path: Path, store_id: bytes, nonce: int = 1) -> Path:
    """Leave a temporary file whose maker is dead."""
    file = path.with_name(f".copy.db.sqlstate-{store_id.hex()}-{nonce:016x}.tmp")
    file.write_bytes(b"half a copy")
    return file


@pytest.mark.parametrize("recover", ["rollback", "resume"])
@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.slow
def test_a_crash_at_any_step_of_recovery_ends_in_the_same_state_and_nothing_is_done_twice(
    tmp_path: Path, journal: Any, recover: str
) -> None:
    folder = tmp_path / "left"
    folder.mkdir()
    path = folder / "test.db"
    with sqlstate.open(path, journal=journal) as store:
        store_id = store.store_id
    with Remote.opened(path) as other:
        for number in range(3):
            other.ask("put", "c", "k", number)
        txns = [other.ask("stage"), other.ask("stage")]
        other.ask("stage_put", txns[0], "c", "k", "staged")
        head = other.ask("head")
        if journal == "delete":
            other.ask("spill", "c", 300)
        other.kill()
    left = orphan(path, store_id).name
    deaths = []
    with Child("recovers_cut_short", folder, "test.db", recover) as child:
        while isinstance(said := child.says(), dict):
            deaths.append(said)
        assert said == "done"
        child.ends()
    assert len(deaths) > 10
    for number, death in enumerate(deaths, 1):
        assert (death["head"], death["content"]) == (head, {"c": {"k": 2}}), f"death {number}"
        assert (death["report"]["damage"], death["findings"]) == ("", [])
        assert death["pending"] == (txns if recover == "resume" else [])
        entries = death["entries"]
        assert [txn for entry in entries for txn in entry["rolled_back"]] == ([] if recover == "resume" else txns)
        assert [name for entry in entries for name in entry["removed"]] == [left]
        # A second one only says of the process that died here, after its own entry was durable.
        assert len(entries) <= 2
        assert [(entry["rolled_back"], entry["removed"]) for entry in entries[1:]] == [([], [])] * (len(entries) - 1)
        assert death["after"] == ["test.db"]
    # The first was before anything was done, the last came to the end.
    assert deaths[0]["report"]["rolled_back"] == ([] if recover == "resume" else txns)
    assert deaths[-1]["report"]["rolled_back"] == []


# ---- Orphaned temporary files ----


def test_an_orphaned_temporary_file_is_removed_with_an_entry_and_nothing_else_is(
    path: Path, open_store: OpenStore
) -> None:
    with open_store() as store:
        ours = orphan(path, store.store_id)
        foreign = orphan(path, bytes(16))
        linked = orphan(path, store.store_id, 2)
        os.link(linked, path.with_name("second name"))
        held = orphan(path, store.store_id, 3)
    others = ["notes.tmp", ".test.db.tmp", "test.db-wal2", "test.db.sqlstate-1-1.tmp", f"test.db-session-{'0' * 31}"]
    for name in others:
        path.with_name(name).write_text("mine", "utf-8", newline="\n")
    there = set(names(path.parent))
    maker = system.open_file(str(held), os.O_RDWR)
    system.lock(maker, exclusive=True)
    store = open_store()
    os.close(maker)
    report = store.recovery
    assert (report.clean, report.removed) == (True, (ours.name,))
    [entry] = recoveries(store)
    assert (entry.number, entry.detail["removed"]) == (report.entry, [ours.name])
    store.close()
    assert there - set(names(path.parent)) == {ours.name}
    assert foreign.exists()
    assert held.exists()
    with sqlstate.open(path, recover="resume") as again:  # its maker is dead now
        assert again.recovery.removed == (held.name,)
        assert len(recoveries(again)) == 2


def test_a_file_that_an_entry_names_already_is_removed_without_another(path: Path, open_store: OpenStore) -> None:
    """A crash between the entry and the removal leaves it so."""
    store_id = open_store().store_id
    left = orphan(path, store_id)
    for found in ((left.name,), ()):
        orphan(path, store_id)
        with open_store() as store:
            assert store.recovery.removed == found
            assert len(recoveries(store)) == 1
        assert not left.exists()


@pytest.mark.parametrize("options", [{"read_only": True}, {"recover": "refuse"}], ids=str)
def test_an_orphan_stays_where_nothing_may_be_changed(path: Path, options: Any) -> None:
    with sqlstate.open(path) as store:
        store_id = store.store_id
    left = orphan(path, store_id)
    before = folder_image(path.parent)
    if "recover" in options:
        with pytest.raises(sqlstate.RecoveryDue):
            sqlstate.open(path, **options)
    else:
        with sqlstate.open(path, **options) as store:
            assert store.recovery.due
    assert folder_image(path.parent) == before
    assert left.exists()


# ---- A commit whose outcome is unknown ----


@pytest.fixture
def failing() -> Iterator[FailingVFS]:
    vfs = FailingVFS()
    yield vfs
    vfs.unregister()


def fail_a_commit(path: Path, vfs: FailingVFS, how: str) -> sqlstate.CommitOutcomeUnknown:
    """Let the third commit of a store fail at COMMIT, and close it."""
    store = sqlstate.open(path, vfs="failing")
    store["c"]["k"] = 0
    store["c"]["k"] = 1  # begins the -wal anew, which takes a sync of its own
    before = folder_image(path.parent)["test.db"]
    vfs.fails = how
    with pytest.raises(sqlstate.CommitOutcomeUnknown, match="committed") as caught:
        store["c"]["k"] = 2
    assert vfs.fails == "", "nothing failed"
    assert caught.value.seq == 3
    assert len(caught.value.chain) == 32
    for use in (lambda: store["c"].__setitem__("k", 3), lambda: store["c"]["k"], store.head, store.stage):
        with pytest.raises(sqlstate.StoreClosed, match="refuses further work"):
            use()
    store.close()
    # What is in doubt is not folded into the file, where nobody could judge it any more.
    assert folder_image(path.parent)["test.db"] == before
    assert frames(path) > 0
    return caught.value


@pytest.mark.parametrize(("how", "present"), [("sync wal", True), ("write wal", False)])
def test_after_an_error_at_commit_the_next_open_tells_whether_it_is_there(
    path: Path, open_store: OpenStore, failing: FailingVFS, how: str, present: bool
) -> None:
    error = fail_a_commit(path, failing, how)
    store = open_store()
    assert store.committed(error) is present
    assert (store["c"]["k"], store.head().seq) == ((2, 3) if present else (1, 2))
    assert store.recovery.in_doubt == store.head().seq
    store["c"]["more"] = 1
    assert store.committed(error) is present
    store.close()
    assert open_store().committed(error) is present


@pytest.mark.parametrize("how", ["sync wal", "write wal"])
def test_another_commit_that_took_the_number_is_not_taken_for_the_one_in_doubt(
    path: Path, open_store: OpenStore, failing: FailingVFS, how: str
) -> None:
    with Remote.opened(path) as other:
        error = fail_a_commit(path, failing, how)
        assert other.ask("put", "c", "k", "another's") == 3
        other.ask("close")
        other.ends()
    store = open_store()
    assert (store.head().seq, store["c"]["k"]) == (3, "another's")
    assert not store.committed(error)


def test_an_error_without_a_chain_is_of_no_commit(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    assert not store.committed(sqlstate.CommitOutcomeUnknown(1, "unknown"))
    assert store.committed(sqlstate.CommitOutcomeUnknown(1, "known", store.head().chain))
    assert not store.committed(sqlstate.CommitOutcomeUnknown(2, "known", store.head().chain))


def test_an_error_while_staging_says_that_the_record_is_in_doubt(
    path: Path, open_store: OpenStore, failing: FailingVFS
) -> None:
    store = sqlstate.open(path, vfs="failing")
    txn = store.stage()
    txn.put("c", "k", 0)
    failing.fails = "sync wal"
    with pytest.raises(sqlstate.StoreIOError, match="may or may not have reached the disk"):
        txn.put("c", "k", 1)
    with pytest.raises(sqlstate.StoreClosed):
        txn.commit()
    store.close()
    again = open_store(recover="resume")
    assert [record.kind for record in again.pending()[0].records] == ["BEGIN", "PUT", "PUT"]
    assert again.resume(txn.txn).commit().seq == 1


def test_a_wal_that_does_not_appear_is_waited_for_without_taking_the_processor(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlstate.open(path).close()
    looks: list[bool] = []
    look = inspection._inspect
    monkeypatch.setattr(inspection, "_inspect", lambda *args, **how: looks.append(look(*args, **how)) or looks[-1])
    monkeypatch.setattr(inspection, "_APPEARS_SECONDS", 0.5)
    with raw_file.exclusive_lock(str(path), None, 0), pytest.raises(sqlstate.StoreError):
        sqlstate.open(path, timeout=0)
    assert 1 < len(looks) <= 0.5 / inspection._LOOK_SECONDS + 2
