"""Goal: transactions of tasks are serializable: one takes effect only if all that it read is still so, and fails only
then. Method: for each kind of read a change that matters and one that does not; and Hypothesis interleaves whole
transactions, which must end as those that took effect would have, one after the other.
"""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import sqlstate
from sqlstate import ABSENT, Conflict, aio
from sqlstate.store.open_transaction import OpenTransaction
from tests.reference import plain
from tests.support.tasks import BACKENDS, SOON, Gate, content, lent, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.conftest import OpenAsyncStore

pytestmark = pytest.mark.anyio


async def test_a_transaction_sees_its_own_writes_and_nobody_else_does(aiostore: aio.AsyncStore) -> None:
    await aiostore["c"].update({"a": 1, "b": 2, 5: 0})
    async with aiostore.transaction(note="mine") as txn:
        txn.put("c", "new", 3)
        txn.delete("c", "a")
        txn.delete("c", "none")
        txn["c"].update({"b": 4})
        assert [await txn.get("c", key) for key in ("a", "b", "new", 5)] == [None, 4, 3, 0]
        assert [await txn.contains("c", key) for key in ("a", "b", "new", "none")] == [False, True, True, False]
        assert [pair async for pair in txn["c"].items()] == [(5, 0), ("b", 4), ("new", 3)]
        assert [key async for key in txn["c"].keys(reverse=True, limit=2)] == ["new", "b"]
        assert [await txn.count("c"), await txn["c"].count(start="b")] == [3, 2]
        txn.put("d", 1, 1)
        assert await txn.collections() == ["c", "d"]
        for key in (5, "b", "new"):
            txn.delete("c", key)
        assert await txn.collections() == ["d"]
        assert (await aiostore.head()).seq == 1
        assert txn.head is None
        txn.put("c", "b", 5)
    assert txn.head == await aiostore.head()
    assert [await content(aiostore), await content(aiostore, "d")] == [{"b": 5}, {1: 1}]
    notes = await aiostore.call(lambda s: [each.note for each in s.wal.read() if each.kind == "BEGIN"])
    assert notes == ["", "mine"]


async def test_a_transaction_reads_one_commit(aiostore: aio.AsyncStore) -> None:
    await aiostore["c"].update({"a": 1, "b": 1})
    async with aiostore.transaction() as txn:
        await aiostore.put("c", "a", 2)  # before the first read
        assert await txn.get("c", "a") == 2
        await aiostore["c"].update({"a": 3, "b": 3, "c": 3})
        assert [await txn.get("c", "a"), await txn.get("c", "b"), await txn.count("c")] == [2, 1, 2]
        assert [pair async for pair in txn["c"].items()] == [("a", 2), ("b", 1)]
    # It only read: there is nothing that the changes could make wrong.
    assert txn.head is None


async def test_writes_that_depend_on_no_read_never_conflict(aiostore: aio.AsyncStore) -> None:
    async with aiostore.transaction() as txn:
        txn.put("c", "k", 1)
        await aiostore.put("c", "k", 2)
    assert await content(aiostore) == {"k": 1}


async def test_an_exception_in_the_block_drops_everything(aiostore: aio.AsyncStore) -> None:
    with pytest.raises(LookupError):
        async with aiostore.transaction() as txn:
            txn.put("c", "k", await txn.get("c", "k", 1))
            raise LookupError
    await until(lambda: not lent(aiostore))
    assert (await aiostore.head()).seq == 0


async def test_a_transaction_is_used_in_its_block_alone(aiostore: aio.AsyncStore) -> None:
    txn = aiostore.transaction()

    def uses() -> list[Callable[[], Any]]:
        return [
            lambda: txn.put("c", "k", 1),
            lambda: txn.delete("c", "k"),
            lambda: txn.expect("c", "k", 1),
            lambda: txn["c"].items(),
        ]

    async def refused() -> None:
        for use in uses():
            with pytest.raises(sqlstate.TransactionEnded):
                use()
        for read_ in (lambda: txn.get("c", "k"), lambda: txn.count("c"), txn.collections):
            with pytest.raises(sqlstate.TransactionEnded):
                await read_()

    await refused()
    async with txn:
        rows = txn["c"].items()
    await refused()
    with pytest.raises(sqlstate.TransactionEnded):
        await anext(rows)
    with pytest.raises(sqlstate.TransactionEnded):
        async with txn:
            pass


