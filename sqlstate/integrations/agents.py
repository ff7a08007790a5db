"""A session of the OpenAI Agents SDK in a store file: `pip install 'sqlstate-store[agents]'`.

`await Runner.run(agent, "hello", session=SqlstateSession("ada", store))` keeps the conversation in an open store.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agents.memory import SessionSettings

from sqlstate.integrations import awaited

if TYPE_CHECKING:
    from agents.items import TResponseInputItem

    from sqlstate.store.collection import Collection
    from sqlstate.store.snapshot import Snapshot
    from sqlstate.store.store import Store
    from sqlstate.store.transaction import Transaction
    from sqlstate.store.view import CollectionView

__all__ = ["SqlstateSession"]

NAME: Final = "agents/sessions"
Item = dict[str, Any]
Key = tuple[str, int]
"""The session, and the number of the item."""


class SqlstateSession:
    """A `Session` of the SDK: the history of one conversation, in a store.

    What was added is on the disk when the call returns. Items that are added together stay together and in order,
    whoever adds beside: other tasks, threads and processes. A call is one transaction. An item is a dict that JSON
    carries exactly; anything else raises InvalidValue, and nothing of the call is added.

    Args:
        session_id: names the conversation; not empty.
        store: an open store, which many sessions can share; it stays open.
        session_settings: their limit is that of get_items() without one.
        name: of the collection.

    Attributes:
        session_id: as given.
        session_settings: as given, or the SDK's defaults.

    Raises:
        InvalidKey: the name of the session cannot be part of a key.
        InvalidName: the name of the collection is not text of 1 to 255 bytes.
        InvalidOption: *store* is no open store.

    Examples:
        >>> session = SqlstateSession("ada", store)
        >>> await session.add_items([{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}])
        >>> await session.pop_item(), await session.get_items()
        ({'content': 'hi', 'role': 'assistant'}, [{'content': 'hello', 'role': 'user'}])
    """

    session_id: str
    """Names the conversation."""
    session_settings: SessionSettings | None
    """Their limit is that of get_items() without one."""

    def __init__(
        self, session_id: str, store: Store, *, session_settings: SessionSettings | None = None, name: str = NAME
    ) -> None:
        self.session_id = session_id
        self.session_settings = SessionSettings().resolve(session_settings)
        self._store = awaited.check_store(store)
        self._name = name
        store.collection(name, key=tuple[str, int]).keys(prefix=(session_id,))  # both can be what they are to be

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the newest items, oldest of them first.

        Cost: 1 hop to a thread.

        Args:
            limit: the most items; None for what the settings say, or all.

        Raises:
            InvalidOption: the limit is not a number of items, 0 or more.
            InvalidValue: what is there was written by something else.

        Examples:
            >>> await SqlstateSession("ada", store).get_items(10)
            []
        """
        if limit is None:
            limit = SessionSettings().resolve(self.session_settings).limit

        def newest() -> list[Any]:
            with self._store.snapshot() as at:
                return [*self._view(at).values(prefix=(self.session_id,), reverse=True, limit=limit)][::-1]

        return await awaited.read(newest)

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items behind the newest, in one transaction.

        Cost: 1 commit, or a share of one; none without items.

        Args:
            items: each a dict.

        Raises:
            InvalidValue: an item is not what JSON carries exactly. Nothing was added.
            StoreError: what `Store.run()` raises.

        Examples:
            >>> await SqlstateSession("ada", store).add_items([{"role": "user", "content": "hello"}])
        """
        if items:
            await awaited.write(self._store, partial(self._add, items=[*items]))

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the newest item away, and return it; None if there is none.

        Cost: 1 commit, or a share of one.

        Raises:
            InvalidValue: what is there was written by something else. It stays.
            StoreError: what `Store.run()` raises.

        Examples:
            >>> await SqlstateSession("ada", store).pop_item()
        """

        def pop(txn: Transaction) -> Any:
            kept = self._items(txn)
            for key in kept.keys(prefix=(self.session_id,), reverse=True, limit=1):
                return kept.pop(key)
            return None

        return await awaited.write(self._store, pop)

    async def clear_session(self) -> None:
        """Take all items of the session away, in one transaction.

        Cost: 1 commit that grows with the session.

        Raises:
            StoreError: what `Store.run()` raises.

        Examples:
            >>> await SqlstateSession("ada", store).clear_session()
        """

        def clear(txn: Transaction) -> None:
            kept = self._items(txn)
            for key in [*kept.keys(prefix=(self.session_id,))]:
                del kept[key]

        await awaited.write(self._store, clear)

    def _view(self, at: Snapshot) -> CollectionView[Item, Key]:
        return at.collection(self._name, type=Item, key=tuple[str, int])

    def _items(self, txn: Transaction) -> Collection[Item, Key]:
        return txn.collection(self._name, type=Item, key=tuple[str, int])

    def _add(self, txn: Transaction, items: list[Any]) -> None:
        kept = self._items(txn)
        last = max((number for _, number in kept.keys(prefix=(self.session_id,), reverse=True, limit=1)), default=0)
        kept.update({(self.session_id, number): item for number, item in enumerate(items, last + 1)})
