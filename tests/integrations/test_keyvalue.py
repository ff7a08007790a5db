"""Goal: a key-value store of py-key-value-aio in a store file keeps that library's contract and this one's promises.

Method: what the library's own suite does not look at is tried here: one commit for a plural call, other state in the
same file, names that do not fit, several event loops and processes, cancellation, and what JSON cannot hold. Its suite
itself is not in its wheel: KEY_VALUE_SOURCE names a checkout of it, in which the last test runs it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("key_value.aio")

from key_value.aio.errors import DeserializationError, InvalidKeyError, InvalidTTLError, SerializationError

from sqlstate import InvalidOption, StoreClosed
from sqlstate.integrations import awaited
from sqlstate.integrations.keyvalue import SqlstateStore
from tests import ROOT
from tests.support.system import KILLED

if TYPE_CHECKING:
    from pathlib import Path

    import sqlstate
    from tests.conftest import OpenStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def kept(store: sqlstate.Store) -> SqlstateStore:
    return SqlstateStore(store=store)


async def test_plural_calls_are_one_commit_each(kept: SqlstateStore, store: sqlstate.Store) -> None:
    keys = [f"k{number}" for number in range(50)]
    values = [{"n": number} for number in range(50)]
    await kept.put_many(keys, values, collection="c", ttl=60)
    assert store.head().seq == 1
    assert await kept.get_many([*keys, "none", keys[0]], collection="c") == [*values, None, values[0]]
    assert await kept.delete_many([*keys[:10], keys[0], "none"], collection="c") == 10
    assert store.head().seq == 2
    assert len(await kept.keys("c")) == 40
    assert await kept.destroy_collection("c")
    assert not await kept.destroy_collection("c")
    assert store.head().seq == 3


async def test_a_plural_call_that_fails_changes_nothing(kept: SqlstateStore, store: sqlstate.Store) -> None:
    with pytest.raises(SerializationError):
        await kept.put_many(["a", "b"], [{"x": 1}, {"x": {1, 2}}])
    with pytest.raises(InvalidKeyError):
        await kept.put_many(["a", ""], [{"x": 1}, {"x": 2}])
    with pytest.raises(ValueError, match="number of keys"):
        await kept.put_many(["a"], [])
    assert store.head().seq == 0


async def test_the_last_of_equal_keys_counts(kept: SqlstateStore) -> None:
    await kept.put_many(["a", "a"], [{"x": 1}, {"x": 2}])
    assert await kept.get("a") == {"x": 2}


async def test_what_has_expired_is_not_read_and_cull_removes_nothing_else(
    kept: SqlstateStore, store: sqlstate.Store
) -> None:
    store["other"]["k"] = {"expires_at": "2001-01-01T00:00:00+00:00", "value": {}}
    await kept.put_many([f"old{n}" for n in range(1500)], [{"n": n} for n in range(1500)], collection="c", ttl=0.01)
    await kept.put("new", {"n": 0}, collection="c", ttl=600)
    await kept.put("kept", {"n": 0}, collection="c")
    await asyncio.sleep(0.02)
    assert await kept.get_many(["old1", "new", "kept"], collection="c") == [None, {"n": 0}, {"n": 0}]
    assert await kept.ttl("old1", collection="c") == (None, None)
    assert sorted(await kept.keys("c")) == ["kept", "new"]
    assert len(store["keyvalue/c"]) == 1502
    await kept.cull()
    assert list(store["keyvalue/c"]) == ["kept", "new"]
    assert list(store["other"]) == ["k"]
    seq = store.head().seq
    await kept.cull()
    assert store.head().seq == seq


async def test_an_entry_put_again_while_it_is_culled_stays(
    kept: SqlstateStore, store: sqlstate.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.put_many(["a", "b"], [{"x": 1}, {"x": 1}], ttl=0.01)
    await asyncio.sleep(0.02)
    fresh = kept._document(await _fresh(kept), "a", kept.default_collection)
    real = SqlstateStore._expired

    def and_then(self: SqlstateStore, store: sqlstate.Store, name: str) -> list[Any]:
        found = real(self, store, name)
        store[name]["a"] = fresh
        return found

    monkeypatch.setattr(SqlstateStore, "_expired", and_then)
    await kept.cull()
    assert await kept.keys() == ["a"]


async def _fresh(kept: SqlstateStore) -> Any:
    await kept.put("fresh", {"x": 2}, collection="elsewhere")
    return await kept._get_managed_entry(collection="elsewhere", key="fresh")


LONG = ["x" * 1500, "x" * 1501, "é" * 200, "sha256:a", "sha256:" + "0" * 64, "S_a", "H_a", "a/b", "a\0b", "keyvalue/"]


async def test_any_name_is_a_collection_of_its_own(kept: SqlstateStore, store: sqlstate.Store) -> None:
    for number, name in enumerate(LONG):
        await kept.put("k", {"n": number}, collection=name)
    assert [await kept.get("k", collection=name) for name in LONG] == [{"n": n} for n in range(len(LONG))]
    assert sorted(await kept.collections()) == sorted(LONG)
    assert len(await kept.collections(limit=3)) == 3
    assert all(len(name.encode()) <= 255 for name in store)
    for name in LONG:
        assert await kept.keys(name) == ["k"]
    await kept.destroy()
    assert await kept.collections() == []


async def test_other_state_of_the_file_is_neither_listed_nor_destroyed(
    kept: SqlstateStore, store: sqlstate.Store
) -> None:
    store["users"]["ada"] = 1
    other = SqlstateStore(store=store, prefix="other/")
    await other.put("k", {"x": 1}, collection="c")
    await kept.put("k", {"x": 2}, collection="c")
    assert await kept.collections() == ["c"]
    assert await kept.destroy()
    assert await other.get("k", collection="c") == {"x": 1}
    assert sorted(store) == ["other/c", "users"]


CIRCLE: dict[str, Any] = {}
CIRCLE["self"] = CIRCLE
DEEP: Any = {}
for _ in range(5000):
    DEEP = {"x": DEEP}


@pytest.mark.parametrize(
    "value",
    [
        {"x": {1}}, {"x": object()}, {"x": b"1"}, {"x": float("nan")}, {"x": float("inf")}, {"x": 2**70},
        {"x": "\ud800"}, CIRCLE, DEEP, {"x": {(1, 2): 1}},
    ],
    ids=["set", "object", "bytes", "nan", "inf", "large int", "surrogate", "circle", "deep", "tuple key"],
)  # fmt: skip
async def test_what_json_cannot_hold_is_refused(kept: SqlstateStore, store: sqlstate.Store, value: Any) -> None:
    with pytest.raises(SerializationError):
        await kept.put("k", value)
    assert store.head().seq == 0


@pytest.mark.parametrize("key", ["", "\ud800", "x" * 1_048_577])
async def test_what_cannot_be_a_key_is_refused(kept: SqlstateStore, key: str) -> None:
    for call in (kept.get(key), kept.put(key, {"x": 1}), kept.delete(key), kept.get_many(["a", key])):
        with pytest.raises(InvalidKeyError):
            await call
    with pytest.raises(InvalidKeyError):
        await kept.put("k", {"x": 1}, collection="\ud800")


async def test_wrong_options_are_refused(store: sqlstate.Store, tmp_path: Path) -> None:
    for options in (
        {},
        {"path": tmp_path / "a.db", "store": store},
        {"store": "a.db"},
        {"store": store, "prefix": "x" * 200},
    ):
        with pytest.raises(InvalidOption):
            SqlstateStore(**options)
    kept = SqlstateStore(store=store)
    for ttl in (0, -1, True):
        with pytest.raises(InvalidTTLError):
            await kept.put("k", {"x": 1}, ttl=ttl)
    for call in (kept.keys(limit=-1), kept.collections(limit=-1)):
        with pytest.raises(InvalidOption):
            await call


@pytest.mark.parametrize(
    "found",
    [
        b"raw", 1, None, [], {}, {"value": 1}, {"value": "["}, {"value": {}, "expires_at": 5},
        {"value": {}, "expires_at": "soon"}, {"value": {}, "expires_at": "2030-01-01T00:00:00"},
    ],
    ids=repr,
)  # fmt: skip
async def test_an_entry_of_others_is_named_and_not_read(kept: SqlstateStore, store: sqlstate.Store, found: Any) -> None:
    store["keyvalue/c"]["k"] = found
    for call in (kept.get("k", collection="c"), kept.keys("c"), kept.cull()):
        with pytest.raises(DeserializationError):
            await call
    assert store["keyvalue/c"]["k"] == found


def test_one_object_serves_several_event_loops(path: Path, open_store: OpenStore) -> None:
    kept = SqlstateStore(path)
    for number in range(3):
        asyncio.run(kept.put(f"k{number}", {"n": number}))
    assert asyncio.run(kept.keys()) == ["k0", "k1", "k2"]
    asyncio.run(kept.close())
    with pytest.raises(StoreClosed):
        asyncio.run(kept.get("k0"))
    assert len(open_store()["keyvalue/default_collection"]) == 3


async def test_a_store_that_was_given_is_left_open(kept: SqlstateStore, store: sqlstate.Store) -> None:
    async with kept:
        await kept.put("k", {"x": 1})
    assert len(store["keyvalue/default_collection"]) == 1


async def test_a_store_that_cannot_be_opened_says_why_and_can_be_tried_again(tmp_path: Path) -> None:
    kept = SqlstateStore(tmp_path / "missing" / "a.db")
    with pytest.raises(Exception, match="missing"):
        await kept.get("k")
    (tmp_path / "missing").mkdir()
    assert await kept.get("k") is None
    await kept.close()


async def test_the_seed_is_put_at_opening(store: sqlstate.Store) -> None:
    kept = SqlstateStore(store=store, seed={"c": {"a": {"x": 1}}})
    assert await kept.get("a", collection="c") == {"x": 1}


async def test_many_tasks_share_commits(kept: SqlstateStore, path: Path) -> None:
    async with SqlstateStore(path) as grouped:
        await asyncio.gather(*(grouped.put(f"k{n}", {"n": n}) for n in range(200)))
        assert len(await grouped.keys()) == 200
    assert len(await kept.keys()) == 200


WRITER = """
import asyncio, sys
from sqlstate.integrations import awaited
from sqlstate.integrations.keyvalue import SqlstateStore

