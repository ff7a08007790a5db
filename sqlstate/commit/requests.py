"""What threads and tasks ask of a store's own thread: something to be written, and how its outcome is told."""

from __future__ import annotations

import copy
import threading
import time
from concurrent import futures
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from sqlstate.commit.commit import Commit
    from sqlstate.format.names import Name, Stored
    from sqlstate.format.records import Head

T = TypeVar("T")

# Who waits for an answer looks so often whether somebody is at work.
LOOK_SECONDS: Final = 0.1


class Request:
    """Something to be written. The writer sets its outcome, and then calls resolve()."""

    __slots__ = ("_fate", "asked", "error", "head", "result")

    asked: float
    """When it came, by time.monotonic()."""
    error: BaseException | None
    """Why it has no effect, or why that is not known; None if it is durable."""
    head: Head | None
    """The commit that carries it, None if it changed nothing."""
    result: Any

    def __init__(self) -> None:
        self._fate: dict[str, str] = {}  # "is": to be begun, or withdrawn; whoever is first has decided it
        self.asked = 0.0
        self.error = None
        self.head = None
        self.result = None

    def begin(self) -> bool:
        """Tell whether it is to be done; it cannot be withdrawn from now on."""
        return self._fate.setdefault("is", "begun") == "begun"

    def withdraw(self) -> bool:
        """Tell whether it had not begun, and now never will; resolve() is not called then. Twice says the same."""
        return self._fate.setdefault("is", "withdrawn") == "withdrawn"

    def resolve(self) -> None:
        """Tell whoever waits; runs in the writer's thread, in the order of commits. Twice is as good as once."""
        raise NotImplementedError


class Waited:
    """A request whose thread waits for it."""

    __slots__ = ()

    _done: threading.Lock
    _told: bool
    error: BaseException | None
    head: Head | None
    result: Any

    def resolve(self) -> None:
        """Let the thread go on."""
        self._told = True  # type: ignore[misc]  # its subclasses have the slot
        with suppress(RuntimeError):  # it was let go on already
            self._done.release()

    def answered(self, timeout: float) -> bool:
        """Wait until it was resolved, so many seconds at most, and tell whether it was."""
        return self._told or self._done.acquire(timeout=timeout)


class Put(Waited, Request):
    """One entry to be put, in a transaction of its own."""

    __slots__ = ("_done", "_told", "name", "stored")

    def __init__(self, name: Name, stored: Stored) -> None:
        super().__init__()
        self._done = _locked()
        self._told = False
        self.name = name
        self.stored = stored


class Running(Protocol):
    """What group commit asks of a transaction, whose class it does not know."""

    @property
    def ended(self) -> bool:
        """Whether finish(), end() or abandon() has ended it."""

    def finish(self) -> Head | None:
        """Commit it; return the new head, or None if it changed nothing."""

    def end(self) -> bool:
        """End it without a commit of its own; return whether it changed anything."""

    def abandon(self) -> None:
        """Undo it, and nothing else."""


class Barrier(Waited, Request):
    """Nothing to be written: it waits for what came before."""

    __slots__ = ("_done", "_told")

    def __init__(self) -> None:
        super().__init__()
        self._done = _locked()
        self._told = False


class Ended(Barrier):
    """The transaction of a block, which has ended in a group that others commit."""

    __slots__ = ("txn",)

    def __init__(self, txn: Running) -> None:
        super().__init__()
        self.begin()
        self.txn = txn


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


class Call(Request):
    """A function to be called with a transaction of its own.

    Args:
        work: what is called, once, with the transaction; its result is the request's.
        note: text for the log, checked by the caller.
    """

    __slots__ = ("note", "work")

    def __init__(self, work: Callable[[Any], Any], note: str = "") -> None:
        super().__init__()
        self.work = work
        self.note = note


class WaitedCall(Waited, Call):
    """A call whose thread waits for it."""

    __slots__ = ("_done", "_told")

    def __init__(self, work: Callable[[Any], Any], note: str) -> None:
        super().__init__(work, note)
        self._done = _locked()
        self._told = False


