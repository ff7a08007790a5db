"""How a task waits for another thread, under asyncio and under trio.

A *job* is done by another thread, which then delivers it to the event loop. One wake-up serves all jobs
that were delivered before the loop runs, usually those of one commit.
"""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from sqlstate.errors import StoreForked, StoreUnusable
from sqlstate.sqlite.life import Watchers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


LOOK_SECONDS: Final = 0.25
# So many writes of tasks are under way at once; others wait for their turn, in the order in which they came.
UNDER_WAY_MAX: Final = 1000
WITHDRAWN: Final = "the write was withdrawn before it began; nothing was changed"


class Job(Protocol):
    """What a task waits for. `waiter` and `settled` belong to the loop, and change in its thread alone."""

    waiter: Any
    """The task or future that waits for it, if any."""
    settled: bool
    """Whether its outcome is known to the loop."""

    def is_done(self) -> bool:
        """Return True if its outcome is there, whether the loop was told or not; False if others will tell it again."""

    def withdraw(self) -> bool:
        """Return True if the task need not wait: the job never begins, or nobody needs its outcome."""

    def notify(self) -> None:
        """Wake the task that waits for it. Called in the loop, after it was settled; twice is as good as once."""

    def describe_outcome(self) -> str:
        """Return what became of the job, for a task that was cancelled while waiting; "" if there is nothing to say."""


class Turn:
    """The turn of one write: what its task waits for before there is one, if too many are under way."""

    __slots__ = ("_loop", "settled", "waiter", "withdrawn")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.settled = False  # it has come
        self.waiter: Any = None
        self.withdrawn = False

    def is_done(self) -> bool:
        """Return True if it has come."""
        return self.settled

    def withdraw(self) -> bool:
        """Let the others pass."""
        self.withdrawn = True
        return True

    def notify(self) -> None:
        """Wake the task."""
        if self.waiter is not None:
            self._loop.release(self.waiter)

    def describe_outcome(self) -> str:
        """Return what became of the write."""
        return WITHDRAWN


