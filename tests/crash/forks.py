"""Campaign 19: forks of a process that has a store open, and what the child may do.

Method: real forks, from a process that is alone or busy with threads that open, write, read and close. SQLite's locks
belong to a process, and a fork copies what SQLite believes about them; so a file that was open at the fork is refused
in the child, at once, whatever it is called there, and so is every handle that the child inherited. Another file, and
one that was closed before, can be used. Meanwhile a third process writes. The parent goes on, and nothing that was
acknowledged to anybody is missing at the end.

A case is `SCENE-SEED`.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlstate
from sqlstate import aio
from tests.crash import watched
from tests.crash.aftermath import entries, leftovers, other
from tests.crash.campaign import Miss, Plan, Result, campaign, expect, figures
from tests.crash.watched import scratch, spread_watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS: Final = 240
AT_ONCE_SECONDS: Final = float(os.environ.get("SQLSTATE_TESTS_AT_ONCE", "0.05"))
"""What a refusal may take. The best of three counts: who waits for a lock waits each time."""
CHILD_SECONDS: Final = 40
BUSY_FORKS: Final = 12
BUSY_THREADS: Final = 4


# ---- Children ----


def in_child(work: Callable[[], Any], *, meanwhile: Callable[[], None] | None = None) -> Any:
    """Return what *work* returns in the child of a fork.

    Raises:
        Miss: it raised, or did not come to an end.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_child(work, writing)
    os.close(writing)
    try:
        if meanwhile is not None:
            meanwhile()
        said = b""
        while True:
            ready, _, _ = select.select([reading], [], [], CHILD_SECONDS * 2)
            chunk = os.read(reading, 1 << 16) if ready else b""
            if not chunk:
                break
            said += chunk
        if not said:
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(reading)
    expect(said, f"WAITS: the child of a fork did not come to an end ({status})")
    found, error = json.loads(said)
    if error:
        raise Miss(error)
    return found


