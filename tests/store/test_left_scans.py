"""Goal: an iterator that is kept, by a name or by a traceback, holds back nobody's view of the store.

Method: the programs that showed it first, as they were, in this process and in processes that may freeze; then each
kind of iterator, whose next step after the end of what it reads must say so. tests/crash/left_scans.py tries many more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import aio
from tests import ROOT
from tests.support.lines import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import OpenStore


FREEZES = """
import faulthandler, gc, sys
faulthandler.dump_traceback_later(20, exit=True)
import anyio
from sqlstate import aio

async def main():
    gc.set_threshold(7, 3, 3)
    async with aio.open(sys.argv[1]) as s:
        await s["c"].update({i: i for i in range(3000)})
        for _ in range(400):
            async with s.transaction() as txn:
                async for _ in txn["c"].items():
                    break

anyio.run(main, backend=sys.argv[2])
"""


def test_tracebacks_that_are_kept_lose_no_update(store: sqlstate.Store) -> None:
    store["in"].update({i: str(i) for i in range(2000)})
    store["in"][3] = "x"
    store["n"]["fails"] = 0
    kept = []
    for _ in range(3):
        try:
            with store.snapshot() as view:
                sum(int(v) for v in view["in"].values())
        except ValueError as e:
            kept.append(e)
            store["n"]["fails"] += 1
    assert (store["n"]["fails"], store.head().seq) == (3, 6)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.slow
def test_scans_that_transactions_leave_do_not_freeze_the_process(path: Path, backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FREEZES, str(path), backend],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def in_snapshot(store: sqlstate.Store) -> Iterator[Any]:
    with store.snapshot() as view:
        rows = iter(view["in"].items())
        next(rows)
    return rows


def in_transaction(store: sqlstate.Store) -> Iterator[Any]:
    with store.transaction() as txn:
        rows = iter(txn["in"].values())
        next(rows)
        txn.put("c", "mine", store.head().seq)
    return rows


def in_failed_transaction(store: sqlstate.Store) -> Iterator[Any]:
    with pytest.raises(LookupError), store.transaction() as txn:
        rows = iter(txn["in"])
        next(rows)
        raise LookupError
    return rows


def in_batch(store: sqlstate.Store) -> Iterator[Any]:
    with store.batch() as batch:
        rows = iter(batch["in"].keys())
        next(rows)
    return rows


def backwards(store: sqlstate.Store) -> Iterator[Any]:
    with store.snapshot() as view:
        rows: Iterator[Any] = reversed(view["in"])
        next(rows)
    return rows


def far_inside(store: sqlstate.Store) -> Iterator[Any]:
    with store.snapshot() as view:
        rows = iter(view["in"].items())
        for _ in range(700):
            next(rows)
    return rows


WAYS = (in_snapshot, in_transaction, in_failed_transaction, in_batch, backwards, far_inside)


@pytest.mark.parametrize("options", [{}, {"mode": "group"}, {"journal": "delete"}])
@pytest.mark.parametrize("way", WAYS)
def test_an_iterator_ends_with_what_it_reads(
    path: Path, open_store: OpenStore, way: Callable[[sqlstate.Store], Iterator[Any]], options: dict[str, Any]
) -> None:
    store = open_store(timeout=1, **options)
    store["in"].update({i: i for i in range(2000)})
    rows = way(store)
    for value in range(3):
        store["c"]["k"] = value
        assert store["c"]["k"] == value
        with store.snapshot() as view:
            assert view["c"]["k"] == value
            assert view.head == store.head()
    with pytest.raises(sqlstate.TransactionEnded):
        next(rows)
    store.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["items", "wal", "commits", "audit", "snapshot", "watch"])
def test_close_ends_iterators_and_leaves_one_file(path: Path, kind: str) -> None:
    store = sqlstate.open(path)
    store["in"].update({i: i for i in range(2000)})
    store["c"]["k"] = 1
    view = store.snapshot()
    view.__enter__()
    kinds: dict[str, Callable[[], Iterator[Any]]] = {
        "items": lambda: iter(store["in"].items()),
        "wal": lambda: store.wal.read(),
        "commits": lambda: store.commits(),
        "audit": lambda: store.audit(),
        "snapshot": lambda: iter(view["in"].items()),
        "watch": lambda: store.watch(after=0),
    }
    rows = kinds[kind]()
    if kind != "audit":  # which has no entry
        next(rows)
    store.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    # watch() ends with the store, as it says; an audit trail without entries has none to give.
    ended = (StopIteration,) if kind == "watch" else (sqlstate.TransactionEnded,)
    with pytest.raises((*ended, StopIteration) if kind == "audit" else ended):
        next(rows)
    with pytest.raises((sqlstate.TransactionEnded, sqlstate.StoreClosed)):
        view["in"].get(1)


def test_an_iterator_is_dropped_in_any_order_without_a_word(path: Path, store: sqlstate.Store) -> None:
    """Half-read iterators are dropped before and after their snapshot, and in a cycle: warnings are errors here."""
    store["in"].update({i: i for i in range(2000)})
    for order in range(3):
        view = store.snapshot()
        view.__enter__()
        rows = iter(view["in"].items())
        next(rows)
        if order == 0:
            del rows, view
        elif order == 1:
            del view, rows
        else:
            cycle: list[Any] = [view, rows]
            cycle.append(cycle)
            del view, rows, cycle
        store["c"]["k"] = order
        assert store["c"]["k"] == order
        with store.snapshot() as newest:
            assert newest["c"]["k"] == order


@pytest.mark.anyio
async def test_a_scan_of_a_task_ends_with_what_it_reads(path: Path, aiostore: aio.AsyncStore) -> None:
    await aiostore["in"].update({i: i for i in range(3000)})
    async with aiostore.snapshot() as view:
        of_snapshot = view["in"].items()
        await anext(of_snapshot)
    async with aiostore.transaction() as txn:
        of_transaction = txn["in"].items()
        await anext(of_transaction)
    of_store = aiostore["in"].items()
    await anext(of_store)
    for rows in (of_snapshot, of_transaction):
        with pytest.raises(sqlstate.TransactionEnded):
            await anext(rows)
    await aiostore.put("c", "k", 1)
    assert await aiostore.get("c", "k") == 1
    await aiostore.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with pytest.raises((sqlstate.TransactionEnded, sqlstate.StoreClosed)):
        await anext(of_store)
