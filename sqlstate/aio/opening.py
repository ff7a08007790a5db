"""Opening a store in an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from sqlstate.aio.event_loop import running_loop
from sqlstate.aio.store import AsyncStore
from sqlstate.aio.threads import Threads
from sqlstate.errors import InvalidOption
from sqlstate.store import opening

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator

    from sqlstate.recovery.report import Recover
    from sqlstate.sqlite.connection import Journal
    from sqlstate.store.opening import LogLimitOption, Mode
    from sqlstate.store.store import Store


class Options(TypedDict, total=False):
    """The options of `sqlstate.open()` that `aio.open()` passes on."""

    group_size: int
    """With mode="group", the most transactions in one commit."""
    group_wait: float
    """With mode="group", seconds after which a commit takes no more transactions."""
    journal: Journal
    """How SQLite keeps the transactions of a new store atomic: "wal" or "delete"."""
    read_only: bool
    """Refuse every write."""
    create: bool
    """Make the file if it is missing."""
    timeout: float
    """Seconds that a write waits for others before Busy."""
    recover: Recover
    """What to do after a crash: "rollback", "resume", "refuse" or "accept"."""
    log_limit: LogLimitOption
    """The size in bytes that the log is kept at, None for all of it, "kept" for what the file says."""
    cache_bytes: int
    """Memory for SQLite's page caches."""
    vfs: str | None
    """Name of a registered SQLite VFS."""


def open(  # noqa: A001, the word every Python programmer looks for
    path: str | os.PathLike[str], *, mode: Mode = "group", **options: Unpack[Options]
) -> Opening:
    """Open the store at *path* for tasks: `async with aio.open(path) as store`, or `store = await aio.open(path)`.

    The store belongs to the event loop in which it was opened, of asyncio or of trio. The end of the block closes it.

    Cost: 1 hop to a thread, and what `sqlstate.open()` costs.

    Args:
        path: a file in an existing folder.
        mode: "group": writes of many tasks share one commit. "full": each has its own. In both, a write is durable
            when its call returns.
        options: the other arguments of `sqlstate.open()`, with the same defaults.

    Raises:
        StoreError: what `sqlstate.open()` raises, when it is awaited.
        StoreUnusable: no event loop runs.

    Examples:
        >>> async with aio.open("tasks.db") as tasks:
        ...     await tasks.put("todo", 1, "water the plants")
        ...     print(await tasks.get("todo", 1))
        water the plants
    """
    return Opening(path, lambda: opening.open(path, mode=mode, **options))


class Opening:
    """A store that is about to be opened: await it, or use it in `async with`, once.

    Examples:
        >>> opening = aio.open("tasks.db")
        >>> opening
        <sqlstate.aio.Opening: 'tasks.db', to be awaited>
        >>> async with opening as tasks:
        ...     print(tasks)
        <sqlstate.aio.AsyncStore '...tasks.db': open>
    """

    __slots__ = ("_open_store", "_path", "_store")

    def __init__(self, path: str | os.PathLike[str], open_store: Callable[[], Store]) -> None:
        self._path = path
        self._open_store: Callable[[], Store] | None = open_store

    def __await__(self) -> Generator[Any, Any, AsyncStore]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncStore:
        self._store = await self._open()
        return self._store

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not GeneratorExit:  # the task is dropped, maybe by the garbage collector: nothing can be awaited
            await self._store.close()

    def __repr__(self) -> str:
        state = "used" if self._open_store is None else f"{str(self._path)!r}, to be awaited"
        return f"<sqlstate.aio.Opening: {state}>"

    async def _open(self) -> AsyncStore:
        if self._open_store is None:
            raise InvalidOption("the store was opened by this call already; call aio.open() again")
        open_store, self._open_store = self._open_store, None
        loop = running_loop()
        threads = Threads(loop, str(self._path))
        opened: list[Store] = []
        try:
            await threads.run(lambda: opened.append(open_store()), whole=True)
        except GeneratorExit:  # as for __aexit__
            raise
        except BaseException:
            try:
                if opened:  # cancelled while it was opened
                    await threads.run(opened[0].close, whole=True)
            finally:
                threads.end()
            raise
        return AsyncStore(opened[0], loop, threads)