async def taken(rows: aio.AsyncScan[Any], most: int) -> list[Any]:
    """Return the first rows, and do not look further."""
    return [await anext(rows) for _ in range(most)]


START = {1: "1", 3: "3", 5: "5", 7: "7", 9: "9"}
# What a transaction reads; what another one changes meanwhile; whether the first must fail, and at which key.
CONFLICTS: list[tuple[str, Callable[[Any], Awaitable[Any]], dict[Any, Any], Any]] = [
    ("get", lambda t: t.get("c", 3), {3: "x"}, 3),
    ("get, deleted", lambda t: t.get("c", 3), {3: None}, 3),
    ("get, the type changed", lambda t: t.get("c", 3), {3: b"3"}, 3),
    ("get of another", lambda t: t.get("c", 3), {5: "x"}, None),
    ("get, written anew", lambda t: t.get("c", 3), {3: "3"}, None),
    ("get of none, put", lambda t: t.get("c", 4), {4: "x"}, 4),
    ("contains", lambda t: t.contains("c", 4), {4: "x"}, 4),
    ("contains, deleted", lambda t: t.contains("c", 3), {3: None}, 3),
    ("contains, changed", lambda t: t.contains("c", 3), {3: "x"}, None),
    ("count", lambda t: t.count("c"), {4: "x"}, "number of entries"),
    ("count, changed", lambda t: t.count("c"), {3: "x"}, None),
    ("count, one for one", lambda t: t.count("c"), {3: None, 4: "x"}, None),
    ("count of a part", lambda t: t["c"].count(start=3, stop=7), {5: None}, "number of entries"),
    ("count of another part", lambda t: t["c"].count(start=3, stop=7), {7: None}, None),
    ("five rows", lambda t: taken(t["c"].items(), 5), {11: "x"}, None),
    ("all, put behind", lambda t: _all(t["c"].items()), {11: "x"}, 11),
    ("all, put before", lambda t: _all(t["c"].items()), {0: "x"}, 0),
    ("all, changed", lambda t: _all(t["c"].items()), {9: "x"}, 9),
    ("all, deleted at the end", lambda t: _all(t["c"].items()), {9: None}, 9),
    ("all, deleted within", lambda t: _all(t["c"].items()), {5: None}, 5),
    ("values", lambda t: _all(t["c"].values()), {5: "x"}, 5),
    ("keys, changed", lambda t: _all(t["c"].keys()), {5: "x"}, None),
    ("keys, put", lambda t: _all(t["c"].keys()), {6: "x"}, 6),
    ("keys, deleted", lambda t: _all(t["c"].keys()), {5: None}, 5),
    ("the first two", lambda t: taken(t["c"].items(), 2), {3: "x"}, 3),
    ("the first two, put within", lambda t: taken(t["c"].items(), 2), {2: "x"}, 2),
    ("the first two, put behind", lambda t: taken(t["c"].items(), 2), {4: "x", 5: None}, None),
    ("the first two, closed", lambda t: closed(t["c"].items(), 2), {4: "x", 5: None}, None),
    ("the first two, closed, changed", lambda t: closed(t["c"].items(), 2), {3: "x"}, 3),
    ("the last two", lambda t: taken(t["c"].items(reverse=True), 2), {8: "x"}, 8),
    ("the last two, put before", lambda t: taken(t["c"].items(reverse=True), 2), {6: "x", 5: None}, None),
    ("limit", lambda t: _all(t["c"].items(limit=2)), {4: "x", 5: None}, None),
    ("limit, put within", lambda t: _all(t["c"].items(limit=2)), {0: "x"}, 0),
    ("limit that is more", lambda t: _all(t["c"].items(limit=6)), {11: "x"}, 11),
    ("a part", lambda t: _all(t["c"].items(start=3, stop=7)), {1: None, 2: "x", 7: "x", 8: "x"}, None),
    ("a part, put", lambda t: _all(t["c"].items(start=3, stop=7)), {6: "x"}, 6),
    ("an empty part, put", lambda t: _all(t["c"].items(start=4, stop=5)), {4: "x"}, 4),
    ("nothing taken", lambda t: _none(t["c"].items()), {1: "x"}, None),
    ("collections", lambda t: t.collections(), {"d": 1}, "names of collections"),
    ("collections, more entries", lambda t: t.collections(), {4: 1}, None),
]  # fmt: skip


