"""Lines of what waits, that let a test know when something has come to them; and what a log's records say."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

from sqlstate.sqlite.blocks import Block

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlstate
    from sqlstate.sqlite.writer_lock import WriterLock

T = TypeVar("T")

PATIENCE: Final = 60
"""Seconds after which a test that waits for another thread fails."""


class Line(deque[T]):
    """A line; came() waits until so many have come to it since the last call."""

    def __init__(self) -> None:
        super().__init__()
        self._came = threading.Semaphore(0)

    def append(self, item: T) -> None:
        """Let one in, and whoever waits for it know."""
        super().append(item)
        self._came.release()

    def came(self, number: int = 1) -> None:
        """Wait until *number* more have come."""
        for _ in range(number):
            assert self._came.acquire(timeout=PATIENCE)


def line_of_turns(store: sqlstate.Store) -> Line[Any]:
    """Return the line of threads that wait for the store's writing connection."""
    line: Line[Any] = Line()
    store._engine.writer_lock._waiting = line  # type: ignore[misc]
    return line


def line_of_requests(store: sqlstate.Store) -> Line[Any]:
    """Return the line of what waits for the store's own thread."""
    line: Line[Any] = Line()
    store._group.committer._queue = line
    return line


def be_patient(store: sqlstate.Store) -> None:
    """Let a store wait for long that was opened with a short timeout: what was to meet that has met it."""
    store._engine.timeout = PATIENCE


class Claim(Block):
    """A block that has the writer lock, from take() on; without `with`, it is over when it is dropped."""

    __slots__ = ("_lock",)

    def __init__(self, lock: WriterLock) -> None:
        super().__init__()
        self._lock = lock
        self.over = weakref.ref(self)

    def take(self, timeout: float = PATIENCE) -> bool:
        """Wait for it so long, and tell whether it came."""
        assert self.over is not None
        return self._lock.acquire(self.over, timeout)

    def give(self) -> None:
        """Give it back."""
        self._lock.release(self.over)

    def enter(self) -> Claim:
        """Wait for it."""
        assert self.take()
        return self

    def leave(self, *_: object) -> None:
        """Give it back."""
        self.give()


def held(store: sqlstate.Store) -> Claim:
    """Return a block that keeps the store's writing connection, so that all that is asked for in it waits together."""
    return Claim(store._engine.writer_lock)


class Threads:
    """Threads of a test, each with one function; the end of the block waits for all, and raises what they raised."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, work: Callable[[], object]) -> None:
        """Run *work* in a thread of its own."""

        def run() -> None:
            try:
                work()
            except BaseException as e:  # noqa: BLE001, the test's own thread raises it
                self._errors.append(e)

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread hangs"
        for error in self._errors:
            raise error


class Logged(NamedTuple):
    """One transaction as the log has it."""

    seq: int | None
    """Number of the commit that carries it; None if it was rolled back."""
    note: str
    changes: list[tuple[str, str, Any, Any, Any]]
    """Kind, collection, key, value before, value; as stored."""
    closes: bool
    """Whether its COMMIT record is the one with root and chain."""


def logged(store: sqlstate.Store) -> list[Logged]:
    """Return the transactions of the log, in its order; each must be whole and by itself."""
    found = []
    for _, group in groupby(store.wal.read(), attrgetter("txn")):
        first, *changes, last = group
        assert (first.kind, last.kind) == ("BEGIN", "COMMIT")
        found.append(
            Logged(
                last.seq,
                first.note or "",
                [(each.kind.value, each.collection or "", each.key, each.before, each.value) for each in changes],
                last.root is not None,
            )
        )
    return found


def sizes(store: sqlstate.Store) -> list[int]:
    """Return how many transactions each commit carries, in order; each must close with its last."""
    found = []
    for _, group in groupby(logged(store), attrgetter("seq")):
        transactions = list(group)
        assert [each.closes for each in transactions] == [False] * (len(transactions) - 1) + [True]
        found.append(len(transactions))
    return found
