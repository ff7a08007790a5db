"""Several processes and threads at one store: they wait for each other, see commits only, and survive a kill.

Method: real processes that say where they are through pipes, so that the test decides what happens before
what; afterwards the file is judged by tests/reference/plain.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate.format import constants as fmt
from sqlstate.sqlite import checkpoints
from tests import MIGRATIONS
from tests.reference import plain
from tests.support.child import Child
from tests.support.lines import be_patient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import OpenStore

JOURNALS = ("wal", "delete")
PUT_WRITES = 8 * 50

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def judged(path: Path) -> plain.Judgement:
    judgement = plain.judge(path)
    assert judgement.findings == ()
    return judgement


def read_all(path: Path) -> dict[str, dict[int | str | bytes, object]]:
    with sqlstate.open(path, read_only=True) as store:
        return {name: dict(store[name]) for name in store.collections()}


def beside(path: Path) -> list[str]:
    """What SQLite left beside the file."""
    return sorted(file.name for file in path.parent.iterdir() if file not in (path, noted(path)))


def noted(path: Path) -> Path:
    """Where it is noted what was acknowledged, which is no file of SQLite's."""
    return path.with_name(path.name + "-acknowledged")


# ---- Many at once ----


@pytest.mark.parametrize("journal", JOURNALS)
def test_eight_processes_that_make_one_file_at_one_moment_agree_on_it(tmp_path: Path, journal: str) -> None:
    with ExitStack() as stack:
        children = [stack.enter_context(Child("opens", journal)) for _ in range(8)]
        for child in children:
            child.expects("ready")
        for attempt in range(4):
            path = tmp_path / f"{attempt}.db"
            for child in children:
                child.tell(str(path))
            ids = {child.says() for child in children}
            for child in children:
                child.tell()
            for child in children:
                child.expects("closed")
            assert len(ids) == 1, "two stores were made of one file"
            judgement = judged(path)
            assert {judgement.store_id.hex()} == ids
            assert (judgement.seq, judgement.count) == (8, 8)
            with plain.connect(path) as connection:
                rows = connection.execute("SELECT number, name FROM schema_migrations").fetchall()
                journals = connection.execute("SELECT value FROM meta WHERE name = 'journal'").fetchall()
            connection.close()
            assert rows == [(number, file.name) for number, file in enumerate(MIGRATIONS, 1)]
            assert journals == [(journal,)]
        for child in children:
            child.ends()


@pytest.mark.parametrize(("journal", "times"), [("wal", 150), ("delete", 30)])
def test_increments_of_four_processes_add_up(path: Path, journal: str, times: int) -> None:
    sqlstate.open(path, journal=journal).close()  # type: ignore[arg-type]
    with ExitStack() as stack:
        children = [stack.enter_context(Child("increments", path, times)) for _ in range(4)]
        for child in children:
            child.expects("ready")
        for child in children:
            child.tell()
        for child in children:
            child.expects("done")
        for child in children:
            child.ends()
    judgement = judged(path)  # that seq has no holes is I4
    assert judgement.seq == 4 * times
    assert read_all(path) == {"c": {"counter": 4 * times}}


# ---- What others see ----


def fill(store: sqlstate.Store) -> None:
    with store.transaction() as txn:
        txn["left"].update(dict.fromkeys(range(10), 100))
        txn["right"].update(dict.fromkeys(range(7), 0))


def total(view: sqlstate.Snapshot | sqlstate.Store) -> int:
    return sum([*view["left"].values(), *view["right"].values()])