async def closed(rows: aio.AsyncScan[Any], most: int) -> None:
    async with aclosing(rows):
        await taken(rows, most)
    with pytest.raises(StopAsyncIteration):
        await anext(rows)


async def _all(rows: aio.AsyncScan[Any]) -> list[Any]:
    return [row async for row in rows]


async def _none(rows: aio.AsyncScan[Any]) -> None:
    assert isinstance(rows, aio.AsyncScan)


@pytest.mark.parametrize(("reads", "change", "where"), [case[1:] for case in CONFLICTS], ids=[c[0] for c in CONFLICTS])
async def test_a_transaction_fails_if_what_it_read_has_changed(
    aiostore: aio.AsyncStore, reads: Callable[[Any], Awaitable[Any]], change: dict[Any, Any], where: Any
) -> None:
    await aiostore["c"].update(START)

    async def other() -> None:
        async with aiostore.transaction() as txn:
            for key, value in change.items():
                if key == "d":
                    txn.put("d", 1, value)
                elif value is None:
                    txn.delete("c", key)
                else:
                    txn.put("c", key, value)

    async def work() -> aio.AsyncTransaction:
        async with aiostore.transaction() as txn:
            await reads(txn)
            await other()
            txn.put("mine", "k", 1)
        return txn

    if where is None:
        assert (await work()).head == await aiostore.head()
        return
    with pytest.raises(Conflict) as conflict:
        await work()
    assert await aiostore.get("mine", "k") is None
    assert str(where) in str(conflict.value.key)
    if where in change:
        there = change[where]
        assert conflict.value.actual == (ABSENT if there is None else there)


OWN: list[tuple[str, dict[Any, Any], dict[Any, Any], bool]] = [
    ("an own put hides the change", {3: "own"}, {3: "x"}, False),
    ("an own delete hides the change", {3: None}, {3: "x"}, False),
    ("an own put hides the deletion", {3: "own"}, {3: None}, False),
    ("an own put hides another's", {4: "own"}, {4: "x"}, False),
    ("beside an own put", {4: "own"}, {6: "x"}, True),
    ("beside an own delete", {3: None}, {5: None}, True),
]


@pytest.mark.parametrize(("own", "change", "fails"), [case[1:] for case in OWN], ids=[case[0] for case in OWN])
@pytest.mark.parametrize("how", ["items", "keys", "count", "get"])
async def test_what_a_transaction_wrote_itself_cannot_conflict(
    aiostore: aio.AsyncStore, own: dict[Any, Any], change: dict[Any, Any], fails: bool, how: str
) -> None:
    await aiostore["c"].update(START)
    expected = {key: value for key, value in (START | own).items() if value is not None}
    try:
        async with aiostore.transaction() as txn:
            for key, value in own.items():
                txn.put("c", key, value) if value is not None else txn.delete("c", key)
            if how == "count":
                assert await txn.count("c") == len(expected)
            elif how == "get":
                for key in range(10):
                    assert await txn.get("c", key) == expected.get(key)
            else:
                assert await _all(getattr(txn["c"], how)()) == (
                    sorted(expected.items()) if how == "items" else sorted(expected)
                )
            for key, value in change.items():
                await (aiostore.delete("c", key) if value is None else aiostore.put("c", key, value))
    except Conflict:
        assert fails
    else:
        assert not fails
        assert {**START, **change, **own}.items() >= (await content(aiostore)).items()


