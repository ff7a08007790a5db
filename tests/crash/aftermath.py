"""What must hold of a handle after an exception that came at any moment, whatever raised it.

The next call works, or says truthfully that the handle is of no use. Another thread, another handle and another
process can write: no lock stays behind. What was acknowledged is there, and what was tried is there whole or not at
all. A note on the exception that says what became of the commit says the truth.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import select
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlstate
from tests import ROOT
from tests.crash.campaign import Miss, expect
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Callable

LOCK_SECONDS: Final = 2.0
"""How long another may wait for a lock that must be free."""
ANSWER_SECONDS: Final = 15.0
"""How long an answer may take in all, on a machine that is busy."""
OTHER: Final = "from tests.crash.aftermath import serve_other; serve_other()"


class Said(NamedTuple):
    """What the notes of an exception say became of a commit."""

    made: int | None = None
    """Number of the commit that was made."""
    nothing: bool = False
    """That nothing was changed."""


def said(error: BaseException) -> Said:
    """Read the notes that sqlstate put on an exception."""
    for note in getattr(error, "__notes__", ()):
        number = re.search(r"\bcommit (\d+)\b", note)
        if number and re.search(r"\b(made|committed|durable)\b", note) and not re.search(r"\bnot\b", note):
            return Said(made=int(number[1]))
        if re.search(r"nothing was changed|changed nothing", note):
            return Said(nothing=True)
    return Said()


def came_out_of_the_package(error: BaseException) -> bool:
    """Tell whether an exception came out of a call of sqlstate, and not before it or after it.

    A method of a collection or a store that has its result, and is about to return it, counts as after it: what it
    called has committed and returned, and nothing there can add a note any more. The documentation says so.
    """
    trace, package = error.__traceback__, Path(sqlstate.__file__).parent
    innermost = None
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(package):
            innermost = file
        trace = trace.tb_next
    return innermost is not None and innermost.name not in ("collection.py", "store.py")


def is_refusal(error: BaseException) -> bool:
    """Tell whether an error says that a handle is of no use any more."""
    own = isinstance(error, sqlstate.StoreUnusable | sqlstate.CommitOutcomeUnknown)
    return own and not isinstance(error, sqlstate.TransactionEnded | sqlstate.StoreForked)


def in_thread(work: Callable[[], Any], what: str, seconds: float = ANSWER_SECONDS) -> Any:
    """Return what *work* returns in a thread of its own.

    Raises:
        Miss: it does not come to an end.
    """
    found: deque[Any] = deque()
    error: deque[BaseException] = deque()

    def run() -> None:
        try:
            found.append(work())
        except BaseException as e:  # noqa: BLE001, it is raised again
            error.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    expect(not thread.is_alive(), f"HANGS: {what} does not come to an end")
    if error:
        raise error[0]
    return found[0]


# ---- Another process ----


class Other:
    """A process that opens a store, reads it, writes to it, and closes it, each time that it is asked."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", OTHER],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._count = 0
        atexit.register(self._process.kill)

    def writes(self, path: Path, when: str) -> dict[str, Any]:
        """Have it put `probe/other`; return the entries of `probe` that it found.

        Raises:
            Miss: it could not.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._count += 1
        self._process.stdin.write(json.dumps((str(path), self._count)).encode() + b"\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
        expect(ready, f"LOCK: another process does not come to an end {when}")
        error, found = json.loads(self._process.stdout.readline())
        expect(not error, f"LOCK: another process could not write {when}: {error}")
        return dict(found)

    @property
    def count(self) -> int:
        """What it put last."""
        return self._count


def serve_other() -> None:
    """Be that process."""
    for line in sys.stdin:
        path, count = json.loads(line)
        error, found = "", {}
        try:
            with sqlstate.open(path, timeout=LOCK_SECONDS) as store:
                found = dict(store["probe"])
                store["probe"]["other"] = count
        except Exception as e:  # noqa: BLE001, it is told
            error = f"{type(e).__name__}: {e}"
        os.write(1, json.dumps((error, found)).encode() + b"\n")


_other: list[Other] = []


def other() -> Other:
    """Return the one of this process."""
    if not _other:
        _other.append(Other())
    return _other[0]


# ---- What is looked at ----


class Looked(NamedTuple):
    """What was seen of a handle."""

    refused: str = ""
    """How the handle says that it is of no use; `""` if it works."""


def look(store: sqlstate.Store, number: int, *, outside: bool = True) -> Looked:
    """Use a handle after an exception, from this thread and another, and from another process.

    Args:
        store: the handle.
        number: one that was not used before.
        outside: look from outside too, which takes longer.

    Raises:
        Miss: it does not work, and does not say so.
    """
    first = _attempt(lambda: _use(store, "main", number), "the next call")
    second = _attempt(lambda: in_thread(lambda: _use(store, "thread", number), "a call of another thread"), "a thread")
    expect(bool(first) == bool(second), f"the handle works in one thread alone: {first!r}, {second!r}")
    if outside:
        found = other().writes(store.path, "after the exception")
        if not first:
            mine = found.get("main"), found.get("thread")
            expect(mine == (number, number), f"another process sees {mine}, written was {number}")
            expect(store["probe"].get("other") == other().count, "STALE: the handle does not see another's write")
            head = store.head()
            with store.snapshot() as view:
                expect(view["probe"].get("other") == other().count, "STALE: a snapshot shows the past")
                expect(view.head.seq >= head.seq, f"STALE: a snapshot is of {view.head.seq}, head() is {head.seq}")
    return Looked(first)


def _use(store: sqlstate.Store, name: str, number: int) -> None:
    store["probe"][name] = number
    found = store["probe"][name]
    expect(found == number, f"STALE: {name} wrote {number} and reads {found}")
    expect(dict(store["probe"].items())[name] == number, f"STALE: a scan does not show {name} = {number}")
    with store.snapshot() as view:  # it shows what is committed, whatever a transaction that is left open shows
        expect(view["probe"].get(name) == number, f"UNCOMMITTED: {name} = {number} was not committed, or is not shown")


def _attempt(use: Callable[[], None], what: str) -> str:
    """Use the handle; return what it says if it is of no use."""
    try:
        use()
    except Miss:
        raise
    except Exception as e:
        if is_refusal(e):
            return f"{type(e).__name__}: {e}"
        raise Miss(f"BROKEN: {what} raised {type(e).__name__}: {e}") from e
    return ""


def ended(store: sqlstate.Store, *, refused: bool) -> None:
    """Close a handle, which must come to an end, and look whether another process can write then."""
    try:
        store.close()
    except sqlstate.StoreError as e:
        if not refused or isinstance(e, sqlstate.Damaged | sqlstate.Busy):
            raise Miss(f"BROKEN: close() raised {type(e).__name__}: {e}") from e
    other().writes(store.path, "after close()")


def leftovers(path: Path) -> list[str]:
    """Return the names of what lies beside a store and belongs to it."""
    return sorted(file.name for file in path.parent.iterdir() if file.name.startswith(f"{path.name}-"))


def entries(path: Path, collection: str) -> dict[Any, Any]:
    """Return what a closed and sound file holds."""
    judgement = plain.judge(path, history=1)
    expect(judgement.sound, f"UNSOUND: {judgement.findings}")
    with sqlstate.open(path) as store:
        return dict(store[collection].items())
