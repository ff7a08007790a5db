"""sqlstate for asyncio and trio: the same store, awaited.

    from sqlstate import aio

    async with aio.open("app.db") as store: await store.put("settings", "theme", {"name": "dark"})

Writes of many tasks share one commit, and each is durable when its call returns. It raises the exceptions of sqlstate.
It needs anyio, which `pip install 'sqlstate-store[aio]'` brings.
"""

try:
    import anyio  # noqa: F401, asked for here so that one clear sentence says what is missing
except ImportError as _missing:
    raise ImportError("sqlstate.aio needs anyio: pip install 'sqlstate-store[aio]'", name=_missing.name) from _missing

from sqlstate.aio.collection import AsyncCollection, BufferedCollection
from sqlstate.aio.opening import Opening, open  # noqa: A004, the word every Python programmer looks for
from sqlstate.aio.scan import AsyncIterated, AsyncScan
from sqlstate.aio.snapshot import AsyncSnapshot
from sqlstate.aio.store import AsyncStore
from sqlstate.aio.transaction import AsyncAttempts, AsyncTransaction
from sqlstate.aio.view import AsyncCollectionView
from sqlstate.aio.watch import AsyncWatch, AsyncWatchedChanges
from sqlstate.aio.writes import Ticket

__all__ = [
    "AsyncAttempts",
    "AsyncCollection",
    "AsyncCollectionView",
    "AsyncIterated",
    "AsyncScan",
    "AsyncSnapshot",
    "AsyncStore",
    "AsyncTransaction",
    "AsyncWatch",
    "AsyncWatchedChanges",
    "BufferedCollection",
    "Opening",
    "Ticket",
    "open",
]
