"""Goal: the log over the commits has the roots and paths of RFC 6962, whatever table log_blocks holds of it.

Method: stores with a few hundred real commits, and logs of made up chains, against tests/reference/log.py, which
computes every digest from all leaves. Blocks are filled in or not, by one or by several at once; rows are damaged.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sqlstate
from sqlstate import headlog
from sqlstate.format import constants as fmt
from sqlstate.proving import commits as history
from sqlstate.sqlite.connection import memory
from sqlstate.tables import log_blocks, meta, wal_chain
from sqlstate.tables import migrations as migrate
from tests import MIGRATIONS
from tests.reference import log as rfc6962
from tests.reference import plain
from tests.reference.notation import f, sha256, u64
from tests.support.images import folder_image
from tests.support.older import make_older
from tests.vectors import make

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlstate.sqlite.blocks import Over
    from sqlstate.sqlite.connection import Connection
    from tests.conftest import OpenStore

VECTORS = json.loads((make.HERE / "log.json").read_text("utf-8"))
FACTS = meta.Meta(make.STORE_ID, "wal", make.at(0))
COMMITS = 2 * rfc6962.BLOCK + 88


def log_of(chains: Sequence[bytes]) -> Connection:
    """A store's tables in memory, with the COMMIT records alone of a log with these chains."""
    connection = memory()
    migrate.apply(connection, migrate.shipped(), "")
    at = "2026-11-23T17:09:46.000000Z"
    rows = [(number, number, number, bytes(32), at, chain) for number, chain in enumerate(chains, 1)]
    sql = "INSERT INTO wal (lsn, txn, kind, seq, root, count, at, chain) VALUES (?, ?, 'COMMIT', ?, ?, 0, ?, ?)"
    connection.run_many(sql, rows)
    return connection


def store_blocks(connection: Connection, leaves: Sequence[bytes], number: int) -> None:
    """Let log_blocks hold the first so many blocks, computed by the reference."""
    connection.run("DELETE FROM log_blocks")
    blocks = [(each, rfc6962.tree(leaves[256 * each : 256 * each + 256])) for each in range(number)]
    connection.run_many("INSERT INTO log_blocks VALUES (?, ?)", blocks)


# ---- The vectors, and any part of any log ----


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_roots_blocks_and_paths_are_those_of_the_vectors(blocks: int) -> None:
    connection = log_of([sha256(u64(number)) for number in range(1, make.LARGE + 1)])
    store_blocks(connection, make.leaves_of(make.LARGE), blocks)
    found = history.History(connection, FACTS)

    assert [found.subtree(n, n + 1).hex() for n in range(make.SMALL)] == VECTORS["leaves"]
    assert [found.root(each["size"]).hex() for each in VECTORS["roots"]] == [each["root"] for each in VECTORS["roots"]]
    assert [found.subtree(256 * n, 256 * n + 256).hex() for n in (0, 1)] == VECTORS["blocks"]
    assert dict(found.computed()) == {n: bytes.fromhex(VECTORS["blocks"][n]) for n in range(blocks, 2)}
    for each in VECTORS["inclusion"]:
        path = headlog.inclusion_path(found.subtree, each["seq"] - 1, each["size"])
        assert [digest.hex() for digest in path] == each["path"]
    for each in VECTORS["consistency"]:
        proof = history.prove_consistency(connection, FACTS, each["old"], each["new"])
        assert (proof.kind, proof.body.hex()) == ("consistency", "".join(each["path"]))


LENGTH = 5 * rfc6962.BLOCK + 100
MADE_UP = [sha256(f"commit {number}".encode()) for number in range(1, LENGTH + 1)]
LEAVES = [rfc6962.leaf(chain) for chain in MADE_UP]


@pytest.fixture(scope="module")
def made_up() -> Connection:
    return log_of(MADE_UP)


