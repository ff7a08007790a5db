"""Goal: keys of a type hold wherever a collection is read or written: stores, transactions, batches, snapshots, the
past, changes, watching, and the same for tasks; and a collection that holds other keys says so instead of lying.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sqlstate
from sqlstate import aio
from sqlstate.store.view import CollectionView
from tests.reference.tuple_keys import order, packed

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

Pair = tuple[str, int]
PARTS: dict[Pair, Any] = {("bolt", 7): "M6", ("bolt", 10): "M8", ("bolt\x00", 1): None, ("nut", -1): b"x"}
FORMS: dict[str, Callable[[sqlstate.Store], AbstractContextManager[Any]]] = {
    "store": lambda store: store.transaction(),  # and the store's own collection inside it
    "transaction": lambda store: store.transaction(),
    "batch": lambda store: store.batch(),
    "snapshot": lambda store: store.snapshot(),
    "past": lambda store: store.at(1),
}


def parts(of: Any) -> Any:
    return of.collection("parts", key=tuple[str, int])


def filled(store: sqlstate.Store) -> sqlstate.Store:
    parts(store).update(reversed(PARTS.items()))
    return store


def read(view: Any) -> None:
    """Every way to read a collection gives, and takes, tuples."""
    keys = list(PARTS)
    assert list(view) == list(view.keys()) == keys
    assert list(reversed(view)) == list(view.keys(reverse=True)) == keys[::-1]
    assert list(view.items()) == list(PARTS.items())
    assert list(view.values()) == list(PARTS.values())
    assert view == PARTS
    assert view["bolt", 7] == "M6"
    assert view.get(("bolt", 8), "none") == "none"
    assert ("bolt", 7) in view
    assert ("bolt", 8) not in view
    assert view.get_many([("nut", -1), ("bolt", 7), ("no", 1)]) == {("nut", -1): b"x", ("bolt", 7): "M6"}
    assert view.get_many([("no", 1)], default=0) == {("no", 1): 0}
    assert list(view.keys(prefix=("bolt",))) == keys[:2], "and not those whose text only begins so"
    assert len(view.keys(prefix=("bolt",))) == 2
    assert list(view.keys(prefix=("bolt", 7))) == keys[:1]
    assert list(view.keys(prefix=())) == list(view.keys(start=())) == keys
    assert list(view.items(start=("bolt", 8), stop=("nut",))) == list(PARTS.items())[1:3]
    assert list(view.values(prefix=("bolt",), reverse=True, limit=1)) == ["M8"]
    assert ("bolt", 7) in view.keys(prefix=("bolt",))
    assert ("nut", -1) not in view.keys(prefix=("bolt",))
    assert ("bolt", 7) in view.keys(limit=1)
    assert (("bolt", 7), "M6") in view.items()
    assert (("bolt", 7), "M6") in view.items(limit=1)
    with pytest.raises(sqlstate.EntryNotFound) as missing:
        view["bolt", 8]
    assert missing.value.key == ("bolt", 8)
    for call in (
        lambda: view["bolt"],
        lambda: view.get(("bolt",)),
        lambda: ("bolt", "7") in view,
        lambda: view.get_many([("bolt", 7), "bolt"]),
        lambda: view.get_many(("bolt", 7)),
        lambda: view.keys(prefix="bolt"),
        lambda: view.keys(prefix=("bolt", 7, 7)),
        lambda: view.keys(start=("bolt", "a")),
        lambda: ("bolt", True) in view.keys(limit=1),
        lambda: view.history(b"bolt"),
    ):
        with pytest.raises(sqlstate.InvalidKey):
            call()


@pytest.mark.parametrize("form", FORMS)
def test_reading_gives_tuples_everywhere(store: sqlstate.Store, form: str) -> None:
    filled(store)
    with FORMS[form](store) as of:
        read(parts(store if form == "store" else of))
    read(parts(store))


@pytest.mark.parametrize("form", ["store", "transaction", "batch"])
def test_writing_takes_tuples_everywhere(store: sqlstate.Store, form: str) -> None:
    filled(store)
    with FORMS[form](store) as of:
        view = parts(store if form == "store" else of)
        view["screw", 1] = 1
        assert view.setdefault(("screw", 2), 2) == 2
        assert view.setdefault(("screw", 2), 3) == 2
        assert view.pop(("bolt", 7)) == "M6"
        assert view.pop(("bolt", 7), None) is None
        del view["bolt", 10]
        with pytest.raises(sqlstate.EntryNotFound) as missing:
            del view["bolt", 10]
        assert missing.value.key == ("bolt", 10)
        assert view.popitem() == (("screw", 2), 2)
        with pytest.raises(sqlstate.InvalidValue) as refused:
            view["bolt", 1] = {1}
        assert refused.value.key == ("bolt", 1)
        calls: tuple[Callable[[], object], ...] = (
            lambda: view.update({("a", 1): 1, "b": 2}),
            lambda: view.replace({("a", "1"): 1}),
            lambda: view.setdefault("a", 1),
            lambda: view.pop(b"a"),
            lambda: view.__delitem__(1),
        )
        for call in calls:
            with pytest.raises(sqlstate.InvalidKey):
                call()
        assert list(view) == [("bolt\x00", 1), ("nut", -1), ("screw", 1)]
        view.replace({("nut", -1): b"x", ("nut", 0): 0})
        assert list(view) == [("nut", -1), ("nut", 0)]
    assert list(store["parts"]) == [packed(("nut", -1)), packed(("nut", 0))], "bytes, to everybody else"
    parts(store).clear()
    assert "parts" not in store


def test_changes_have_tuples_as_keys(store: sqlstate.Store) -> None:
    filled(store)
    parts(store)["bolt", 7] = "M7"
    store["other"]["text"] = 1
    assert [change.key for change in parts(store).history(("bolt", 7))] == [("bolt", 7)] * 2
    wanted: dict[str, Any] = {"collection": "parts", "key": tuple[str, int]}
    assert [change.key for change in store.changes(**wanted)] == [*PARTS, ("bolt", 7)]
    assert [change.key for change in store.changes(**wanted, prefix=("bolt",))] == [*list(PARTS)[:2], ("bolt", 7)]
    found = [[change.key for change in each] for _, each in store.watch(0, 0, changes=True, **wanted)]
    assert found == [list(PARTS), [("bolt", 7)]]
    [(_, [change])] = store.watch(1, 0, changes=True, prefix=("bolt",), **wanted)
    assert (change.key, change.before, change.value) == (("bolt", 7), "M6", "M7")
    with pytest.raises(sqlstate.InvalidKey, match="'other' holds the key 'text'"):
        list(store.changes(key=tuple[str, int]))
    with pytest.raises(sqlstate.InvalidKey, match="not str"):
        store.changes(collection="parts", key=tuple[str, int], prefix="bolt")
    with pytest.raises(sqlstate.InvalidOption, match="float is no type of keys"):
        store.changes(key=float)
    with pytest.raises(sqlstate.InvalidOption, match="ask for changes"):
        store.watch(key=str)  # type: ignore[call-overload]
    # Of no type, as before: the bytes.
    assert [change.key for change in store.changes(collection="parts", prefix=b"\x02nut")] == [packed(("nut", -1))]


def test_a_prefix_of_changes_is_of_one_kind(store: sqlstate.Store) -> None:
    store["c"].update({1: 0, "a": 0, "ab": 0, "b": 0, b"a": 0, b"ab": 0, b"\xff\xff": 0})
    for prefix, keys in (("a", ["a", "ab"]), (b"a", [b"a", b"ab"]), ("", ["a", "ab", "b"]), (b"\xff", [b"\xff\xff"])):
        assert [change.key for change in store.changes(prefix=prefix)] == keys == list(store["c"].keys(prefix=prefix))


@pytest.mark.parametrize(("type_", "held"), [(str, 7), (int, "a"), (tuple[str, int], b"\x02a\x00"), (tuple, "a")])
def test_a_key_of_another_type_is_named_when_its_turn_comes(store: sqlstate.Store, type_: Any, held: Any) -> None:
    store["c"][held] = 1
    view = store.collection("c", key=type_)
    assert len(view) == 1
    for reading in (
        lambda: list(view),
        lambda: list(view.items()),
        lambda: list(view.history(held if type_ is int or type_ is str else "a")),
        lambda: view.popitem(),
    ):
        with pytest.raises(sqlstate.InvalidKey):
            reading()
    with pytest.raises(sqlstate.InvalidKey, match=r"'c' holds the key .* ask for the type that all"):
        list(view.keys(reverse=True))
    assert list(view.values()) == [1]
    assert "unreadable" in view._repr_html_(), "a notebook shows why"
    assert dict(store["c"]) == {held: 1}, "nothing was changed"
    head = store.head()
    with pytest.raises(sqlstate.InvalidKey):
        view.popitem()
    assert store.head() == head
    view.clear()
    assert len(view) == 0


def test_a_scan_gives_those_before_a_key_of_another_type(store: sqlstate.Store) -> None:
    store["c"].update({1: "a", 2: "b", "three": "c"})
    rows = iter(store.collection("c", key=int).items())
    assert [next(rows), next(rows)] == [(1, "a"), (2, "b")]
    with pytest.raises(sqlstate.InvalidKey, match="'c' holds the key 'three'"):
        next(rows)
    with pytest.raises(StopIteration):
        next(rows)


def test_values_of_a_type_go_with_keys_of_a_type(store: sqlstate.Store) -> None:
    view = store.collection("ages", type=int, key=tuple[str, str])
    view["ada", "lovelace"] = 36
    with pytest.raises(sqlstate.InvalidValue) as refused:
        view["ada", "x"] = "36"  # type: ignore[assignment]
    assert refused.value.key == ("ada", "x")
    store["ages"][packed(("bob", "b"))] = "old"
    for reading in (lambda: view["bob", "b"], lambda: list(view.items()), lambda: view.pop(("bob", "b"))):
        with pytest.raises(sqlstate.InvalidValue) as misfit:
            reading()
        assert misfit.value.key == ("bob", "b")


def test_a_type_checker_knows_the_type_of_keys(store: sqlstate.Store) -> None:
    """Mypy reads these lines; at run time they hold as well."""
    users = store.collection("users", type=int, key=str)
    users.update({"ada": 36, "bob": 40})
    assert [key.upper() for key in users] == ["ADA", "BOB"]
    assert_type(users, sqlstate.Collection[int, str])
    assert_type(list(users.items()), list[tuple[str, int]])
    assert_type(users.popitem(), tuple[str, int])
    assert_type(store.collection("pairs", key=tuple[str, int]), sqlstate.Collection[Any, tuple[str, int]])
    assert_type(store.collection("many", key=tuple[str, ...]), sqlstate.Collection[Any, tuple[str, ...]])
    # Without key=, as before.
    assert_type(store.collection("users", type=int), sqlstate.Collection[int])
    assert_type(list(store["users"]), list[int | str | bytes])
    untyped: sqlstate.Collection[Any] = store["users"]
    assert len(untyped) == 1
    with store.snapshot() as view:
        assert_type(view.collection("users", key=str), CollectionView[Any, str])


def test_a_type_checker_refuses_keys_of_another_type(store: sqlstate.Store) -> None:
    """Each ignored line is an error to mypy, which also tells of a comment that ignores nothing."""
    users = store.collection("users", key=str)
    pairs = store.collection("pairs", key=tuple[str, int])
    calls: list[Callable[[], object]] = [
        lambda: users.get(1),  # type: ignore[call-overload]
        lambda: users[b"ada"],  # type: ignore[index]
        lambda: users.setdefault(("ada",), 1),  # type: ignore[arg-type]
        lambda: pairs["ada"],  # type: ignore[index]
        lambda: pairs["ada", "1"],  # type: ignore[index]
        lambda: pairs.pop(("ada", 1, 2)),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(sqlstate.InvalidKey):
            call()


@pytest.mark.anyio
async def test_a_type_checker_knows_the_type_of_keys_of_tasks(aiostore: aio.AsyncStore) -> None:
    users = aiostore.collection("users", type=int, key=str)
    await users.update({"ada": 36})
    assert [key.upper() async for key in users] == ["ADA"]
    assert_type([pair async for pair in users.items()], list[tuple[str, int]])
    assert_type(aiostore.collection("users", type=int), aio.AsyncCollection[int])
    async with aiostore.transaction() as txn:
        pairs = txn.collection("pairs", key=tuple[str, int])
        pairs.put(("ada", 1), 1)
        assert_type([key async for key in pairs], list[tuple[str, int]])
        with pytest.raises(sqlstate.InvalidKey):
            pairs.put("ada", 1)  # type: ignore[arg-type]
    async with aiostore.snapshot() as view:
        assert [key.upper() async for key in view.collection("users", key=str).keys(prefix="a")] == ["ADA"]


def test_the_classes_can_be_given_their_types(store: sqlstate.Store) -> None:
    for cls in (sqlstate.Collection, sqlstate.CollectionView, aio.AsyncCollection, aio.AsyncCollectionView):
        for arguments in ((int,), (int, str), (Any, tuple[str, int])):
            assert cls[*arguments].__origin__ is cls
    assert issubclass(sqlstate.Collection, CollectionView)
    assert isinstance(store["c"], sqlstate.Collection)


elements = st.integers(-3, 3) | st.text("\x00a\xff", max_size=2) | st.binary(max_size=2)
few = st.lists(elements, min_size=1, max_size=3).map(tuple)


def test_a_collection_is_a_sorted_dict_of_tuples(store: sqlstate.Store) -> None:
    view = store.collection("c", key=tuple)

    @given(st.dictionaries(few, st.integers(0, 9), max_size=12), st.lists(elements, max_size=2).map(tuple), few, few)
    def check(expected: dict[Any, int], prefix: tuple[Any, ...], one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
        low, high = sorted((one, other), key=order)
        view.replace(expected)
        assert list(view) == sorted(expected, key=order)
        assert dict(view) == expected
        assert set(view.keys(prefix=prefix)) == {each for each in expected if each[: len(prefix)] == prefix}
        inside = {each for each in expected if order(low) <= order(each) < order(high)}
        assert set(view.keys(start=low, stop=high)) == inside
        assert len(view.keys(start=low, stop=high)) == len(inside)

    check()


# ---- For tasks ----


@pytest.mark.anyio
async def test_tasks_read_and_write_tuples(aiostore: aio.AsyncStore, path: Path) -> None:
    view = parts(aiostore)
    await view.update(PARTS)
    keys = list(PARTS)
    async with aiostore.snapshot() as snapshot, aiostore.at(1) as past, aiostore.transaction() as txn:
        for each in (view, parts(snapshot), parts(past), parts(txn)):
            assert [key async for key in each] == keys
            assert [pair async for pair in each.items(start=("bolt", 8))] == list(PARTS.items())[1:]
            assert [value async for value in each.values(prefix=("bolt",))] == ["M6", "M8"]
            assert [key async for key in each.keys(prefix=("bolt",), reverse=True)] == keys[1::-1]
            assert await each.get(("bolt", 7)) == "M6"
            assert await each.get_many([("bolt", 7), ("no", 0)]) == {("bolt", 7): "M6"}
            assert await each.contains(("nut", -1))
            assert await each.count(prefix=("bolt",)) == 2
            for wrong in ("bolt", ("bolt",), ("bolt", True), b"x"):
                with pytest.raises(sqlstate.InvalidKey):
                    await each.get(wrong)
                with pytest.raises(sqlstate.InvalidKey):
                    await each.contains(wrong)
        parts(txn).put(("bolt", 8), "M7")
        parts(txn).update({("a", 0): 0})
        parts(txn).delete(("nut", -1))
        with pytest.raises(sqlstate.InvalidKey):
            parts(txn).delete("nut")
        assert [key async for key in parts(txn)] == [("a", 0), ("bolt", 7), ("bolt", 8), ("bolt", 10), ("bolt\x00", 1)]
    await view.put(("bolt", 7), "M9")
    assert await view.delete(("bolt", 8))
    assert await view.pop(("a", 0)) == 0
    assert await view.popitem() == (("bolt\x00", 1), None)
    assert await view.setdefault(("z", 1), 1) == 1
    assert [change.value async for change in view.history(("bolt", 7))] == ["M9", "M6"]
    wanted: dict[str, Any] = {"collection": "parts", "key": tuple[str, int], "prefix": ("bolt", 7)}
    assert [change.value async for change in aiostore.changes(**wanted)] == ["M6", "M9"]
    assert [each[0].key async for _, each in aiostore.watch(0, 0, changes=True, **wanted)] == [("bolt", 7)] * 2
    await view.replace({("bolt", 7): "M9"})
    assert [key async for key in aiostore["parts"]] == [packed(("bolt", 7))]
    await aiostore["parts"].put("text", 1)
    with pytest.raises(sqlstate.InvalidKey, match="'parts' holds the key 'text'"):
        [key async for key in view]
    await view.clear()
    assert await view.count() == 0


# ---- Where a call takes no tuple, it takes and gives the bytes ----

awkward = st.lists(
    st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8"), max_size=3) | st.binary(max_size=3),
    min_size=1,
    max_size=3,
).map(tuple)


@settings(max_examples=20)
@given(entries=st.dictionaries(awkward, st.integers(0, 9), min_size=1, max_size=6))
@example(entries={("a\x00", b"\x00"): 1, ("a",): 2, ("", -(2**63)): 3, (2**63 - 1, b""): 4, ("a", ""): 5})
def test_pack_key_reaches_the_same_entries_in_every_other_call(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[tuple[Any, ...], int]
) -> None:
    folder = tmp_path_factory.mktemp("packed")
    with sqlstate.open(folder / "a.db") as store:
        view = store.collection("c", key=tuple)
        key, value = next(iter(entries.items()))
        name = sqlstate.pack_key(key)
        staged = store.stage()
        for each, number in entries.items():
            staged.put("c", sqlstate.pack_key(each), number)
        assert staged.get("c", name) == value
        staged.commit()
        assert list(view.items()) == sorted(entries.items(), key=lambda pair: order(pair[0]))

        assert store.get("c", name) == value
        root = store.head().root
        sqlstate.proof.verify_present(store.prove("c", name).to_bytes(), root, "c", name, value)
        first = sqlstate.pack_key(key[:1])
        bounds: Any = {"start": first, "stop": first + b"\xff"}
        found = sqlstate.proof.verify_range(store.prove_range("c", **bounds).to_bytes(), root, "c", **bounds)
        assert [(sqlstate.unpack_key(raw), number) for raw, number in found] == list(view.items(prefix=key[:1]))
        with store.transaction() as txn:
            txn.expect("c", name, value)
            txn.collection("c", key=tuple)[key] = value + 1
        with pytest.raises(sqlstate.Conflict) as conflict, store.transaction() as txn:
            txn.expect("c", name, value)
        assert conflict.value.key == name
        store.backup(folder / "b.db")
        with sqlstate.open(folder / "b.db") as copy:
            copy.delete("c", name)
            assert list(copy.collection("c", key=tuple)) == [each for each in view if each != key]
            [difference] = sqlstate.diff(store, copy)
            assert sqlstate.unpack_key(difference.key) == key
