"""The other process of a test, in one of ROLES. tests/support/fork_server.py starts it.

Each role says a line when it has come to a point, and waits for a line where the test decides when to go on.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sqlite3
import sys
import threading
import traceback
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import apsw

import sqlstate
from sqlstate.sqlite import settings
from sqlstate.sqlite.engine import Engine
from tests.support.calls import CALLS, Handles, refusals

if TYPE_CHECKING:
    from collections.abc import Callable

# Ends a process that waits for a line that never comes.
ALARM_SECONDS = 300


def end_after_all() -> None:
    """End this process when ALARM_SECONDS are over, if the system has a signal for that."""
    if hasattr(signal, "alarm"):
        signal.alarm(ALARM_SECONDS)


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

    def live(path: str, acknowledge: int) -> None:
        with sqlstate.open(path, journal=journal, vfs="dying") as store:  # type: ignore[arg-type]
            os.write(acknowledge, b"o")
            for i in range(3):
                store["c"].update({"k": i, f"k{i}": i})
                os.write(acknowledge, b"c")

    for number in itertools.count(1):
        path = os.path.join(folder, f"{number}.db")
        status, acknowledged = _dies_at(number, lambda writing, _, path=path: live(path, writing))  # type: ignore[misc]
        beside = sorted(name for name in os.listdir(folder) if name.startswith(f"{number}.db-"))
        with sqlstate.open(path, journal=journal) as store:  # type: ignore[arg-type]
            say([number, acknowledged, beside, store.head().seq, dict(store["c"]), store.stats().journal])
        if status != _DEAD:
            break
    say("done" if status == 0 else "failed")


def recovers_cut_short(folder: str, name: str, recover: str) -> None:
    """Open copies of a store in forks that die at their n-th step, for each n; say what the next open finds."""

    def live(path: str) -> None:
        sqlstate.open(path, recover=recover, vfs="dying")  # type: ignore[arg-type]
        os._exit(0)  # without closing: what recovery has not done by now is never done

    _each_death(folder, name, recover, lambda path, _: live(path))


def closes_cut_short(folder: str, name: str) -> None:
    """Open copies of a store in forks, put, and close it, and die at the n-th step of that, for each n."""

    def live(path: str, vfs: _Dying) -> None:
        vfs.armed = False
        store = sqlstate.open(path, vfs="dying")
        store["c"]["k"] = "new"
        vfs.armed = True
        store.close()

    _each_death(folder, name, "rollback", live)


def indexes_cut_short(folder: str, name: str, drop: str) -> None:
    """Make the index for histories in copies of a store, or drop it, and die at the n-th step of that, for each n."""

    def live(path: str, vfs: _Dying) -> None:
        vfs.armed = False
        store = sqlstate.open(path, vfs="dying")
        vfs.armed = True
        store.index_history(drop=drop == "drop")
        os._exit(0)

    _each_death(folder, name, "rollback", live)


def _each_death(folder: str, name: str, recover: str, live: Callable[[str, _Dying], None]) -> None:
    for number in itertools.count(1):
        place = shutil.copytree(folder, f"{folder}-{number}")
        path = os.path.join(place, name)
        status, _ = _dies_at(number, lambda _, vfs, path=path: live(path, vfs))  # type: ignore[misc]
        before = sorted(os.listdir(place))
        with sqlstate.open(path, recover=recover) as store:  # type: ignore[arg-type]
            say(
                {
                    "before": before,
                    "report": store.recovery.as_dict(),
                    "head": _head(store),
                    "content": {name: dict(store[name]) for name in store},
                    "entries": [entry.detail for entry in store.audit() if entry.kind == "recovery"],
                    "settings": [entry.detail for entry in store.audit() if entry.kind == "setting"],
                    "history_index": store.stats().history_index,
                    "findings": store.check_audit(),
                    "pending": [each.txn for each in store.pending()],
                    "after": sorted(set(os.listdir(place)) - {f"{name}-wal", f"{name}-shm", f"{name}-acknowledged"}),
                }
            )
        if status != _DEAD:
            break
    say("done" if status == 0 else "failed")


_DEAD = 9


def _dies_at(number: int, live: Callable[[int, _Dying], None]) -> tuple[int, str]:
    """Fork a child that does *live* and dies at its n-th step that changes a file; return its status and what it said.

    A step is a write, sync, truncation or deletion by SQLite, or a name that the package itself makes or removes.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            registered = _Dying(number)
            live(writing, registered)
            registered.unregister()
        except BaseException:  # noqa: BLE001, the child must not return to where the parent is
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


