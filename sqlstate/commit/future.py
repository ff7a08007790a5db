"""The futures of `store.submit()`. Imported with the first call: `concurrent.futures` takes long to import."""

from __future__ import annotations

import time
from concurrent import futures
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlstate.commit.requests import LOOK_SECONDS, Call

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from sqlstate.format.records import Head

T = TypeVar("T")


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
        """Wait until it is done, and wake the committer now and then."""
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
        self.future: Future[Any] = future

    def begin(self) -> bool:
        """Return True if it was not cancelled; from now on it cannot be."""
        return self.future.running() or self.future.set_running_or_notify_cancel()  # it may be run again

    def withdraw(self) -> bool:
        """Return True if it had not begun, and now never will."""
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
