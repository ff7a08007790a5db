"""Goal: LangGraph's checkpoints in a store keep LangGraph's contract, and none is lost or comes back otherwise.

Method: LangGraph's own conformance suite in full; beside it what that does not look at: keys that contain a separator,
edited entries, channels kept as changes, many threads, event loops and processes, and what callers do wrong.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("langgraph.checkpoint.conformance")

import ormsgpack
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

import sqlstate
from sqlstate import InvalidKey, InvalidOption, InvalidValue, StoreClosed, pack_key
from sqlstate.integrations.langgraph import SqlstateSaver, SqlstateStore
from tests import ROOT
from tests.support.checkpoints import checkpoint, config
from tests.support.system import needs_fork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import OpenStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def saver(store: sqlstate.Store) -> SqlstateSaver:
    return SqlstateSaver(store)


class Sync(SqlstateSaver):
    """Does with its sync calls what tasks ask."""

    async def aget_tuple(self, *args: Any) -> Any:
        return self.get_tuple(*args)

    async def alist(self, *args: Any, **options: Any) -> Any:
        for found in self.list(*args, **options):
            yield found

    async def aput(self, *args: Any) -> Any:
        return self.put(*args)

    async def aput_writes(self, *args: Any, **options: Any) -> None:
        self.put_writes(*args, **options)

    async def adelete_thread(self, *args: Any) -> None:
        self.delete_thread(*args)

    async def adelete_for_runs(self, *args: Any) -> None:
        self.delete_for_runs(*args)

    async def acopy_thread(self, *args: Any) -> None:
        self.copy_thread(*args)

    async def aprune(self, *args: Any, **options: Any) -> None:
        self.prune(*args, **options)


@pytest.mark.filterwarnings("ignore:.*event loop")
@pytest.mark.parametrize(("kind", "mode"), [(SqlstateSaver, "group"), (SqlstateSaver, "full"), (Sync, "full")])
async def test_the_conformance_suite_of_langgraph_passes_in_full(
    open_store: OpenStore, tmp_path: Path, kind: type[SqlstateSaver], mode: Any
) -> None:
    made = iter(range(1000))

    async def factory() -> AsyncIterator[SqlstateSaver]:
        yield kind(open_store(tmp_path / f"{next(made)}.db", mode=mode))

    report = await validate(checkpointer_test(name=kind.__name__)(factory))
    assert {name: result.failures for name, result in report.results.items() if not result.passed} == {}
    assert len(report.results) == 8
    assert report.passed_all()


def test_each_call_is_one_commit(saver: SqlstateSaver, store: sqlstate.Store) -> None:
    first = saver.put(config(), checkpoint(1, a="x"), {"source": "input", "step": -1}, {})
    saver.put_writes(first, [("a", 1), ("b", [2])], "task", "path")
    saver.put(first, checkpoint(2), {"source": "loop", "step": 0, "run_id": "r"}, {})
    assert store.head().seq == 3
    saver.copy_thread("t", "u")
    assert store.head().seq == 4
    assert [(found.config["configurable"]["thread_id"], found.metadata["step"]) for found in saver.list(None)] == [
        ("t", 0), ("u", 0), ("t", -1), ("u", -1),
    ]  # fmt: skip
    saver.delete_for_runs(["r"])
    saver.prune(["t", "u"], strategy="delete")
    assert store.head().seq == 6
    assert list(store) == []


AWKWARD = ["a", "a/b", "a/", "/a", "a%2Fb", "%", "", " ", "a\0b", "é", "a|b:c"]


def test_threads_and_namespaces_with_any_text_are_apart(saver: SqlstateSaver) -> None:
    pairs = [(thread, ns) for thread in AWKWARD for ns in AWKWARD]
    for number, (thread, ns) in enumerate(pairs):
        at = saver.put(config(thread, ns), checkpoint(number, n=number), {}, {})
        saver.put_writes(at, [("c", number)], "task/1", "p")
    for number, (thread, ns) in enumerate(pairs):
        found = saver.get_tuple(config(thread, ns))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"n": number}
        assert found.pending_writes == [("task/1", "c", number)]
    saver.delete_thread("a")
    left = {found.config["configurable"]["thread_id"] for found in saver.list(None)}
    assert left == {*AWKWARD} - {"a"}


def test_what_a_task_wrote_stays_when_it_is_put_again_but_for_its_error(saver: SqlstateSaver) -> None:
    at = saver.put(config(), checkpoint(1), {}, {})
    for value in ("first", "second"):
        saver.put_writes(at, [("a", value), (ERROR, value), (INTERRUPT, value)], "task", "path")
    found = saver.get_tuple(at)
    assert found is not None
    assert sorted(found.pending_writes or []) == sorted(
        [("task", "a", "first"), ("task", ERROR, "second"), ("task", INTERRUPT, "second")]
    )


def test_writes_are_in_the_order_of_the_tasks_places(saver: SqlstateSaver) -> None:
    at = saver.put(config(), checkpoint(1), {}, {})
    for task, path in (("x", "3"), ("y", "2"), ("z", "1"), ("w", "")):
        saver.put_writes(at, [("b", task), ("a", task)], task, path)
    found = saver.get_tuple(at)
    assert found is not None
    assert found.pending_writes == [(task, channel, task) for task in "wzyx" for channel in "ba"]


def test_a_limit_counts_what_the_filter_lets_through(saver: SqlstateSaver) -> None:
    for number in range(6):
        saver.put(config(), checkpoint(number), {"source": "input" if number < 3 else "loop"}, {})
    within: Any
    for within in (config(), {"configurable": {"thread_id": "t"}}, None):
        found = saver.list(within, filter={"source": "input"}, limit=2)
        assert [each.checkpoint["id"] for each in found] == ["00000002", "00000001"]
        before = saver.list(within, limit=1, before=config(checkpoint="00000002"))
        assert [each.checkpoint["id"] for each in before] == ["00000001"]
        assert [each.checkpoint["id"] for each in saver.list(within, limit=1)] == ["00000005"]
        assert [*saver.list(within, limit=0)] == []
    assert [each.checkpoint["id"] for each in saver.list(config(checkpoint="00000002"))] == ["00000002"]
    assert [*saver.list(config(checkpoint="9"))] == []


def test_a_number_as_a_thread_is_its_text(saver: SqlstateSaver) -> None:
    saver.put({"configurable": {"thread_id": 7, "checkpoint_ns": ""}}, checkpoint(1), {}, {})
    assert saver.get_tuple(config("7")) is not None


class Plain:
    """What only pickle could store."""


@dataclass
class Known:
    """What LangGraph stores, and reads back only if it is allowed."""

    x: int


@pytest.mark.parametrize("metadata", [{"a": {1}}, {"a": float("nan")}, {"a": Plain()}, {"a": b"x"}])
def test_metadata_that_are_not_json_are_refused(saver: SqlstateSaver, store: sqlstate.Store, metadata: Any) -> None:
    with pytest.raises(InvalidValue):
        saver.put(config(), checkpoint(1), metadata, {})
    assert store.head().seq == 0


@pytest.mark.parametrize(
    ("collection", "key", "value"),
    [
        ("checkpoints", ("t", "", "00000001"), 5),
        ("checkpoints", ("t", "", "00000001"), {"parent": 5, "type": "msgpack", "metadata": {}}),
        ("values", ("t", "", "00000001"), b"\xc1"),
        ("values", ("t", "", "00000001"), {"no": "bytes"}),
        ("values", ("t", "", "00000001"), ormsgpack.packb([1])),
        ("values", ("t", "", "00000001"), ormsgpack.packb({"channel_values": 5})),
        ("writes", ("t", "", "00000001", "task", 0), b"no json"),
        ("writes", ("t", "", "00000001", "task", 0), 5),
    ],
)
def test_an_edited_entry_is_named(
    saver: SqlstateSaver, store: sqlstate.Store, collection: str, key: tuple[Any, ...], value: Any
) -> None:
    saver.put(config(), checkpoint(1), {}, {})
    store[f"langgraph/{collection}"][pack_key(key)] = value
    with pytest.raises(InvalidValue):
        saver.get_tuple(config())


def test_a_config_that_names_too_little_is_refused(saver: SqlstateSaver) -> None:
    wrong: Any
    for wrong in ({}, {"configurable": {}}, {"configurable": {"thread_id": None}}):
        with pytest.raises(InvalidOption):
            saver.get_tuple(wrong)
    with pytest.raises(InvalidOption):
        saver.put_writes(config(), [("a", 1)], "task")
    with pytest.raises(InvalidOption):
        saver.prune(["t"], strategy="oldest")


def test_what_is_no_store_is_refused() -> None:
    other: Any
    for other in ("agent.db", None, sqlstate):
        with pytest.raises(InvalidOption, match=r"sqlstate\.open"):
            SqlstateSaver(other)


def test_metadata_that_others_edited_are_taken_as_they_are(saver: SqlstateSaver, store: sqlstate.Store) -> None:
    kept = store.collection("langgraph/checkpoints", key=tuple[str, str, str])
    for number in range(3):
        saver.put(config(), checkpoint(number), {"run_id": "r", "step": number}, {})
    kept["t", "", "00000002"] |= {"metadata": {"run_id": ["r"], "counters_since_delta_snapshot": 5}}
    saver.delete_for_runs(["r"])
    saver.prune(["t"])
    assert [found.checkpoint["id"] for found in saver.list(config())] == ["00000002"]


def test_what_langgraph_allows_for_a_graph_is_allowed_to_its_copy_alone(saver: SqlstateSaver) -> None:
    """As with LANGGRAPH_STRICT_MSGPACK=true, where it takes the classes from the graph's state."""
    copy = saver.with_allowlist({(Known.__module__, "Known")})
    at = copy.put(config(), checkpoint(1, a=Known(1)), {}, {})
    found = copy.get_tuple(at)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": Known(1)}
    with pytest.raises(InvalidValue, match="Known"):
        saver.put(config(), checkpoint(2, a=Known(1)), {}, {})


