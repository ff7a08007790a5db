"""Goal: a large value is held no longer than its commit takes, and is logged as any other. Method: SQLite itself says
what its statements hold; the log is read as plain rows, and the store is judged by the independent implementation."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from sqlstate.commit import pending
from sqlstate.format import merkle
from sqlstate.tables import state, wal
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import sqlstate
    from tests.conftest import OpenStore

KEPT_BYTES = 100_000
LARGE = 6 * KEPT_BYTES
STATEMENTS_MAX = LARGE // 2


@pytest.fixture(autouse=True)
def _less_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pending, state, wal):
        monkeypatch.setattr(module, "KEPT_BYTES", KEPT_BYTES)
    monkeypatch.setattr(merkle, "_HASHED_AT_ONCE", KEPT_BYTES)


def put(store: sqlstate.Store, value: Any) -> None:
    store["c"][1] = value


def put_in_transaction(store: sqlstate.Store, value: Any) -> None:
    with store.transaction("a note") as txn:
        txn.put("c", 1, value)


def update(store: sqlstate.Store, value: Any) -> None:
    store["c"].update({0: value, 1: value})


def put_in_batch(store: sqlstate.Store, value: Any) -> None:
    with store.batch() as batch:
        batch["c"][1] = value
        batch["c"][2] = value


def in_statements(store: sqlstate.Store) -> int:
    """Return how many bytes SQLite's statements of the writing connection hold."""
    return int(store._engine.write_connection._sqlite.status(apsw.SQLITE_DBSTATUS_STMT_USED)[0])


@pytest.mark.parametrize("write", [put, put_in_transaction, update, put_in_batch])
@pytest.mark.parametrize("of", ["a", b"a"], ids=["text", "bytes"])
def test_no_statement_keeps_a_large_value(open_store: OpenStore, of: Any, write: Callable[..., None]) -> None:
    store = open_store()
    for value in (of * LARGE, of * (LARGE + 1), "small", of * LARGE):
        write(store, value)
        assert store["c"][1] == value
        assert in_statements(store) < STATEMENTS_MAX
    for key in list(store["c"]):
        del store["c"][key]
        assert in_statements(store) < STATEMENTS_MAX


HUGE = 8 << 20


@pytest.mark.parametrize(("write", "changed"), [(put, 1), (put_in_transaction, 1), (update, 2), (put_in_batch, 2)])
def test_large_bytes_are_changed_in_three_times_their_size(
    open_store: OpenStore, write: Callable[..., None], changed: int
) -> None:
    """Besides the values themselves: Python holds those before, and SQLite copies the one that it reads or writes.

    Its cache of pages, which has a size of its own, is small here.
    """
    store = open_store(cache_bytes=1 << 20)
    values = [bytes([number]) * HUGE for number in range(4)]
    store["c"].update(dict.fromkeys([0, 1, 2], b"small"))
    for value in values:
        tracemalloc.start()
        before = apsw.memory_used()
        apsw.memory_high_water(reset=True)
        write(store, value)
        held = tracemalloc.get_traced_memory()[1] + apsw.memory_high_water() - before
        tracemalloc.stop()
        assert held < (2 * changed + 1.4) * HUGE
    assert store.check().ok


MUCH = 2 * KEPT_BYTES
VALUES = [b"a" * MUCH, b"b" * (MUCH + 1), b"", b"c" * MUCH, "text", b"d" * KEPT_BYTES, "t" * MUCH, "é" * MUCH, 7]


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_large_values_are_logged_as_they_were_put(open_store: OpenStore, path: Path, journal: str) -> None:
    store = open_store(journal=journal)
    for value in VALUES:
        store["c"][1] = value
        assert store["c"][1] == value
    del store["c"][1]
    rows = store._engine.write_connection.rows(
        "SELECT value, before FROM wal WHERE kind IN ('PUT', 'DELETE') ORDER BY lsn"
    )
    stored = [value if type(value) is bytes else plain_json(value) for value in VALUES]
    assert rows == list(zip([*stored, None], [None, *stored], strict=True))
    assert store.check().outcome == "sound"
    store.close()
    assert plain.judge(path).findings == ()


def plain_json(value: Any) -> str:
    return f'"{value}"' if type(value) is str else str(value)


def test_a_digest_of_large_text_does_not_depend_on_how_it_is_cut(open_store: OpenStore, path: Path) -> None:
    """A character of several bytes lies across each place where text is cut."""
    store = open_store()
    for size in (KEPT_BYTES - 3, KEPT_BYTES - 2, KEPT_BYTES - 1, 2 * KEPT_BYTES):
        store["c"][size] = "a" + "\U0001f600é" * (size // 2)
    store.close()
    assert plain.judge(path).findings == ()
