"""Goal: LangGraph's checkpoints and memories in a store keep LangGraph's contract, and nothing runs code from the file.

Method: LangGraph's own conformance suite in full; beside it what the suite does not look at: keys that contain the
separator, values that would need pickle, edited entries, channels kept as changes, a real graph, many processes.
"""

from __future__ import annotations

import asyncio
import operator
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph.checkpoint.conformance")

from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import GetOp, InvalidNamespaceError, PutOp, SearchOp

import sqlstate
from sqlstate import InvalidOption, InvalidValue
from sqlstate.integrations import keys
from sqlstate.integrations.langgraph import SqlstateSaver, SqlstateStore
from tests import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import OpenStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph is for asyncio only."""
    return "asyncio"


@pytest.fixture
def saver(store: sqlstate.Store) -> SqlstateSaver:
    return SqlstateSaver(store)


def config(thread: str = "t", ns: str = "", checkpoint: str | None = None) -> Any:
    named = {"thread_id": thread, "checkpoint_ns": ns}
    return {"configurable": named if checkpoint is None else {**named, "checkpoint_id": checkpoint}}


def checkpoint(number: int | str, **values: Any) -> Any:
    name = f"{number:08}" if isinstance(number, int) else number
    versions = dict.fromkeys(values, 1)
    return {**empty_checkpoint(), "id": name, "channel_values": values, "channel_versions": versions}


async def test_the_conformance_suite_of_langgraph_passes_in_full(open_store: OpenStore, tmp_path: Path) -> None:
    made = iter(range(1000))

    @checkpointer_test(name="SqlstateSaver")
    async def factory() -> AsyncIterator[SqlstateSaver]:
        yield SqlstateSaver(open_store(tmp_path / f"{next(made)}.db", mode="group"))

    report = await validate(factory)
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


@given(st.lists(st.text(max_size=4), min_size=1, max_size=4), st.lists(st.text(max_size=4), min_size=1, max_size=4))
def test_parts_of_a_key_come_back_and_no_two_lists_share_one(a: list[str], b: list[str]) -> None:
    assert keys.split(keys.join(*a)) == a
    assert (keys.join(*a) == keys.join(*b)) == (a == b)
    assert keys.join(*a, *b).startswith(keys.prefix(*a))
    assert keys.join(*b).startswith(keys.prefix(*a)) == (b[: len(a)] == a and len(b) > len(a))


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


def test_a_number_as_a_thread_is_its_text(saver: SqlstateSaver) -> None:
    saver.put({"configurable": {"thread_id": 7, "checkpoint_ns": ""}}, checkpoint(1), {}, {})
    assert saver.get_tuple(config("7")) is not None


class Plain:
    """What only pickle could store."""


@dataclass
class Known:
    """What LangGraph can store, and reads back only if it is allowed."""

    x: int


RING: list[Any] = []
RING.append(RING)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Plain(), "Plain"),
        (lambda: 1, "function"),
        (Known(1), r"tests\.integrations\.test_langgraph\.Known"),
        ([{"deep": {Known(1).x: [Known(2)]}}], "Known"),
        (2**70, "64"),
        (RING, "ecursion"),
    ],
    ids=["object", "function", "class", "class inside", "large int", "ring"],
)
def test_what_would_need_pickle_or_come_back_otherwise_is_refused_by_name(
    saver: SqlstateSaver, store: sqlstate.Store, value: Any, says: str
) -> None:
    with pytest.raises(InvalidValue, match=says):
        saver.put(config(), checkpoint(1, a=value), {}, {})
    with pytest.raises(InvalidValue, match=says):
        saver.put_writes(config(checkpoint="1"), [("b", 1), ("a", value)], "task")
    assert store.head().seq == 0


def test_a_class_that_is_allowed_comes_back_as_itself(store: sqlstate.Store) -> None:
    for allowed in (Known, (Known.__module__, "Known")):
        saver = SqlstateSaver(store, allowed_types=[allowed])
        saver.put(config(), checkpoint(1, a=[Known(1)], b={Known(2).x}), {}, {})
        found = saver.get_tuple(config())
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": [Known(1)], "b": {2}}


@pytest.mark.parametrize("metadata", [{"a": {1}}, {"a": float("nan")}, {"a": Plain()}, {"a": b"x"}])
def test_metadata_that_are_not_json_are_refused(saver: SqlstateSaver, store: sqlstate.Store, metadata: Any) -> None:
    with pytest.raises(InvalidValue):
        saver.put(config(), checkpoint(1), metadata, {})
    assert store.head().seq == 0


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("kind", ["pickle", "json", "Hostile", ""])
def test_a_pickle_in_the_file_is_not_run(
    saver: SqlstateSaver, store: sqlstate.Store, tmp_path: Path, kind: str
) -> None:
    made = tmp_path / "made"
    saver.put(config(), checkpoint(1), {}, {})
    store["langgraph/checkpoints"]["t//00000001"] |= {"type": kind}
    store["langgraph/values"]["t//00000001"] = pickle.dumps(Hostile(made))
    with pytest.raises(InvalidValue, match="never read"):
        saver.get_tuple(config())
    assert not made.exists()


@pytest.mark.parametrize(
    ("collection", "key", "value"),
    [
        ("checkpoints", "t//00000001", 5),
        ("checkpoints", "t//00000001", {"parent": 5, "type": "msgpack", "metadata": {}}),
        ("values", "t//00000001", b"\xc1"),
        ("values", "t//00000001", {"no": "bytes"}),
        ("writes", "t//00000001/task/0", b"no json"),
        ("writes", "t//00000001/task/0", 5),
        ("writes", "t//00000001/task/x", b'{"channel":"c","type":"null","path":""}\n'),
    ],
)
def test_an_edited_entry_is_named(
    saver: SqlstateSaver, store: sqlstate.Store, collection: str, key: str, value: Any
) -> None:
    saver.put(config(), checkpoint(1), {}, {})
    store[f"langgraph/{collection}"][key] = value
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


class State(TypedDict):
    """Of the graph below."""

    log: Annotated[list[str], operator.add]


def graph(**options: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("one", lambda state: {"log": ["one"]})
    builder.add_node("two", lambda state: {"log": ["two"]})
    builder.add_edge(START, "one")
    builder.add_edge("one", "two")
    builder.add_edge("two", END)
    return builder.compile(**options)


async def test_a_graph_goes_on_where_another_process_left_it(store: sqlstate.Store, open_store: OpenStore) -> None:
    at = {"configurable": {"thread_id": "7"}}
    graph(checkpointer=SqlstateSaver(store), interrupt_before=["two"]).invoke({"log": ["go"]}, at)
    other = graph(checkpointer=SqlstateSaver(open_store()))
    assert other.get_state(at).next == ("two",)
    assert (await other.ainvoke(None, at))["log"] == ["go", "one", "two"]
    steps = [state.metadata["step"] async for state in other.aget_state_history(at)]
    assert steps == [2, 1, 0, -1]


WRITER = """
import sys
import sqlstate
from langgraph.checkpoint.base import empty_checkpoint
from sqlstate.integrations.langgraph import SqlstateSaver

