"""Goal: a program, a handle and a thread can end in any way and at any moment; nothing is lost, nothing hangs.

Method: real processes that end with work submitted, by every way out, and with calls in finalisers while the
interpreter goes down; close() beside many readers; handles that are dropped.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate.commit import own_thread
from tests import ROOT
from tests.reference import plain
from tests.support.lines import PATIENCE
from tests.support.system import WINDOWS

if TYPE_CHECKING:
    from collections.abc import Callable

SUBMITTED = 2000
ROUNDS = 150
READERS = 4

SUBMITS = """
import sys, threading, sqlstate
store = sqlstate.open(sys.argv[1], mode=sys.argv[2])
for i in range(int(sys.argv[3])):
    store.submit(lambda txn, i=i: txn.put("log", i, i))
"""

ANOTHER = """
def more():
    for i in range(300):
        store.submit(lambda txn, i=i: txn.put('more', i, i))
threading.Thread(target=more).start()
"""

INTERRUPTED = 0xC000013A if WINDOWS else -2
WAYS_OUT = {
    "by its last line": ("", 0),
    "by sys.exit": ("sys.exit(3)", 3),
    "by an exception": ("raise LookupError('the program failed')", 1),
    "by KeyboardInterrupt": ("raise KeyboardInterrupt", INTERRUPTED),
    "with the handle dropped": ("del store", 0),
    "inside a transaction that failed": (
        "with store.transaction() as txn:\n    txn.put('undone', 1, 1)\n    raise LookupError('the program failed')",
        1,
    ),
    "with another thread that submits": (ANOTHER, 0),
    "after close()": ("store.close()", 0),
}


def runs(program: str, *arguments: object, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Run a program; where it stands when it hangs, it prints."""
    watch = f"import faulthandler; faulthandler.dump_traceback_later({timeout - 5}, exit=True)\n"
    return subprocess.run(
        [sys.executable, "-c", watch + program, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def kept(path: Path, collection: str = "log") -> list[Any]:
    """Return the keys that a closed or unclosed store holds, and judge it."""
    with sqlstate.open(path) as store:
        found = list(store[collection])
    assert plain.judge(path, history=1).findings == ()
    return found


# ---- The end of a program ----


@pytest.mark.parametrize(
    ("way", "mode"),
    [
        *[(way, "group") for way in WAYS_OUT],
        pytest.param("by its last line", "full", marks=pytest.mark.slow),
        pytest.param("by an exception", "full", marks=pytest.mark.slow),
    ],
)
def test_what_was_submitted_is_waited_for_at_the_end(path: Path, way: str, mode: str) -> None:
    ending, status = WAYS_OUT[way]
    done = runs(SUBMITS + ending, path, mode, SUBMITTED)
    assert done.returncode == status, done.stderr
    assert "sqlstate" not in done.stderr, done.stderr
    assert ("Traceback" in done.stderr) == (status in (1, INTERRUPTED))
    assert len(kept(path)) == SUBMITTED
    if "another thread" in way:
        assert len(kept(path, "more")) == 300


def test_os_exit_waits_for_nothing_and_leaves_a_sound_file(path: Path) -> None:
    done = runs(SUBMITS + "import os; os._exit(0)", path, "group", SUBMITTED)
    assert (done.returncode, done.stderr) == (0, "")
    found = kept(path)
    assert found == list(range(len(found)))  # in the order of asking, without a hole


def test_futures_are_answered_before_the_program_ends(path: Path) -> None:
    """At exit, callbacks of the futures still run, and see durable results."""
    ending = """
seen = []
for i in range(50):
    store.submit(lambda txn, i=i: txn.put("more", i, i)).add_done_callback(lambda f: seen.append(f.exception()))
import atexit
"""
    program = "import atexit\natexit.register(lambda: print(len(seen), set(seen)))\n" + SUBMITS + ending
    # Registered first, it is called last: all were answered by then.
    done = runs(program, path, "full", 10)
    assert (done.returncode, done.stdout, done.stderr) == (0, "50 {None}\n", "")


def test_a_submitted_function_that_fails_at_the_end_is_told_to_its_future_alone(path: Path) -> None:
    done = runs(SUBMITS + "store.submit(lambda txn: 1 / 0)", path, "full", 10)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(kept(path)) == 10


# ---- Finalisers while the interpreter goes down ----

FINALISER = """
import os, sys, sqlstate
store = sqlstate.open(sys.argv[1], mode=sys.argv[2])
store["log"][0] = 0
if "begun" in sys.argv[3]:
    store.submit(lambda txn: txn.put("log", 1, 1))

class Late:
    def __init__(self, store):
        self.store = store
    def __del__(self, write=os.write):
        {call}
        write(1, b"returned")

keeper = Late(store)
keeper.itself = keeper if "cycle" in sys.argv[3] else None
if "module" in sys.argv[3]:
    sys.late = keeper
"""
CALLS = {
    "submit()": "self.store.submit(lambda txn: txn.put('log', 2, 2))",
    "submit().result()": "self.store.submit(lambda txn: txn.put('log', 2, 2)).result()",
    "put": "self.store['log'][2] = 2",
    "run()": "self.store.run(lambda txn: txn.put('log', 2, 2))",
    "transaction()": "\n        with self.store.transaction() as txn:\n            txn.put('log', 2, 2)",
    "a scan": "list(self.store['log'].items())",
    "barrier()": "self.store.barrier()",
    "close()": "self.store.close()",
}


@pytest.mark.parametrize(
    ("held", "mode"),
    [
        ("plain", "full"),
        ("cycle-begun", "group"),
        pytest.param("plain", "group", marks=pytest.mark.slow),
        pytest.param("module-begun", "full", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_in_a_finaliser_at_the_end_neither_hangs_nor_leaks(path: Path, call: str, held: str, mode: str) -> None:
    done = runs(FINALISER.format(call=CALLS[call]), path, mode, held)
    assert done.returncode == 0, done.stderr
    # It works, or says in one clear error that it is too late; Python prints what a finaliser raises.
    raised = [
        line for line in done.stderr.splitlines() if line and not line.startswith((" ", "Traceback", "Exception"))
    ]
    assert len(raised) <= 1, done.stderr
    assert all(line.startswith("sqlstate.errors.Store") for line in raised), done.stderr
    found = kept(path)
    assert 0 in found
    if "begun" in held:
        assert 1 in found, "what was submitted before the end was lost"
    if done.stdout and "2" in CALLS[call]:
        assert 2 in found, "a call that returned was lost"


# ---- close() beside readers ----


def reads(store: sqlstate.Store, go_on: threading.Event, errors: list[BaseException]) -> None:
    """Read in every way until the store is closed."""
    try:
        while not go_on.is_set():
            store["c"].get(1)
            with store.snapshot() as view:
                dict(view["c"].items())
            for _ in store["c"]:
                break
            store.head()
    except (sqlstate.StoreClosed, sqlstate.TransactionEnded):
        pass
    except BaseException as e:  # noqa: BLE001, it is looked at by the test
        errors.append(e)


@pytest.mark.slow
def test_close_beside_readers_leaves_one_file(tmp_path: Path) -> None:
    left: dict[int, list[str]] = {}
    errors: list[BaseException] = []
    for i in range(ROUNDS):
        folder = tmp_path / str(i)
        folder.mkdir()
        store = sqlstate.open(folder / "test.db")
        store["c"].update({key: key for key in range(20)})
        stop = threading.Event()
        threads = [threading.Thread(target=reads, args=(store, stop, errors), daemon=True) for _ in range(READERS)]
        for thread in threads:
            thread.start()
        time.sleep(0.001 * (i % 5))
        store.close()
        names = sorted(file.name for file in folder.iterdir())
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a reader does not come to an end"
        # Nor does a reader that was late make them anew.
        after = sorted(file.name for file in folder.iterdir())
        if (names, after) != (["test.db"], ["test.db"]):
            left[i] = [*names, "then", *after]
    assert not left, f"{len(left)} of {ROUNDS}: {left}"
    assert not errors, repr(errors[0])


# ---- Handles that are dropped ----


def descriptors(path: Path) -> list[str]:
    """Return what this process has open of a store: never by opening the file itself."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if target.startswith(str(path)):
            found.append(target)
    return found


def soon(condition: Callable[[], object], what: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        gc.collect()
        assert time.monotonic() < until, what()
        time.sleep(0.01)


def submits(store: sqlstate.Store) -> None:
    store.submit(lambda txn: txn.put("c", 1, 1)).result(timeout=PATIENCE)


def submits_and_forgets(store: sqlstate.Store) -> None:
    for i in range(20):
        store.submit(lambda txn, i=i: txn.put("c", i, i))  # type: ignore[misc]


def leaves_scans(store: sqlstate.Store) -> None:
    store["c"].update({i: i for i in range(2000)})
    next(iter(store["c"].items()))
    view = store.snapshot()
    view.__enter__()
    next(iter(view["c"].items()))


def uses_threads(store: sqlstate.Store) -> None:
    threads = [threading.Thread(target=store["c"].__setitem__, args=(i, i)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list descriptors")
@pytest.mark.parametrize("mode", ["full", "group"])
@pytest.mark.parametrize("use", [submits, submits_and_forgets, leaves_scans, uses_threads])
def test_a_dropped_handle_keeps_neither_thread_nor_descriptor(
    path: Path, use: Callable[[sqlstate.Store], None], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_thread, "IDLE_SECONDS", 0.05)
    before = set(threading.enumerate())
    store = sqlstate.open(path, mode=mode)  # type: ignore[arg-type]
    use(store)
    dropped = weakref.ref(store)
    del store
    soon(lambda: dropped() is None, lambda: "the handle is not collected")
    soon(lambda: set(threading.enumerate()) <= before, lambda: f"threads stay: {set(threading.enumerate()) - before}")
    soon(lambda: not descriptors(path), lambda: f"descriptors stay: {descriptors(path)}")
    if use is submits_and_forgets:
        assert len(kept(path, "c")) == 20


def test_dropping_many_handles_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_thread, "IDLE_SECONDS", 0.05)
    before = set(threading.enumerate())
    for i in range(60):
        submits(sqlstate.open(tmp_path / f"{i}.db", mode=("full", "group")[i % 2]))
    soon(lambda: set(threading.enumerate()) <= before, lambda: f"{len(set(threading.enumerate()) - before)} threads")
