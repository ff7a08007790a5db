"""Requests of threads and tasks to the committer, and the queue in which their outcomes wait for delivery."""

from __future__ import annotations

import copy
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from sqlstate.errors import Conflict, InvalidValue
from sqlstate.sqlite.lock_holders import chance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlstate.commit.commit import Commit
    from sqlstate.format.names import Name, Stored
    from sqlstate.format.records import Head

T = TypeVar("T")

# How often a thread that waits for an answer checks that the committer is at work.
LOOK_SECONDS: Final = 0.1


class Overtaken(Conflict):
    """Another machine's commit came first, so this one changed nothing. The same may go well another time.

    Args:
        path: what was written to.
    """

    def __init__(self, path: str) -> None:
        super().__init__("", None, None, None)
        self.path = path
        self.entries = []
        what = f"{path}: another commit came between what was read and this one; nothing was changed"
        self.args = (f"{what}. Read it again, and decide again",)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)


class TooLarge(InvalidValue):
    """A commit is larger than what it is sent to takes at once. Nothing was changed.

    Args:
        size: of the commit, in bytes.
        most: how large it may be.
    """

    def __init__(self, size: int, most: int) -> None:
        super().__init__(
            f"the commit is a request of {size:,} bytes, and a cluster takes {most:,}; nothing was changed. Make "
            "several transactions of it, and keep large values elsewhere"
        )
        self.size = size
        self.most = most

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.size, self.most)


def pause(failures: int) -> float:
    """Return the seconds to wait after so many attempts have failed: by chance, so that rivals do not meet again."""
    return 0.001 * (1 << min(failures, 6)) * chance()


def until_first(work: Callable[[], T], timeout: float) -> T:
    """Return what *work* returns; after Overtaken it is called again, until the timeout in seconds.

    Raises:
        Overtaken: the last attempt was overtaken too.
    """
    until = time.monotonic() + timeout
    for failures in count(1):
        try:
            return work()
        except Overtaken:
            if time.monotonic() >= until:
                raise
        time.sleep(pause(failures))
    raise AssertionError


class Waker(Protocol):
    """Delivers outcomes to those who wait for them, many at once."""

    def wake(self, requests: Sequence[Any]) -> None:
        """Deliver the outcomes of *requests*, at least one. Twice is as good as once."""


class _Each:
    """Lets each request deliver its outcome by itself."""

    def wake(self, requests: Sequence[Request]) -> None:
        """Have all deliver theirs, whatever one raises."""
        for request in requests:
            try:
                request.resolve()
            except BaseException:  # noqa: BLE001, of a callback
                _tell_of_exception()
                with suppress(BaseException):  # if it was raised before the outcome was delivered
                    request.resolve()


class _Threads:
    """Wakes waiting threads one after the other: at once, they would get in each other's way."""

    def wake(self, requests: Sequence[Any]) -> None:
        """Wake the first thread. Each wakes the next when it runs; one that does not is missed within LOOK_SECONDS."""
        following = None
        for each in reversed(requests):
            each.told(following)
            following = each
        requests[0].call()


EACH: Final = _Each()
_THREADS: Final = _Threads()


def _tell_of_exception() -> None:
    threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


class Request:
    """Something to be written. The committer sets its outcome, which its waker delivers, or else resolve()."""

    __slots__ = ("_fate", "asked", "error", "head", "result")

    asked: float
    """When it was queued, by time.monotonic()."""
    error: BaseException | None
    """Why it has no effect, or why that is not known; None if it is durable."""
    head: Head | None
    """The commit that carries it, None if it changed nothing."""
    result: Any

    def __init__(self) -> None:
        self._fate: dict[str, str] = {}  # "is": "begun" or "withdrawn"; the first to set it decides
        self.asked = 0.0
        self.error = None
        self.head = None
        self.result = None

    def begin(self) -> bool:
        """Return True if it was not withdrawn; from now on it cannot be."""
        return self._fate.setdefault("is", "begun") == "begun"

    def withdraw(self) -> bool:
        """Return True if it had not begun, and now never will; resolve() is not called then. Idempotent."""
        return self._fate.setdefault("is", "withdrawn") == "withdrawn"

    @property
    def repeatable(self) -> bool:
        """Whether again() may be called."""
        return False

    def again(self) -> None:
        """Forget the outcome: it is run once more."""
        self.error = self.head = None

    @property
    def waker(self) -> Waker:
        """Who delivers its outcome, together with those of its neighbours that have the same."""
        return EACH

    def resolve(self) -> None:
        """Deliver the outcome, in the committer's thread and in the order of commits. Idempotent."""
        raise NotImplementedError


class Waited:
    """A request whose thread waits for the outcome."""

    __slots__ = ()

    _done: threading.Lock  # free once the thread is to run
    _told: bool
    _following: Waited | None  # the one whose thread this one wakes
    error: BaseException | None
    head: Head | None
    result: Any

    def _wait(self) -> None:
        """Begin to be waited for. Its subclasses have the slots."""
        self._done = threading.Lock()  # type: ignore[misc]
        self._done.acquire()
        self._told = False  # type: ignore[misc]
        self._following = None  # type: ignore[misc]

    @property
    def waker(self) -> Waker:
        """Who delivers its outcome."""
        return _THREADS

    def told(self, following: Waited | None) -> None:
        """Note that it has its outcome, and whose thread this one wakes next."""
        self._following = following  # type: ignore[misc]
        self._told = True  # type: ignore[misc]

    def call(self) -> None:
        """Wake the thread. Idempotent."""
        with suppress(RuntimeError):  # it was released already
            self._done.release()

    def answered(self, timeout: float) -> bool:
        """Wait until it has its outcome, *timeout* seconds at most; return True if it has."""
        if not self._told:
            self._done.acquire(timeout=timeout)
        following = self._following
        if following is not None:
            following.call()
            self._following = None  # type: ignore[misc]
        return self._told


