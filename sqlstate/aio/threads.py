"""The threads that an asynchronous store reads in. Each operation is one hop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

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

    anyio.to_thread with one limiter costs 1.9 times as much for each hop under asyncio with one task, and 9 times with
    16 tasks (1.7 and 1.9 under trio). A native cancellation of asyncio also gets past its shield, and leaves a thread
    at work that nobody waits for.

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
            whole: a cancellation waits until it is done; otherwise it is abandoned at once, and its result is lost.

        Raises:
            StoreClosed: the threads have ended.
            StoreUnusable, StoreForked: as Loop.check().
        """
        self._loop.check()
        job: _ThreadJob[R] = _ThreadJob(self._loop, whole=whole)
        try:
            job.begin(self._pool, fn)
        except RuntimeError:
            raise StoreClosed(f"{self._path}: the store is closed") from None
        except BaseException:
            # A thread may have been cut short while it was started; the pool counts it, and would wait for it.
            self._pool = _pool()
            raise
        try:
            await self._loop.wait(job)
            return job.future.result()
        finally:
            del job.future, job  # they lead to each other, and a traceback in the outcome leads here

    def send(self, fn: Callable[[], object]) -> None:
        """Have a thread call *fn*, soon; this thread does, if they have ended. What it raises is lost."""
        try:
            self._pool.submit(fn)
        except RuntimeError:
            with suppress(Exception):
                fn()

    def end(self) -> None:
        """End the threads, once they have done what they were given."""
        self.ending = self.ended = True
        self._pool.shutdown(wait=False)


class _ThreadJob(Generic[R]):
    """A job of one of the threads."""

    __slots__ = ("_loop", "_whole", "future", "settled", "waiter")

    future: Future[R]

    def __init__(self, loop: Loop, *, whole: bool) -> None:
        self._loop = loop
        self._whole = whole
        self.settled = False
        self.waiter: Any = None

    def begin(self, pool: ThreadPoolExecutor, fn: Callable[[], R]) -> None:
        self.future = pool.submit(fn)
        for _ in range(2):  # an Exception may cut one delivery short; under asyncio, the loop looks by itself too
            self.future.add_done_callback(self._deliver)

    def _deliver(self, _: Future[R]) -> None:
        if not self.settled:
            self._loop.wake((self,))

    def is_done(self) -> bool:
        return self.future.done()

    def withdraw(self) -> bool:
        if self._whole:
            return False
        self.future.cancel()
        return True

    def notify(self) -> None:
        if self.waiter is not None:
            self._loop.release(self.waiter)

    def describe_outcome(self) -> str:
        return ""
