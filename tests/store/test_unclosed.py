"""A store that nobody closed: its process ended, well or badly, or it was dropped. Nothing of it is lost.

Method: real processes that end by themselves, in several ways, and handles that the garbage collector
takes. SQLite's connections close themselves then, and must leave the -wal that the marker speaks of.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from tests.reference import plain
from tests.support.child import Child

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import OpenStore

ENTRIES = 40

OPEN = "import os, sys, sqlstate; store = sqlstate.open(sys.argv[1], **eval(sys.argv[2]))"
PUT = f"for i in range({ENTRIES}): store['c'][i] = 'x' * i"

ENDS = {
    "end of the program": "",
    "sys.exit": "sys.exit(0)",
    "exception": "raise LookupError",
    "os._exit": "os._exit(0)",
    "in a function": "def main(store):\n  store['d'][1] = 1\nmain(store); del store",
    "after a scan": "next(iter(store['c'].items()))",
    "with a scan under way": "scan = iter(store['c'].items()); next(scan)",
    "with a snapshot open": "snapshot = store.snapshot(); snapshot['c'][1]",
    "with a transaction open": "block = store.transaction(); txn = block.__enter__(); txn['c'][1] = 'not committed'",
    "with a transaction open, and a future that waits for it": (
        "store._engine.timeout = 0.1; block = store.transaction(); block.__enter__()['c'][1] = 'not committed'; "
        "import threading; other = threading.Thread(target=store.submit, args=(lambda txn: txn['c'].clear(),)); "
        "other.start(); other.join()"
    ),
    "with a batch open": "batch = store.batch(); batch.__enter__(); store['c'][1] = 'not flushed'",
    "after a future": "store.submit(lambda txn: txn['d'].__setitem__(1, 1)); store.barrier()",
    "in a cycle": "cycle = [store]; cycle.append(cycle); del store, cycle",
}


def leave(path: Path, end: str, **options: Any) -> None:
    """Let a process put ENTRIES into the store, and end without closing it."""
    with Child("program", f"{OPEN}\n{PUT}\n{end}", path, repr(options)) as child:
        code, _, error = child.end()
    assert code == end.startswith("raise"), error


@pytest.mark.parametrize("options", [{}, {"mode": "group"}, {"journal": "delete"}], ids=["full", "group", "delete"])
@pytest.mark.parametrize("end", ENDS)
def test_a_process_that_ends_without_closing_loses_nothing(
    path: Path, open_store: OpenStore, end: str, options: dict[str, Any]
) -> None:
    for _ in range(2):  # the second finds a store that was not closed
        leave(path, ENDS[end], **options)
    store = open_store()
    assert dict(store["c"]) == {i: "x" * i for i in range(ENTRIES)}
    assert dict(store["d"]) == ({1: 1} if "['d']" in ENDS[end] else {})
    assert store.recovery.journal.valid == store.recovery.journal.frames
    assert store.recovery.clean is ("journal" in options)
    assert store.check().ok


@pytest.mark.parametrize("closes", [False, True], ids=["both", "the other is closed"])
def test_a_store_that_is_dropped_leaves_its_wal_and_loses_nothing(
    path: Path, open_store: OpenStore, *, closes: bool
) -> None:
    other = sqlstate.open(path)
    dropped = sqlstate.open(path)
    for i in range(ENTRIES):  # the first alone would be in the file as a whole
        dropped["c"][i] = i
    list(dropped["c"].items())
    if closes:  # it finds the newest commit, and carries all into the file
        other.close()
    del dropped, other
    gc.collect()
    assert path.with_name(path.name + "-wal").stat().st_size > 0
    again = open_store()
    assert again.recovery.clean is closes
    assert dict(again["c"]) == {i: i for i in range(ENTRIES)}


def test_a_dropped_reader_leaves_the_wal_of_the_killed(path: Path) -> None:
    leave(path, "os._exit(0)")
    left = path.with_name(path.name + "-wal").read_bytes()
    reader = sqlstate.open(path, read_only=True)
    assert len(reader["c"]) == ENTRIES
    del reader
    gc.collect()
    assert path.with_name(path.name + "-wal").read_bytes() == left
    with sqlstate.open(path) as store:
        assert len(store["c"]) == ENTRIES
    assert plain.judge(path).findings == ()