class Single(Request):
    """One entry to be put, or deleted, in a transaction of its own. The result is whether it changed."""

    __slots__ = ("name", "stored")

    def __init__(self, name: Name, stored: Stored | None) -> None:
        super().__init__()
        self.name: tuple[str, int, int | str | bytes] = name
        self.stored: str | bytes | None = stored
        self.result = False

    @property
    def repeatable(self) -> bool:
        """Whether again() may be called."""
        return True

    def again(self) -> None:
        """Forget the outcome: it is run once more."""
        super().again()
        self.result = False


class WaitedSingle(Waited, Single):
    """A change of one entry whose thread waits for it."""

    __slots__ = ("_done", "_following", "_told")

    def __init__(self, name: Name, stored: Stored | None) -> None:
        super().__init__(name, stored)
        self._wait()


class Running(Protocol):
    """What group commit asks of a transaction, whose class it does not know."""

    @property
    def ended(self) -> bool:
        """Whether finish(), end() or abandon() has ended it."""

    def remove(self, name: Name) -> bool:
        """Delete an entry; return whether there was one."""

    def finish(self) -> Head | None:
        """Commit it; return the new head, or None if it changed nothing."""

    def end(self) -> bool:
        """End it without a commit of its own; return whether it changed anything."""

    def abandon(self) -> None:
        """Undo it, and nothing else."""


class Barrier(Waited, Request):
    """A request that writes nothing: it is answered after those before it."""

    __slots__ = ("_done", "_following", "_told")

    def __init__(self) -> None:
        super().__init__()
        self._wait()


class Ended(Barrier):
    """The transaction of a block, which has ended in a group that others commit."""

    __slots__ = ("txn",)

    def __init__(self, txn: Running) -> None:
        super().__init__()
        self.begin()
        self.txn: Running = txn


class Call(Request):
    """A function to be called with a transaction of its own.

    Args:
        work: what is called with the transaction, again only after Overtaken; its result is the request's.
        note: text for the log, checked by the caller.
    """

    __slots__ = ("note", "work")

    def __init__(self, work: Callable[[Any], Any], note: str = "") -> None:
        super().__init__()
        self.work: Callable[[Any], Any] = work
        self.note: str = note

    @property
    def repeatable(self) -> bool:
        """Whether again() may be called."""
        return True


class WaitedCall(Waited, Call):
    """A call whose thread waits for it."""

    __slots__ = ("_done", "_following", "_told")

    def __init__(self, work: Callable[[Any], Any], note: str) -> None:
        super().__init__(work, note)
        self._wait()


class Group:
    """The transactions of one commit in the making."""

    __slots__ = ("began", "commit", "requests", "running", "taken")

    def __init__(self, commit: Commit) -> None:
        self.commit: Commit = commit
        self.began: float = time.monotonic()
        self.requests: list[Request] = []
        """Those that have ended in it, in order."""
        self.taken: list[Request] = []
        """Those that the committer took from the queue for it."""
        self.running: Running | None = None
        """The transaction of a block, from its beginning to its end."""


def failed(request: Request, error: BaseException) -> Request:
    """Return *request* with a copy of *error*: threads that raise the same object would mix their tracebacks."""
    request.head = None
    try:
        request.error = copy.copy(error)
    except Exception:  # noqa: BLE001, a foreign exception that cannot be copied
        request.error = error
    else:
        request.error.__cause__ = error.__cause__
    return request


class Answers:
    """The requests that have an outcome, in order, until it is delivered.

    Args:
        wake: wakes the committer, which delivers what is left here; raises RuntimeError if no thread can be started.
    """

    __slots__ = ("_done", "_wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._done: deque[Request] = deque()

    def __bool__(self) -> bool:
        """Return True if an outcome has not been delivered yet."""
        return bool(self._done)

    def waiting(self) -> list[Request]:
        """Return the requests whose outcome has not been delivered yet."""
        return [*self._done]

    def add(self, requests: Iterable[Request]) -> None:
        """Append *requests*, each of which has its outcome."""
        self._done.extend(requests)

    def refuse(self, requests: Iterable[Request], error: BaseException) -> None:
        """Append those of *requests* that were not withdrawn, failed with *error*. None of them had begun."""
        self._done.extend([failed(request, error) for request in requests if request.begin()])

    def deliver(self, *, to_threads: bool = False) -> bool:
        """Deliver the outcomes, only up to the first that is not for a waiting thread if *to_threads*.

        Returns False if one is left. Several threads may call it at once.
        """
        done = self._done
        while run := [*done]:
            waker = run[0].waker
            if to_threads and waker is not _THREADS:
                return False
            run = [*takewhile(lambda each: each.waker is waker, run)]  # noqa: B023
            try:
                waker.wake(run)
            except BaseException:  # noqa: BLE001, the others get their outcomes all the same
                _tell_of_exception()
                with suppress(BaseException):  # if it was raised before the outcomes were delivered
                    waker.wake(run)
            for request in run:
                with suppress(ValueError):
                    done.remove(request)
        return True

    def deliver_to_threads(self) -> None:
        """Deliver outcomes from a thread that holds the writer lock.

        It wakes waiting threads itself. Futures it leaves to the committer: their callbacks might write, which cannot
        be done under this thread's lock.
        """
        if not self.deliver(to_threads=True):
            try:
                self._wake()
            except RuntimeError:  # no thread can be started
                self.deliver()
