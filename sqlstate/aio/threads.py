"""The threads that an asynchronous store reads in: one hop for each whole operation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlstate.errors import StoreClosed

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from sqlstate.aio.event_loop import Loop

R = TypeVar("R")

THREADS_MAX: Final = 8


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="sqlstate-aio")


class Threads:
    """Up to THREADS_MAX threads of one store, started as they are needed.

    anyio's own threads would do, at 2 to 10 times the cost of a hop; and a native cancellation of asyncio gets past
    their shield, and leaves a thread at work that nobody waits for.

    Args:
        loop: where the tasks run that wait.
        path: of the store, for messages.
    """

    __slots__ = ("_loop", "_path", "_pool", "ended", "ending")

    ending: bool
    """Whether the store is being closed."""
    ended: bool
    """Whether it is closed."""

    def __init__(self, loop: Loop, path: str) -> None:
        self._loop = loop
        self._path = path
        self.ending = False
        self.ended = False
        self._pool = _pool()

    async def run(self, fn: Callable[[], R], *, whole: bool = False) -> R:
        """Return what *fn* returns in a thread.

        Args:
            fn: what to do.
            whole: a cancellation waits until it is done; else it is given up at once, and what it returns is lost.

        Raises:
            StoreClosed: the threads have ended.
            StoreUnusable, StoreForked: as Loop.check().
        """
        self._loop.check()
        errand = _Errand(fn, self._loop, whole=whole)
        try:
            errand.future = self._pool.submit(errand)
        except RuntimeError:
            raise StoreClosed(f"{self._path}: the store is closed") from None
        except BaseException:
            # A thread may have been cut short while it was started; the pool counts it, and would wait for it.
            self._pool = _pool()
            raise
        try:
            await self._loop.wait(errand)
            if errand.error is not None:
                raise errand.error
            result: R = errand.result
            return result
        finally:
            del errand  # its error's traceback leads here

    def send(self, fn: Callable[[], object]) -> None:
        """Have *fn* done by a thread, soon; if they have ended, by this one. What it raises is lost."""
        try:
            self._pool.submit(fn)
        except RuntimeError:
            with suppress(Exception):
                fn()

    def end(self) -> None:
        """Let the threads end once they have done what they were given."""
        self.ending = self.ended = True
        self._pool.shutdown(wait=False)


class _Errand:
    """A job of one of the threads."""

    __slots__ = ("_fn", "_loop", "_whole", "error", "future", "result", "settled", "waiter")

    future: Future[None]

    def __init__(self, fn: Callable[[], Any], loop: Loop, *, whole: bool) -> None:
        self._fn = fn
        self._loop = loop
        self._whole = whole
        self.error: BaseException | None = None
        self.result: Any = None
        self.settled = False
        self.waiter: Any = None

    def __call__(self) -> None:
        try:
            self.result = self._fn()
        except BaseException as e:  # noqa: BLE001, it is raised in the task that waits
            self.error = e
        try:
            self._loop.deliver(self)
        except BaseException:  # noqa: BLE001, it came in the midst; the task must not wait for ever
            self._loop.deliver(self)

    def withdraw(self) -> bool:
        if self._whole:
            return False
        self.future.cancel()
        return True

    def rung(self) -> None:
        if self.waiter is not None:
            self._loop.release(self.waiter)

    def says(self) -> str:
        return ""
