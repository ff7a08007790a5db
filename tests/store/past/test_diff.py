"""diff() yields what a comparison of every entry would, and reads few nodes."""

from __future__ import annotations

import gc
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqlstate
from sqlstate import ABSENT
from sqlstate.store.snapshot import OpenSnapshot
from sqlstate.tables import merkle_diff

if TYPE_CHECKING:
    from tests.conftest import OpenStore

keys = st.integers(0, 10**6) | st.text("abc", min_size=1, max_size=3) | st.binary(min_size=1, max_size=2)
content = st.dictionaries(keys, st.sampled_from([1, 1.0, "x", b"x", None]), max_size=60)


def in_order(key: Any) -> tuple[int, Any]:
    return [int, str, bytes].index(type(key)), key


def differences(a: dict[Any, Any], b: dict[Any, Any]) -> list[tuple[Any, Any, Any]]:
    every = sorted({*a, *b}, key=in_order)
    pairs = [(key, a.get(key, ABSENT), b.get(key, ABSENT)) for key in every]
    return [(key, x, y) for key, x, y in pairs if (type(x), x) != (type(y), y)]


def found(a: Any, b: Any) -> list[tuple[Any, Any, Any]]:
    return [(each.key, each.a, each.b) for each in sqlstate.diff(a, b)]


@settings(max_examples=20)
@given(base=content, ours=content, theirs=content, gone=st.sets(st.integers(0, 59)))
def test_two_stores_differ_in_what_their_dicts_differ(
    base: dict[Any, Any], ours: dict[Any, Any], theirs: dict[Any, Any], gone: set[int]
) -> None:
    left = [key for number, key in enumerate(base) if number in gone]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stores = [stack.enter_context(sqlstate.open(Path(folder) / name)) for name in "ab"]
        contents = [base | ours, base | theirs]
        for key in left:
            del contents[0][key]
        for store, each in zip(stores, contents, strict=True):
            store["c"].update(each)
        assert found(*stores) == differences(*contents)
        assert found(*stores[::-1]) == differences(*contents[::-1])
        assert found(stores[0], stores[0]) == []
        stores[0]["c"].replace(contents[1])
        assert found(*stores) == []
        with stores[0].at(min(1, stores[0].head().seq)) as past, stores[1].snapshot() as view:
            assert found(past, view) == differences(contents[0] or contents[1], contents[1])


def test_collections_come_in_order(store: sqlstate.Store) -> None:
    with store.snapshot() as before:
        for name in ("b", "a", "a\0"):
            store[name]["k"] = name
        assert [(each.collection, each.b) for each in sqlstate.diff(before, store)] == [
            ("a", "a"), ("a\0", "a\0"), ("b", "b"),
        ]  # fmt: skip


def test_few_nodes_are_read(open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = open_store()
    ours["c"].update(dict.fromkeys(range(20_000), "x" * 20))
    ours.backup(tmp_path / "copy.db")
    theirs = open_store(tmp_path / "copy.db")
    for number in range(0, 20_000, 2_000):
        theirs["c"][number] = "new"
    trees = []

    class Seen(merkle_diff.Tree):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            trees.append(self)

    monkeypatch.setattr(merkle_diff, "Tree", Seen)
    assert len(found(ours, theirs)) == 10
    assert sum(tree.nodes_read for tree in trees) <= 120, "2 trees of 4 or 5 levels, 10 paths"


def test_what_it_reads_ends_with_it(store: sqlstate.Store) -> None:
    store["c"].update({number: number for number in range(100)})
    with store.at(0) as past:
        every = sqlstate.diff(past, store)
        next(every)
        store["c"].clear()  # it goes on with the state of its first step
        assert len(list(every)) == 99
        assert len(store._engine.readers.lent) == 1
        store["c"].update({1: 1, 2: 2})
        dropped = sqlstate.diff(past, store)
        next(dropped)
        del dropped
        gc.collect()
        assert store["c"][1] == 1
        assert len(store._engine.readers.lent) == 1
        late = sqlstate.diff(past, store)
    with pytest.raises(sqlstate.TransactionEnded) as caught:
        list(late)
    assert store._engine.readers.lent == [], caught.value
    store.close()
    with pytest.raises(sqlstate.StoreClosed):
        list(sqlstate.diff(store, store))


class Unheard(BaseException):
    """An exception that nobody knows."""


@pytest.mark.parametrize(("place", "number"), [("get_stored", 1), ("reader", 2), ("__init__", 2)])
def test_an_exception_that_is_kept_holds_nothing(
    store: sqlstate.Store, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    store["c"]["k"] = 1
    calls = 0
    whole = getattr(OpenSnapshot, place)

    def fails(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise Unheard
        return whole(*arguments)

    with store.at(0) as past, monkeypatch.context() as patched:
        patched.setattr(OpenSnapshot, place, fails)
        with pytest.raises(Unheard) as kept:
            list(sqlstate.diff(store, store if place == "__init__" else past))
        assert len(store._engine.readers.lent) == 1, kept.value


@pytest.mark.parametrize("what", [None, {}, "a.db", 5, b""])
def test_what_is_no_state_is_refused(store: sqlstate.Store, what: Any) -> None:
    for pair in ((store, what), (what, store)):
        with pytest.raises(sqlstate.InvalidOption, match="not a store"):
            sqlstate.diff(*pair)
    with pytest.raises(sqlstate.InvalidOption):
        sqlstate.diff(store, store["c"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE merkle SET children = zeroblob(40) WHERE id = (SELECT min(id) FROM merkle WHERE level = 1)",
        "UPDATE merkle SET children = zeroblob(length(children)) WHERE level = (SELECT max(level) FROM merkle)",
        "UPDATE merkle SET children = 'x' WHERE level = 1",
        "UPDATE merkle SET key = 1.5 WHERE id = (SELECT max(id) FROM merkle WHERE level = 1)",
        "DELETE FROM merkle WHERE level = 1",
        "DELETE FROM state WHERE key = 7",
        "UPDATE state SET key = 1.5 WHERE key = 7",
        "UPDATE state SET key = 1000 WHERE key = 7",
    ],
)
def test_damage_is_found_and_not_taken_for_a_difference(open_store: OpenStore, tmp_path: Path, sql: str) -> None:
    at = tmp_path / "damaged.db"
    with sqlstate.open(at) as damaged:
        damaged["c"].update(dict.fromkeys(range(300), "x"))
    connection = apsw.Connection(str(at))
    connection.execute(sql)
    connection.close()
    store = open_store()
    store["c"].update(dict.fromkeys(range(300), "y"))
    with sqlstate.open(at, read_only=True) as damaged, pytest.raises(sqlstate.Damaged):
        list(sqlstate.diff(damaged, store))