async def main(path, who):
    async with SqlstateStore(path) as kept:
        for number in range(25):
            await kept.put(f"{who}-{number}", {"n": number}, collection="c")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
async def test_processes_write_at_once_and_lose_nothing(kept: SqlstateStore, path: Path) -> None:
    await kept.put("first", {"n": 0}, collection="c")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(who)], env=environment) for who in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0] * 3
    assert len(await kept.keys("c")) == 76


@pytest.mark.parametrize("begun", [False, True], ids=["waiting", "begun"])
async def test_a_write_that_is_cancelled_is_withdrawn_or_waited_for(store: sqlstate.Store, *, begun: bool) -> None:
    entered, release = threading.Event(), threading.Event()

    def work(txn: sqlstate.Transaction) -> None:
        entered.set()
        release.wait(60)
        txn.put("c", "k", 1)

    if not begun:
        store.submit(lambda _: (entered.set(), release.wait(60)))
    task = asyncio.create_task(awaited.write(store, work if begun else lambda txn: txn.put("c", "k", 1)))
    await asyncio.to_thread(entered.wait, 60)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0.01)
    assert task.done() is not begun
    release.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    store.barrier()
    assert store["c"].get("k") == (1 if begun else None)
    assert ("durable" if begun else "withdrawn") in caught.value.__notes__[0]


