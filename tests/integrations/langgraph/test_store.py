"""Goal: LangGraph's long-term memories in a store keep the contract of its stores, and a batch is one transaction.

Method: LangGraph has no suite for stores. Its own store in memory is the model: what both hold and find is compared.
Beside that: commits counted, labels with any text, what a memory cannot be.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

pytest.importorskip("langgraph.store.base")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.store.base import GetOp, InvalidNamespaceError, ListNamespacesOp, MatchCondition, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

import sqlstate
from sqlstate import InvalidOption, InvalidValue, pack_key
from sqlstate.integrations.langgraph import SqlstateStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def memories(store: sqlstate.Store) -> SqlstateStore:
    return SqlstateStore(store)


def test_a_batch_is_one_commit_and_reads_what_was_before(memories: SqlstateStore, store: sqlstate.Store) -> None:
    memories.put(("a",), "k", {"n": 0})
    results: list[Any] = memories.batch(
        [PutOp(("a",), "k", {"n": 1}), PutOp(("a",), "j", {"n": 2}), GetOp(("a",), "k")]
    )
    assert [None if each is None else each.value for each in results] == [None, None, {"n": 0}]
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
    assert [item.namespace for item in memories.search(("a",))] == [("a", "b"), ("a", "b/c"), ("a",)]
    assert [item.key for item in await memories.asearch(("a", "b"))] == ["k/1"]
    assert len(memories.search((), limit=100)) == 6
    assert len(memories.search((), limit=2, offset=5)) == 1
    assert memories.list_namespaces() == sorted([("a",), ("a", "b"), ("ab",), ("a/b",), ("a", "b/c"), ("b",)])
    assert memories.list_namespaces(prefix=("a",), max_depth=1) == [("a",)]
    assert memories.list_namespaces(suffix=("*", "b")) == [("a", "b")]
    assert await memories.alist_namespaces(limit=1, offset=1) == [("a", "b")]


def test_a_key_is_no_label(memories: SqlstateStore) -> None:
    memories.put(("a",), "b", {"n": 1})
    assert memories.search(("a", "b")) == []
    assert [item.key for item in memories.search(("a",))] == ["b"]
    assert memories.list_namespaces() == [("a",)]


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
    value: Any
    wrong: Any
    namespace: Any
    for value in ({"a": {1}}, {"a": (1,)}, {"a": float("nan")}, {"a": object()}, [1]):
        with pytest.raises(InvalidValue):
            memories.put(("a",), "k", value)
        with pytest.raises(InvalidValue):
            memories.batch([PutOp(("a",), "j", {"x": 1}), PutOp(("a",), "k", value)])
    for wrong in (SearchOp(("a",), query="x"), SearchOp(("a",), limit=-1), PutOp((), "k", {}), "op"):
        with pytest.raises(InvalidOption):
            memories.batch([wrong])
    for namespace in (("a.b",), ("",), (1,)):
        with pytest.raises(InvalidNamespaceError):
            memories.batch([PutOp(namespace, "k", {})])
    assert store.head().seq == 0


@pytest.mark.parametrize(
    "found",
    [5, {"value": 1, "created_at": "2026-01-01", "updated_at": "2026-01-01"}, {"value": {}},
     {"value": {}, "created_at": "soon", "updated_at": "2026-01-01"}],
)  # fmt: skip
def test_an_edited_memory_is_named(memories: SqlstateStore, store: sqlstate.Store, found: Any) -> None:
    store["langgraph/store"][pack_key(("a", "k"))] = found
    with pytest.raises(InvalidValue, match="langgraph/store"):
        memories.get(("a",), "k")
    with pytest.raises(InvalidValue, match="langgraph/store"):
        memories.search(("a",))


def test_what_is_no_store_is_refused() -> None:
    other: Any
    for other in ("agent.db", None, sqlstate):
        with pytest.raises(InvalidOption, match=r"sqlstate\.open"):
            SqlstateStore(other)


LABELS = st.sampled_from(["a", "b", "a/b", "ab", "é", "*", "%"])
NAMESPACES = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
KEYS = st.sampled_from(["k", "k/1", "", "a", "b"])
VALUES = st.none() | st.fixed_dictionaries({"n": st.integers(0, 4), "t": st.sampled_from(["x", "y"])})
FILTERS = st.sampled_from(
    [
        None,
        {},
        {"n": 1},
        {"n": {"$gte": 2}},
        {"n": {"$gt": 0, "$lt": 3}},
        {"t": {"$ne": "x"}},
        {"t": {"$eq": "x"}},
        {"no": 1},
    ]
)
PATHS = st.lists(LABELS, min_size=1, max_size=2).map(tuple)


def condition(given: Any) -> MatchCondition:
    return MatchCondition(*given)


CONDITION = st.tuples(st.sampled_from(["prefix", "suffix"]), PATHS).map(condition)
CONDITIONS = st.lists(CONDITION, max_size=2).map(tuple)
PUTS = st.tuples(NAMESPACES, KEYS, VALUES).map(lambda given: PutOp(*given))
GETS = st.tuples(NAMESPACES, KEYS).map(lambda given: GetOp(*given))
SEARCHES = st.tuples(st.lists(LABELS, max_size=2).map(tuple), FILTERS).map(lambda given: SearchOp(*given, 1000))
LISTS = st.tuples(CONDITIONS, st.none() | st.integers(1, 3)).map(lambda given: ListNamespacesOp(*given, 1000))
BATCHES = st.lists(st.one_of(PUTS, PUTS, GETS, SEARCHES), max_size=6)


def seen(results: list[Any]) -> list[Any]:
    """Return what can be compared of results: times are each store's own, and so is the order of what is found."""

    def item(found: Any) -> Any:
        if found is None or isinstance(found, tuple):
            return found
        return found.namespace, found.key, sorted(found.value.items())

    return [sorted(map(item, each)) if isinstance(each, list) else item(each) for each in results]


NUMBERS = count()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.lists(st.tuples(BATCHES, LISTS), max_size=6))
def test_it_does_what_langgraphs_own_store_does(store: sqlstate.Store, steps: list[tuple[list[Any], Any]]) -> None:
    memories, model = SqlstateStore(store, name=f"{next(NUMBERS)}"), InMemoryStore()
    for ops, listing in steps:
        assert seen(memories.batch(ops)) == seen(model.batch(ops))
        for namespace in [each for each, items in model._data.items() if not items]:
            del model._data[namespace]  # it lists those that it was only asked about
        assert seen(memories.batch([listing])) == seen(model.batch([listing]))