class Future(futures.Future[T], Generic[T]):
    """The outcome of a submitted function, made by `store.submit()`: a `concurrent.futures.Future`.

    It ends in one of three ways: with the function's result, which is durable; with an exception, and nothing was
    changed; or with CommitOutcomeUnknown. cancel() works until the function begins. Callbacks of add_done_callback()
    run in the store's own thread, in the order of commits: keep them short. Every future gets its outcome, also if the
    store fails or is closed.

    Examples:
        >>> future = store.submit(lambda txn: txn.put("users", 1, "ada"))
        >>> future.result(timeout=60)
        >>> future.head.seq, future.done()
        (1, True)
    """

    head: Head | None = None
    """The commit that carries it, once it is done; None if it changed nothing."""

    def __init__(self, look_after: weakref.WeakMethod[Callable[[], None]] | None = None) -> None:
        super().__init__()
        self._look_after = look_after

    def result(self, timeout: float | None = None) -> T:
        """Return the function's result, once it is durable.

        Cost: none but waiting.

        Args:
            timeout: the most seconds to wait; None waits for as long as it takes.

        Raises:
            TimeoutError, CancelledError: as `concurrent.futures.Future.result()`.
            Exception: why it has no effect, or why the outcome is unknown.

        Examples:
            >>> store.submit(lambda txn: txn.get("users", 1, "nobody")).result()
            'nobody'
        """
        self._wait(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return why the function has no effect, or None if its result is durable.

        Cost: none but waiting.

        Args:
            timeout: the most seconds to wait; None waits for as long as it takes.

        Raises:
            TimeoutError, CancelledError: as `concurrent.futures.Future.exception()`.

        Examples:
            >>> store.submit(lambda txn: txn.put("users", 1, {1, 2})).exception()
            InvalidValue(...)
        """
        self._wait(timeout)
        return super().exception(0)

    def _wait(self, timeout: float | None) -> None:
        """Wait until it is done, and see meanwhile that somebody is at work."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self.done():
            left = LOOK_SECONDS if until is None else min(LOOK_SECONDS, until - time.monotonic())
            if left <= 0:
                return
            if futures.wait([self], left).done:
                return
            look_after = None if self._look_after is None else self._look_after()
            if look_after is not None:
                look_after()


class FutureCall(Call):
    """A call with a future for its outcome."""

    __slots__ = ("future",)

    def __init__(self, work: Callable[[Any], Any], note: str, future: Future[Any]) -> None:
        super().__init__(work, note)
        self.future = future

    def begin(self) -> bool:
        """Tell whether it is to be done; it cannot be cancelled from now on."""
        return self.future.set_running_or_notify_cancel()

    def withdraw(self) -> bool:
        """Tell whether it had not begun, and now never will."""
        return self.future.cancel()

    def resolve(self) -> None:
        """Set the future's outcome."""
        if self.future.done():
            return
        self.future.head = self.head
        with suppress(futures.InvalidStateError):  # another thread was faster
            if self.error is None:
                self.future.set_result(self.result)
            else:
                self.future.set_exception(self.error)


class Group:
    """The transactions of one commit in the making."""

    __slots__ = ("began", "commit", "requests", "running", "taken")

    def __init__(self, commit: Commit) -> None:
        self.commit = commit
        self.began = time.monotonic()
        self.requests: list[Request] = []
        """Those that have ended in it, in order."""
        self.taken: list[Request] = []
        """Those that the writer took from the queue for it."""
        self.running: Running | None = None
        """The transaction of a block, from its beginning to its end."""


def failed(request: Request, error: BaseException) -> Request:
    """Return *request*, with an error of its own: threads that raise one and the same would mix their tracebacks."""
    request.head = None
    try:
        request.error = copy.copy(error)
    except Exception:  # noqa: BLE001, somebody's exception that cannot be copied
        request.error = error
    else:
        request.error.__cause__ = error.__cause__
    return request
