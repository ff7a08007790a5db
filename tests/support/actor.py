"""The other process of a test: `python -m tests.support.actor ROLE ARGUMENTS`.

Each role says a line when it has come to a point, and waits for a line where the test decides when to go on.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
import traceback
from typing import Any

import apsw

import sqlstate
from tests.support.calls import Handles, refusals

# Ends a process that waits for a line that never comes.
ALARM_SECONDS = 60


def say(what: object) -> None:
    """Write one line, with one call: a child of a fork may write to the same pipe."""
    os.write(1, (json.dumps(what) + "\n").encode())


def wait() -> str:
    """Return the next line from the test."""
    return sys.stdin.readline().rstrip("\n")


def opens(journal: str) -> None:
    """Open each path that is given, put one entry, and close it when told so."""
    say("ready")
    while path := wait():
        with sqlstate.open(path, journal=journal, timeout=30) as store:  # type: ignore[arg-type]
            say(store.store_id.hex())
            wait()
            store["openers"][os.getpid()] = 1
        say("closed")


def increments(path: str, times: str) -> None:
    """Add 1 to a counter, each time in a transaction of its own."""
    with sqlstate.open(path, timeout=30) as store:
        say("ready")
        wait()
        for _ in range(int(times)):
            with store.transaction() as txn:
                txn.put("c", "counter", txn.get("c", "counter", 0) + 1)
        say("done")


def moves(path: str) -> None:
    """Move 1 from an entry to one of another collection, again and again until told to stop: their sum stays."""
    stop = threading.Event()

    def listen() -> None:
        wait()
        stop.set()

    moved = 0
    with sqlstate.open(path, timeout=30) as store:
        listener = threading.Thread(target=listen)
        listener.start()
        while not stop.is_set():
            with store.transaction() as txn:
                txn["left"][moved % 10] -= 1
                txn["right"][moved % 7] += 1
            moved += 1
    listener.join()
    say(moved)


def holds(path: str) -> None:
    """Put half of what belongs together, and keep the transaction open until told to finish it."""
    with sqlstate.open(path, timeout=30) as store:
        with store.transaction() as txn:
            txn["left"][0] -= 1
            txn.collections()  # carries the write into the tables, where it waits for COMMIT
            say("holding")
            wait()
            txn["right"][0] += 1
        say("committed")
        wait()


def commits(path: str, entries: str, journal: str) -> None:
    """Commit for ever, *entries* at a time, and say each number once it is durable."""
    store = sqlstate.open(path, journal=journal)  # type: ignore[arg-type]
    say("ready")
    seq = 0
    while True:
        with store.transaction() as txn:
            for i in range(int(entries)):
                txn.put("log", seq * int(entries) + i, f"commit {seq + 1}")
        seq += 1
        say(seq)


def cut_short(folder: str, journal: str) -> None:
    """Make, write and close a store in a fork that dies at its n-th write, for each n; say what is left of each.

    The death is one of the process: what was written stays, synced or not.
    """
    number, status = 0, _DEAD
    while status == _DEAD:
        number += 1
        path = os.path.join(folder, f"{number}.db")
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            _dies_at(number, path, journal, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            acknowledged = pipe.read().decode()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        beside = sorted(name for name in os.listdir(folder) if name.startswith(f"{number}.db-"))
        with sqlstate.open(path, journal=journal) as store:  # type: ignore[arg-type]
            say([number, acknowledged, beside, store.head().seq, dict(store["c"]), store.stats().journal])
    say("done" if status == 0 else "failed")


_DEAD = 9


def _dies_at(number: int, path: str, journal: str, acknowledge: int) -> None:
    left = number

    def step() -> None:
        nonlocal left
        left -= 1
        if not left:
            os._exit(_DEAD)

    class File(apsw.VFSFile):
        def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802, the name that SQLite has for it
            step()
            super().xWrite(data, offset)

        def xTruncate(self, size: int) -> None:  # noqa: N802
            step()
            super().xTruncate(size)

        def xSync(self, flags: int) -> None:  # noqa: N802
            step()
            super().xSync(flags)

    class Dying(apsw.VFS):
        def __init__(self) -> None:
            super().__init__("dying", "")

        def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
            return File("", name, flags)

        def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
            step()
            super().xDelete(name, sync)

    registered = Dying()
    try:
        with sqlstate.open(path, journal=journal, vfs="dying") as store:  # type: ignore[arg-type]
            os.write(acknowledge, b"o")
            for i in range(3):
                store["c"].update({"k": i, f"k{i}": i})
                os.write(acknowledge, b"c")
        registered.unregister()
    except BaseException:  # noqa: BLE001, the child must not return to where the parent is
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def stages(path: str) -> None:
    """Stage a transaction and say its number; then wait to be killed."""
    store = sqlstate.open(path)
    txn = store.wal.append("BEGIN", note="draft").txn
    store.wal.append("PUT", txn=txn, collection="drafts", key="letter", value="Dear")
    say(txn)
    wait()


def leaves(path: str) -> None:
    """Open a store, put an entry, and end without closing it."""
    store = sqlstate.open(path)
    store["c"]["left"] = 1
    say("put")
    os._exit(0)


def tampers(path: str, journal: str, *statements: str) -> None:
    """Change a file as another program does, and end without closing it; journal "" leaves the mode as it is."""
    connection = sqlite3.connect(path, isolation_level=None)
    if journal:
        connection.execute(f"PRAGMA journal_mode={journal}")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA cache_size=1")  # so that SQLite writes a large transaction before its COMMIT
    for statement in statements:
        connection.execute(statement)
    say("done")
    os._exit(0)


def locks(path: str) -> None:
    """Keep every other program from reading the file, until told to let go."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    say("locked")
    wait()
    connection.close()


