"""What the system does not say of a file is told as an error of ours, wherever it is asked; and nothing is lost.

Method: every call of stat(), lstat() and statvfs() for a store's files fails, one after the other, once and from
then on.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import apsw
import pytest

import sqlstate
from sqlstate.errors import StoreClosed, StoreError, StoreIOError
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlstate.sqlite.connection import Journal


class Failing:
    """Lets the calls from number *at* on fail that ask for a file in *folder*, or that one alone."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, at: int, *, lasting: bool) -> None:
        self.calls = 0
        self._at = at
        self._lasting = lasting
        self._folder = str(folder)
        for name in ("stat", "lstat", "statvfs"):
            if hasattr(os, name):
                patch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **options: Any) -> Any:
            if isinstance(path, str) and path.startswith(self._folder):
                self.calls += 1
                if self.calls == self._at or (self._lasting and self.calls > self._at > 0):
                    raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            return real(path, *rest, **options)

        return call


def life(path: Path, journal: Journal, done: list[int]) -> None:
    """Open, write, look and close."""
    store = sqlstate.open(path, journal=journal)
    try:
        store["c"]["k"] = 1
        done.append(1)
        store.stats()
        with store.stage() as draft:
            draft.put("c", "k", 2)
        done.append(2)
    finally:
        store.close()


@pytest.mark.parametrize("lasting", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["once", "ever"])
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_each_stat_that_fails_is_an_error_of_ours_and_loses_nothing(
    tmp_path: Path, journal: Journal, there: bool, lasting: bool
) -> None:
    calls = at = 0
    while at <= calls:
        folder = tmp_path / str(at)
        folder.mkdir()
        path = folder / "test.db"
        if there:
            with sqlstate.open(path, journal=journal) as store:
                store["c"]["k"] = 0
        done: list[int] = []
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, folder, at, lasting=lasting)
            with suppress(StoreError):
                life(path, journal, done)
            calls = calls or failing.calls
        with sqlstate.open(path) as store:
            assert store["c"].get("k", 0) >= max(done, default=0)
        assert plain.judge(path).findings == ()
        assert os.listdir(folder) == ["test.db"]
        at += 1
    assert calls > 10


def test_a_lock_that_is_never_given_back_ends_the_handle_and_not_each_call_after_ten_seconds(tmp_path: Path) -> None:
    """SQLite tries for ten seconds, whatever the timeout: once is enough."""
    store = sqlstate.open(tmp_path / "test.db")
    store["c"]["k"] = 1
    connection = store._engine.readers.acquire()
    raised = connection.translated(apsw.ProtocolError("locking protocol"))
    store._engine.readers.release(connection)
    assert isinstance(raised, StoreIOError)
    assert "not released" in str(raised)
    for call in (store["c"].__len__, store.head, lambda: store["c"].update(k=2)):
        with pytest.raises(StoreClosed, match=r"not released.*Open the store again"):
            call()
    store.close()
    with sqlstate.open(tmp_path / "test.db") as again:
        assert again["c"] == {"k": 1}