@given(blocks=st.integers(0, 5), bounds=st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)), data=st.data())
def test_each_part_of_a_log_has_the_hash_of_its_leaves(
    made_up: Connection, blocks: int, bounds: tuple[int, int], data: st.DataObject
) -> None:
    store_blocks(made_up, LEAVES, blocks)
    found = history.History(made_up, FACTS)
    start, stop = sorted(bounds)
    size = data.draw(st.sampled_from([stop, stop - stop % 256, min(LENGTH, stop - stop % 256 + 1)]))

    assert found.newest == LENGTH
    assert found.subtree(start, stop) == rfc6962.tree(LEAVES[start:stop])
    assert found.root(size) == rfc6962.tree(LEAVES[:size])
    assert found.missing(size) == max(0, size // 256 - blocks)
    assert history.History(made_up, FACTS, stored=False).root(size) == found.root(size)
    if size:
        seq = data.draw(st.integers(1, size))
        path = headlog.inclusion_path(found.subtree, seq - 1, size)
        assert list(path) == rfc6962.inclusion(seq - 1, LEAVES[:size])
        body = history.prove_consistency(made_up, FACTS, seq, size).body
        assert body == b"".join(rfc6962.consistency(seq, LEAVES[:size]))


# ---- Real stores ----


@pytest.fixture(scope="session")
def long_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store of two complete blocks of commits and a part of a third, none of which is stored."""
    path = tmp_path_factory.mktemp("history") / "long.db"
    with sqlstate.open(path) as store:
        for number in range(COMMITS):
            store["c"]["k"] = number
        assert store.head().seq == COMMITS
    return path


@pytest.fixture
def long_path(long_store: Path, path: Path) -> Path:
    """A copy of it for one test."""
    shutil.copy(long_store, path)
    return path


def proofs(store: sqlstate.Store) -> list[bytes]:
    """Roots and proofs of many kinds, as this handle gives them."""
    with store._engine.reading() as connection:
        found = history.History(connection, store._meta)
        seqs = [1, 2, 255, 256, 257, 300, 511, 512, 513, COMMITS]
        roots = [found.root(size) for size in (0, *seqs)]
        paths = [
            proof.to_bytes()
            for one in seqs
            for two in seqs
            if one <= two
            for proof in (
                history.prove_commit(connection, store._meta, one, two),
                history.prove_consistency(connection, store._meta, one, two),
            )
        ]
    return roots + paths


def stored_blocks(path: Path) -> list[tuple[int, bytes]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT block, digest FROM log_blocks ORDER BY block").fetchall()


def blocks_of(path: Path) -> list[tuple[int, bytes]]:
    """The rows that log_blocks has when it is full."""
    leaves = [rfc6962.leaf(commit.chain) for commit in plain.judge(path, history=0).commits]
    return [(n, rfc6962.tree(leaves[256 * n : 256 * n + 256])) for n in range(len(leaves) // 256)]


def test_a_proof_of_a_commit_says_what_the_log_says_of_it(open_store: OpenStore, path: Path) -> None:
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1
        staged = store.stage("staged")
        staged.put("d", b"\xff", "é")
        with store.transaction("a note") as txn:
            txn.put("c", 5, b"bytes")
            txn.put("c", 5, None)
            txn.delete("c", "k")
        staged.commit()
        with store.batch() as batch:
            for number in range(40):
                batch.put("e", number, number)
        store.stage().put("f", 1, 1)
    commits = plain.judge(path).commits
    leaves = [rfc6962.leaf(commit.chain) for commit in commits]
    chains = [plain.chain_zero(plain.judge(path).store_id), *(commit.chain for commit in commits)]
    assert len(commits) >= 4

    store = open_store(read_only=True)
    with store._engine.reading() as connection:
        for size in range(1, len(commits) + 1):
            for commit in commits[:size]:
                body = history.prove_commit(connection, store._meta, commit.seq, size).body
                facts = (
                    commit.root
                    + u64(commit.count)
                    + f(commit.at.encode())
                    + sha256(plain.records_bytes(commit.records))
                )
                path_ = rfc6962.inclusion(commit.seq - 1, leaves[:size])
                assert body == chains[commit.seq - 1] + facts + b"".join(path_)


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_proofs_are_the_same_before_and_after_blocks_are_filled_in(
    long_path: Path, open_store: OpenStore, journal: str
) -> None:
    expected = blocks_of(long_path)
    if journal == "delete":
        with closing(sqlite3.connect(long_path)) as db, db:
            db.execute("UPDATE meta SET value = 'delete' WHERE name = 'journal'")
            db.execute("UPDATE meta SET value = x'' WHERE name = 'marker'")
    store = open_store()
    before, head = proofs(store), store.head()

    assert history.extend(store._group) == 2
    assert proofs(store) == before
    assert stored_blocks_of(store) == expected
    assert store.head() == head, "it is no commit"
    assert history.extend(store._group) == 0
    store["c"]["k"] = "more"
    assert store.head().seq == COMMITS + 1
    assert proofs(store) == before


def stored_blocks_of(store: sqlstate.Store) -> list[Any]:
    with store._engine.reading() as connection:
        rows: list[Any] = connection.rows("SELECT block, digest FROM log_blocks ORDER BY block")
    return rows


def test_a_block_is_filled_in_once_its_last_commit_is_there(open_store: OpenStore) -> None:
    store = open_store()
    assert history.extend(store._group) == 0
    for number in range(1, fmt.LOG_BLOCK + 2):
        store["c"]["k"] = number
        assert history.extend(store._group) == (number == fmt.LOG_BLOCK)
    assert [block for block, _ in stored_blocks_of(store)] == [0]


def test_what_is_filled_in_is_there_after_a_crash_that_follows(long_path: Path, tmp_path: Path) -> None:
    """Only the blocks and the marker are in the -wal."""
    crashed = tmp_path / "crashed.db"
    with sqlstate.open(long_path) as store:
        history.extend(store._group)
        for suffix in ("", "-wal"):
            shutil.copy(f"{long_path}{suffix}", f"{crashed}{suffix}")
    with sqlstate.open(crashed) as store:
        assert (store.recovery.clean, store.recovery.damage, store.head().seq) == (False, "", COMMITS)
        assert [block for block, _ in stored_blocks_of(store)] == [0, 1]
    assert plain.judge(crashed, history=1).findings == ()


def test_blocks_whose_commits_are_lost_with_the_wal_go_with_them(path: Path) -> None:
    """The main file as it is in the middle of a checkpoint: the newest block is in it, its commits are not."""
    with sqlstate.open(path) as store:
        for number in range(300):
            store["c"]["k"] = number
        history.extend(store._group)
    with sqlstate.open(path) as store:
        store["c"]["k"] = "open"  # the marker is open in the main file now
        shutil.copy(path, path.with_name("main.db"))
    main = path.with_name("main.db")
    with closing(sqlite3.connect(main)) as db, db:
        db.execute("INSERT INTO log_blocks VALUES (1, zeroblob(32))")
    with sqlstate.open(main, recover="accept") as store:
        assert store.recovery.damage == "copy"
        with store._engine.reading() as connection:
            assert connection.rows("SELECT block FROM log_blocks") == [(0,)]
    assert plain.judge(main, history=1).findings == ()


def test_a_handle_for_reading_proves_and_never_writes(long_path: Path) -> None:
    with sqlstate.open(long_path) as store:
        expected = proofs(store)
    before = folder_image(long_path.parent)
    with sqlstate.open(long_path, read_only=True) as store:
        assert proofs(store) == expected
        with pytest.raises(sqlstate.ReadOnly):
            history.extend(store._group)
    assert folder_image(long_path.parent) == before
    assert stored_blocks(long_path) == []


def test_filling_in_with_nothing_missing_writes_nothing(long_path: Path) -> None:
    with sqlstate.open(long_path) as store:
        history.extend(store._group)
    before = folder_image(long_path.parent)
    with sqlstate.open(long_path) as store:
        assert history.extend(store._group) == 0
    with sqlstate.open(long_path, read_only=True) as store, pytest.raises(sqlstate.ReadOnly):
        history.extend(store._group)
    assert folder_image(long_path.parent) == before


def test_several_handles_fill_in_while_others_commit(long_path: Path, open_store: OpenStore) -> None:
    handles = [open_store() for _ in range(3)]
    filled: list[int] = []
    failures: list[BaseException] = []
    start = threading.Barrier(4)

    def fill(store: sqlstate.Store) -> None:
        try:
            start.wait(60)
            filled.extend(history.extend(store._group) for _ in range(40))
        except BaseException as e:  # noqa: BLE001, what a thread raises is otherwise lost
            failures.append(e)

    threads = [threading.Thread(target=fill, args=(handle,)) for handle in handles]
    for thread in threads:
        thread.start()
    writer = open_store()
    start.wait(60)
    for number in range(400):
        writer["c"]["k"] = number
    for thread in threads:
        thread.join(60)
    filled.append(history.extend(writer._group))

    assert failures == []
    assert sum(filled) == (COMMITS + 400) // fmt.LOG_BLOCK
    assert [block for block, _ in stored_blocks_of(writer)] == list(range((COMMITS + 400) // fmt.LOG_BLOCK))


def test_who_was_slower_than_another_writes_nothing_twice(
    long_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, fast = open_store(), open_store()
    lock = slow._engine.lock_writer

    def late(over: Over) -> None:
        history.extend(fast._group)
        lock(over)

    monkeypatch.setattr(slow._engine, "lock_writer", late)

    assert history.extend(slow._group) == 0
    monkeypatch.undo()
    assert [block for block, _ in stored_blocks_of(slow)] == [0, 1]
    slow["c"]["k"] = "after"
    assert slow.head().seq == COMMITS + 1


def test_filling_in_inside_a_transaction_of_the_same_thread_is_refused(long_path: Path, open_store: OpenStore) -> None:
    store = open_store()
    with store.transaction() as txn:
        txn.put("c", "k", "inside")
        with pytest.raises(sqlstate.StoreUnusable):
            history.extend(store._group)
    assert store["c"]["k"] == "inside"
    assert history.extend(store._group) == 2


def test_filling_in_waits_for_a_writer_and_then_says_busy(long_path: Path, open_store: OpenStore) -> None:
    writer, other = open_store(), open_store(timeout=0)
    with writer.transaction() as txn:
        txn.put("c", "k", "held")
        with pytest.raises(sqlstate.Busy):
            history.extend(other._group)
        assert stored_blocks_of(other) == []
    assert history.extend(other._group) == 2


@pytest.mark.parametrize("version", range(2, plain.FORMAT))
def test_a_store_of_an_older_format_is_brought_up_and_filled_in(long_path: Path, version: int) -> None:
    with sqlstate.open(long_path) as store:
        expected = proofs(store)
    make_older(long_path, version)
    with sqlstate.open(long_path) as store:
        assert store.recovery.clean
        assert [entry.detail["number"] for entry in store.audit()] == list(range(1, len(MIGRATIONS) + 1))
        assert proofs(store) == expected
        assert history.extend(store._group) == 2
        assert proofs(store) == expected
    assert plain.judge(long_path, history=1).findings == ()


def test_backup_and_restore_keep_the_blocks(long_path: Path, tmp_path: Path) -> None:
    with sqlstate.open(long_path) as store:
        history.extend(store._group)
        expected = proofs(store)
        store.backup(tmp_path / "copy.db")
    sqlstate.restore(tmp_path / "copy.db", tmp_path / "back.db")
    for name in ("copy.db", "back.db"):
        assert stored_blocks(tmp_path / name) == stored_blocks(long_path) == blocks_of(long_path)
        assert plain.judge(tmp_path / name, history=1).findings == ()
    with sqlstate.open(tmp_path / "back.db") as store:
        assert proofs(store) == expected


# ---- Numbers that are none ----


@pytest.mark.parametrize("wrong", [-1, COMMITS + 1, True, 1.0, "1", None, b"\x01"])
def test_what_is_no_number_of_a_commit_is_refused(long_path: Path, wrong: Any) -> None:
    with sqlstate.open(long_path, read_only=True) as store, store._engine.reading() as connection:
        facts = store._meta
        for call in (
            lambda: history.History(connection, facts).root(wrong),
            lambda: history.History(connection, facts).commit_body(wrong),
            lambda: history.prove_commit(connection, facts, wrong, COMMITS),
            lambda: history.prove_commit(connection, facts, 1, wrong),
            lambda: history.prove_consistency(connection, facts, wrong, COMMITS),
            lambda: history.prove_consistency(connection, facts, 0, wrong),
        ):
            with pytest.raises(sqlstate.InvalidOption, match=r"is not the number of a commit from [01] to \d+$"):
                call()


def test_the_ends_of_what_can_be_asked(long_path: Path, tmp_path: Path) -> None:
    with sqlstate.open(long_path, read_only=True) as store, store._engine.reading() as connection:
        facts = store._meta
        for one, other in ((0, 1), (2, 1), (COMMITS, COMMITS - 1)):
            with pytest.raises(sqlstate.InvalidOption):
                history.prove_commit(connection, facts, one, other)
        with pytest.raises(sqlstate.InvalidOption, match="old=2 is not the number of a commit from 0 to 1"):
            history.prove_consistency(connection, facts, 2, 1)
        for old, new in ((0, 0), (0, COMMITS), (7, 7), (COMMITS, COMMITS)):
            assert history.prove_consistency(connection, facts, old, new).body == b""
    with sqlstate.open(tmp_path / "empty.db") as store, store._engine.reading() as connection:
        found = history.History(connection, store._meta)
        assert (found.root(0), found.newest, found.missing(0)) == (sha256(b""), 0, 0)
        assert history.prove_consistency(connection, store._meta, 0, 0).body == b""
        with pytest.raises(sqlstate.InvalidOption):
            history.prove_commit(connection, store._meta, 1, 1)


# ---- Damage ----


BLOCK_DAMAGE = {
    "one is TEXT": "UPDATE log_blocks SET digest = hex(digest) WHERE block = 1",
    "one is a number": "UPDATE log_blocks SET digest = 7 WHERE block = 0",
    "one is short": "UPDATE log_blocks SET digest = zeroblob(31) WHERE block = 1",
    "one is no text": "UPDATE log_blocks SET digest = CAST(x'ff' AS TEXT) WHERE block = 1",
    "a hole": "DELETE FROM log_blocks WHERE block = 0",
    "numbered from 1": "UPDATE log_blocks SET block = block + 1 WHERE block = 1",
    "before the first": "INSERT INTO log_blocks VALUES (-1, zeroblob(32))",
    "more than there are": "INSERT INTO log_blocks VALUES (2, zeroblob(32))",
}


def damaged(path: Path, *statements: str, full: bool = True) -> sqlstate.Store:
    """Open the store for reading, with its blocks filled in, after somebody changed something from outside."""
    if full:
        with sqlstate.open(path) as store:
            history.extend(store._group)
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)
    return sqlstate.open(path, read_only=True)


@pytest.mark.parametrize("what", BLOCK_DAMAGE)
def test_a_row_that_is_no_block_is_damage(long_path: Path, what: str) -> None:
    with damaged(long_path, BLOCK_DAMAGE[what]) as store, store._engine.reading() as connection:
        for call in (
            lambda: history.History(connection, store._meta),
            lambda: history.prove_commit(connection, store._meta, 1, 1),
            lambda: history.prove_consistency(connection, store._meta, 0, 1),
        ):
            with pytest.raises(sqlstate.Damaged, match=r"test\.db"):
                call()
        whole = history.History(connection, store._meta, stored=False)
        assert whole.root(COMMITS) == rfc6962.tree([rfc6962.leaf(head.chain) for head in store.commits()])


def test_another_digest_is_found_by_who_asks_for_a_commit_of_its_block(long_path: Path) -> None:
    with (
        damaged(long_path, "UPDATE log_blocks SET digest = zeroblob(32) WHERE block = 1") as store,
        store._engine.reading() as connection,
    ):
        for seq in (257, 400, 512):
            with pytest.raises(sqlstate.Damaged, match=r"I13: .* block 1 of log_blocks"):
                history.prove_commit(connection, store._meta, seq, COMMITS)
        with pytest.raises(sqlstate.Damaged, match=r"I13: .* block 1 of log_blocks"):
            history.prove_consistency(connection, store._meta, 300, COMMITS)


# The commit 300 is records 898 to 900.
LOG_DAMAGE = {
    "its chain is gone": "UPDATE wal SET chain = NULL WHERE lsn = 900",
    "its chain is short": "UPDATE wal SET chain = zeroblob(31) WHERE lsn = 900",
    "its chain is TEXT": "UPDATE wal SET chain = hex(zeroblob(16)) WHERE lsn = 900",
    "its chain is another": "UPDATE wal SET chain = zeroblob(32) WHERE lsn = 900",
    "the chain before is another": "UPDATE wal SET chain = zeroblob(32) WHERE lsn = 897",
    "the chain before is gone": "UPDATE wal SET chain = NULL WHERE lsn = 897",
    "its root is short": "UPDATE wal SET root = x'00' WHERE lsn = 900",
    "its root is TEXT": "UPDATE wal SET root = hex(zeroblob(16)) WHERE lsn = 900",
    "its root is a number": "UPDATE wal SET root = 5 WHERE lsn = 900",
    "its root is gone": "UPDATE wal SET root = NULL WHERE lsn = 900",
    "its count is another": "UPDATE wal SET count = 2 WHERE lsn = 900",
    "its count is negative": "UPDATE wal SET count = -1 WHERE lsn = 900",
    "its count is gone": "UPDATE wal SET count = NULL WHERE lsn = 900",
    "its count is text": "UPDATE wal SET count = 'x' WHERE lsn = 900",
    "its time is gone": "UPDATE wal SET at = NULL WHERE lsn = 900",
    "its time is a BLOB": "UPDATE wal SET at = x'00' WHERE lsn = 900",
    "its time is no text": "UPDATE wal SET at = CAST(x'ff' AS TEXT) WHERE lsn = 900",
    "its number is another": "UPDATE wal SET seq = 1000 WHERE lsn = 900",
    "its number is gone": "UPDATE wal SET seq = NULL WHERE lsn = 900",
}
RECORD_DAMAGE = {
    "its records are gone": "DELETE FROM wal WHERE lsn IN (898, 899)",
    "a record is of no kind": "UPDATE wal SET kind = 'SET' WHERE lsn = 899",
    "a record's kind is no text": "UPDATE wal SET kind = CAST(x'ff' AS TEXT) WHERE lsn = 899",
    "a record's value is another": "UPDATE wal SET value = '5' WHERE lsn = 899",
    "a record's value is a number": "UPDATE wal SET value = 5 WHERE lsn = 899",
    "a record's key is gone": "UPDATE wal SET key = NULL WHERE lsn = 899",
    "a record's key is REAL": "UPDATE wal SET key = 1.5 WHERE lsn = 899",
    "a record's collection is gone": "UPDATE wal SET collection = NULL WHERE lsn = 899",
    "a record's collection is a BLOB": "UPDATE wal SET collection = x'63' WHERE lsn = 899",
    "a record's note is a BLOB": "UPDATE wal SET note = x'63' WHERE lsn = 898",
    "a record's transaction is text": "UPDATE wal SET txn = 'x' WHERE lsn = 900",
    "a record's transaction is too large": "UPDATE wal SET txn = 9223372036854775807 WHERE lsn = 899",
    "a record's session is text": "UPDATE wal SET session = 'x' WHERE lsn = 899",
    "a record's number is negative": "UPDATE wal SET lsn = -5 WHERE lsn = 898",
}


@pytest.mark.parametrize("what", LOG_DAMAGE)
def test_a_commit_that_is_not_what_it_must_be_is_never_proven(long_path: Path, what: str) -> None:
    with damaged(long_path, LOG_DAMAGE[what], full=False) as store, store._engine.reading() as connection:
        with pytest.raises(sqlstate.Damaged, match=r"test\.db|I7"):
            history.prove_commit(connection, store._meta, 300, COMMITS)
        if "chain" not in what and "number" not in what and "its root is gone" not in what:
            assert history.prove_commit(connection, store._meta, 100, 200).kind == "commit"


@pytest.mark.parametrize("what", RECORD_DAMAGE)
def test_the_proof_of_a_commit_needs_none_of_its_records(long_path: Path, what: str) -> None:
    with sqlstate.open(long_path) as store:
        expected = store.prove_commit(300)
    with damaged(long_path, RECORD_DAMAGE[what], full=False) as store, store._engine.reading() as connection:
        assert history.prove_commit(connection, store._meta, 300, COMMITS) == expected
    # A commit that an earlier version made does not carry the digest of its records.
    older = (RECORD_DAMAGE[what], "UPDATE wal SET records = NULL")
    with damaged(long_path, *older, full=False) as store, store._engine.reading() as connection:
        with pytest.raises(sqlstate.Damaged, match=r"test\.db|I7"):
            history.prove_commit(connection, store._meta, 300, COMMITS)
        assert history.prove_commit(connection, store._meta, 100, 200).kind == "commit"


@pytest.mark.parametrize("what", ["its chain is gone", "its chain is short", "its number is another"])
def test_a_log_with_a_commit_that_is_none_has_no_root(long_path: Path, what: str) -> None:
    with damaged(long_path, LOG_DAMAGE[what], full=False) as store, store._engine.reading() as connection:
        found = history.History(connection, store._meta)
        assert len(found.root(299)) == 32
        with pytest.raises(sqlstate.Damaged, match="commit 300 is missing from the log"):
            found.root(300)
        with pytest.raises(sqlstate.Damaged, match="commit 300 is missing from the log"):
            history.prove_consistency(connection, store._meta, 200, COMMITS)
    with sqlstate.open(long_path) as store, pytest.raises(sqlstate.Damaged, match="commit 300 is missing from the log"):
        history.extend(store._group)
    assert stored_blocks(long_path) == []


@pytest.mark.parametrize("newest", ["seq = NULL", "seq = 'x'", "chain = NULL", "root = 5"])
def test_a_newest_commit_that_is_none_is_damage(long_path: Path, newest: str) -> None:
    sql = f"UPDATE wal SET {newest} WHERE lsn = {3 * COMMITS}"
    with pytest.raises(sqlstate.Damaged, match=r"I4: .* for its (seq|chain|root), which must be"):
        damaged(long_path, sql, full=False)


def test_trim_removes_the_blocks_that_have_lost_a_commit(long_path: Path) -> None:
    with sqlstate.open(long_path) as store:
        history.extend(store._group)
    for seq, left in ((COMMITS, 2), (512, 2), (511, 1), (256, 1), (255, 0), (0, 0)):
        copy = long_path.with_name(f"{seq}.db")
        shutil.copy(long_path, copy)
        with sqlstate.open(copy) as store:
            connection = store._engine.write_connection
            connection.begin()
            log_blocks.trim(connection, seq)
            assert connection.value("SELECT count(*) FROM log_blocks") == left
            connection.rollback()


def test_no_proof_reads_the_records_of_a_commit_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    committed = wal_chain._committed
    monkeypatch.setattr(wal_chain, "_committed", lambda *args: read.append(args) or committed(*args))
    with sqlstate.open(path) as store:
        store["c"].update(dict.fromkeys(range(2000), 1))
        store["c"]["few"] = 1
        staged = store.stage()
        for key in range(1500):
            staged.put("staged", key, 1)
        staged.commit()
        bodies = [store.prove_commit(seq).body for seq in (1, 2, 3)]
        with sqlstate.open(path) as other:
            assert [other.prove_commit(seq, 3).body[:-64] for seq in (1, 2, 3)] == [body[:-64] for body in bodies]
        assert not read
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE wal SET records = NULL")  # as an earlier version left them
    with sqlstate.open(path) as store:
        assert [store.prove_commit(seq).body for seq in (1, 2, 3)] == bodies
        assert len(read) == 3