async def test_a_write_that_fails_says_why(store: sqlstate.Store) -> None:
    with pytest.raises(ZeroDivisionError):
        await awaited.write(store, lambda _: 1 // 0)
    assert await awaited.write(store, lambda txn: txn.get("c", "k", "nothing")) == "nothing"


async def test_a_store_that_was_closed_says_so(kept: SqlstateStore, store: sqlstate.Store) -> None:
    await kept.put("k", {"x": 1})
    store.close()
    for task in (kept.get("k"), kept.put("k", {"x": 1}), kept.cull(), kept.keys()):
        with pytest.raises(StoreClosed):
            await task


SERVER = """
import asyncio, os, sys
from fastmcp import Client, FastMCP
from fastmcp.server.dependencies import get_session
from fastmcp.server.sessions import SessionId, SessionProvider
from sqlstate.integrations.keyvalue import SqlstateStore

async def main(path, session=None):
    async with SqlstateStore(path) as kept:
        mcp = FastMCP("notes", session_state_store=kept)
        mcp.add_provider(SessionProvider())

        @mcp.tool
        async def note(text: str, session_id: SessionId) -> list[str]:
            session = await get_session(session_id)
            notes = [*await session.get("notes", []), text]
            await session.set("notes", notes)
            return notes

        async with Client(mcp) as client:
            if session is None:
                session = (await client.call_tool("create_session", {})).data
                for text in ("a", "b"):
                    await client.call_tool("note", {"text": text, "session_id": session})
                print(session, flush=True)
                os.kill(os.getpid(), 9)
            print((await client.call_tool("note", {"text": "c", "session_id": session})).data)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("fastmcp") is None, reason="fastmcp is not installed")
async def test_a_server_of_fastmcp_goes_on_where_a_killed_one_left_it(kept: SqlstateStore, path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", SERVER, str(path)]
    killed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    assert killed.returncode == KILLED
    session = killed.stdout.strip()
    other = subprocess.run([*command, session], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert other.stdout == "['a', 'b', 'c']\n"
    [key] = await kept.keys("fastmcp_state")
    found = await kept.get(key, collection="fastmcp_state")
    assert found is not None
    assert found["value"]["state"] == {"notes": ["a", "b", "c"]}


@pytest.mark.slow
@pytest.mark.skipif("KEY_VALUE_SOURCE" not in os.environ, reason="KEY_VALUE_SOURCE names no checkout of py-key-value")
def test_the_suite_of_the_library_passes(tmp_path: Path) -> None:
    source = os.environ.get("KEY_VALUE_SOURCE", "")
    test = tmp_path / "test_sqlstate.py"
    test.write_text(SUITE, "utf-8", newline="\n")
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-o", "asyncio_mode=auto", str(test)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, str(ROOT)])}
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "2 skipped" in ran.stdout, "only eviction, which a store does not have"


SUITE = """
import pytest
from sqlstate.integrations import awaited
from sqlstate.integrations.keyvalue import SqlstateStore
from tests.stores.base import BaseStoreTests, ContextManagerStoreTestMixin


class TestSqlstate(ContextManagerStoreTestMixin, BaseStoreTests):
    @pytest.fixture
    async def store(self, per_test_temp_dir):
        return SqlstateStore(per_test_temp_dir / "app.db")

    async def test_not_unbounded(self, store):
        pytest.skip("a store does not evict")
"""