def fork_uses(path: str, journal: str) -> None:
    """Use a store in the child of a fork, by every method, and then in the parent."""
    store = sqlstate.open(path, journal=journal)  # type: ignore[arg-type]
    store["c"].update({"k": 1, "l": 2})
    snapshot = store.snapshot()
    handles = Handles(store, store["c"], snapshot["c"], snapshot, store.wal)
    scan = iter(store["c"].items())
    next(scan)
    classes = (sqlstate.Store, sqlstate.WriteAheadLog, sqlstate.Collection, sqlstate.CollectionView, sqlstate.Snapshot)

    def child() -> None:
        found = refusals(handles, classes)
        try:
            next(scan)
        except sqlstate.StoreError as e:
            found["an unfinished scan"] = type(e).__name__
        else:
            found["an unfinished scan"] = "nothing"
        store.close()
        snapshot.close()
        say(found)

    in_child(child)
    seen: dict[str, Any] = {"scan": list(scan), "snapshot": dict(snapshot["c"])}
    snapshot.close()
    store["c"]["after"] = 3
    seen["seq"] = store.head().seq
    store.close()
    say(seen)


def fork_in_transaction(path: str, journal: str, leaving: str) -> None:
    """Fork inside a transaction's block; the child uses the transaction, then leaves the block."""
    store = sqlstate.open(path, journal=journal)  # type: ignore[arg-type]
    store["c"]["k"] = 1
    pid = -1
    try:
        with store.transaction() as txn:
            txn.put("c", "parent", 1)
            txn.collections()  # carries the write into the tables
            pid = os.fork()
            if pid == 0:
                handles = Handles(store, store["c"], None, None, store.wal, txn)
                say(refusals(handles, [sqlstate.Transaction]))
                if leaving == "by an exception":
                    raise RuntimeError("in the child")
            else:
                os.waitpid(pid, 0)
                txn.put("c", "parent too", 2)
    except (sqlstate.StoreError, RuntimeError) as e:
        if pid:
            raise
        say(type(e).__name__)
        os._exit(0)
    if pid == 0:
        say("nothing")
        os._exit(0)
    say(store.head().seq)
    store["c"]["after"] = 3
    store.close()


def fork_beside_transaction(path: str) -> None:
    """Fork while another thread has a transaction open; the child must neither wait for it nor end it."""
    store = sqlstate.open(path)
    store["c"]["k"] = 1
    begun, finish = threading.Event(), threading.Event()

    def hold() -> None:
        with store.transaction() as txn:
            txn.put("c", "thread", 1)
            txn.collections()
            begun.set()
            finish.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    handles = Handles(store, store["c"], None, None, store.wal)

    def child() -> None:
        found = refusals(handles, (sqlstate.Store, sqlstate.WriteAheadLog, sqlstate.Collection))
        store.close()
        say(found)

    in_child(child)
    finish.set()
    thread.join()
    store["c"]["after"] = 3
    store.close()
    say("closed")


def fork_ends(path: str, journal: str) -> None:
    """Let the child of a fork end through the interpreter's finalisation, and go on in the parent."""
    store = sqlstate.open(path, journal=journal)  # type: ignore[arg-type]
    store["c"].update({"k": 1, "l": 2})
    snapshot = store.snapshot()
    scan = iter(store["c"])
    next(scan)
    pid = os.fork()
    if pid == 0:
        return  # and whatever Python closes on its way out, it closes
    status = os.waitpid(pid, 0)[1]
    if journal == "delete":  # where readers keep writers waiting
        list(scan)
        snapshot.close()
    store["c"]["after"] = 3
    say(status)
    wait()
    list(scan)
    snapshot.close()
    store.close()


def fork_outlives(path: str) -> None:
    """Close the store, open it again, put, and die; the child of a fork from before ends only then, by itself."""
    store = sqlstate.open(path)
    store["c"]["k"] = 1
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(writing)
        os.read(reading, 1)  # comes back when the parent is dead
        return
    store.close()
    store = sqlstate.open(path)
    store["c"]["acknowledged"] = 2
    say("put")
    os._exit(0)


def in_child(work: Any) -> None:
    """Do *work* in the child of a fork, and wait for its end."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


ROLES = {
    role.__name__: role
    for role in (
        opens,
        increments,
        moves,
        holds,
        commits,
        cut_short,
        stages,
        leaves,
        tampers,
        locks,
        fork_uses,
        fork_in_transaction,
        fork_beside_transaction,
        fork_ends,
        fork_outlives,
    )
}

if __name__ == "__main__":
    if hasattr(signal, "alarm"):
        signal.alarm(ALARM_SECONDS)
    ROLES[sys.argv[1]](*sys.argv[2:])
