"""Fixtures. Every store that a test opens through them is judged whole when the test ends.

The judge is tests/reference/plain.py, which shares no code with sqlstate: root, tree rows, chain and all
invariants I1 to I14 of the file-format page, read through another SQLite library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

import sqlstate
from sqlstate import aio
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator
    from pathlib import Path


class OpenStore(Protocol):
    """Opens a store that is closed and judged when the test ends."""

    def __call__(self, at: Path | None = None, /, **options: Any) -> sqlstate.Store:
        """Open the store at *at*; the test's own file without one."""


class OpenAsyncStore(Protocol):
    """Opens a store in the test's event loop that is closed and judged when the test ends."""

    def __call__(self, at: Path | None = None, /, **options: Any) -> Awaitable[aio.AsyncStore]:
        """Open the store at *at*; the test's own file without one."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test's own store lies, or will."""
    return tmp_path / "test.db"


@pytest.fixture
def open_store(path: Path) -> Iterator[OpenStore]:
    stores: list[sqlstate.Store] = []

    def open_(at: Path | None = None, /, **options: Any) -> sqlstate.Store:
        store = sqlstate.open(path if at is None else at, **options)
        stores.append(store)
        return store

    yield open_
    for store in stores:
        store.close()
    for file in {store.path for store in stores}:
        judgement = plain.judge(file)
        assert judgement.findings == (), f"{file.name} is not sound"


@pytest.fixture
def store(open_store: OpenStore) -> sqlstate.Store:
    """A new, empty store."""
    return open_store()


@pytest.fixture
async def opens(path: Path) -> AsyncIterator[OpenAsyncStore]:
    """Opens stores that are closed and judged when the test ends."""
    stores: list[aio.AsyncStore] = []

    async def open_(at: Path | None = None, /, **options: Any) -> aio.AsyncStore:
        opened = await aio.open(path if at is None else at, **options)
        stores.append(opened)
        return opened

    yield open_
    for each in stores:
        await each.close()
    for file in {each.path for each in stores}:
        assert plain.judge(file).findings == ()


@pytest.fixture
async def aiostore(opens: OpenAsyncStore) -> aio.AsyncStore:
    """A new, empty store."""
    return await opens()
