"""Goal: stats() counts what is there, and does not read the log, however long it is.

Method: a store with every kind of record is counted row by row. The pages that SQLite looks at are its own
figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw
import pytest

from sqlstate.tables import wal_figures

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlstate
    from sqlstate.sqlite.connection import Connection
    from tests.conftest import OpenStore

PAGES = (apsw.SQLITE_DBSTATUS_CACHE_HIT, apsw.SQLITE_DBSTATUS_CACHE_MISS)


def counted(store: sqlstate.Store) -> tuple[int, ...]:
    tables = "state", "merkle", "wal", "staged"
    return tuple(store._engine.write_connection.value(f"SELECT count(*) FROM {table}") for table in tables)


def test_stats_count_what_is_there(open_store: OpenStore) -> None:
    store = open_store()

    def told() -> tuple[int, ...]:
        stats = store.stats()
        return stats.entries, stats.nodes, stats.records, stats.staged

    assert told() == counted(store) == (0, 0, 0, 0)
    store["c"].update(dict.fromkeys(range(300), 1))
    del store["c"][7]
    with pytest.raises(ZeroDivisionError), store.transaction() as txn:
        txn.put("c", 1, 2)
        raise ZeroDivisionError
    with store.transaction() as txn:
        txn.put("c", 1, 3)
        with pytest.raises(ZeroDivisionError), store.transaction() as inner:
            inner.put("c", 2, 3)
            raise ZeroDivisionError
        txn.put("c", 1, 4)
    with store.batch() as batch:
        batch["c"][3] = 4
        batch["c"][4] = 4
    drafts = [store.stage() for _ in range(3)]
    for draft in drafts:
        draft.put("c", 1, 5)
    drafts[0].commit()
    drafts[1].rollback()
    assert told() == counted(store)


def test_the_log_is_not_read_to_count_it(open_store: OpenStore) -> None:
    store = open_store()
    store["c"].update(dict.fromkeys(range(3000), "x" * 200))
    with store._engine.reading() as connection:

        def pages(count: Callable[[Connection], int]) -> int:
            before = sum(connection._sqlite.status(each)[0] for each in PAGES)
            assert count(connection) == 3002
            return int(sum(connection._sqlite.status(each)[0] for each in PAGES) - before)

        assert pages(wal_figures.size) > 100
        assert pages(wal_figures.numbers) < 10