def chain(saver: SqlstateSaver, length: int, snapshots: set[int]) -> Any:
    """Put checkpoints of which some hold the channel `log` whole, and return the config of the last one."""
    at = config()
    for number in range(1, length + 1):
        values = {"log": [f"whole {number}"]} if number in snapshots else {}
        counters: Any = {} if number in snapshots else {"counters_since_delta_snapshot": {"log": (1, 1)}}
        whole: Any = {**checkpoint(number), "channel_values": values}
        at = saver.put(at, whole, counters, {})
        saver.put_writes(at, [("log", f"change {number}"), ("other", number)], f"task {number}")
    return at


async def test_a_channel_kept_as_changes_is_rebuilt_also_after_pruning(saver: SqlstateSaver) -> None:
    last = chain(saver, 9, {2, 5})
    wanted = {
        "log": {"seed": ["whole 5"], "writes": [(f"task {n}", "log", f"change {n}") for n in (5, 6, 7, 8)]},
        "other": {"writes": [(f"task {n}", "other", n) for n in range(1, 9)]},
    }
    assert saver.get_delta_channel_history(config=last, channels=["log", "other"]) == wanted
    assert await saver.aget_delta_channel_history(config=last, channels=["log", "other"]) == wanted
    saver.prune(["t"])
    assert [found.checkpoint["id"] for found in saver.list(config())] == [f"{n:08}" for n in (9, 8, 7, 6, 5)]
    assert saver.get_delta_channel_history(config=last, channels=["log"]) == {"log": wanted["log"]}
    saver.copy_thread("t", "u")
    copied = saver.get_delta_channel_history(config=config("u"), channels=["log"])
    assert copied == {"log": wanted["log"]}