class Loop(ABC):
    """The event loop that a store was opened in."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._delivered: deque[Job] = deque()
        self._woken = False
        self._under_way: set[Turn] = set()
        self._turns: deque[Turn] = deque()
        self.watchers = Watchers()
        self.look_after: Callable[[], None] | None = None
        """Makes sure that a thread works for the tasks that wait."""

    def check(self) -> None:
        """Raise unless this is called inside the loop.

        Raises:
            StoreForked: this is the child of a fork.
            StoreUnusable: another event loop runs here, or none.
        """
        if os.getpid() != self._pid:
            raise StoreForked(
                "the store was opened by a parent process, before this process was forked; nothing was read or "
                "changed. Close it before the fork, start the process with the method 'spawn' or 'forkserver', or open "
                "it in the child alone"
            )
        if not self._is_here():
            raise StoreUnusable(
                "the store belongs to the event loop in which it was opened, and was used outside of it; nothing was "
                "changed. Open it again in this loop, or share a sqlstate.open() store between threads"
            )

    def wake(self, jobs: Sequence[Job]) -> None:
        """Tell the loop, from any thread, that *jobs* are done. Twice is as good as once."""
        try:
            self._delivered.extend(jobs)
            # The flag is cleared before the queue is emptied: jobs that find it set are served by that wake-up.
            if not self._woken:
                self._woken = True
                self._wake()
        except BaseException:  # the tasks would wait for ever
            self._delivered.extend(jobs)
            self._wake()
            raise

    def turn(self) -> Turn:
        """Return a turn, which has come unless too many are under way; it lasts until leave()."""
        turn = Turn(self)
        self._turns.append(turn)
        self._give_turns()
        return turn

    def leave(self, turn: Turn, *, here: bool = True) -> None:
        """End a turn, whether it had come or not; give it to the next, if this is called in the loop."""
        turn.withdrawn = True
        self._under_way.discard(turn)
        if here:
            self._give_turns()

    def _give_turns(self) -> None:
        while self._turns and len(self._under_way) < UNDER_WAY_MAX:
            turn = self._turns.popleft()
            if not turn.withdrawn:
                self._under_way.add(turn)
                turn.settled = True
                turn.notify()

    def committed(self) -> None:
        """Wake the tasks that watch for commits. Called in the loop."""
        self.watchers.ring()

    @abstractmethod
    async def wait(self, job: Job) -> None:
        """Wait until *job* is settled.

        Cancelled meanwhile: a job that can be withdrawn is; another one is waited for all the same. What is raised
        says what became of it.
        """

    @abstractmethod
    def release(self, waiter: Any) -> None:
        """Wake the task of *waiter*, which wait() made."""

    @abstractmethod
    def _is_here(self) -> bool: ...

    @abstractmethod
    def _wake(self) -> None:
        """Have _settle() called in the loop. Never raises: once the loop has ended, nobody waits."""

    def _settle(self) -> None:
        delivered = self._delivered
        try:
            self._woken = False
            while delivered:
                job = delivered[0]
                job.settled = True
                job.notify()
                delivered.popleft()
        except BaseException:
            if delivered:  # nobody else would come back to them
                self._woken = True
                self._wake()
            raise


class AsyncioLoop(Loop):
    """A loop of asyncio, or of another library that stands in for it.

    While a task waits, the loop looks now and then for jobs that are done: Ctrl-C can interrupt the very callback that
    would have reported them, and an exception in another thread their delivery.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._waiting: set[Job] = set()
        self._look_at = 0.0

    async def wait(self, job: Job) -> None:
        """Wait until *job* is settled."""
        try:
            self._waiting.add(job)
            if self._loop.time() >= self._look_at:
                self._look_soon()
            job.waiter = self._loop.create_future()
            if not job.settled:
                await job.waiter
        except GeneratorExit:  # the task is dropped, maybe by the garbage collector: nothing is awaited or locked
            raise
        except BaseException as e:
            if not job.withdraw():
                await self._wait_out(job)
            job.waiter = None
            _note(e, job)
            raise
        finally:
            self._waiting.discard(job)

    def _look_soon(self) -> None:
        self._loop.call_later(LOOK_SECONDS, self._look)
        self._look_at = self._loop.time() + LOOK_SECONDS

    def _look(self) -> None:
        if self._waiting:
            self._look_soon()
        if self.look_after is not None:
            self.look_after()
        self._give_turns()  # those of tasks that were dropped
        self._delivered.extend(job for job in self._waiting if job.is_done())
        if self._delivered:
            self._settle()

    def release(self, waiter: asyncio.Future[None]) -> None:
        """Wake the task that awaits *waiter*."""
        if not waiter.done():
            waiter.set_result(None)

    async def _wait_out(self, job: Job) -> None:
        # The scope keeps off anyio's cancellations, which come again and again; asyncio's come once each.
        with anyio.CancelScope(shield=True):
            while not job.settled:
                self._look_soon()  # the last look may have been what was cut short
                job.waiter = self._loop.create_future()
                with suppress(asyncio.CancelledError):  # the first one is raised again when it is over
                    await job.waiter

    def _is_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _wake(self) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._settle)


class TrioLoop(Loop):
    """A run of trio."""

    def __init__(self) -> None:
        super().__init__()
        import trio.lowlevel  # noqa: PLC0415, trio is running, so it is imported already

        self._trio = trio
        self._released: weakref.WeakSet[Any] = weakref.WeakSet()
        self._token = trio.lowlevel.current_trio_token()

    async def wait(self, job: Job) -> None:
        """Wait until *job* is settled."""
        low = self._trio.lowlevel
        cancelled: Callable[[], Any] | None = None

        def abort(raise_cancel: Callable[[], Any]) -> Any:
            nonlocal cancelled
            if job.withdraw():
                job.waiter = None
                return low.Abort.SUCCEEDED
            cancelled = raise_cancel
            return low.Abort.FAILED

        job.waiter = low.current_task()
        self._released.discard(job.waiter)
        try:
            if not job.settled:
                await low.wait_task_rescheduled(abort)
            if cancelled is not None:
                cancelled()
        except BaseException as e:
            _note(e, job)
            raise

    def release(self, waiter: Any) -> None:
        """Wake the task *waiter*."""
        if waiter not in self._released:
            self._released.add(waiter)
            self._trio.lowlevel.reschedule(waiter)

    def _is_here(self) -> bool:
        try:
            return self._trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:
            return False

    def _wake(self) -> None:
        with suppress(self._trio.RunFinishedError):
            self._token.run_sync_soon(self._settle)


def running_loop() -> Loop:
    """Return the event loop that runs in this thread.

    Raises:
        StoreUnusable: none does.
    """
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return TrioLoop()
    try:
        return AsyncioLoop()
    except RuntimeError:
        raise StoreUnusable(
            "no event loop runs here: await sqlstate.aio.open() in a coroutine, or use sqlstate.open()"
        ) from None


def _note(cancelled: BaseException, job: Job) -> None:
    said = job.describe_outcome()
    if said:
        cancelled.add_note(f"sqlstate: {said}")
