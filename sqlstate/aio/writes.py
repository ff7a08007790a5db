"""Writes of tasks: each is a request to the store's own thread, and a job that the event loop waits for."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import anyio

from sqlstate.aio.event_loop import WITHDRAWN
from sqlstate.commit.requests import Call, Single
from sqlstate.errors import CommitOutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlstate.aio.event_loop import Loop
    from sqlstate.format.names import Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.store.open_transaction import OpenTransaction

T = TypeVar("T")
Outcome = Literal["waiting", "durable", "failed", "withdrawn", "unknown"]


class Written:
    """A request of a task that waits for it, or will."""

    __slots__ = ()

    loop: Loop
    settled: bool
    waiter: Any
    withdrawn: bool
    error: BaseException | None
    head: Head | None

    def _of(self, loop: Loop) -> None:
        """Begin as one of *loop*. Its subclasses have the slots."""
        self.loop = loop  # type: ignore[misc]
        self.settled = False  # type: ignore[misc]
        self.waiter = None
        self.withdrawn = False  # type: ignore[misc]

    def is_done(self) -> bool:
        """Return True if the loop was told of its outcome; the committer tells it again if that was cut short."""
        return self.settled

    def withdraw(self) -> bool:
        """Keep it from beginning, and return True if that was in time."""
        if super().withdraw():  # type: ignore[misc]  # of Request
            self.withdrawn = True  # type: ignore[misc]
        return self.withdrawn

    @property
    def waker(self) -> Loop:
        """Who delivers its outcome."""
        return self.loop

    def notify(self) -> None:
        """Wake the task."""
        if self.loop.watchers:
            self.loop.committed()
        if self.waiter is not None:
            self.loop.release(self.waiter)

    @property
    def outcome(self) -> Outcome:
        """What became of it, as far as the loop knows."""
        if self.withdrawn:
            return "withdrawn"
        if not self.settled:
            return "waiting"
        if self.error is None:
            return "durable"
        return "unknown" if isinstance(self.error, CommitOutcomeUnknown) else "failed"

    def describe_outcome(self) -> str:
        """Return what became of it, for a task that was cancelled."""
        outcome = self.outcome
        if outcome == "withdrawn":
            return WITHDRAWN
        if outcome == "durable":
            return f"the write was committed as commit {self.head.seq}" if self.head else "the write changed nothing"
        if outcome == "failed":
            return f"the write failed, and nothing was changed: {self.error!r}"
        return f"whether the write is there is not known: {self.error!r}"


class SingleWrite(Written, Single):
    """One entry to be put or deleted, for a task that waits.

    Args:
        name: of the entry.
        stored: its value; None to delete it.
        loop: where the task runs.
    """

    __slots__ = ("loop", "settled", "waiter", "withdrawn")

    def __init__(self, name: Name, stored: Stored | None, loop: Loop) -> None:
        super().__init__(name, stored)
        self._of(loop)


class Write(Written, Call):
    """A function that the writer calls with a transaction, for a task that waits.

    Args:
        work: the function.
        note: text for the log, checked by the caller.
        loop: where the task runs.
    """

    __slots__ = ("loop", "settled", "waiter", "withdrawn")

    def __init__(self, work: Callable[[OpenTransaction], Any], note: str, loop: Loop) -> None:
        super().__init__(work, note)
        self._of(loop)


class Submitted(Write):
    """A write that a ticket stands for: any number of tasks may wait for it, or none."""

    __slots__ = ("event",)

    event: anyio.Event | None

    def __init__(self, work: Callable[[OpenTransaction], Any], note: str, loop: Loop) -> None:
        super().__init__(work, note, loop)
        self.event = None

    def notify(self) -> None:
        """Wake the tasks."""
        super().notify()
        if self.event is not None:
            self.event.set()


class Ticket(Generic[T]):
    """What `AsyncStore.submit()` returns: await it for the function's result, once that is durable.

    Any number of tasks can await it, any number of times. Cancelling one of them does not touch the write: withdraw()
    does.

    Examples:
        >>> ticket = store.submit(lambda txn: txn.put("users", 1, "ada"))
        >>> await ticket
        >>> ticket.outcome, ticket.head.seq
        ('durable', 1)
    """

    __slots__ = ("_write",)

    def __init__(self, write: Submitted) -> None:
        self._write = write

    @property
    def outcome(self) -> Outcome:
        """What became of the write.

        "waiting": it has not ended. "durable": it is on the disk, or there was nothing to change. "failed": it raised,
        and nothing was changed. "withdrawn": it never ran. "unknown": an error at COMMIT; `Store.committed()` of a
        store opened since says whether it is there.
        """
        return self._write.outcome

    @property
    def head(self) -> Head | None:
        """The commit that carries it, once it is durable; None before, and if it changed nothing."""
        return self._write.head if self.outcome == "durable" else None

    def withdraw(self) -> bool:
        """Keep the write from beginning, and return True if that was in time. Awaiting it then raises CancelledError.

        Cost: none.

        Raises:
            StoreUnusable, StoreForked: called outside of the store's event loop.

        Examples:
            >>> ticket = store.submit(lambda txn: txn.put("users", 1, "ada"))
            >>> withdrawn = ticket.withdraw()  # True, unless it has begun
        """
        write = self._write
        write.loop.check()
        if write.withdraw() and write.event is not None:
            write.event.set()
        return write.withdrawn

    def __repr__(self) -> str:
        return f"<sqlstate.aio.Ticket: {self.outcome}>"

    def __await__(self) -> Generator[Any, Any, T]:
        """Wait for the result.

        Raises:
            concurrent.futures.CancelledError: it was withdrawn.
            CommitOutcomeUnknown: an error at COMMIT.
            StoreUnusable, StoreForked: awaited outside of the store's event loop.
            Exception: what the function raised, or why it could not run; nothing was changed.
        """
        return self._result().__await__()

    async def _result(self) -> T:
        write = self._write
        write.loop.check()
        if write.outcome == "waiting":
            if write.event is None:
                write.event = anyio.Event()
            await write.event.wait()
        if write.withdrawn:
            raise CancelledError(WITHDRAWN)
        if write.error is not None:
            raise write.error
        result: T = write.result
        return result