path, who, count = sys.argv[1:]
with sqlstate.open(path, timeout=60) as store:
    saver = SqlstateSaver(store)
    at = {"configurable": {"thread_id": who, "checkpoint_ns": ""}}
    for number in range(int(count)):
        at = saver.put(at, {**empty_checkpoint(), "channel_values": {"n": number}}, {"step": number}, {})
        saver.put_writes(at, [("n", number)], "task")
"""


def test_processes_put_at_once_and_lose_nothing(saver: SqlstateSaver, path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = [[sys.executable, "-c", WRITER, str(path), f"{who}", "20"] for who in range(3)]
    writers = [subprocess.Popen(command, env=environment) for command in commands]
    assert [writer.wait() for writer in writers] == [0] * 3
    for who in range(3):
        found = [*saver.list(config(f"{who}"))]
        assert [each.metadata["step"] for each in found] == [*range(19, -1, -1)]
        assert all(len(each.pending_writes or []) == 1 for each in found)


async def test_tasks_share_commits(open_store: OpenStore, path: Path) -> None:
    store = open_store(path, mode="group")
    saver = SqlstateSaver(store)
    await asyncio.gather(*(saver.aput(config(f"{n}"), checkpoint(1), {}, {}) for n in range(100)))
    assert len([each async for each in saver.alist(None)]) == 100
    assert len([each async for each in saver.alist(None, limit=7)]) == 7


# ---- Memories ----


@pytest.fixture
def memories(store: sqlstate.Store) -> SqlstateStore:
    return SqlstateStore(store)


def test_a_batch_is_one_commit_and_reads_what_was_before(memories: SqlstateStore, store: sqlstate.Store) -> None:
    memories.put(("a",), "k", {"n": 0})
    results = memories.batch([PutOp(("a",), "k", {"n": 1}), PutOp(("a",), "j", {"n": 2}), GetOp(("a",), "k")])
    assert [None if each is None else each.value for each in results] == [None, None, {"n": 0}]  # type: ignore[union-attr]
    assert store.head().seq == 2
    item = memories.get(("a",), "k")
    assert item is not None
    assert item.value == {"n": 1}
    assert item.created_at < item.updated_at
    memories.delete(("a",), "k")
    memories.delete(("a",), "k")
    assert memories.get(("a",), "k") is None
    assert store.head().seq == 3


async def test_a_namespace_holds_what_is_below_it_and_nothing_beside_it(memories: SqlstateStore) -> None:
    for namespace in [("a",), ("a", "b"), ("ab",), ("a/b",), ("a", "b/c"), ("b",)]:
        await memories.aput(namespace, "k/1", {"at": "/".join(namespace)})
    assert [item.namespace for item in memories.search(("a",))] == [("a", "b/c"), ("a", "b"), ("a",)]
    assert [item.key for item in await memories.asearch(("a", "b"))] == ["k/1"]
    assert len(memories.search((), limit=100)) == 6
    assert len(memories.search((), limit=2, offset=5)) == 1
    assert memories.list_namespaces() == sorted([("a",), ("a", "b"), ("ab",), ("a/b",), ("a", "b/c"), ("b",)])
    assert memories.list_namespaces(prefix=("a",), max_depth=1) == [("a",)]
    assert memories.list_namespaces(suffix=("*", "b")) == [("a", "b")]
    assert await memories.alist_namespaces(limit=1, offset=1) == [("a", "b")]


def test_a_filter_compares(memories: SqlstateStore) -> None:
    for number in range(5):
        memories.put(("a",), f"{number}", {"n": number, "in": {"x": number % 2}, "t": "s"})

    def found(**wanted: Any) -> str:
        return "".join(item.key for item in memories.search(("a",), filter=wanted))

    assert (found(n=3), found(n={"$gte": 3}), found(n={"$gt": 1, "$lt": 3}), found(n={"$ne": 0})) == (
        "3", "34", "2", "1234",
    )  # fmt: skip
    assert (found(**{"in": {"x": 1}}), found(t={"$gt": 1}), found(none=None), found(n={"x": 1})) == (
        "13", "", "01234", "",
    )  # fmt: skip
    with pytest.raises(InvalidOption, match="operator"):
        found(n={"$like": 1})


def test_what_a_memory_cannot_be_is_refused(memories: SqlstateStore, store: sqlstate.Store) -> None:
    for value in ({"a": {1}}, {"a": (1,)}, {"a": float("nan")}, {"a": object()}, [1]):
        with pytest.raises(InvalidValue):
            memories.put(("a",), "k", value)  # type: ignore[arg-type]
        with pytest.raises(InvalidValue):
            memories.batch([PutOp(("a",), "j", {"x": 1}), PutOp(("a",), "k", value)])  # type: ignore[arg-type]
    for wrong in (SearchOp(("a",), query="x"), SearchOp(("a",), limit=-1), PutOp((), "k", {}), "op"):
        with pytest.raises(InvalidOption):
            memories.batch([wrong])  # type: ignore[list-item]
    for namespace in (("a.b",), ("",), (1,)):
        with pytest.raises(InvalidNamespaceError):
            memories.batch([PutOp(namespace, "k", {})])  # type: ignore[arg-type]
    assert store.head().seq == 0