async def test_expect(aiostore: aio.AsyncStore) -> None:
    await aiostore["c"].update(START)
    async with aiostore.transaction() as txn:
        txn.expect("c", 1, "1")
        txn.expect("c", 2, ABSENT)
        txn.put("c", 2, "new")
        txn.expect("c", 2, "new")
        assert await txn.get("c", 3) == "3"
        txn.expect("c", 3, "3")
        for key, other in ((2, "old"), (3, 3), (1, "x")):
            with pytest.raises(Conflict) as conflict:
                txn.expect("c", key, other)
            assert (conflict.value.key, conflict.value.expected) == (key, other)
    assert txn.head is not None
    wrongs: list[Any] = ["x", ABSENT, b"1"]
    for wrong in wrongs:
        with pytest.raises(Conflict) as conflict:
            async with aiostore.transaction() as txn:
                txn.expect("c", 1, wrong)
        assert (conflict.value.expected, conflict.value.actual) == (wrong, "1")
    with pytest.raises(sqlstate.InvalidValue, match="'c'"):
        async with aiostore.transaction() as txn:
            txn.expect("c", 1, {1})
    async with aiostore.transaction() as txn:
        txn.expect("c", 1, "1")
    assert txn.head is None


async def test_a_transaction_with_a_rollback_journal_does_not_wait_for_itself(opens: OpenAsyncStore) -> None:
    opened = await opens(journal="delete", timeout=SOON)
    await opened["c"].update(START)
    began = time.monotonic()
    for i in range(10):
        async with opened.transaction() as txn:
            rows = txn["c"].items()
            await anext(rows)
            txn.put("c", 1, await txn.get("c", 1) + "x")
            assert i < 10
    assert time.monotonic() - began < SOON / 2
    assert await opened.get("c", 1) == "1" + "x" * 10


# A step of a transaction: what it does, and the keys it is about.
KEYS = range(6)
steps = st.one_of(
    st.tuples(
        st.sampled_from(["get", "get_many", "put", "put", "delete", "contains", "expect"]), st.sampled_from(KEYS)
    ),
    st.tuples(
        st.sampled_from(["items", "keys", "count", "collections"]),
        st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS), st.booleans(), st.sampled_from([1, 2, 9])),
    ),
)
scripts = st.lists(st.lists(steps, max_size=5), min_size=1, max_size=5)


async def do(txn: Any, step: Any, seen: list[Any]) -> Any:  # noqa: PLR0911, one for each kind of step
    """Do one step in a transaction; what it puts depends on all that it has seen."""
    name, about = step
    if name == "get":
        return await txn.get("c", about)
    if name == "get_many":
        return await txn["c"].get_many((about, 0, 5))
    if name == "contains":
        return await txn.contains("c", about)
    if name == "put":
        return txn.put("c", about, _sum(seen))
    if name == "delete":
        return txn.delete("c", about)
    if name == "expect":
        try:
            return txn.expect("c", about, ABSENT)
        except Conflict:
            return "refused"
    start, stop, reverse, most = about
    if name == "count":
        return await txn["c"].count(start=start, stop=stop)
    if name == "collections":
        return await txn.collections()
    rows = getattr(txn["c"], name)(start=start, stop=stop, reverse=reverse)
    found = []
    async for row in rows:
        found.append(row)
        if len(found) == most:
            break
    return found


def _sum(seen: list[Any]) -> str:
    return re.sub("[^0-9a-zA-Z]+", "", repr(seen))[:50]


