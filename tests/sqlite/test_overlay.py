"""Goal: with pages in place of its own, a file reads as the one that has those pages, whatever SQLite does to read it.

Method: pages of another file of the same size replace those of a file, some or all of them; and SQLite is made to sort
more than it holds in memory.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from sqlstate.sqlite.overlay import Pages, overlaid

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
ROWS = 4000


def make(path: Path, letter: str) -> bytes:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"PRAGMA page_size = {PAGE}")
        db.execute("CREATE TABLE t (number INTEGER, text TEXT)")
        rows = ((number * 7919 % ROWS, letter * 1000) for number in range(ROWS))
        db.executemany("INSERT INTO t VALUES (?, ?)", rows)
    return path.read_bytes()


def test_what_sqlite_sorts_in_a_temporary_file_is_not_replaced(tmp_path: Path) -> None:
    make(tmp_path / "old", "a")
    new = make(tmp_path / "new", "b")
    pages = {at // PAGE + 1: at for at in range(0, len(new), PAGE)}
    with overlaid(str(tmp_path / "old"), Pages(PAGE, new, pages, len(pages)), None) as connection:
        connection.run("PRAGMA cache_size = 10")
        rows = connection.rows("SELECT number, text FROM t ORDER BY number")
    assert rows == [(number, "b" * 1000) for number in range(ROWS)]
