"""Goal: a store, transaction or batch is a mapping of collections, in the words that a user of dicts tries first, and a
snapshot or view of the past is one that can be read. Each writing call is atomic, and misuse is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import aio

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

FORMS: dict[str, Callable[[sqlstate.Store], AbstractContextManager[Any]]] = {
    "store": lambda store: store.transaction(),  # the store itself is used inside of it
    "transaction": lambda store: store.transaction(),
    "batch": lambda store: store.batch(),
}
NO_MAPPINGS: list[Any] = [5, None, "text", [("k", 1)], {"k"}, iter({}), object()]


def use(store: sqlstate.Store, of: Any) -> None:
    of.put("users", 1, {"name": "ada"})
    assert of.get("users", 1) == {"name": "ada"}
    assert of.get("users", 2) is None
    assert of.get("users", 2, "nobody") == "nobody"
    assert (of.delete("users", 1), of.delete("users", 1)) == (True, False)
    assert (list(of), len(of), bool(of), "users" in of) == ([], 0, True, False)
    of["users"] = {1: "ada", "b": "bob", b"c": b"cyd"}
    of["settings"] = {"lang": "fr"}
    assert (list(of), len(of), "users" in of) == (["settings", "users"], 2, True)
    of["users"] = {1: "ada", 2: "eve"}
    assert dict(of["users"]) == {1: "ada", 2: "eve"}
    of["copy"] = of["users"]
    of["users"] = of["users"]
    assert of["copy"] == of["users"] == {1: "ada", 2: "eve"}
    of["copy"] = {}
    assert "copy" not in of
    del of["settings"]
    with pytest.raises(sqlstate.EntryNotFound, match=r"'settings' has no entry$") as missing:
        del of["settings"]
    assert isinstance(missing.value, KeyError)
    assert (missing.value.collection, missing.value.key) == ("settings", None)
    with pytest.raises(sqlstate.EntryNotFound, match=r"'settings' has no entry$"):
        of["settings"].popitem()
    with pytest.raises(sqlstate.InvalidName):
        del of[""]
    with pytest.raises(sqlstate.InvalidName):
        of[1] = {}
    for wrong in NO_MAPPINGS:
        with pytest.raises(sqlstate.InvalidOption, match="no mapping"):
            of["users"] = wrong
        with pytest.raises(sqlstate.InvalidOption, match="no mapping"):
            of["users"].replace(wrong)
    with pytest.raises(sqlstate.InvalidKey):
        of["users"] = {1: "new", 1.5: "x"}
    with pytest.raises(sqlstate.InvalidValue) as refused:
        of["users"] = {1: "new", 3: {"x"}}
    assert (refused.value.collection, refused.value.key) == ("users", 3)
    with pytest.raises(sqlstate.InvalidValue):
        of.put("users", 1, (1,))
    with pytest.raises(sqlstate.InvalidKey):
        of.put("users", None, 1)
    with pytest.raises(sqlstate.InvalidKey):
        of.delete("users", 1.5)
    assert (list(of), dict(of["users"])) == (["users"], {1: "ada", 2: "eve"}), "nothing was changed"


@pytest.mark.parametrize("form", FORMS)
def test_it_is_a_mapping_of_collections(store: sqlstate.Store, form: str) -> None:
    with FORMS[form](store) as of:
        use(store, store if form == "store" else of)
    assert list(store) == ["users"]


def test_a_store_is_one_by_itself(store: sqlstate.Store) -> None:
    use(store, store)


def test_what_is_read_is_one_too(store: sqlstate.Store) -> None:
    store["users"] = {1: "ada"}
    store["other"] = {1: "x"}
    with store.snapshot() as view, store.at(1) as past:
        del store["users"]
        assert (list(view), len(view), bool(view), "users" in view) == (["other", "users"], 2, True, True)
        assert (list(past), len(past), "other" in past) == (["users"], 1, False)
        assert (view.get("users", 1), past.get("users", 1), past.get("other", 1, "-")) == ("ada", "ada", "-")
        store["users"] = past["users"]
    assert store.get("users", 1) == "ada"


def test_each_writing_call_is_one_commit_or_none(store: sqlstate.Store) -> None:
    calls: list[tuple[Callable[[], Any], int]] = [
        (lambda: store.put("c", 1, "a"), 1),
        (lambda: store.put("c", 1, "a"), 0),
        (lambda: store.__setitem__("c", {1: "a", 2: "b"}), 1),
        (lambda: store.__setitem__("c", {1: "a", 2: "b"}), 0),
        (lambda: store.delete("c", 2), 1),
        (lambda: store.delete("c", 2), 0),
        (lambda: store.__delitem__("c"), 1),
        (lambda: store.__setitem__("c", {}), 0),
    ]
    for call, commits in calls:
        before = store.head().seq
        call()
        assert store.head().seq - before == commits


def test_an_exception_undoes_an_assignment_inside_a_transaction_alone(store: sqlstate.Store) -> None:
    store["c"] = {number: number for number in range(100)}

    class Failing(dict[int, Any]):
        def items(self) -> Any:
            yield 1, "new"
            raise LookupError

    with store.transaction() as txn:
        txn.put("d", 1, 1)
        with pytest.raises(LookupError):
            txn["c"] = Failing()
    assert dict(store["c"]) == {number: number for number in range(100)}
    assert store.get("d", 1) == 1


def test_a_handle_is_true_in_every_state(store: sqlstate.Store) -> None:
    """`if self.store: self.store.close()` closes an empty store, and asks nothing of a closed one."""
    assert store
    with store.transaction() as txn:
        assert txn
    assert txn
    store.close()
    assert store


@pytest.mark.anyio
async def test_a_collection_of_tasks_refuses_what_is_no_mapping(aiostore: aio.AsyncStore) -> None:
    for wrong in NO_MAPPINGS:
        for call in (aiostore["c"].update, aiostore["c"].replace):
            with pytest.raises(sqlstate.InvalidOption, match="no mapping"):
                await call(wrong)
        async with aiostore.transaction() as txn:
            with pytest.raises(sqlstate.InvalidOption, match="no mapping"):
                txn["c"].update(wrong)
    assert (await aiostore.head()).seq == 0
