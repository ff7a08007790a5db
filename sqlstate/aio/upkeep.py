"""The upkeep of an open store, for tasks: its sizes, and a file that shrinks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlstate.aio.threads import Threads
    from sqlstate.maintenance.closed_file import Progress
    from sqlstate.maintenance.compact import CompactReport
    from sqlstate.store.store import Store
    from sqlstate.store.upkeep import Stats
    from sqlstate.tables.schema import Sizes


class AsyncUpkeep:
    """What keeps an AsyncStore small, and reports on its state."""

    __slots__ = ()

    _store: Store
    _threads: Threads

    async def stats(self) -> Stats:
        """Return sizes and settings, as `Store.stats()` does.

        Cost: 1 hop; counts the records of the log and the nodes of the tree one by one.

        Raises:
            StoreClosed: the store was closed.

        Examples:
            >>> await store.put("users", 1, "ada")
            >>> (await store.stats()).entries
            1
        """
        return await self._threads.run(self._store.stats)

    async def sizes(self) -> Sizes:
        """Return how many bytes of the file are entries, log, tree and free space, as `Store.sizes()` does.

        Cost: 1 hop; reads every page of the file.

        Raises:
            StoreError: what `Store.sizes()` raises.

        Examples:
            >>> await store.put("users", 1, "ada")
            >>> (await store.sizes()).entries
            4096
        """
        return await self._threads.run(self._store.sizes)

    async def compact(self, progress: Progress | None = None) -> CompactReport:
        """Give free space back, as `Store.compact()` does. Cancelled, it is waited for.

        Cost: 1 hop; as `Store.compact()`.

        Args:
            progress: a plain function, called in another thread with the steps that are done, and how many there are.

        Raises:
            StoreError: what `Store.compact()` raises.

        Examples:
            >>> await store.put("users", 1, "ada")
            >>> report = await store.compact()
            >>> report.bytes_after <= report.bytes_before, report.shrunk
            (True, True)
        """
        return await self._threads.run(lambda: self._store.compact(progress), whole=True)
