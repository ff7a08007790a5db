"""Goal: a collection does what a dict does, each method in one transaction. Method: each method on a real store,
counting the commits it makes; the fixture judges the file afterwards."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sqlstate
from sqlstate import Collection, Damaged, EntryNotFound, InvalidKey, InvalidName, InvalidOption, InvalidValue, Store
from sqlstate.format.names import make_name
from sqlstate.store.store import COLLECTIONS_KEPT
from sqlstate.tables import state
from sqlstate.tables.state import LARGE_BYTES, ROWS_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import OpenStore

MIXED: dict[Any, Any] = {
    -5: "n",
    0: [],
    7: None,
    "": 0,
    "a": {"x": 1},
    "ab": True,
    "b": 1.5,
    b"\x00": b"",
    b"a": b"\xff",
}
del MIXED[""]


@pytest.fixture
def mixed(store: Store) -> Collection[Any]:
    store["mixed"].update(MIXED)
    return store["mixed"]


def commits(store: Store) -> int:
    return store.head().seq


def test_an_entry_reads_back_as_it_was_put(store: Store) -> None:
    for key, value in MIXED.items():
        store["c"][key] = value

        assert store["c"][key] == value
        assert type(store["c"][key]) is type(value)
    assert dict(store["c"]) == MIXED


def test_1_and_text_1_and_bytes_1_are_three_keys(store: Store) -> None:
    store["c"].update({1: "int", "1": "str", b"1": "bytes"})

    assert [store["c"][key] for key in (1, "1", b"1")] == ["int", "str", "bytes"]
    assert len(store["c"]) == 3


class Text(str):
    """A subclass, which is no key and no name."""

    __slots__ = ()


MANY = 1 << 20
ODD: list[Any] = [
    True, None, 1.0, (1,), bytearray(b"k"), Text("k"), Text("c"), "", b"", "\ud800", "k\ud800", 2**63 - 1, 2**63,
    -(2**63), -(2**63) - 1, "x" * MANY, "x" * (MANY + 1), "é" * (MANY // 2), "é" * (MANY // 2 + 1), b"x" * MANY,
    b"x" * (MANY + 1), 0, -1, "k", "\0", "é", b"\0", b"k",
]  # fmt: skip


READS: list[Callable[[Any, Any], Any]] = [
    lambda of, key: of[key],
    lambda of, key: of.get(key),
    lambda of, key: key in of,
    lambda of, key: of.get_many([key]),
]


@pytest.mark.parametrize("key", ODD, ids=lambda key: f"{type(key).__name__}-{str(key)[:5]!a}-{len(str(key))}")
def test_every_way_to_read_an_entry_takes_and_refuses_the_same_keys(store: Store, key: Any) -> None:
    says = ""
    try:
        make_name("c", key)
        store["c"][key] = "there"
    except InvalidKey as e:
        says = str(e)
    kept = []
    other = sqlstate.open(store.path)  # which has nothing open
    with closing(other), store.snapshot() as snapshot, store.transaction() as txn:
        for of in (other["c"], store["c"], txn["c"], snapshot["c"]):
            for read in READS:
                if not says:
                    assert read(of, key) in ("there", True, {key: "there"})
                    continue
                with pytest.raises(InvalidKey) as error:
                    read(of, key)
                assert str(error.value) == says
                kept.append(error.value)
        assert other._engine.readers.lent == []
        assert len(other._engine.readers._all) <= 1  # what is refused, however it is kept, has no connection


def test_a_collection_of_a_store_is_made_once_and_few_are_kept(store: Store) -> None:
    assert store["c"] is store["c"]
    store["c"][1] = "a"
    for name in (Text("c"), b"c", None, ["c"], "", "n" * 256, "\ud800"):
        with pytest.raises(InvalidName):
            store[name]  # type: ignore[index]
    held = store["c"]
    for number in range(2 * COLLECTIONS_KEPT):
        assert store[f"n{number}"].name == f"n{number}"
        assert len(store._known) <= COLLECTIONS_KEPT
    assert (store["c"][1], held[1]) == ("a", "a")


def test_null_is_a_value_and_not_an_absence(store: Store) -> None:
    store["c"]["k"] = None

    assert store["c"].get("k", "default") is None
    assert "k" in store["c"]
    assert store["c"].setdefault("k", 5) is None


def test_keys_come_in_order_int_str_bytes(mixed: Collection[Any]) -> None:
    assert list(mixed) == [-5, 0, 7, "a", "ab", "b", b"\x00", b"a"]
    assert list(reversed(mixed)) == list(mixed)[::-1]
    assert list(mixed.values()) == [MIXED[key] for key in mixed]


def test_a_missing_entry_is_a_key_error_that_names_it(store: Store) -> None:
    for access in (
        lambda: store["c"]["k"],
        lambda: store["c"].pop("k"),
        lambda: store["c"].__delitem__("k"),
        lambda: store["c"].popitem(),
    ):
        with pytest.raises(KeyError) as caught:
            access()
        assert isinstance(caught.value, EntryNotFound)
        assert "'c' has no entry" in str(caught.value)
    assert commits(store) == 0


def test_reading_methods_make_no_commit(store: Store, mixed: Collection[Any]) -> None:
    before = store.head()
    len(mixed), list(mixed), mixed.get("a"), mixed.get("zz"), "a" in mixed, bool(mixed), mixed == MIXED, repr(mixed)

    assert store.head() == before


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda c: c.update({f"k{i}": i for i in range(1000)}), 1),
        (lambda c: c.update([("x", 1), ("y", 2)], z=3), 1),
        (lambda c: c.update(a=MIXED["a"]), 0),
        (lambda c: c.clear(), 1),
        (lambda c: c.pop("a"), 1),
        (lambda c: c.pop("none", 5), 0),
        (lambda c: c.popitem(), 1),
        (lambda c: c.setdefault("new", 5), 1),
        (lambda c: c.setdefault("a", 5), 0),
        (lambda c: c.__setitem__("a", {"x": 2}), 1),
        (lambda c: c.__setitem__("a", {"x": 1}), 0),
        (lambda c: c.__delitem__("a"), 1),
        (lambda c: c.replace({"only": 1}), 1),
        (lambda c: c.replace(dict(MIXED)), 0),
        (lambda c: c.update(()), 0),
    ],
)
def test_a_writing_method_is_one_commit_or_none_if_nothing_changed(
    store: Store, mixed: Collection[Any], act: Any, expected: int
) -> None:
    before = commits(store)
    act(mixed)

    assert commits(store) - before == expected


def test_pop_popitem_and_setdefault_return_what_dict_does(store: Store) -> None:
    c = store["c"]
    c.update({1: "a", 2: "b", "z": "c"})

    assert c.pop(1) == "a"
    assert c.pop(1, None) is None
    assert c.popitem() == ("z", "c")
    assert c.setdefault(2, "other") == "b"
    assert c.setdefault(3) is None
    assert dict(c) == {2: "b", 3: None}


def test_replace_writes_only_what_differs(store: Store) -> None:
    c = store["c"]
    c.update({i: i for i in range(50)})
    last = max(record.lsn for record in store.wal.read())
    wanted = {i: i for i in range(1, 50)} | {7: "seven", "new": 1}
    c.replace(wanted)

    changed = {record.key for record in store.wal.read(after=last) if record.key is not None}
    assert dict(c) == wanted
    assert changed == {0, 7, "new"}


def test_update_takes_mappings_pairs_and_anything_with_keys(store: Store) -> None:
    class Rows:
        def keys(self) -> list[str]:
            return ["a", "b"]

        def __getitem__(self, key: str) -> str:
            return key * 2

    store["c"].update(Rows())
    store["c"].update(store["c"])
    store["d"].update(store["c"].items())

    assert dict(store["d"]) == {"a": "aa", "b": "bb"}


def test_an_update_that_fails_on_the_way_changes_nothing(store: Store) -> None:
    def pairs() -> Iterator[tuple[str, Any]]:
        yield "a", 1
        yield "b", {1, 2}

    before = store.head()
    with pytest.raises(InvalidValue) as caught:
        store["c"].update(pairs())

    assert (caught.value.collection, caught.value.key) == ("c", "b")
    assert store.head() == before
    assert len(store["c"]) == 0


BOUNDS: list[dict[str, Any]] = [
    {},
    {"start": 0},
    {"stop": 7},
    {"start": "a", "stop": "b"},
    {"start": 7, "stop": "ab"},
    {"start": "ab", "stop": "a"},
    {"start": ""},
    {"stop": b""},
    {"prefix": "a"},
    {"prefix": ""},
    {"prefix": b"a"},
    {"prefix": b""},
    {"prefix": "zz"},
    {"limit": 0},
    {"limit": 3},
    {"start": "a", "limit": 2},
    {"prefix": "a", "limit": 1},
]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("where", ["store", "transaction", "snapshot"])
def test_a_bounded_scan_is_what_filtering_all_keys_gives(
    store: Store, mixed: Collection[Any], where: str, bounds: dict[str, Any], reverse: bool
) -> None:
    order = list(MIXED_IN_ORDER)
    prefix = bounds.get("prefix")
    start, stop = bounds.get("start"), bounds.get("stop")
    expected = [
        key
        for key in order
        if (prefix is None or (type(key) is type(prefix) and key[: len(prefix)] == prefix))
        and (start is None or rank_of(key) >= rank_of(start))
        and (stop is None or rank_of(key) < rank_of(stop))
    ]
    expected = (expected[::-1] if reverse else expected)[: bounds.get("limit")]

    def check(view: Any) -> None:
        assert list(view.keys(reverse=reverse, **bounds)) == expected
        assert list(view.items(reverse=reverse, **bounds)) == [(key, MIXED[key]) for key in expected]
        assert list(view.values(reverse=reverse, **bounds)) == [MIXED[key] for key in expected]
        assert len(view.items(reverse=reverse, **bounds)) == len(expected)

    if where == "store":
        check(mixed)
    elif where == "snapshot":
        with store.snapshot() as view:
            check(view["mixed"])
    else:
        with store.transaction() as txn:
            txn.put("mixed", "temporary", 1)
            txn.delete("mixed", "temporary")
            check(txn["mixed"])


def rank_of(key: Any) -> tuple[int, Any]:
    return [int, str, bytes].index(type(key)), key


MIXED_IN_ORDER = sorted(MIXED, key=rank_of)


def test_views_are_sets_that_can_be_iterated_again(mixed: Collection[Any]) -> None:
    keys, items = mixed.keys(prefix="a"), mixed.items(start=0, stop="b")

    assert list(keys) == list(keys) == ["a", "ab"]
    assert keys & {"a", "q"} == {"a"}
    assert "a" in keys
    assert "b" not in keys
    assert ("a", {"x": 1}) in items
    assert ("a", {"x": 2}) not in items
    assert ("b", 1.5) not in items
    assert ("a", {"x": 1}) not in mixed.items(limit=2)
    assert [] in mixed.values()


@pytest.mark.parametrize(
    ("bounds", "error"),
    [
        ({"prefix": "a", "start": "a"}, InvalidOption),
        ({"prefix": "a", "stop": "a"}, InvalidOption),
        ({"prefix": 1}, InvalidKey),
        ({"start": 1.5}, InvalidKey),
        ({"stop": True}, InvalidKey),
        ({"limit": -1}, InvalidOption),
        ({"limit": True}, InvalidOption),
        ({"prefix": "\ud800"}, InvalidKey),
    ],
)
def test_a_bad_bound_is_refused_by_name(mixed: Collection[Any], bounds: dict[str, Any], error: type) -> None:
    with pytest.raises(error):
        mixed.items(**bounds)


@pytest.mark.parametrize("key", [1.5, None, True, (), "", b""])
def test_every_method_refuses_what_is_not_a_key(mixed: Collection[Any], key: Any) -> None:
    for act in (
        lambda: mixed[key],
        lambda: mixed.get(key),
        lambda: key in mixed,
        lambda: mixed.__setitem__(key, 1),
        lambda: mixed.__delitem__(key),
        lambda: mixed.pop(key, None),
        lambda: mixed.setdefault(key, 1),
        lambda: mixed.update({key: 1}),
    ):
        with pytest.raises(InvalidKey):
            act()


def test_len_counts_each_collection_alone(store: Store) -> None:
    for i, name in enumerate(["a", "a\0", "aa", "b", "🙂"]):
        store[name].update({j: j for j in range(i * 40 + 1)})

    assert {name: len(store[name]) for name in store.collections()} == {
        "a": 1,
        "a\0": 41,
        "aa": 81,
        "b": 121,
        "🙂": 161,
    }
    assert len(store["none"]) == 0
    assert "a" in store
    assert "none" not in store
    assert list(store) == store.collections()


def test_a_collection_ends_with_its_last_entry(store: Store) -> None:
    store["a"]["k"] = 1
    store["b"]["k"] = 1
    del store["a"]["k"]

    assert store.collections() == ["b"]


def test_a_mapping_is_equal_to_the_dict_it_holds(mixed: Collection[Any]) -> None:
    assert mixed == MIXED
    assert mixed != {}


@dataclass
class Account:
    owner: str
    cents: int


def test_a_typed_collection_converts_both_ways(store: Store) -> None:
    accounts = store.collection("accounts", type=Account)
    accounts[1] = Account("ada", 5)
    accounts.update({2: Account("bob", 6)})

    assert accounts[1] == Account("ada", 5)
    assert list(accounts.values()) == [Account("ada", 5), Account("bob", 6)]
    assert store["accounts"][1] == {"owner": "ada", "cents": 5}
    with store.transaction() as txn:
        held = txn.collection("accounts", type=Account)[1]
        txn.collection("accounts", type=Account)[1] = Account(held.owner, held.cents + 1)
    with store.snapshot() as view:
        assert view.collection("accounts", type=Account)[1] == Account("ada", 6)


def test_a_type_error_names_collection_and_key(store: Store) -> None:
    accounts = store.collection("accounts", type=Account)
    with pytest.raises(InvalidValue) as wrote:
        accounts["x"] = Account("ada", "five")  # type: ignore[arg-type]
    store["accounts"]["y"] = {"owner": 1, "cents": 1}
    with pytest.raises(InvalidValue) as read:
        accounts["y"]

    assert (wrote.value.collection, wrote.value.key) == ("accounts", "x")
    assert "'accounts'['y']" in str(read.value)


def test_a_stored_text_that_is_no_json_is_reported_as_damage(store: Store) -> None:
    store["c"]["k"] = 1
    # What a foreign tool could do; the store is rolled back so that the fixture finds it sound.
    with pytest.raises(Damaged, match=r"I1: 'c'\['k'\]"), store.transaction() as txn:
        txn._entries._connection.run("UPDATE state SET value = '{' WHERE collection = 'c'")
        txn.get("c", "k")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"x" * 100_000_000, id="100MB", marks=pytest.mark.slow),
        pytest.param("é" * 1_000_000, id="text"),
        pytest.param(b"", id="empty"),
        pytest.param(list(range(100_000)), id="list"),
    ],
)
def test_a_large_or_an_empty_value_is_stored_exactly(store: Store, value: Any) -> None:
    store["c"]["k"] = value
    store["c"]["other"] = 1

    assert store["c"]["k"] == value


def test_a_value_beyond_the_limit_is_refused(store: Store) -> None:
    with pytest.raises(InvalidValue, match="limit is 268,435,456"):
        store["c"]["k"] = bytes((256 << 20) + 1)


@pytest.mark.parametrize(
    "key",
    ["k" * (1 << 20), b"\0" * (1 << 20), "a\0b", "\0", "🙂", "é", b"\xff", 2**63 - 1, -(2**63), "a" * 4096],
    ids=lambda key: str(key)[:8],
)
def test_an_extreme_key_is_stored_exactly(store: Store, key: Any) -> None:
    store["c"].update({key: 1, "b": 2, 5: 3})
    store["c"][key] = 4

    assert store["c"][key] == 4
    assert key in list(store["c"])


@pytest.mark.parametrize("name", ["", 5, "x" * 256, "\ud800"])
def test_a_bad_collection_name_is_refused_everywhere(store: Store, name: Any) -> None:
    with store.snapshot() as view, store.transaction() as txn:
        places: list[Any] = [store, txn, view]
        for place in places:
            with pytest.raises(InvalidName):
                place[name]
        with pytest.raises(InvalidName):
            store.collection(name)
        with pytest.raises(InvalidName):
            txn.put(name, "k", 1)


def test_a_scan_sees_one_commit_while_others_are_made(store: Store) -> None:
    store["c"].update({i: i for i in range(2000)})
    scan = iter(store["c"].items())
    first = next(scan)
    store["c"].clear()
    store["c"]["new"] = 1

    assert [first, *scan] == [(i, i) for i in range(2000)]


def test_a_collection_of_a_rollback_journal_store_does_the_same(open_store: Any) -> None:
    store = open_store(journal="delete")
    store["c"].update(MIXED)
    store["c"].pop("a")
    with store.transaction() as txn:
        txn["c"].clear()
        txn["c"]["k"] = 1

    assert store.stats().journal == "delete"
    assert store.stats().synchronous == "EXTRA"
    assert dict(store["c"]) == {"k": 1}


def test_repr_says_which_collection_it_is(store: Store) -> None:
    assert repr(store["users"]) == "<sqlstate.Collection 'users': open>"
    assert "test.db" in repr(store)
    assert repr(sqlstate.ABSENT) == "ABSENT"


# ---- Chunks: a scan reads so many rows at once ----


def scanned_kinds() -> list[Any]:
    """More keys of each kind than a scan reads at once, in order."""
    many = 3 * ROWS_AT_ONCE + 7
    numbers = [i * 3 - 900 for i in range(many)]
    return [*numbers, *(f"k{i:05}" for i in range(many)), *(b"b%05d" % i for i in range(many))]


@pytest.fixture
def long(store: Store) -> list[Any]:
    """Keys of a collection, with collections beside it that no scan of it may reach."""
    keys = scanned_kinds()
    store["c"].update({key: i for i, key in enumerate(keys)})
    for name in ("b", "c\0", "d"):
        store[name].update({-(2**63): 1, "k00300": 1, b"\xff": 1})
    return keys


SPANS: list[dict[str, Any]] = [
    {}, {"start": 0}, {"stop": 0}, {"start": 0, "stop": 900}, {"start": 1, "stop": "k00257"}, {"start": "k00256"},
    {"start": "k00100", "stop": b"b00700"}, {"prefix": "k"}, {"prefix": "k002"}, {"prefix": b"b"}, {"prefix": b"b006"},
    {"limit": ROWS_AT_ONCE}, {"limit": ROWS_AT_ONCE + 1}, {"start": 5, "limit": 2 * ROWS_AT_ONCE}, {"prefix": "none"},
]  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_of_many_chunks_gives_each_entry_once_and_in_order(store: Store, long: list[Any], reverse: bool) -> None:
    rank = {key: i for i, key in enumerate(long)}
    kinds = {int: 0, str: 1, bytes: 2}

    def order(key: Any) -> Any:
        return kinds[type(key)], key

    def inside(key: Any, bounds: dict[str, Any]) -> bool:
        prefix = bounds.get("prefix")
        if prefix is not None:
            return type(key) is type(prefix) and key.startswith(prefix)
        return ("start" not in bounds or order(key) >= order(bounds["start"])) and (
            "stop" not in bounds or order(key) < order(bounds["stop"])
        )

    for bounds in SPANS:
        keys = [key for key in (reversed(long) if reverse else long) if inside(key, bounds)][: bounds.get("limit")]
        with store.snapshot() as view, store.transaction() as txn:
            places: list[Any] = [view["c"], txn["c"]]
            for c in places:
                assert list(c.keys(**bounds, reverse=reverse)) == keys, bounds
                assert list(c.items(**bounds, reverse=reverse)) == [(key, rank[key]) for key in keys], bounds
        assert list(store["c"].keys(**bounds, reverse=reverse)) == keys, bounds
        assert list(store["c"].items(**bounds, reverse=reverse)) == [(key, rank[key]) for key in keys], bounds


@pytest.mark.parametrize("rows", [0, 1, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 2 * ROWS_AT_ONCE])
def test_a_scan_ends_where_a_chunk_ends(store: Store, rows: int) -> None:
    store["c"].update({i: i for i in range(rows)})
    assert list(store["c"]) == list(range(rows))
    assert list(store["c"].keys(reverse=True)) == list(range(rows))[::-1]
    with store.snapshot() as view:
        assert list(view._entries.scan_all()) == [("c", i, str(i)) for i in range(rows)]


@pytest.mark.parametrize("kind", [bytes, str])
def test_rows_of_a_megabyte_are_read_one_at_a_time_and_exactly(
    store: Store, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {i: kind(bytes([65 + i]) * (1 << 20), *(("ascii",) if kind is str else ())) for i in range(6)}
    store["c"].update(values)
    store["c"].update({i: i for i in range(100, 110)})
    read: list[int] = []
    real = state.chunk

    def chunk(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        read.append(len(found[0]))
        return found

    monkeypatch.setattr(state, "chunk", chunk)
    expected = list((values | {i: i for i in range(100, 110)}).items())
    assert list(store["c"].items()) == expected
    assert read == [1] * 6 + [10]
    read.clear()
    assert list(store["c"].items(reverse=True)) == expected[::-1]
    assert read == [11] + [1] * 5
    read.clear()
    assert list(store["c"]) == [key for key, _ in expected], "keys alone are no reason to stop"
    assert read == [16]


@given(
    sizes=st.lists(st.sampled_from([0, 1, LARGE_BYTES, LARGE_BYTES + 1, 1 << 19]), max_size=40),
    limit=st.integers(0, 45),
)
def test_large_and_small_values_come_in_order_whatever_their_mixture(sizes: list[int], limit: int) -> None:
    with TemporaryDirectory() as folder, sqlstate.open(f"{folder}/a.db") as store:
        entries = {key: bytes([key]) * size for key, size in enumerate(sizes)}
        store["c"].update(entries)
        assert list(store["c"].items()) == list(entries.items())
        assert list(store["c"].values(reverse=True, limit=limit)) == list(entries.values())[::-1][:limit]
        with store.transaction() as txn:
            assert list(txn["c"].items(limit=limit)) == list(entries.items())[:limit]


@pytest.mark.parametrize("limit", [None, 3])
def test_an_iterator_can_be_closed_in_the_midst_of_its_rows(store: Store, limit: int | None) -> None:
    store["c"].update(dict.fromkeys(range(1000), "v"))
    for of in (store["c"], store.snapshot()["c"]):
        rows: Any = iter(of.items(limit=limit))
        assert next(rows) == (0, "v")
        rows.close()
        assert list(rows) == []
    assert store["c"][1] == "v"  # takes back what the scan had
    assert [each.use for each in store._engine.readers.lent] == ["a snapshot"]


def test_a_value_that_cannot_be_decoded_raises_when_its_turn_comes(store: Store) -> None:
    store["c"].update({1: 1, 2: 2, 3: "three", 4: 4})
    numbers = store.collection("c", type=int)
    for view in (numbers.values(), numbers.items()):
        seen = []
        with pytest.raises(InvalidValue, match=r"'c'\[3\]"):
            for row in view:
                seen.append(row)  # noqa: PERF402, what came before it is wanted
        assert seen in ([1, 2], [(1, 1), (2, 2)])


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_an_error_ends_a_scan_and_what_it_held_though_all_is_kept(open_store: OpenStore, journal: str) -> None:
    store = open_store(journal=journal)
    store["c"].update({key: "text" if key == 3 else key for key in range(2000)})
    kept: list[Any] = []
    for reads in (store, store.snapshot()):
        rows = iter(reads.collection("c", type=int).values())
        assert [next(rows) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(InvalidValue) as error:
            next(rows)
        kept += [rows, error.value]
        assert list(rows) == []
        assert [each.use for each in store._engine.readers.lent] == ["a snapshot"]


def test_a_scan_of_a_type_runs_its_code_row_by_row(store: Store) -> None:
    made = []

    @dataclass
    class Noted:
        at: int

        def __post_init__(self) -> None:
            made.append(self.at)
            if self.at == 700:
                raise KeyboardInterrupt

    store["c"].update({key: {"at": key} for key in range(1000)})
    with store.snapshot() as snapshot:
        for of in (store, snapshot):
            view: Any = of.collection("c", type=Noted)
            for rows in (iter(view.values()), iter(view.items())):
                assert made == []
                for at in range(3):
                    row = next(rows)
                    assert made.pop() == (row[0] if isinstance(row, tuple) else row.at) == at
                with pytest.raises(KeyboardInterrupt):
                    list(rows)
                assert made == [*range(3, 701)]
                assert list(rows) == []
                made.clear()
        assert [each.use for each in store._engine.readers.lent] == ["a snapshot"]


@pytest.mark.parametrize("kinds", ["bytes", "text", "both", "large"])
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_values_of_all_kinds_come_as_they_were_put_from_pages_of_any_mix(
    open_store: OpenStore, kinds: str, journal: str
) -> None:
    store = open_store(journal=journal)
    mixes: dict[str, list[Any]] = {
        "bytes": [b"", b"{}"],
        "text": ["", {"a": [1]}, None],
        "both": [b"1", 1, b"[", "["],
        "large": [b"x" * (LARGE_BYTES + 1), "y" * (LARGE_BYTES + 1), b"[1]", [1]],
    }
    values = mixes[kinds]
    keys: list[Any] = [*range(600), *sorted(map(str, range(600))), b"k"]
    wanted = [(key, values[number % len(values)]) for number, key in enumerate(keys)]
    store["c"].update(wanted)
    for reverse in (False, True):
        assert list(store["c"].items(reverse=reverse)) == wanted[:: -1 if reverse else 1]
        assert list(store["c"].values(reverse=reverse)) == [value for _, value in wanted][:: -1 if reverse else 1]
        assert list(store["c"].keys(reverse=reverse)) == keys[:: -1 if reverse else 1]


def test_scan_all_gives_every_entry_of_many_collections(store: Store) -> None:
    entries = {f"c{number:03}": {"k": number, number: "n"} for number in range(400)}
    with store.transaction() as txn:
        for name, content in entries.items():
            txn[name].update(content)
    with store.snapshot() as view:
        found = [(name, key) for name, key, _ in view._entries.scan_all()]
    assert found == [(name, key) for name in entries for key in (int(name[1:]), "k")]


def test_a_scan_that_is_used_in_two_chunks_sees_one_commit(store: Store) -> None:
    store["c"].update(dict.fromkeys(range(1000), "old"))
    for of in (store["c"], store.snapshot()["c"]):
        before = of[0]
        scan = iter(of.items())
        seen = [next(scan)]
        for key in range(0, 1000, 50):
            store["c"][key] = f"new {key}"
            seen += [next(scan) for _ in range(20)]
        seen += scan
        assert [key for key, _ in seen] == list(range(1000))
        if before == "old":
            assert {value for _, value in seen} == {"old"}
            store["c"].update(dict.fromkeys(range(1000), "old"))


class Disordered:
    """A connection to a damaged table: each of its chunks begins anew."""

    path = "damaged.db"

    def __init__(self, rows: list[Any]) -> None:
        self.damaged = rows
        self.asked = 0

    def chunk(self, *_: Any, **__: Any) -> tuple[list[Any], bool]:
        self.asked += 1
        assert self.asked < 10, "the scan does not end"
        return self.damaged, False

    def rows(self, *_: Any) -> list[Any]:
        return list(self.chunk()[0])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("last", [ROWS_AT_ONCE, "k", b"k", 1.5, None])
def test_a_scan_over_a_damaged_order_says_damaged_and_ends(last: Any, reverse: bool) -> None:
    """The same rows come again and again; or the last is no key, and nothing is beyond it, or all is."""
    keys = [*range(1, ROWS_AT_ONCE), last]
    connection: Any = Disordered([(key, "1") for key in keys])
    scan = state.scan(connection, state.Span("c", reverse=reverse), values=True)
    seen = []
    with pytest.raises(Damaged, match=r"not in order|for its key, which must be"):
        for key, _ in scan:
            seen.append(key)
    assert seen == (keys if isinstance(last, int | str | bytes) else [])
    assert list(scan) == []


def test_a_scan_of_everything_over_a_damaged_order_says_damaged_and_ends() -> None:
    connection: Any = Disordered([("c", i, "1") for i in range(ROWS_AT_ONCE)])
    rows, rest = state.chunk_of_all(connection, ("", ""))
    assert rest == ("c", ROWS_AT_ONCE - 1)
    assert len(rows) == ROWS_AT_ONCE
    with pytest.raises(Damaged, match="not in order"):
        state.chunk_of_all(connection, rest)
    connection.damaged[-1] = ("c", None, "1")
    with pytest.raises(Damaged, match="NULL for its key"):
        state.chunk_of_all(connection, ("", ""))
