"""What stats().counters says is what was done: syncs as the system counts them, frames as SQLite does.

Method: a process at work under strace; and small stores whose -wal is looked at.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sqlstate.sqlite import checkpoints
from sqlstate.sqlite.counters import Counters, Counting
from tests import ROOT
from tests.support.lines import line_of_requests

if TYPE_CHECKING:
    from pathlib import Path

    import sqlstate
    from tests.conftest import OpenStore

NONE = Counters(0, 0, 0, {}, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0)


def counters(store: sqlstate.Store) -> Counters:
    return store.stats().counters


def test_a_handle_counts_from_its_own_beginning(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    assert counters(store) == NONE
    store["c"]["k"] = 1
    assert counters(store).commits == 1
    other = open_store()
    assert counters(other) == NONE
    other["c"]["k"] = 2
    assert (counters(store).commits, counters(other).commits) == (1, 1)
    assert counters(open_store(read_only=True)) == NONE


def test_commits_and_transactions_are_counted_and_what_changed_nothing_is_not(store: sqlstate.Store) -> None:
    for i in range(5):
        store["c"][i] = i
    with store.transaction() as txn:
        txn["c"].update(dict.fromkeys(range(100), 0))
    store["c"][0] = 0
    with pytest.raises(ZeroDivisionError), store.transaction() as txn:
        txn["c"]["k"] = 1
        raise ZeroDivisionError
    staged = store.stage()
    staged.put("c", "k", 1)
    staged.commit()
    found = counters(store)
    assert (found.commits, found.transactions, found.largest_group, found.group_sizes) == (7, 7, 1, {1: 7})
    assert found.commits == store.head().seq


def test_sizes_of_groups_are_counted_by_powers_of_two() -> None:
    counting = Counting()
    for transactions in (1, 1, 2, 3, 4, 5, 8, 9, 1000):
        counting.committed(transactions)
    found = counting.read()
    assert found.group_sizes == {1: 2, 2: 1, 4: 2, 8: 2, 16: 1, 1024: 1}
    assert (found.commits, found.transactions, found.largest_group) == (9, 1033, 1000)


def test_waits_and_checkpoints_are_summed_and_the_longest_is_kept() -> None:
    counting = Counting()
    for seconds in (1.0, 3.0, 2.0):
        counting.waited(seconds)
        counting.checkpointed(seconds / 10)
    found = counting.read()
    assert (found.queue_wait_seconds, found.longest_queue_wait_seconds) == (6.0, 3.0)
    assert found.checkpoints == 3
    assert found.checkpoint_seconds == pytest.approx(0.6)
    assert found.longest_checkpoint_seconds == pytest.approx(0.3)


def test_the_time_that_a_thread_waits_for_another_is_counted(open_store: OpenStore) -> None:
    store = open_store(mode="group")
    waits = line_of_requests(store)
    with ThreadPoolExecutor(1) as pool:
        with store.transaction() as txn:
            txn["c"]["k"] = 1
            other = pool.submit(store["c"].__setitem__, "other", 1)
            waits.came()
            time.sleep(0.2)
        other.result()
    found = counters(store)
    assert 0.1 < found.longest_queue_wait_seconds <= found.queue_wait_seconds


def test_frames_are_the_ones_in_sqlite_s_wal(store: sqlstate.Store) -> None:
    store["c"]["k"] = 0  # carried into the file at once: the marker
    store["c"]["k"] = 1
    frames, in_wal = counters(store).frames, store._engine.write_connection.checkpoint("count")[0]
    for i in range(20):
        store["c"][i] = "x" * 5000
    assert counters(store).frames - frames == store._engine.write_connection.checkpoint("count")[0] - in_wal > 40


def test_checkpoints_are_counted_with_their_time(store: sqlstate.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store["c"]["k"] = 0
    before = counters(store)
    for i in range(20):
        store["c"]["k"] = f"more {i}"
    assert counters(store).checkpoints == before.checkpoints
    monkeypatch.setattr(checkpoints, "CHECKPOINT_PAGES", 1)
    for i in range(20):
        store["c"]["k"] = i
    found = counters(store)
    assert found.checkpoints == before.checkpoints + 20
    assert 0 < found.longest_checkpoint_seconds < found.checkpoint_seconds


# Makes a directory that cannot be made where what is counted begins and ends: strace shows the names.
WORK = """
import os, sys
import sqlstate
from sqlstate.sqlite import checkpoints

def mark(name):
    try:
        os.mkdir(f"/proc/{name}")
    except OSError:
        pass

checkpoints.CHECKPOINT_PAGES = 40
path, journal = sys.argv[1:]
with sqlstate.open(path, journal=journal) as store:
    mark("counted from here")
    for i in range(60):
        store["c"][i % 7] = f"{i} {'x' * 500}"
    with store.snapshot() as view:
        view["c"].get(0)
        for i in range(30 if journal == "wal" else 0):
            store["c"][i % 7] = i
    store["c"].update({i: "y" * 200 for i in range(1000)})
    staged = store.stage()
    staged.put("c", "k", 1)
    staged.commit()
    store._record("check", {})
    for i in range(20):
        store["c"][i] = i
    found = store.stats().counters
    mark("to here")
print(found.syncs, found.commits)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_syncs_are_the_ones_that_strace_counts(path: Path, tmp_path: Path, journal: str) -> None:
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,sync_file_range,mkdir,mkdirat"
    command = ["strace", "-f", "-o", str(trace), "-e", calls, sys.executable, "-c", WORK, str(path), journal]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("this system lets no process be traced")
    assert (done.returncode, done.stderr) == (0, "")
    said, commits = map(int, done.stdout.split())
    lines = trace.read_text("utf-8").splitlines()
    begin, end = (next(i for i, line in enumerate(lines) if mark in line) for mark in ("counted from here", "to here"))
    syncs = sum(bool(re.search(r"\bf(data)?sync\(", line)) for line in lines[begin:end])
    assert commits > 80
    assert said == syncs > commits
