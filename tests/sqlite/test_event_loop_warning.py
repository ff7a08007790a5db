"""Goal: whoever blocks an event loop is told so, once for each handle, and nobody else is."""

from __future__ import annotations

import asyncio
import sys
import types
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import aio

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import OpenStore


def told(work: Any, backend: str = "asyncio") -> list[str]:
    """Return what was said while a loop ran *work*."""

    async def main() -> None:
        work()

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        if backend == "trio":
            pytest.importorskip("trio").run(main)
        else:
            asyncio.run(main())
    return [str(each.message) for each in found if each.category is sqlstate.BlocksEventLoop]


def enter(block: Any) -> None:
    with block as of:
        of.put("c", 1, 1)


CALLS: dict[str, Any] = {
    "put": lambda store: store.put("c", 1, 1),
    "collection": lambda store: store["c"].update({1: 1}),
    "transaction": lambda store: enter(store.transaction()),
    "batch": lambda store: enter(store.batch()),
    "run": lambda store: store.run(lambda txn: txn.put("c", 1, 1)),
    "undo": lambda store: store.revert(0),
    "stage": lambda store: store.stage(),
}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("mode", ["full", "group"])
@pytest.mark.parametrize("call", CALLS)
def test_a_blocking_call_is_told_once(open_store: OpenStore, call: str, mode: str, backend: str) -> None:
    store = open_store(mode=mode)
    [said] = told(lambda: CALLS[call](store), backend)
    assert f"running {backend} event loop" in said
    assert "sqlstate.aio" in said
    assert told(lambda: store.put("c", 2, 2), backend) == []


@pytest.mark.parametrize("mode", ["full", "group"])
@pytest.mark.parametrize("call", CALLS)
def test_the_warning_names_the_line_of_the_call(open_store: OpenStore, call: str, mode: str) -> None:
    store = open_store(mode=mode)

    async def main() -> None:
        CALLS[call](store)

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        asyncio.run(main())
    assert [each.filename for each in found if each.category is sqlstate.BlocksEventLoop] == [__file__]


def test_opening_is_told_and_then_no_more(open_store: OpenStore) -> None:
    stores: list[sqlstate.Store] = []
    assert len(told(lambda: stores.append(open_store()))) == 1
    assert told(lambda: stores[0].put("c", 1, 1)) == []
    assert stores[0].get("c", 1) == 1


def test_reading_a_value_is_not_told(store: sqlstate.Store) -> None:
    store["c"] = {1: "a"}
    assert told(lambda: [store["c"][1], dict(store["c"]), store.head()]) == []


def test_without_a_loop_in_this_thread_nothing_is_said(store: sqlstate.Store, path: Path) -> None:
    async def tasks() -> None:
        await asyncio.to_thread(store.put, "c", 1, 1)
        async with aio.open(path) as other:
            await other.put("c", 2, 2)
            async with other.transaction() as txn:
                txn.put("c", 3, 3)

    with warnings.catch_warnings():
        warnings.simplefilter("error", sqlstate.BlocksEventLoop)
        store.put("c", 0, 0)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            asyncio.run(tasks())
    assert [each for each in found if each.category is sqlstate.BlocksEventLoop] == []
    assert len(store["c"]) == 4


def test_a_warning_made_an_error_does_not_keep_a_write_from_being_made(store: sqlstate.Store) -> None:
    async def main() -> None:
        store.put("c", 1, 1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
    assert store.get("c", 1) == 1


def test_code_of_the_user_that_shows_warnings_may_write_or_fail(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()

    def write(message: Any, *_: Any, **__: Any) -> None:
        store.put("log", 1, str(message))

    def fail(*_: Any, **__: Any) -> None:
        raise LookupError

    async def main() -> None:
        store.put("c", 1, 1)
        monkeypatch.setattr(warnings, "showwarning", fail)
        with pytest.raises(LookupError):
            open_store(store.path.with_name("other.db"))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", write)
        asyncio.run(main())
    monkeypatch.undo()
    assert "event loop" in store.get("log", 1)
    assert store.get("c", 1) == 1


def test_a_notebook_is_not_told(store: sqlstate.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    assert told(lambda: store.put("c", 1, 1)) == []
