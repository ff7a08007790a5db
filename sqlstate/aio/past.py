"""What commits changed, and how the store was, for tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlstate.aio.scan import AsyncIterated
from sqlstate.aio.snapshot import AsyncSnapshot

if TYPE_CHECKING:
    from datetime import datetime

    from sqlstate.aio.entries import AsyncStoreEntries
    from sqlstate.aio.threads import Threads
    from sqlstate.format.keys import Bound
    from sqlstate.format.names import Key
    from sqlstate.format.records import Head
    from sqlstate.store.past.change import Change
    from sqlstate.store.past.log import CutReport
    from sqlstate.store.past.redaction import Logging, RedactReport
    from sqlstate.store.store import Store


class AsyncPast:
    """What an AsyncStore knows of its past."""

    __slots__ = ()

    _entries: AsyncStoreEntries
    _store: Store
    _threads: Threads

    def changes(
        self,
        after: int = 0,
        *,
        upto: int | None = None,
        collection: str | None = None,
        prefix: Bound | None = None,
        type: Any = None,  # noqa: A002, the word users know
        key: Any = None,
    ) -> AsyncIterated[Change]:
        """Return what the commits after number *after* changed, for `async for`, as `Store.changes()` does.

        Cost: 1 hop for each 256 changes.

        Args:
            after: number of a commit, 0 for all there are.
            upto: number of the last commit wanted; None for the newest at the first step.
            collection: name of the only collection wanted; None for all.
            prefix: only the keys that begin with it: text, bytes or, with *key*, tuples.
            type: of the values, as for collection(); None for values without a type.
            key: of the keys, as for collection(); None for keys without a type.

        Raises:
            StoreError: at the first step, what `Store.changes()` raises.

        Examples:
            >>> await store.put("users", 1, "ada")
            >>> [(change.key, change.before, change.value) async for change in store.changes()]
            [(1, ABSENT, 'ada')]
        """
        return AsyncIterated(
            self._threads,
            lambda: self._store.changes(after, upto=upto, collection=collection, prefix=prefix, type=type, key=key),
        )

    def at(self, when: int | datetime) -> AsyncSnapshot:
        """Return the store as an earlier commit left it, for `async with`, as `Store.at()` does.

        Cost: 1 hop, at the beginning of the block, which reads the records since that commit.

        Args:
            when: number of a commit, or a datetime with a time zone.

        Raises:
            InvalidOption: at the beginning of the block: there is no such commit, or the time has no time zone.
            StoreClosed: at the beginning of the block: the store was closed.

        Examples:
            >>> for lang in "fr", "de":
            ...     await store.put("settings", "lang", lang)
            >>> async with store.at(1) as past:
            ...     print(await past.get("settings", "lang"))
            fr
        """
        return AsyncSnapshot(self._entries.stored, self._threads, when)

    async def index_history(self, *, drop: bool = False) -> bool:
        """Make an index by which `history()` of an entry need not read the whole log, as `Store.index_history()` does.

        Cost: 1 hop, which reads and sorts the log. Cancelled, it is waited for.

        Args:
            drop: remove the index.

        Returns:
            Whether anything was done.

        Raises:
            StoreError: what `Store.index_history()` raises.

        Examples:
            >>> await store.put("settings", "lang", "fr")
            >>> await store.index_history(), await store.index_history(drop=True)
            (True, True)
        """
        return await self._threads.run(lambda: self._store.index_history(drop=drop), whole=True)

    async def undo(self, seq: int, note: str = "") -> Head:
        """Take back what commit *seq* changed, in one new commit, and return that, as `Store.undo()` does.

        Cost: 1 hop and 1 commit. Cancelled, it is waited for.

        Args:
            seq: number of a commit.
            note: text of at most 4,096 bytes for the log; "" for "undo of commit" and its number.

        Raises:
            Conflict: entries are not as the commit left them, because of later ones. Nothing was changed.
            StoreError: what `Store.undo()` raises.

        Examples:
            >>> for lang in "fr", "de":
            ...     await store.put("settings", "lang", lang)
            >>> (await store.undo(2)).seq, await store.get("settings", "lang")
            (3, 'fr')
        """
        return await self._threads.run(lambda: self._store.undo(seq, note), whole=True)

    async def revert(self, to: int | datetime, note: str = "") -> Head:
        """Make the state equal to what commit *to* left, in one new commit, and return that, as `Store.revert()` does.

        Cost: 1 hop and 1 commit. Cancelled, it is waited for.

        Args:
            to: a commit, as for at().
            note: text of at most 4,096 bytes for the log; "" for "revert to commit" and its number.

        Raises:
            StoreError: what `Store.revert()` raises.

        Examples:
            >>> for lang in "fr", "de":
            ...     await store.put("settings", "lang", lang)
            >>> (await store.revert(0)).count
            0
        """
        return await self._threads.run(lambda: self._store.revert(to, note), whole=True)

    async def log_limit(self) -> int | None:
        """Return the size in bytes that the log is kept at; None keeps all of it.

        Cost: 1 hop.

        Raises:
            StoreClosed: the store was closed.

        Examples:
            >>> await store.log_limit()
            67108864
        """
        return await self._threads.run(lambda: self._store.log_limit)

    async def set_log_limit(self, limit: int | None) -> None:
        """Set the size that the log is kept at, durably, as `Store.set_log_limit()` does.

        Cost: 1 hop and 1 sync. Cancelled, it is waited for.

        Args:
            limit: a number of bytes, 0 or more; None keeps all.

        Raises:
            StoreError: what `Store.set_log_limit()` raises.

        Examples:
            >>> await store.set_log_limit(16 << 20)
            >>> await store.log_limit()
            16777216
        """
        await self._threads.run(lambda: self._store.set_log_limit(limit), whole=True)

    async def cut(self, before: int | datetime) -> CutReport:
        """Cut the oldest commits from the log, as `Store.cut()` does.

        Cost: 1 hop, and what `Store.cut()` costs. Cancelled, it is waited for.

        Args:
            before: number of the oldest commit to keep, 1 more than the newest's for none; or a datetime with a time
                zone, to keep those made since.

        Raises:
            StoreError: what `Store.cut()` raises.

        Examples:
            >>> for lang in "fr", "de", "it":
            ...     await store.put("settings", "lang", lang)
            >>> (await store.cut(before=3)).commits
            2
        """
        return await self._threads.run(lambda: self._store.cut(before), whole=True)

    async def claims(self) -> dict[str, int]:
        """Return who follows the commits, and the last one that each has. Later ones are not cut.

        Cost: 1 hop.

        Raises:
            StoreClosed: the store was closed.

        Examples:
            >>> await store.claims()
            {}
        """
        return await self._threads.run(lambda: dict(self._store.claims))

    async def claim(self, name: str, seq: int | None) -> None:
        """Keep the commits after number *seq* from being cut, durably, as `Store.claims[name] = seq` does.

        Cost: 1 hop and 1 sync. Cancelled, it is waited for.

        Args:
            name: of who follows the commits.
            seq: number of the last commit that it has; None ends the claim, if there is one.

        Raises:
            LogCut: later commits were cut already.
            StoreError: what `Store.claims` raises.

        Examples:
            >>> await store.put("settings", "lang", "fr")
            >>> await store.claim("search index", 1)
            >>> await store.claims()
            {'search index': 1}
            >>> await store.claim("search index", None)
        """

        def write() -> None:
            if seq is None:
                self._store.claims.pop(name, None)
            else:
                self._store.claims[name] = seq

        await self._threads.run(write, whole=True)

    async def redact(self, collection: str, key: Key) -> RedactReport:
        """Take all values that an entry had out of the log, for good, as `Store.redact()` does.

        Cost: 1 hop, a pass over the log, and 2 commits. Cancelled, it is waited for.

        Args:
            collection: name of the entry's collection.
            key: key of the entry.

        Raises:
            StoreError: what `Store.redact()` raises.

        Examples:
            >>> for name in "ada", "eve":
            ...     await store.put("users", 1, name)
            >>> (await store.redact("users", 1)).records
            2
        """
        return await self._threads.run(lambda: self._store.redact(collection, key), whole=True)

    async def set_logging(self, collection: str, log: Logging) -> None:
        """Set whether the log keeps the values of a collection or their digests only, as `Store.set_logging()` does.

        Cost: 1 hop and 1 commit. Cancelled, it is waited for.

        Args:
            collection: name of a collection.
            log: "values" or "digests".

        Raises:
            StoreError: what `Store.set_logging()` raises.

        Examples:
            >>> await store.set_logging("cache", "digests")
            >>> await store.digest_logs()
            ['cache']
        """
        await self._threads.run(lambda: self._store.set_logging(collection, log), whole=True)

    async def digest_logs(self) -> list[str]:
        """Return the names of the collections of whose values the log keeps the digests only, in order.

        Cost: 1 hop and 1 statement.

        Raises:
            StoreClosed: the store was closed.

        Examples:
            >>> await store.set_logging("cache", "digests")
            >>> await store.digest_logs()
            ['cache']
        """
        return await self._threads.run(self._store.digest_logs)
