"""Goal: commits are found by number in a log of any shape, and at a cost that does not grow with it.

Method: logs of made up records, of direct and staged transactions, against the plain definition; and SQLite's own count
of the instructions that it ran.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlstate.errors import Damaged
from sqlstate.sqlite.connection import memory
from sqlstate.tables import migrations as migrate
from sqlstate.tables import wal, wal_chain

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlstate.sqlite.connection import Connection

AT = "2026-11-23T17:09:46.000000Z"
SESSION = bytes(16)


class Log:
    """A log that is written record by record."""

    def __init__(self) -> None:
        self.connection = memory()
        migrate.apply(self.connection, migrate.shipped(), "")
        self.rows: list[tuple[Any, ...]] = []
        self.closing: list[int] = []
        """The LSN of the record that closes each commit."""

    def add(self, txn: int, kind: str, session: bytes | None = None, *head: Any) -> int:
        lsn = len(self.rows) + 1
        self.rows.append((lsn, txn or lsn, kind, session, *(head or (None,) * 5)))
        return lsn

    def commit(self, transactions: list[tuple[int, int]]) -> None:
        """Append a commit of transactions with so many changes, after so many staged records (0: it is direct)."""
        seq = len(self.closing) + 1
        for number, (changes, staged) in enumerate(transactions, 1):
            session = SESSION if staged else None
            txn = self.add(0, "BEGIN", session)
            for _ in range(staged or changes):
                self.add(txn, "PUT", session)
            whole = (bytes(32), 0, AT, bytes(32)) if number == len(transactions) else (None,) * 4
            lsn = self.add(txn, "COMMIT", session, seq, *whole)
        self.closing.append(lsn)

    def written(self) -> Connection:
        sql = (
            "INSERT INTO wal (lsn, txn, kind, session, seq, root, count, at, chain) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        self.connection.run_many(sql, self.rows)
        return self.connection


TRANSACTION = st.tuples(st.integers(1, 900), st.sampled_from([0, 0, 0, 1, 40]))
FEW = st.tuples(st.integers(1, 3), st.just(0))


@given(
    commits=st.lists(
        st.one_of(st.lists(FEW, min_size=1, max_size=4), st.lists(TRANSACTION, min_size=1, max_size=3)), max_size=12
    ),
    small=st.integers(0, 70),
    first=st.booleans(),
    draft=st.sampled_from([0, 1, 700]),
)
def test_a_commit_is_found_in_a_log_of_any_shape(
    commits: list[list[tuple[int, int]]], small: int, first: bool, draft: int
) -> None:
    log = Log()
    for each in [[[(1, 0)]] * small, commits][:: 1 if first else -1]:
        for transactions in each:
            log.commit(transactions)
    if draft:
        txn = log.add(0, "BEGIN", SESSION)
        for _ in range(draft):
            log.add(txn, "PUT", SESSION)
    connection, newest = log.written(), len(log.closing)

    seqs = range(1, newest + 1)
    assert [wal.commit_lsn(connection, seq) for seq in seqs] == log.closing
    for seq in (1, newest // 2, newest - 1, newest):
        if seq > 0:
            assert [head.seq for head in wal.commits(connection, seq)[0]] == list(range(seq, newest + 1))[:256]
            assert len(list(wal_chain.chains(connection, seq, newest + 1))) == newest + 1 - seq
    for seq in (0, newest + 1, newest + 100, 2**63 - 1):
        assert wal.commit(connection, seq) is None
        assert wal.commit_lsn(connection, seq) == 0
    assert wal.commits(connection, newest + 1) == ([], None)
    with pytest.raises(Damaged, match=f"commit {newest + 1} is missing"):
        list(wal_chain.chains(connection, 1, newest + 2))


def instructions(connection: Connection, look: Callable[[], object]) -> int:
    """How many instructions of SQLite's machine a look takes, in hundreds."""
    counted = 0

    def count() -> bool:
        nonlocal counted
        counted += 1
        return False

    connection._sqlite.set_progress_handler(count, 100)
    look()
    connection._sqlite.set_progress_handler(None)
    return counted


@pytest.mark.parametrize("transactions", [[(20_000, 0)], [(2, 0)] * 5_000], ids=["of one transaction", "of many"])
def test_the_cost_of_a_look_does_not_grow_with_the_records(transactions: list[tuple[int, int]]) -> None:
    log = Log()
    for _ in range(6):
        log.commit(transactions)
    connection = log.written()

    def cost(look: Callable[[], object]) -> int:
        return instructions(connection, look)

    assert len(log.rows) > 100_000
    for seq in (1, 5, 6, 7):
        assert cost(lambda seq=seq: wal.commit(connection, seq)) < 60  # type: ignore[misc]
        assert cost(lambda seq=seq: wal.commit_lsn(connection, seq)) < 60  # type: ignore[misc]
    assert cost(lambda: wal.commits(connection, 1)) < 600
    assert cost(lambda: list(wal_chain.chains(connection, 1, 7))) < 600


def test_a_log_of_small_commits_is_read_many_at_once() -> None:
    log = Log()
    for _ in range(600):
        log.commit([(1, 0)])
    connection = log.written()
    per_record = instructions(connection, lambda: connection.rows("SELECT seq FROM wal WHERE seq >= 0"))
    assert instructions(connection, lambda: list(wal_chain.chains(connection, 1, 601))) < 4 * per_record


@pytest.mark.parametrize("wrong", ["'5'", "x'05'", "NULL", "-1", "2.5"])
@pytest.mark.parametrize("column", ["txn", "seq", "kind", "session"])
def test_a_damaged_record_is_no_error_of_ours(column: str, wrong: str) -> None:
    log = Log()
    for _ in range(5):
        log.commit([(3, 0), (2, 2)])
    connection = log.written()
    connection.run("PRAGMA ignore_check_constraints=1")
    for lsn in (2, log.closing[1], log.closing[2] - 1, log.closing[4]):
        connection.run("SAVEPOINT one")
        if not (column == "txn" and wrong == "NULL") and not (column == "kind" and wrong == "NULL"):
            connection.run(f"UPDATE wal SET {column} = {wrong} WHERE lsn = ?", (lsn,))
        for seq in range(7):
            for look in (wal.commit, wal.commits, wal.commit_lsn):
                with suppress(Damaged):
                    look(connection, seq)
        connection.run("ROLLBACK TO one")
        connection.run("RELEASE one")
