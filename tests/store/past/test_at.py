"""at() shows the store as each commit left it, however far the scan of it is cut into chunks."""

from __future__ import annotations

import gc
import random
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate.store.past import at as past_at
from sqlstate.tables import state

if TYPE_CHECKING:
    from tests.conftest import OpenStore

JOURNALS = ("wal", "delete")
Content = dict[Any, Any]


def make_history(store: sqlstate.Store, commits: int, seed: int) -> list[Content]:
    """Make commits; return what the collection c held after each of them."""
    chance = random.Random(seed)  # noqa: S311, no secret
    content: Content = {}
    past: list[Content] = [{}]
    for _ in range(commits):
        with store.transaction() as txn:
            for _ in range(chance.choice([1, 2, 40])):
                key: Any = chance.choice([chance.randrange(90), str(chance.randrange(90)), b"%d" % chance.randrange(9)])
                if chance.random() < 0.4:
                    txn["c"].pop(key, None)
                    content.pop(key, None)
                else:
                    txn["c"][key] = content[key] = chance.randrange(9)
        if store.head().seq == len(past):
            past.append(dict(content))
    return past


@pytest.mark.parametrize("most", [1, 2, 7, 512])
def test_every_commit_is_seen_as_it_was_in_chunks_of_any_size(
    store: sqlstate.Store, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    past = make_history(store, 60, seed=most)
    monkeypatch.setattr(past_at, "ENTRIES_AT_ONCE", most)
    monkeypatch.setattr(state, "ROWS_AT_ONCE", most + 1)
    for seq in range(0, len(past), 1 if most > 7 else 9):
        expected = past[seq]
        with store.at(seq) as view:
            scanned = list(view["c"].items())
            assert dict(scanned) == expected
            assert list(view["c"].keys(reverse=True)) == [key for key, _ in scanned][::-1]
            assert len(view["c"]) == view.head.count == len(expected)
            bounds: Any
            for bounds in ({"start": 30}, {"stop": "5"}, {"start": 10, "stop": 60, "limit": 4}, {"prefix": "3"}):
                every = [key for key, _ in scanned if inside(key, bounds)]
                limit = bounds.get("limit")
                assert list(view["c"].keys(**bounds)) == every[:limit]
                backwards = view["c"].keys(**bounds, reverse=True)
                assert list(backwards) == every[::-1][:limit]
                assert len(view["c"].keys(**bounds)) == len(every[:limit])


def inside(key: Any, bounds: dict[str, Any]) -> bool:
    def order(each: Any) -> tuple[int, Any]:
        return [int, str, bytes].index(type(each)), each

    if "prefix" in bounds:
        return isinstance(key, str) and key.startswith(bounds["prefix"])
    return ("start" not in bounds or order(key) >= order(bounds["start"])) and (
        "stop" not in bounds or order(key) < order(bounds["stop"])
    )


def test_entries_that_are_all_gone_are_seen_in_order(store: sqlstate.Store) -> None:
    store["c"].update({number: str(number) for number in range(3000)})
    store["d"]["big"] = bytes(3 << 20)
    store["c"].clear()
    del store["d"]["big"]
    with store.at(2) as view:
        assert view.collections() == ["c", "d"]
        assert list(view["c"].items()) == [(number, str(number)) for number in range(3000)]
        assert len(view["c"]) == 3000
        assert view["d"]["big"] == bytes(3 << 20)
    with store.at(0) as view:
        assert (view.collections(), dict(view["c"]), view.head.seq, view.head.count) == ([], {}, 0, 0)


def test_a_time_gives_the_newest_commit_made_up_to_then(store: sqlstate.Store) -> None:
    for number in range(3):
        store["c"]["k"] = number
    times = [datetime.fromisoformat(head.at) for head in store.commits()]
    for seq, time in enumerate(times, 1):
        with store.at(time) as view:
            assert view.head.seq == max(n for n, each in enumerate(times, 1) if each <= time) >= seq
        with store.at(time.astimezone(timezone(timedelta(hours=-7)))) as view:
            assert view.head.seq >= seq
    with store.at(times[0] - timedelta(microseconds=1)) as view:
        assert view.head.seq == 0
    with store.at(datetime.max.replace(tzinfo=UTC)) as view:
        assert view.head == store.head()
    with store.at(datetime.min.replace(tzinfo=UTC)) as view:
        assert view.head.seq == 0


@pytest.mark.parametrize(
    "when",
    [
        -1,
        3,
        2**70,
        True,
        1.0,
        "1",
        None,
        datetime(2026, 1, 1),  # noqa: DTZ001, what is refused
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    ],
    ids=repr,
)
def test_a_moment_that_is_none_is_refused(store: sqlstate.Store, when: Any) -> None:
    store["c"]["k"] = 1
    store["c"]["k"] = 2
    for call in (store.at, store.revert):
        with pytest.raises(sqlstate.InvalidOption):
            call(when)
    assert store._engine.readers.lent == []
    assert store.head().seq == 2


def test_what_is_written_meanwhile_does_not_show(store: sqlstate.Store) -> None:
    store["c"].update({number: number for number in range(1200)})
    store["c"][5] = "five"
    with store.at(1) as view:
        rows = iter(view["c"].items())
        first = next(rows)
        store["c"].clear()
        assert [first, *rows] == [(number, number) for number in range(1200)]
        assert (view["c"][5], view["c"].get(1200), len(view["c"])) == (5, None, 1200)


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_view_of_the_past_ends_as_a_snapshot_does(open_store: OpenStore, journal: str) -> None:
    store = open_store(journal=journal)
    store["c"]["k"] = 1
    store["c"]["k"] = 2
    view = store.at(1)
    kept = view["c"]
    view.close()
    view.close()
    assert repr(view).endswith("commit 1, ended>")
    for call in (lambda: kept["k"], lambda: list(kept), lambda: len(kept), view.collections):
        with pytest.raises(sqlstate.TransactionEnded):
            call()
    store["c"]["k"] = 3  # nothing is held
    dropped = store.at(1)
    assert dropped["c"]["k"] == 1
    del dropped
    gc.collect()
    store["c"]["k"] = 4
    assert store._engine.readers.lent == []


def test_a_view_dropped_in_another_thread_holds_nothing(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1

    def look() -> None:
        assert next(iter(store.at(1)["c"])) == "k"

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    gc.collect()
    assert store["c"]["k"] == 1
    assert store._engine.readers.lent == []


def test_inside_a_transaction_it_shows_what_was_committed(store: sqlstate.Store) -> None:
    store["c"]["k"] = 1
    with store.transaction() as txn:
        txn.put("c", "k", 2)
        with store.at(1) as view:
            assert view["c"]["k"] == 1


def test_a_handle_for_reading_looks_back_too(open_store: OpenStore) -> None:
    store = open_store()
    store["c"]["k"] = 1
    store["c"]["k"] = 2
    reader = open_store(read_only=True)
    with reader.at(1) as view:
        assert view.collection("c", type=int)["k"] == 1
    with pytest.raises(sqlstate.ReadOnly):
        reader.undo(2)
    with pytest.raises(sqlstate.ReadOnly):
        reader.revert(1)