def _be_child(work: Callable[[], Any], writing: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(CHILD_SECONDS)
    found, error = None, ""
    try:
        found = work()
    except Miss as e:
        error = str(e)
    except BaseException:  # noqa: BLE001, the child must not return to where its parent is
        error = f"the child failed:\n{traceback.format_exc(limit=-6)}"
    try:
        os.write(writing, json.dumps((found, error)).encode())
    finally:
        os._exit(0)


def refused(what: str, use: Callable[[], Any]) -> None:
    """Expect that a use is refused at once, with the way out."""
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        try:
            use()
        except sqlstate.StoreForked as e:
            took.append(time.perf_counter() - begun)
            names_the_way_out(what, str(e))
        except BaseException as e:
            raise Miss(f"{what} raised {type(e).__name__}: {e}") from e
        else:
            raise Miss(f"{what} was not refused in the child of a fork")
    expect(min(took) < AT_ONCE_SECONDS, f"{what} was refused after {min(took):.3f} s")


def names_the_way_out(what: str, message: str) -> None:
    lower = message.lower()
    for words in (("fork",), ("close", "closed"), ("spawn", "forkserver"), ("open",)):
        expect(any(word in lower for word in words), f"{what}: the message does not say {words[0]!r}: {message}")


def works(path: Path) -> None:
    """Use a store in every simple way."""
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1
        with store.transaction() as txn:
            txn.put("c", "l", 2)
        with store.snapshot() as view:
            expect(view["c"]["l"] == 2, "another store shows something else")
        store.submit(lambda txn: txn.put("c", "m", 3)).result(timeout=CHILD_SECONDS)
        expect(store["c"]["m"] == 3, "another store shows something else")


# ---- The parent ----


class Ground:
    """A process with a store open.

    Args:
        folder: where all files lie.
        rng: says how things are done.
        scene: what will be done.
    """

    def __init__(self, folder: Path, rng: random.Random, scene: str) -> None:
        self.folder = folder
        self.rng = rng
        self.path = folder / "store.db"
        self.forks = 0
        self.count = 0
        self.made = 0
        # With a rollback journal readers and writers wait for each other, which is no matter of these scenes.
        journal = "wal" if scene in ("inherited", "busy", "third") else rng.choice(("wal", "delete"))
        with sqlstate.open(self.path, journal=journal) as store:  # type: ignore[arg-type]
            store["c"].update({i: i for i in range(300)})
            store["n"]["n"] = 0
            store["probe"]["other"] = 0
            store.backup(folder / "backup.db")
        self.store = self.open()

    def open(self) -> sqlstate.Store:
        """Open it, in some way."""
        return sqlstate.open(self.path, mode=self.rng.choice(("full", "group")), timeout=10)

    def child(self, work: Callable[[], Any], meanwhile: Callable[[], None] | None = None) -> Any:
        self.forks += 1
        return in_child(work, meanwhile=meanwhile)

    def fresh(self) -> Path:
        """Return the path of a store that is not there yet."""
        self.made += 1
        return self.folder / f"fresh{self.made}.db"

    def goes_on(self) -> None:
        """The parent's own handle is none the worse."""
        self.count += 1
        self.store["n"]["n"] = self.count
        expect(self.store["n"]["n"] == self.count, "the parent reads an old value")
        other().writes(self.path, "beside the parent")
        expect(self.store["probe"]["other"] == other().count, "the parent does not see another's write")

    def ends(self) -> None:
        self.goes_on()
        self.store.close()
        expect(not leftovers(self.path), f"close() left {leftovers(self.path)}")
        there = entries(self.path, "n")
        expect(there["n"] == self.count, f"LOST: {self.count} was acknowledged, {there} is there")


# ---- Scenes ----


def spellings(ground: Ground) -> None:
    """The same file by any name."""
    folder, path = ground.folder, ground.path
    (folder / "symbolic.db").symlink_to(path)
    (folder / "hard.db").hardlink_to(path)
    (folder / "linked").symlink_to(folder, target_is_directory=True)
    ways: dict[str, Callable[[], Any]] = {
        "the same path": lambda: sqlstate.open(path),
        "a text": lambda: sqlstate.open(str(path)),
        "a longer path": lambda: sqlstate.open(f"{folder}/./../{folder.name}//store.db"),
        "a symbolic link": lambda: sqlstate.open(folder / "symbolic.db"),
        "a hard link": lambda: sqlstate.open(folder / "hard.db"),
        "a linked folder": lambda: sqlstate.open(folder / "linked" / "store.db"),
        "read_only": lambda: sqlstate.open(path, read_only=True),
        "create=False": lambda: sqlstate.open(path, create=False),
        "recover='accept'": lambda: sqlstate.open(path, recover="accept"),
        "mode='group'": lambda: sqlstate.open(path, mode="group"),
        "timeout=0": lambda: sqlstate.open(path, timeout=0),
    }

    def child() -> None:
        for what, use in ways.items():
            refused(what, use)
        os.chdir(folder)
        refused("a relative path", lambda: sqlstate.open("store.db"))

    ground.child(child)
    ground.goes_on()
    (folder / "hard.db").unlink()


def other_ways_in(ground: Ground) -> None:
    """What opens a file under its hands."""
    path, backup, fresh = ground.path, ground.folder / "backup.db", ground.fresh()

    def copies() -> None:
        with sqlstate.open(fresh) as store:
            store.backup(path)

    def child() -> None:
        refused("restore(…, replace=True)", lambda: sqlstate.restore(backup, path, replace=True))
        refused("restore() from it", lambda: sqlstate.restore(path, ground.folder / "restored.db"))
        refused("repair()", lambda: sqlstate.repair(path))
        refused("backup() onto it", copies)
        refused("aio.open()", lambda: asyncio.run(_opens(path)))

    ground.child(child)
    expect(not (ground.folder / "restored.db").exists(), "restore() in the child made a file")
    ground.goes_on()


async def _opens(path: Path) -> None:
    store = await aio.open(path)
    await store.close()


def inherited(ground: Ground) -> None:
    """A handle of before the fork, and what was taken from it."""
    store = ground.store
    store.submit(lambda txn: txn.put("d", "k", 1)).result(timeout=CHILD_SECONDS)
    view = store.snapshot()
    view.__enter__()
    rows = iter(store["c"].items())
    next(rows)
    uses: dict[str, Callable[[], Any]] = {
        "get()": lambda: store["c"].get(1),
        "put": lambda: store["c"].__setitem__(1, 2),
        "head()": lambda: store.head(),
        "snapshot()": lambda: store.snapshot().__enter__(),
        "transaction()": lambda: store.transaction().__enter__(),
        "batch()": lambda: store.batch().__enter__(),
        "stage()": lambda: store.stage(),
        "submit()": lambda: store.submit(lambda txn: None),
        "run()": lambda: store.run(lambda txn: None),
        "barrier()": lambda: store.barrier(),
        "backup()": lambda: store.backup(ground.folder / "copy.db"),
        "check()": lambda: store.check("quick"),
        "a scan": lambda: next(iter(store["c"].items())),
        "a snapshot of before": lambda: view["c"].get(1),
    }

    def child() -> None:
        for what, use in uses.items():
            refused(what, use)
        with suppress(sqlstate.StoreForked, StopIteration):
            expect(not next(rows), "a scan of before the fork goes on in the child")
        with suppress(sqlstate.StoreForked):
            store.close()
        with suppress(sqlstate.StoreForked, sqlstate.TransactionEnded):
            view.close()

    ground.child(child)
    next(rows)
    expect(view["c"][1] == 1, "the parent's snapshot shows something else")
    view.close()
    ground.goes_on()


def parent_closes(ground: Ground) -> None:
    """The parent closes after the fork: that frees nothing in the child."""
    reading, writing = os.pipe()

    def child() -> None:
        os.read(reading, 1)
        refused("after the parent closed", lambda: sqlstate.open(ground.path))

    def closes() -> None:
        ground.store.close()
        os.write(writing, b".")

    ground.child(child, closes)
    os.close(reading)
    os.close(writing)
    ground.store = ground.open()
    ground.goes_on()


def grandchild(ground: Ground) -> None:
    def child() -> None:
        in_child(lambda: refused("a grandchild", lambda: sqlstate.open(ground.path)))
        in_child(lambda: works(ground.folder / "grand.db"))

    ground.child(child)
    ground.goes_on()


def one_of_two(ground: Ground) -> None:
    """Two handles, of which one was closed."""
    with sqlstate.open(ground.path, read_only=True):
        pass
    ground.child(lambda: refused("one of two was closed", lambda: sqlstate.open(ground.path)))
    ground.goes_on()


def only_read(ground: Ground) -> None:
    """A handle that only reads holds locks too."""
    ground.store.close()
    with sqlstate.open(ground.path, read_only=True):
        ground.child(lambda: refused("open for reading", lambda: sqlstate.open(ground.path)))
    ground.store = ground.open()
    ground.goes_on()


def closed_before(ground: Ground) -> None:
    """What was closed before the fork can be opened, by both."""
    fresh = ground.fresh()
    works(fresh)
    ground.child(lambda: works(fresh))
    works(fresh)
    ground.store.close()

    def child() -> None:
        with sqlstate.open(ground.path) as store:
            store["c"]["child"] = 1

    ground.child(child)
    ground.store = ground.open()
    expect(ground.store["c"].get("child") == 1, "LOST: what the child put")
    ground.goes_on()


def not_opened(ground: Ground) -> None:
    """An open that was refused leaves nothing open."""
    path = ground.fresh()
    works(path)
    with suppress(sqlstate.FormatTooNew, sqlstate.NotAStore):
        (ground.folder / "text.db").write_text("no store, but a text that is long enough to look at", "utf-8")
        sqlstate.open(ground.folder / "text.db")
    missing = ground.fresh()
    with suppress(sqlstate.StoreMissing):
        sqlstate.open(missing, create=False)
    ground.child(lambda: (works(path), works(missing)))
    ground.goes_on()


def another(ground: Ground) -> None:
    """Another store can be used in the child."""
    ground.child(lambda: works(ground.fresh()))
    ground.goes_on()


def pool(ground: Ground) -> None:
    """Workers of a pool that forks."""
    with multiprocessing.get_context("fork").Pool(2) as workers:
        ground.forks += 2
        found = workers.map_async(_tries, [str(ground.path)] * 4, chunksize=1).get(CHILD_SECONDS)
        expect(set(found) == {"StoreForked"}, f"workers of a pool got {found}")
        found = workers.map_async(_tries, [str(ground.folder / f"pool{i}.db") for i in range(4)]).get(CHILD_SECONDS)
        expect(set(found) == {"works"}, f"workers of a pool got {found}")
        ground.goes_on()
        workers.close()
        workers.join()


def _tries(path: str) -> str:
    try:
        works(Path(path))
    except sqlstate.StoreError as e:
        return type(e).__name__
    return "works"


def executes(ground: Ground) -> None:
    """A program that the child executes is a process of its own."""

    def child() -> str:
        command = [sys.executable, "-m", "sqlstate"]
        with sqlstate.open(ground.fresh()):
            pass
        subprocess.run([*command, "put", "-q", str(ground.path), "c", "cli", "7"], check=True)
        done = subprocess.run([*command, "get", str(ground.path), "c", "cli"], check=True, stdout=subprocess.PIPE)
        return done.stdout.decode().strip()

    found = ground.child(child)
    expect(found == "7", f"the command line in the child says {found!r}")
    expect(ground.store["c"].get("cli") == 7, "the parent does not see what the command line put")
    ground.goes_on()


def third(ground: Ground) -> None:
    """The parent closes, a third process writes and the child tries to: no put of the third is lost."""
    reading, writing = os.pipe()

    def child() -> None:
        os.read(reading, 1)
        for _ in range(5):
            with suppress(sqlstate.StoreError), sqlstate.open(ground.path, timeout=0.2) as mine:
                mine["c"]["child"] = 1
            with suppress(sqlstate.StoreError):
                ground.store["c"]["child"] = 2
        refused("while a third writes", lambda: sqlstate.open(ground.path))

    def meanwhile() -> None:
        other().writes(ground.path, "beside the parent")
        ground.store.close()
        os.write(writing, b".")
        for _ in range(5):
            found = other().writes(ground.path, "while the child tries")
            expect(found["other"] == other().count - 1, f"LOST: a put of the third: {found}, {other().count - 1}")

    ground.child(child, meanwhile)
    os.close(reading)
    os.close(writing)
    ground.store = ground.open()
    found = ground.store["probe"]["other"]
    expect(found == other().count, f"LOST: a put of the third: there is {found}, it put {other().count}")
    expect(ground.store["c"].get("child") is None, "the child wrote")
    ground.goes_on()


def loop_beside(ground: Ground) -> None:
    """A store of an event loop that runs in another thread."""
    path = ground.fresh()
    ready, stop = threading.Event(), threading.Event()
    held: list[aio.AsyncStore] = []

    async def holds() -> None:
        async with aio.open(path) as store:
            await store.put("c", "k", 1)
            held.append(store)
            ready.set()
            while not stop.is_set():
                await store.put("c", "k", time.time())
                await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: asyncio.run(holds()))
    thread.start()
    try:
        expect(ready.wait(CHILD_SECONDS), "the loop did not begin")

        def child() -> None:
            refused("the file of a loop's store", lambda: sqlstate.open(path))
            refused("aio.open() of it", lambda: asyncio.run(_opens(path)))
            refused("a loop's store", lambda: asyncio.run(_gets(held[0])))
            asyncio.run(_opens(ground.folder / "loop.db"))

        ground.child(child)
    finally:
        stop.set()
        thread.join(CHILD_SECONDS)
    (ground.folder / "loop.db").unlink(missing_ok=True)
    ground.goes_on()