def test_a_ring_of_parents_ends(saver: SqlstateSaver) -> None:
    last = chain(saver, 3, set())
    saver.put(last, checkpoint(1), {}, {})
    history = saver.get_delta_channel_history(config=last, channels=["log"])
    assert len(history["log"]["writes"]) == 2
    saver.prune(["t"])


WRITER = """
import sys
import sqlstate
from langgraph.checkpoint.base import empty_checkpoint
from sqlstate.integrations.langgraph import SqlstateSaver, SqlstateStore

path, who, count = sys.argv[1:]
with sqlstate.open(path, timeout=60) as store:
    saver = SqlstateSaver(store)
    at = {"configurable": {"thread_id": who, "checkpoint_ns": ""}}
    for number in range(int(count)):
        at = saver.put(at, {**empty_checkpoint(), "channel_values": {"n": number}}, {"step": number}, {})
        saver.put_writes(at, [("n", number)], "task")
"""


@pytest.mark.slow
def test_processes_put_at_once_and_lose_nothing(saver: SqlstateSaver, path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = [[sys.executable, "-c", WRITER, str(path), f"{who}", "20"] for who in range(8)]
    writers = [subprocess.Popen(command, env=environment) for command in commands]
    assert [writer.wait() for writer in writers] == [0] * 8
    for who in range(8):
        found = [*saver.list(config(f"{who}"))]
        assert [each.metadata["step"] for each in found] == [*range(19, -1, -1)]
        assert all(len(each.pending_writes or []) == 1 for each in found)


async def test_tasks_share_commits(open_store: OpenStore, path: Path) -> None:
    store = open_store(path, mode="group")
    saver = SqlstateSaver(store)
    await asyncio.gather(*(saver.aput(config(f"{n}"), checkpoint(1), {}, {}) for n in range(100)))
    assert len([each async for each in saver.alist(None)]) == 100
    assert len([each async for each in saver.alist(None, limit=7)]) == 7


def test_threads_put_at_once_into_one_thread(saver: SqlstateSaver, store: sqlstate.Store) -> None:
    def work(who: int) -> None:
        at = saver.put(config("shared"), checkpoint(f"{who}"), {"step": who}, {})
        saver.put_writes(at, [("a", who)] * 3, f"task {who}")

    workers = [threading.Thread(target=work, args=(who,)) for who in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = [*saver.list(config("shared"))]
    assert [each.metadata for each in found] == [{"step": who} for who in range(7, -1, -1)]
    assert all(len(each.pending_writes or []) == 3 for each in found)


def test_one_saver_serves_several_event_loops_and_threads(saver: SqlstateSaver) -> None:
    async def put(who: int) -> None:
        await saver.aput(config(), checkpoint(who), {}, {})
        assert await saver.aget_tuple(config(checkpoint=f"{who:08}")) is not None

    for who in range(3):
        asyncio.run(put(who))
    loops = [threading.Thread(target=asyncio.run, args=(put(who),)) for who in range(3, 6)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    assert len([*saver.list(config())]) == 6


@pytest.mark.parametrize("mode", ["full", "group"])
def test_calls_for_tasks_do_not_block_the_event_loop_and_a_sync_one_says_that_it_does(
    open_store: OpenStore, mode: Any
) -> None:
    store = open_store(mode=mode)
    saver, memories = SqlstateSaver(store), SqlstateStore(store)

    async def calls() -> None:
        at = await saver.aput(config(), checkpoint(1), {}, {})
        await saver.aput_writes(at, [("a", 1)], "task")
        assert await saver.aget_tuple(at) is not None
        assert [found async for found in saver.alist(None)] != []
        await saver.aget_delta_channel_history(config=at, channels=["a"])
        await saver.acopy_thread("t", "u")
        await saver.aprune(["u"])
        await saver.adelete_for_runs(["r"])
        await saver.adelete_thread("u")
        await memories.aput(("a",), "k", {"n": 1})
        assert await memories.aget(("a",), "k") is not None

    async def sync_call() -> None:
        saver.put(config(), checkpoint(2), {}, {})
        saver.put(config(), checkpoint(3), {}, {})

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", sqlstate.BlocksEventLoop)
        asyncio.run(calls())
        assert [each for each in found if each.category is sqlstate.BlocksEventLoop] == []
        asyncio.run(sync_call())
        assert len([each for each in found if each.category is sqlstate.BlocksEventLoop]) == 1
    assert len([*saver.list(config())]) == 3


async def test_a_store_that_was_closed_says_so(saver: SqlstateSaver, store: sqlstate.Store) -> None:
    listed = saver.list(config())
    store.close()
    with pytest.raises(StoreClosed):
        saver.get_tuple(config())
    with pytest.raises(StoreClosed):
        saver.put(config(), checkpoint(1), {}, {})
    with pytest.raises(StoreClosed):
        next(listed)
    for task in (saver.aget_tuple(config()), saver.aput(config(), checkpoint(1), {}, {}), saver.aprune(["t"])):
        with pytest.raises(StoreClosed):
            await task


@pytest.mark.parametrize("thread", ["\ud800", "x" * 1_048_577])
def test_a_thread_that_cannot_be_named_is_refused(saver: SqlstateSaver, store: sqlstate.Store, thread: str) -> None:
    with pytest.raises(InvalidKey):
        saver.put(config(thread), checkpoint(1), {}, {})
    with pytest.raises(InvalidKey):
        saver.get_tuple(config(thread))
    with pytest.raises(InvalidKey):
        saver.delete_thread(thread)
    with pytest.raises(InvalidKey):
        next(saver.list(config(thread)))
    assert store.head().seq == 0


def test_a_huge_checkpoint_comes_back(saver: SqlstateSaver) -> None:
    saver.put(config(), checkpoint(1, a="x" * 30_000_000), {}, {})
    found = saver.get_tuple(config())
    assert found is not None
    assert len(found.checkpoint["channel_values"]["a"]) == 30_000_000


def test_a_list_that_is_left_half_read_holds_nothing(saver: SqlstateSaver, store: sqlstate.Store) -> None:
    for number in range(5):
        saver.put(config(), checkpoint(number), {}, {})
    half = saver.list(config())
    assert next(half).checkpoint["id"] == "00000004"
    saver.delete_thread("t")
    assert [*half] == []


@needs_fork
def test_a_child_made_by_fork_is_told_to_open_the_store_itself(saver: SqlstateSaver) -> None:
    saver.put(config(), checkpoint(1), {}, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: this process has threads
        child = os.fork()
    if child == 0:
        try:
            saver.put(config(), checkpoint(2), {}, {})
        except sqlstate.StoreError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len([*saver.list(config())]) == 1
