"""What tests of tasks share: gates in the store's own thread, tasks that can be cancelled."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import sqlstate
    from sqlstate import aio

BACKENDS = ("asyncio", "trio")
SOON = 20.0  # seconds after which a test does not wait any longer
asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class Gate:
    """A function of a transaction that waits until the test opens it."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()

    def __call__(self, txn: sqlstate.Transaction) -> str:
        self.begun.set()
        assert self.open.wait(SOON)
        return "through"

    async def reached(self) -> None:
        await until(self.begun.is_set)


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(SOON):
        while not condition():
            await anyio.sleep(0.001)


def lent(opened: aio.AsyncStore) -> int:
    """How many connections scans and snapshots hold."""
    readers = opened._store._engine.readers
    readers.reclaim()
    return len(readers.lent)


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


async def content(opened: aio.AsyncStore, name: str = "c") -> dict[Any, Any]:
    return {key: value async for key, value in opened[name].items()}


class Task:
    """A task that a test can cancel, and see how it ended."""

    def __init__(self, group: anyio.abc.TaskGroup, work: Callable[[], Awaitable[Any]]) -> None:
        self._scope = anyio.CancelScope()
        self._error: BaseException | None = None
        self._ended = anyio.Event()
        group.start_soon(self._run, work)

    def cancel(self) -> None:
        self._scope.cancel()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    async def was_cancelled(self) -> str:
        """Return the notes of the cancellation that ended it."""
        with anyio.fail_after(SOON):
            await self._ended.wait()
        assert isinstance(self._error, anyio.get_cancelled_exc_class()), repr(self._error)
        return notes(self._error)

    async def _run(self, work: Callable[[], Awaitable[Any]]) -> None:
        with self._scope:
            try:
                await work()
            except BaseException as e:
                self._error = e
                raise
            finally:
                self._ended.set()