async def _gets(store: aio.AsyncStore) -> None:
    await store.get("c", "k")


def busy(ground: Ground) -> None:
    """Forks while threads are inside any lock there is."""
    with _busy_threads(ground):
        for i in range(BUSY_FORKS):
            fresh = ground.fresh()
            inherited_ = ground.store

            def child(fresh: Path = fresh, inherited_: sqlstate.Store = inherited_) -> None:
                refused("get()", lambda: inherited_["c"].get(1))
                refused("put", lambda: inherited_["c"].__setitem__(1, 2))
                refused("head()", lambda: inherited_.head())
                refused("submit()", lambda: inherited_.submit(lambda txn: None))
                refused("snapshot()", lambda: inherited_.snapshot().__enter__())
                refused("open()", lambda: sqlstate.open(ground.path))
                begun = time.perf_counter()
                with suppress(sqlstate.StoreForked):
                    inherited_.close()
                took = time.perf_counter() - begun
                expect(took < AT_ONCE_SECONDS * 20, f"close() took {took:.3f} s in the child")
                works(fresh)

            time.sleep(ground.rng.random() * 0.003)
            ground.child(child)
            if i % 4 == 0:
                ground.goes_on()


@contextmanager
def _busy_threads(ground: Ground) -> Iterator[None]:
    """Have threads write, read, scan, submit, open and close meanwhile."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def uses(number: int) -> None:
        store, count = ground.store, 0
        try:
            while not stop.is_set():
                count += 1
                store["busy"][number] = count
                expect(store["busy"][number] == count, "a thread of the parent reads an old value")
                with store.snapshot() as view:
                    dict(view["busy"].items())
                for _ in store["c"].keys():  # noqa: SIM118, a scan of its own
                    break
                store.submit(lambda txn: txn.put("busy", f"s{number}", 1)).result(timeout=CHILD_SECONDS)
        except BaseException as e:  # noqa: BLE001, it is looked at below
            errors.append(e)

    def opens(number: int) -> None:
        try:
            while not stop.is_set():
                with sqlstate.open(ground.folder / f"beside{number}.db") as store:
                    store["c"]["k"] = time.time()
        except BaseException as e:  # noqa: BLE001, it is looked at below
            errors.append(e)

    threads = [threading.Thread(target=uses, args=(i,), daemon=True) for i in range(BUSY_THREADS)]
    threads += [threading.Thread(target=opens, args=(i,), daemon=True) for i in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(CHILD_SECONDS)
    expect(not any(thread.is_alive() for thread in threads), "WAITS: a thread of the parent does not come to an end")
    if errors:
        raise Miss(f"a thread of the parent got {type(errors[0]).__name__}: {errors[0]}") from errors[0]


SCENES: Final[dict[str, Callable[[Ground], None]]] = {
    each.__name__: each
    for each in (
        spellings, other_ways_in, inherited, parent_closes, grandchild, one_of_two, only_read, closed_before,
        not_opened, another, pool, executes, third, loop_beside, busy,
    )
}  # fmt: skip


# ---- The campaign ----


def one(case: str) -> Result:
    """Run a case."""
    name, _ = case.split("-")
    result = Result(runs=1)
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-forks-", dir=scratch()))
    watched.patience(SECONDS)
    ground: Ground | None = None
    try:
        ground = Ground(folder, random.Random(case), name)  # noqa: S311, no secret
        SCENES[name](ground)
        ground.ends()
    except Miss as e:
        result.miss(case, f"{case}: {e}")
    finally:
        if ground is not None:
            result.counts["forks"] += ground.forks
            with suppress(sqlstate.StoreError):
                ground.store.close()
        shutil.rmtree(folder, ignore_errors=True)
    return result


@campaign(19, "forks beside open stores", bar="0 wrong, 0 waits, refused at once", ci=1, long=100)
def forks(plan: Plan) -> Result:
    """Fork in every scene; the count is of rounds of all scenes."""
    cases = [plan.case] if plan.case else [f"{name}-{plan.seed + i}" for i in range(plan.count) for name in SCENES]
    result = spread_watched(plan, one, cases, SECONDS, 8)
    result.found = f"{result.counts['failures']} bad; {figures(result, 'forks')}"
    return result
