"""Fixtures. Every store that a test opens through them is judged whole when the test ends.

The judge is tests/reference/plain.py, which shares no code with sqlstate: root, tree rows, chain and all
invariants I1 to I12 of the file-format page, read through another SQLite library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

import sqlstate
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class OpenStore(Protocol):
    """Opens a store that is closed and judged when the test ends."""

    def __call__(self, at: Path | None = None, /, **options: Any) -> sqlstate.Store:
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