def replay(model: dict[int, str], script: list[Any], number: int) -> tuple[list[Any], dict[int, str], bool]:
    """Do a script on a dict: what it sees, what it leaves, and whether its expectations hold."""
    seen: list[Any] = [number]
    state, holds = dict(model), True
    for name, about in script:
        result: Any = None
        if name == "get":
            result = state.get(about)
        elif name == "get_many":
            result = {key: state[key] for key in (about, 0, 5) if key in state}
        elif name == "contains":
            result = about in state
        elif name == "put":
            state[about] = _sum(seen)
        elif name == "delete":
            state.pop(about, None)
        elif name == "collections":
            result = ["c"] if state else []
        elif name == "expect":
            holds = holds and about not in state
        else:
            start, stop, reverse, most = about
            keys = sorted((key for key in state if start <= key < stop), reverse=reverse)
            result = len(keys) if name == "count" else [(key, state[key]) for key in keys[:most]]
            if name == "keys":
                result = [key for key, _ in result]
        seen.append(result)
    return seen, state, holds


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    scripts=scripts,
    order=st.lists(st.integers(0, 4), max_size=40),
    data=st.dictionaries(st.sampled_from(KEYS), st.just("old")),
)
@example(scripts=[[("get", 0), ("put", 1)], [("get", 1), ("put", 0)]], order=[0, 1, 0, 1], data={})  # write skew
@example(scripts=[[("put", 0)], [("get", 0), ("expect", 0)]], order=[1, 1], data={})  # expecting is not reading
@example(  # which collections there are is not how many entries they have
    scripts=[[("put", 2)], [("delete", 0), ("collections", (0, 0, False, 1))]],
    order=[1, 1, 1],
    data={0: "old", 1: "old"},
)
@pytest.mark.slow
def test_transactions_are_serializable_and_fail_only_if_they_must(
    backend: str, scripts: list[Any], order: list[int], data: dict[int, str]
) -> None:
    """Any interleaving of transactions ends as those that took effect would have, one after the other."""

    async def main(path: Path) -> None:
        async with aio.open(path) as opened:
            await opened["c"].update(data)
            model = dict(data)
            open_: dict[int, tuple[aio.AsyncTransaction, list[Any], Iterator[Any]]] = {}
            for number in [*order, *(n for n in range(len(scripts)) for _ in range(7))]:
                if number >= len(scripts):
                    continue
                if number not in open_:
                    txn = await opened.transaction().__aenter__()
                    open_[number] = txn, [number], iter(scripts[number])
                    continue
                txn, seen, left = open_[number]
                step = next(left, None)
                if step is not None:
                    seen.append(await do(txn, step, seen))
                    continue
                if not txn._entries._open:
                    continue
                refused = "refused" in seen
                would_see, after, holds = replay(model, scripts[number], number)
                wrote = any(name in ("put", "delete", "expect") for name, _ in scripts[number])
                try:
                    if refused:  # what expect() knew at once
                        await txn.__aexit__(Conflict, None, None)
                        continue
                    await txn.__aexit__(None, None, None)
                except Conflict:
                    assert wrote
                    assert would_see != seen or not holds, "it failed, and need not have"
                else:
                    if wrote:
                        assert would_see == seen
                        assert holds
                        model = after
                assert await content(opened) == model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.db"
        anyio.run(main, path, backend=backend)
        assert plain.judge(path).findings == ()


async def test_what_was_read_is_read_again_only_if_another_commit_came(
    aiostore: aio.AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await aiostore["c"].update(dict.fromkeys(range(3000), 0))
    scans: list[Any] = []
    real = OpenTransaction.scan
    monkeypatch.setattr(OpenTransaction, "scan", lambda *args, **options: scans.append(1) or real(*args, **options))
    for others in (0, 1):
        async with aiostore.transaction() as txn:
            txn.put("sums", others, sum([value async for value in txn["c"].values()]))
            if others:
                await aiostore.put("elsewhere", 1, 1)
        assert len(scans) == others
    with pytest.raises(sqlstate.Conflict):
        async with aiostore.transaction() as txn:
            txn.put("sums", 2, sum([value async for value in txn["c"].values()]))
            await aiostore.put("c", 2999, 1)


async def test_a_transaction_of_the_same_commit_counts_as_another(aiostore: aio.AsyncStore) -> None:
    """Its head is the one that was read, and yet something has changed before this one's turn."""
    await aiostore.put("c", 1, 0)
    gate = Gate()

    async def open_soon() -> None:
        await anyio.sleep(0.1)  # until the end of the block waits in the queue, behind the others
        gate.open.set()

    async with anyio.create_task_group() as tasks:
        with pytest.raises(sqlstate.Conflict):
            async with aiostore.transaction() as txn:
                txn.put("c", 2, await txn.get("c", 1))
                first = aiostore.submit(gate)
                await gate.reached()
                second = aiostore.submit(lambda txn: txn.put("c", 1, 1))
                tasks.start_soon(open_soon)
    await first
    await second
    assert await content(aiostore) == {1: 1}