class _Dying(apsw.VFS):
    """The system's files, until the n-th step."""

    def __init__(self, number: int) -> None:
        self.armed = True
        self._left = number
        super().__init__("dying", "")
        for name in ("link", "replace", "unlink", "fsync"):
            setattr(os, name, self._stepping(getattr(os, name)))

    def step(self) -> None:
        self._left -= self.armed
        if not self._left:
            os._exit(_DEAD)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802, as SQLite's
        return _DyingFile(self, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        self.step()
        super().xDelete(name, sync)

    def _stepping(self, function: Callable[..., None]) -> Callable[..., None]:
        def stepping(*arguments: Any, **options: Any) -> None:
            self.step()
            function(*arguments, **options)

        return stepping


class _DyingFile(apsw.VFSFile):
    def __init__(self, vfs: _Dying, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._vfs = vfs

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._vfs.step()
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._vfs.step()
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._vfs.step()
        super().xSync(flags)


def _head(store: sqlstate.Store) -> list[Any]:
    head = store.head()
    return [head.seq, head.root.hex(), head.count, head.at, head.chain.hex()]


class Server:
    """What `serves` can be asked for. Values are those that JSON carries."""

    def __init__(self, store: sqlstate.Store) -> None:
        self.store = store
        self.staged: dict[int, sqlstate.StagedTransaction] = {}
        self.blocks = ExitStack()

    def put(self, collection: str, key: Any, value: Any) -> int:
        self.store[collection][key] = value
        return self.store.head().seq

    def get(self, collection: str, key: Any) -> Any:
        return self.store[collection].get(key)

    def head(self) -> list[Any]:
        return _head(self.store)

    def stage(self, note: str = "") -> int:
        txn = self.store.stage(note)
        self.staged[txn.txn] = txn
        return txn.txn

    def stage_put(self, txn: int, collection: str, key: Any, value: Any) -> None:
        self.staged[txn].put(collection, key, value)

    def stage_delete(self, txn: int, collection: str, key: Any) -> bool:
        return self.staged[txn].delete(collection, key)

    def stage_get(self, txn: int, collection: str, key: Any) -> Any:
        return self.staged[txn].get(collection, key)

    def commit(self, txn: int) -> int:
        return self.staged[txn].commit().seq

    def rollback(self, txn: int) -> None:
        self.staged[txn].rollback()

    def resume(self, txn: int) -> None:
        self.staged[txn] = self.store.resume(txn)

    def pending(self) -> list[int]:
        return [each.txn for each in self.store.pending()]

    def uncommitted(self) -> list[int]:
        return [each.txn for each in self.store.wal.uncommitted()]

    def kinds(self) -> list[str]:
        """The kinds of the audit entries."""
        return [entry.kind for entry in self.store.audit()]

    def spill(self, collection: str, entries: int) -> None:
        """Begin a transaction that SQLite writes to its files before its COMMIT, and leave it open."""
        self.store._engine.write_connection.run("PRAGMA cache_size=1")
        txn = self.blocks.enter_context(self.store.transaction())
        for key in range(entries):
            txn.put(collection, key, "x" * 3000)
        txn.collections()  # carries the writes into the tables

    def hold(self) -> int:
        """Keep a snapshot of the newest commit open."""
        return self.blocks.enter_context(self.store.snapshot()).head.seq

    def let_go(self) -> None:
        """End what spill() and hold() began."""
        self.blocks.close()

    def checkpoint(self) -> list[int]:
        return list(self.store._engine.write_connection.checkpoint())

    def fork(self, close: bool) -> int:
        """Let the child of a fork end as Python ends, after it closed the store if so asked; return its status."""
        if pid := os.fork():
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if close:
            self.store.close()
        raise SystemExit(0)

    def fork_stays(self, fifo: str) -> None:
        """Leave a child of a fork that lives until somebody has opened *fifo* for writing and closed it."""
        if os.fork():
            return
        end_after_all()
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):  # who waits for the parent's end must not wait for this one's
            os.dup2(null, number)
        os.read(os.open(fifo, os.O_RDONLY), 1)
        os._exit(0)

    def close(self) -> None:
        self.store.close()


def serves(path: str, options: str) -> None:
    """Open a store when told so, say its report, and do what each line asks for.

    Each time it says {"answer": …} or, of one of our errors, {"error": name, "message": …}.
    """
    say("ready")
    wait()

    def answer(work: Callable[[], Any]) -> Any:
        try:
            result = work()
        except sqlstate.StoreError as e:
            say({"error": type(e).__name__, "message": str(e)})
            return None
        return result

    store = answer(lambda: sqlstate.open(path, **json.loads(options)))
    if store is None:
        return
    server = Server(store)
    say({"answer": store.recovery.as_dict()})
    while line := wait():
        what, *arguments = json.loads(line)
        answer(lambda what=what, arguments=arguments: say({"answer": getattr(server, what)(*arguments)}))  # type: ignore[misc]


def runs(path: str, *statements: str) -> None:
    """Run statements on a file with another SQLite library; say the rows of each, or the error."""
    connection = sqlite3.connect(path, uri=path.startswith("file:"), isolation_level=None)
    for statement in statements:
        try:
            rows = connection.execute(statement).fetchall()
        except sqlite3.Error as e:
            say(f"{type(e).__name__}: {e}")
        else:
            say([[each.hex() if isinstance(each, bytes) else each for each in row] for row in rows])
    connection.close()


def copies(path: str, to: str, *suffixes: str) -> None:
    """Copy a file, and those beside it with these suffixes; whoever has it open must not do that."""
    for suffix in ("", *suffixes):
        shutil.copy(path + suffix, to + suffix)
    say("copied")


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


def makes(path: str, journal: str) -> None:
    """Make a store that SQLite's cache is too small for, and wait before its COMMIT, with later pages in the file."""
    commit = Engine.commit_unnumbered

    def later(self: Engine, what: str) -> None:
        say("makes")
        wait()
        commit(self, what)

    settings.Caches.of = lambda _: settings.Caches(*[32 << 10] * 3)  # type: ignore[assignment, method-assign]
    Engine.commit_unnumbered = later  # type: ignore[method-assign]
    with sqlstate.open(path, journal=journal):  # type: ignore[arg-type]
        say("made")


def fork_uses(path: str, journal: str) -> None:
    """Use a store in the child of a fork, by every method, and then in the parent."""
    store = sqlstate.open(path, journal=journal)  # type: ignore[arg-type]
    store["c"].update({"k": 1, "l": 2})
    staged = store.stage()
    snapshot, past = store.snapshot(), store.at(1)
    handles = Handles(store, store["c"], snapshot["c"], snapshot, store.wal, staged=staged, past=past)
    scan = iter(store["c"].items())
    next(scan)
    classes = [cls for cls in CALLS if cls not in (sqlstate.Transaction, sqlstate.Batch)]

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
        past.close()
        say(found)

    in_child(child)
    seen: dict[str, Any] = {"scan": list(scan), "snapshot": dict(snapshot["c"])}
    snapshot.close()
    past.close()
    store["c"]["after"] = 3
    seen["seq"] = store.head().seq
    staged.put("c", "staged", 4)  # the session is not over
    staged.rollback()
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


def program(source: str, *arguments: str) -> None:
    """Run a program, as `python -c SOURCE ARGUMENTS` does: what it leaves in its module goes when the process ends."""
    sys.argv = ["-c", *arguments]
    exec(source, vars(sys.modules["__main__"]))  # noqa: S102, a test wrote it


ROLES = {
    role.__name__: role
    for role in (
        opens,
        increments,
        moves,
        holds,
        commits,
        cut_short,
        recovers_cut_short,
        closes_cut_short,
        indexes_cut_short,
        serves,
        runs,
        copies,
        stages,
        leaves,
        tampers,
        locks,
        makes,
        fork_uses,
        fork_in_transaction,
        fork_beside_transaction,
        fork_ends,
        fork_outlives,
        program,
    )
}


def main(role: str, *arguments: str) -> None:
    """Be the process in a role."""
    end_after_all()
    ROLES[role](*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