def test_a_reader_sees_committed_states_only_while_another_process_writes(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    fill(store)
    seen: list[int] = []
    with Child("moves", path) as child:
        while len(set(seen)) < 30:  # so it did meet the writer at work
            with store.snapshot() as view:
                # Twice, so that a commit between two reads of one snapshot would show.
                assert [total(view), total(view)] == [1000, 1000]
                assert len(view["left"]) == 10
                assert sum(view["right"].values()) == view.head.seq - 1
                seen.append(view.head.seq)
        child.tell("stop")
        moved = child.says()
        child.ends()
    assert seen == sorted(seen), "a later snapshot was of an older commit"
    assert store.head().seq == moved + 1


def test_a_transaction_of_another_process_is_seen_when_it_has_committed_and_not_before(
    path: Path, open_store: OpenStore
) -> None:
    store = open_store()
    fill(store)
    with Child("holds", path) as child:
        child.expects("holding")
        with store.snapshot() as before:
            assert (total(before), before.head.seq) == (1000, 1)
            assert (store["left"][0], store["right"][0]) == (100, 0)
            child.tell()
            child.expects("committed")
            assert (store["left"][0], store["right"][0], store.head().seq) == (99, 1, 2)
            # The snapshot still is of the commit before.
            assert (total(before), before["left"][0], before.head.seq) == (1000, 100, 1)
        child.tell()
        child.ends()


def test_reading_never_waits_for_a_writer_of_another_process(path: Path, open_store: OpenStore) -> None:
    store = open_store(timeout=0)
    fill(store)
    with Child("holds", path) as child, open_store(timeout=0, read_only=True) as reader:
        child.expects("holding")
        with pytest.raises(sqlstate.Busy):
            store["c"]["k"] = 1
        for each in (store, reader):
            assert (total(each), each.head().seq, len(each["left"])) == (1000, 1, 10)
            assert [head.seq for head in each.watch(after=0, timeout=0)] == [1]
            with each.snapshot() as view:
                assert total(view) == 1000
        child.tell()
        child.expects("committed")
        child.tell()
        child.ends()


def test_a_writer_that_waits_too_long_is_told_so_and_has_changed_nothing(path: Path, open_store: OpenStore) -> None:
    store = open_store(timeout=0.01)
    fill(store)
    head = store.head()
    with Child("holds", path) as child:
        child.expects("holding")
        for attempt in (
            lambda: store["c"].__setitem__("k", 1),
            lambda: store["c"].update({"k": 1, "l": 1}),
            lambda: store["left"].pop(0),
            lambda: store["left"].clear(),
            lambda: store.transaction().__enter__(),
            lambda: store.wal.append("BEGIN"),
            lambda: store.stage(),
            lambda: store._record("check", {}),
        ):
            with pytest.raises(sqlstate.Busy, match=r"nothing was changed.*[Tt]ry again") as caught:
                attempt()
            assert str(path) in str(caught.value)
        assert store.head() == head
        assert list(store.wal.read()) == list(store.wal.read(0))
        assert store.wal.uncommitted() == []
        child.tell()
        child.expects("committed")
        store["c"]["k"] = 1  # the same handle, later
        assert (store.head().seq, store["left"][0]) == (head.seq + 2, 99)
        child.tell()
        child.ends()


def test_a_writer_that_waits_long_enough_gets_its_turn(path: Path, open_store: OpenStore) -> None:
    store = open_store(timeout=30)
    fill(store)
    with Child("holds", path) as child, ThreadPoolExecutor(1) as pool:
        child.expects("holding")
        put = pool.submit(store["c"].__setitem__, "k", 1)
        child.tell()
        child.expects("committed")
        put.result()
        assert store["c"]["k"] == 1
        child.tell()
        child.ends()


@pytest.mark.parametrize("refused", [False, True], ids=["opened", "refused"])
def test_a_second_handle_in_one_process_takes_no_lock_from_the_first(
    path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    """A descriptor that is closed takes all POSIX locks of its process with it, if anybody but SQLite closes it."""
    store = open_store()
    store["c"]["k"] = 1
    if refused:
        with monkeypatch.context() as patch:
            patch.setattr(fmt, "FORMAT_VERSION", 0)
            with pytest.raises(sqlstate.FormatTooNew):
                sqlstate.open(path)
    else:
        with sqlstate.open(path) as second, sqlstate.open(path, read_only=True) as third:
            assert second["c"]["k"] == third["c"]["k"] == 1
            second["c"]["k"] = 2
    # Another process that takes itself for the last one would remove the -wal, with what is written to it from now on.
    with Child("opens", "wal") as child:
        child.expects("ready")
        child.tell(str(path))
        child.expects(store.store_id.hex())
        child.tell()
        child.expects("closed")
        child.ends()
    assert beside(path) == ["test.db-shm", "test.db-wal"]
    store["c"]["after"] = 3
    store.close()
    assert read_all(path)["c"]["after"] == 3


# ---- Killed ----


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize(("entries", "acknowledged"), [(1, 1), (1, 60), (5, 40)])
def test_a_kill_loses_no_acknowledged_commit_and_leaves_no_half_of_one(
    path: Path, open_store: OpenStore, journal: str, entries: int, acknowledged: int
) -> None:
    with Child("commits", path, entries, journal) as child:
        child.expects("ready")
        said = [child.says() for _ in range(acknowledged)]
        said += child.kill()
    if journal == "wal":
        assert beside(path) == ["test.db-shm", "test.db-wal"], "the child had time to close the store"
    store = open_store(journal=journal)
    seq = store.head().seq
    # One commit may have become durable without the child having come to say so.
    assert seq in (said[-1], said[-1] + 1)
    expected = {i: f"commit {i // entries + 1}" for i in range(seq * entries)}
    assert dict(store["log"]) == expected
    store["c"]["after"] = 1
    assert store.head().seq == seq + 1


@needs_fork
@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.slow
def test_a_death_at_any_write_of_a_stores_life_leaves_a_sound_store(tmp_path: Path, journal: str) -> None:
    """From the making of the file to its closing, every write, sync, truncation and deletion is the last one once."""
    lives = []
    with Child("cut_short", tmp_path, journal) as child:
        while isinstance(life := child.says(), list):
            lives.append(life)
        assert life == "done"
        child.ends()
    for number, acknowledged, _, seq, entries, found_journal in lives:
        commits = acknowledged.count("c")
        assert seq in (commits, commits + 1), f"death {number}: {commits} commits acknowledged, {seq} there"
        assert entries == {f"k{i}": i for i in range(seq)} | ({"k": seq - 1} if seq else {})
        assert found_journal == journal
        judged(tmp_path / f"{number}.db")
    # There were deaths before the store was open, between commits, and, in WAL mode, while it was closed.
    reached = {acknowledged for _, acknowledged, *_ in lives}
    assert reached == {"", "o", "oc", "occ", "occc"}
    left = {
        tuple(end for name in beside if (end := name.partition("-")[2]) != "acknowledged") for _, _, beside, *_ in lives
    }
    assert left >= ({("journal",), ("shm", "wal"), ("wal",), ()} if journal == "wal" else {("journal",), ()})


def test_a_kill_inside_a_transaction_undoes_it(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    fill(store)
    head = store.head()
    store.close()
    with Child("holds", path) as child:
        child.expects("holding")
        child.kill()
    store = open_store()
    assert (store.head(), store["left"][0], store["right"][0]) == (head, 100, 0)
    store["left"][0] = 99  # the lock went with the process
    assert store.head().seq == head.seq + 1


def test_a_staged_transaction_survives_the_kill_of_its_process(path: Path, open_store: OpenStore) -> None:
    with Child("stages", path) as child:
        txn = child.says()
        child.kill()
    store = open_store(recover="resume")
    [found] = store.wal.uncommitted()
    assert (found.txn, found.note, [record.kind for record in found.records]) == (txn, "draft", ["BEGIN", "PUT"])
    assert (store.head().seq, list(store["drafts"])) == (0, [])
    store.wal.mark_committed(txn)
    assert dict(store["drafts"]) == {"letter": "Dear"}


def test_a_store_that_was_not_closed_opens_with_everything(path: Path, open_store: OpenStore) -> None:
    with Child("leaves", path) as child:
        child.expects("put")
        child.ends()
    assert "test.db-wal" in beside(path)
    store = open_store()
    assert store["c"]["left"] == 1


LOCKS_CHECKPOINTS = """
import fcntl, sys
shm = open(sys.argv[1] + "-shm", "r+b")
fcntl.lockf(shm, fcntl.LOCK_EX, 1, 121)  # WAL_CKPT_LOCK of SQLite's shared memory: a checkpoint is under way
print("locked", flush=True)
sys.stdin.read()
"""


@needs_fork
def test_a_checkpoint_of_another_process_does_not_stop_this_one(
    path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_PAGES", 1)
    store = open_store()
    store["c"]["k"] = 0
    other = subprocess.Popen(
        [sys.executable, "-c", LOCKS_CHECKPOINTS, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        for i in range(1, 5):
            store["c"]["k"] = i
        assert store["c"]["k"] == 4
    finally:
        other.communicate()
    store["c"]["k"] = 5
    assert store.head().seq == 6


# ---- Forked ----


@needs_fork
@pytest.mark.parametrize("journal", JOURNALS)
def test_a_store_of_before_a_fork_refuses_every_method_in_the_child(path: Path, journal: str) -> None:
    with Child("fork_uses", path, journal) as child:
        found = child.says()
        after = child.says()
        child.ends()
    assert {name: raised for name, raised in found.items() if raised != "StoreForked"} == {}
    assert len(found) > 30
    # The parent's store, snapshot and scan are none the worse for it.
    assert after == {"scan": [["l", 2]], "snapshot": {"k": 1, "l": 2}, "seq": 2}
    assert judged(path).seq == 2
    assert beside(path) == []


@needs_fork
@pytest.mark.parametrize("leaving", ["normally", "by an exception"])
@pytest.mark.parametrize("journal", JOURNALS)
def test_a_transaction_of_before_a_fork_is_the_parents_alone(path: Path, journal: str, leaving: str) -> None:
    with Child("fork_in_transaction", path, journal, leaving) as child:
        found = child.says()
        left = child.says()
        seq = child.says()
        child.ends()
    assert {name: raised for name, raised in found.items() if raised != "StoreForked"} == {}
    assert left in {"normally": ("StoreForked",), "by an exception": ("StoreForked", "RuntimeError")}[leaving]
    assert seq == 2
    assert judged(path).seq == 3
    assert read_all(path) == {"c": {"k": 1, "parent": 1, "parent too": 2, "after": 3}}


@needs_fork
def test_a_fork_beside_a_transaction_neither_waits_for_it_nor_ends_it(path: Path) -> None:
    with Child("fork_beside_transaction", path) as child:
        found = child.says()
        child.expects("closed")
        child.ends()
    assert {name: raised for name, raised in found.items() if raised != "StoreForked"} == {}
    assert judged(path).seq == 3
    assert read_all(path) == {"c": {"k": 1, "thread": 1, "after": 3}}


@needs_fork
@pytest.mark.parametrize("journal", JOURNALS)
def test_the_end_of_a_forked_child_takes_nothing_from_the_parent(
    path: Path, open_store: OpenStore, journal: str
) -> None:
    with Child("fork_ends", path, journal) as child:
        child.expects(0)
        # Python has closed in the child what it could; the parent has committed since.
        if journal == "wal":
            assert beside(path) == ["test.db-shm", "test.db-wal"]
        with sqlstate.open(path, read_only=True) as reader:
            assert dict(reader["c"]) == {"k": 1, "l": 2, "after": 3}
        child.tell()
        child.ends()
    assert beside(path) == []
    assert dict(open_store()["c"]) == {"k": 1, "l": 2, "after": 3}


@needs_fork
def test_a_forked_child_that_outlives_its_parent_takes_no_commit_with_it(path: Path, open_store: OpenStore) -> None:
    """What it inherited is of an earlier -wal of the same name: closing that would remove the one of now."""
    with Child("fork_outlives", path) as child:
        child.expects("put")
        child.ends()  # both have: they share its pipes
    assert beside(path) == ["test.db-shm", "test.db-wal"]
    store = open_store()
    assert dict(store["c"]) == {"k": 1, "acknowledged": 2}


# ---- Threads of one process ----


def run_together(*works: Callable[[], object]) -> None:
    """Run each of *works* in a thread of its own, all from the same moment on."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        barrier.wait()
        work()

    with ThreadPoolExecutor(len(works)) as pool:
        for each in [pool.submit(run, work) for work in works]:
            each.result()


def test_eight_threads_share_one_store(store: sqlstate.Store) -> None:
    def put(thread: int) -> None:
        for i in range(PUT_WRITES // 8):
            store["c"][thread * 1000 + i] = i

    run_together(*(partial(put, thread) for thread in range(8)))
    assert dict(store["c"]) == {thread * 1000 + i: i for thread in range(8) for i in range(PUT_WRITES // 8)}
    assert store.head().seq == PUT_WRITES
    assert [head.seq for head in store.commits()] == list(range(1, PUT_WRITES + 1))


def test_increments_of_eight_threads_add_up(store: sqlstate.Store) -> None:
    def add() -> None:
        for _ in range(25):
            with store.transaction() as txn:
                txn.put("c", "counter", txn.get("c", "counter", 0) + 1)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns inside a transaction too
    try:
        run_together(*[add] * 8)
    finally:
        sys.setswitchinterval(interval)
    assert (store["c"]["counter"], store.head().seq) == (200, 200)


def test_a_store_closed_under_threads_at_work_ends_them_between_two_commits(path: Path) -> None:
    store = sqlstate.open(path, timeout=30)
    store["c"].update(dict.fromkeys(range(1000), 0))
    works = threading.Barrier(5)

    def read() -> int:
        return len(list(store["c"].items())) + store.head().count

    def write(key: int) -> int:
        store["c"][key] += 1
        return int(store["c"][key])

    def until_closed(work: Callable[[], int]) -> int:
        done = work()
        works.wait()
        while True:
            try:
                done = work()
            except (sqlstate.StoreClosed, sqlstate.TransactionEnded):  # the latter if in the midst of a scan
                return done

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(until_closed, read) for _ in range(2)]
        writers = [pool.submit(until_closed, partial(write, key)) for key in range(2)]
        works.wait()
        store.close()
        assert [reader.result() for reader in readers] == [2000, 2000]
        acknowledged = [writer.result() for writer in writers]
    assert beside(path) == []
    assert judged(path).count == 1000
    found = read_all(path)["c"]
    # A put may have been made whose reading back the closing refused.
    assert all(found[key] in (acknowledged[key], acknowledged[key] + 1) for key in range(2))


def test_an_unfinished_scan_of_one_thread_keeps_no_writer_waiting(store: sqlstate.Store) -> None:
    store["c"].update(dict.fromkeys(range(1000), 0))
    begun, written = threading.Event(), threading.Event()

    def scan() -> list[object]:
        items = iter(store["c"].items())
        found = [next(items)]
        begun.set()
        assert written.wait(30)
        return [*found, *items]

    with ThreadPoolExecutor(1) as pool:
        scanned = pool.submit(scan)
        assert begun.wait(30)
        store["c"].update(dict.fromkeys(range(1000), 1))
        store["c"]["new"] = 1
        written.set()
        # The scan goes on with the state that it began with.
        assert scanned.result() == [(i, 0) for i in range(1000)]
    assert sum(store["c"].values()) == 1001


def test_an_unfinished_scan_in_a_rollback_journal_store_makes_a_writer_busy(open_store: OpenStore) -> None:
    store = open_store(journal="delete", timeout=0.01)
    store["c"].update(dict.fromkeys(range(1000), 0))
    items = iter(store["c"].items())
    next(items)
    with pytest.raises(sqlstate.Busy, match="nothing was changed"):
        store["c"][0] = 1
    assert [value for _, value in items] == [0] * 999
    store["c"][0] = 1
    assert store["c"][0] == 1
    assert store.head().seq == 2


def test_a_thread_that_waits_too_long_for_another_is_told_so(open_store: OpenStore) -> None:
    store = open_store(timeout=0.01)
    with ThreadPoolExecutor(1) as pool:
        with store.transaction() as txn:
            txn.put("c", "k", 1)
            with pytest.raises(sqlstate.Busy, match=r"another thread.*nothing was changed.*[Tt]ry again"):
                pool.submit(store["c"].__setitem__, "other", 1).result()
            assert pool.submit(lambda: dict(store["c"])).result() == {}, "another thread saw what was not committed"
        be_patient(store)
        pool.submit(store["c"].__setitem__, "other", 1).result()
    assert dict(store["c"]) == {"k": 1, "other": 1}
