"""Goal: get_many() of tasks is one hop to a thread and one moment, and a transaction compares all that it gave.

Method: hops are counted; commits come between; each kind of change of what was read must make a Conflict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from sqlstate import ABSENT, Conflict, InvalidKey, InvalidValue, StoreClosed, TransactionEnded, aio
from sqlstate.aio.threads import Threads
from sqlstate.aio.view import DECODED_AT_ONCE
from tests.support.tasks import content, lent, until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

HELD: dict[Any, Any] = {1: "int", "1": ["str"], b"1": b"bytes", -5: None, "big": "x" * 50_000}


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What was done in threads."""
    found: list[Callable[[], object]] = []
    real = Threads.run

    async def run(self: Threads, fn: Callable[[], Any], **options: Any) -> Any:
        found.append(fn)
        return await real(self, fn, **options)

    monkeypatch.setattr(Threads, "run", run)
    return found


async def test_it_is_one_hop_however_many_keys(aiostore: aio.AsyncStore, hops: list[Any]) -> None:
    await aiostore["c"].update(HELD | dict.fromkeys(range(10, 2000), "x"))
    async with aiostore.snapshot() as view, aiostore.transaction() as txn:
        for of in (aiostore, view, txn):
            hops.clear()
            found = await of["c"].get_many(["big", 1, "none", b"1", "1", 1, -5, *range(10, 2000)])
            assert len(hops) == 1
            assert [*found.items()][:5] == [(key, HELD[key]) for key in ("big", 1, b"1", "1", -5)]
            assert len(found) == 5 + 1990
            assert await of["c"].get_many((key for key in (9, 1)), default=None) == {9: None, 1: "int"}
            assert await of["c"].get_many([]) == {}


@pytest.mark.parametrize("keys", ["abc", b"1", 1, None, [1, 1.5], [""]])
async def test_what_is_no_key_is_refused_before_anything_is_read(
    aiostore: aio.AsyncStore, hops: list[Any], keys: Any
) -> None:
    async with aiostore.transaction() as txn:
        for of in (aiostore, txn):
            with pytest.raises(InvalidKey, match="key"):
                await of["c"].get_many(keys)
    assert hops == []


async def test_values_of_a_type_are_decoded_and_a_misfit_is_named(aiostore: aio.AsyncStore) -> None:
    @dataclass
    class User:
        name: str

    await aiostore["users"].update({1: {"name": "ada"}, 2: {"name": 5}})
    users = aiostore.collection("users", type=User)
    assert await users.get_many([1, 9]) == {1: User("ada")}
    with pytest.raises(InvalidValue, match=r"'users'\[2\]"):
        await users.get_many([1, 2])
    assert lent(aiostore) == 0


async def test_other_tasks_have_a_turn_while_many_values_are_decoded(aiostore: aio.AsyncStore) -> None:
    number = 5 * DECODED_AT_ONCE
    await aiostore["c"].update({key: [key] for key in range(number)})
    turns = []

    @dataclass
    class Noted:
        at: int

        def __post_init__(self) -> None:
            turns.append("decoded")

    await aiostore["c"].update({key: {"at": key} for key in range(number)})

    async def other() -> None:
        while turns.count("decoded") < number:
            turns.append("other")
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        await aiostore.collection("c", type=Noted).get_many(range(number))
    first, last = turns.index("decoded"), len(turns) - 1 - turns[::-1].index("decoded")
    assert "other" in turns[first:last]


async def test_it_is_of_one_moment(aiostore: aio.AsyncStore) -> None:
    keys = range(1500)
    await aiostore["c"].update(dict.fromkeys(keys, 0))

    async def write() -> None:
        for number in range(1, 20):
            await aiostore["c"].update(dict.fromkeys(keys, number))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        seen = [set((await aiostore["c"].get_many(keys)).values()) for _ in range(40)]
    assert {len(values) for values in seen} == {1}


async def test_a_transaction_sees_its_own_writes_and_reads_each_entry_once(
    aiostore: aio.AsyncStore, hops: list[Any]
) -> None:
    await aiostore["c"].update(HELD)
    async with aiostore.transaction() as txn:
        txn.put("c", 1, "mine")
        txn.delete("c", "1")
        hops.clear()
        assert await txn["c"].get_many([1, "1", b"1", "new"]) == {1: "mine", b"1": b"bytes"}
        assert len(hops) == 1
        hops.clear()
        assert await txn["c"].get_many(["new", b"1", "1"], None) == {"new": None, b"1": b"bytes", "1": None}
        assert [await txn.get("c", key) for key in (b"1", "new", 1)] == [b"bytes", None, "mine"]
        assert hops == []
        txn.expect("c", b"1", b"bytes")
        with pytest.raises(Conflict):
            txn.expect("c", "new", "others")


@pytest.mark.parametrize("change", ["value", "gone", "new"])
async def test_a_change_of_what_it_gave_is_a_conflict(aiostore: aio.AsyncStore, change: str) -> None:
    await aiostore["c"].update({1: "a", 2: "b"})
    with pytest.raises(Conflict):
        async with aiostore.transaction() as txn:
            assert await txn["c"].get_many([1, 2, 3]) == {1: "a", 2: "b"}
            txn.put("d", 1, 1)
            if change == "value":
                await aiostore.put("c", 2, "B")
            elif change == "gone":
                await aiostore["c"].delete(2)
            else:
                await aiostore.put("c", 3, "c")
    assert await content(aiostore, "d") == {}


async def test_a_change_of_what_it_did_not_give_is_none(aiostore: aio.AsyncStore) -> None:
    await aiostore["c"].update({1: "a", 2: "b", 3: "c"})
    async with aiostore.transaction() as txn:
        txn.put("c", 3, "mine")
        assert await txn["c"].get_many([1, 3]) == {1: "a", 3: "mine"}
        await aiostore["c"].update({2: "B", 3: "C"})
    assert await content(aiostore) == {1: "a", 2: "B", 3: "mine"}


async def test_it_ends_with_what_it_reads(aiostore: aio.AsyncStore) -> None:
    async with aiostore.snapshot() as view, aiostore.transaction() as txn:
        txn.expect("c", 1, ABSENT)
    for of in (view, txn):
        with pytest.raises(TransactionEnded):
            await of["c"].get_many([1])
    with pytest.raises(TransactionEnded):
        await aiostore.transaction()["c"].get_many([1])
    await aiostore.close()
    with pytest.raises(StoreClosed):
        await aiostore["c"].get_many([1])


async def test_a_task_that_is_cancelled_while_it_waits_holds_nothing(aiostore: aio.AsyncStore) -> None:
    await aiostore["c"].update(HELD)
    for deadline in (0, 0.0001, 0.001):
        with anyio.move_on_after(deadline):
            await aiostore["c"].get_many(HELD)
    await aiostore.put("c", 1, "written")
    assert await aiostore["c"].get_many([1]) == {1: "written"}
    await until(lambda: not lent(aiostore))  # a read that is given up goes on in its thread
