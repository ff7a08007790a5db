"""Goal: a store on a cluster has the face of a store in a file, refuses by name what it cannot do, and several handles
see each other's commits.

Method: two handles on three real nodes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import Conflict, StoreUnusable, cluster
from sqlstate.cluster import store as cluster_store
from tests.cluster.nodes import SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.nodes import Cluster

pytestmark = pytest.mark.cluster

TEXTS = ["", "it's", 'a "b"', "a\0b", "é🙂", "x'00'", "?1 ? ?2", "random() datetime('now')", "-- ;", "t", "b00"]


@dataclass
class Point:
    x: int
    y: int


@pytest.fixture
def other(nodes: Cluster, store: cluster.ClusterStore) -> Iterator[cluster.ClusterStore]:
    """Another machine's handle on the same store."""
    with cluster.open(nodes.urls, timeout=SECONDS) as opened:
        yield opened


def test_every_value_and_key_comes_back_as_it_was(store: cluster.ClusterStore) -> None:
    values: dict[Any, Any] = {each or "empty": each for each in TEXTS}
    values |= {0: None, -(2**63): 2**63 - 1, 2**63 - 1: -(2**63), 5: 1.5, b"\0": b"", b"\xff": bytes(range(256))}
    values |= {"list": [1, {"a": [None, True]}], b"x": "é" * 1000}
    for key, value in values.items():
        store["c"][key] = value
    assert dict(store["c"]) == values
    assert {key: store["c"][key] for key in values} == values
    assert store["c"].get_many(values) == values
    for key in TEXTS[1:]:
        store[key]["k"] = key
        assert store[key]["k"] == key
    assert [store["c"].get(key) for key in ("no", 7, b"no")] == [None] * 3


def test_typed_values_and_ranges(store: cluster.ClusterStore) -> None:
    points = store.collection("points", type=Point, key=tuple[str, int])
    points.update({("a", number): Point(number, -number) for number in range(20)})
    assert points[("a", 3)] == Point(3, -3)
    assert [key for key, _ in points.items(prefix=("a",), start=None, limit=3)] == [("a", 0), ("a", 1), ("a", 2)]
    store["n"].update({number: number for number in range(1500)})
    assert [*store["n"].keys(start=700, stop=705)] == [700, 701, 702, 703, 704]
    assert [*store["n"].keys(reverse=True, limit=2)] == [1499, 1498]
    assert [*store["n"]] == [*range(1500)]
    assert len(store["n"]) == 1500


def test_a_scan_is_of_one_commit_while_others_write(store: cluster.ClusterStore, other: cluster.ClusterStore) -> None:
    store["n"].update(dict.fromkeys(range(1300), "old"))
    rows = iter(store["n"].items())
    found = [next(rows)]
    with other.transaction() as txn:
        txn["n"].update(dict.fromkeys(range(0, 1300, 2), "new"))
        del txn["n"][1299]
        txn.put("n", 5000, "new")
    found += rows
    assert found == [(number, "old") for number in range(1300)]
    with store.snapshot() as view:
        other["n"].clear()
        assert (view["n"][1], view["n"][2], len(view["n"]), view.head.seq) == ("old", "new", 1300, 2)
        assert view["n"].keys(start=1298) == {1298, 5000}
    assert len(store["n"]) == 0


def test_a_block_that_was_overtaken_changes_nothing(store: cluster.ClusterStore, other: cluster.ClusterStore) -> None:
    store["a"][1] = 1

    def block() -> None:
        with store.transaction() as txn:
            seen = txn.get("a", 1)
            other["a"][1] = 10
            txn.put("a", 1, seen + 1)

    with pytest.raises(Conflict, match="another commit came between"):
        block()
    assert store["a"][1] == 10

    def read_later() -> None:
        with store.transaction() as txn:
            other["a"][1] = 20
            txn.get("a", 2)

    with pytest.raises(Conflict, match="another commit came between"):
        read_later()
    for attempt in store.transaction(retries=2):
        with attempt as txn:
            if attempt.left == 2:
                other["a"][1] = 30
            txn.put("a", 1, txn.get("a", 1) + 1)
    assert store["a"][1] == 31


def test_run_is_done_again_when_it_was_overtaken(store: cluster.ClusterStore, other: cluster.ClusterStore) -> None:
    store["a"][1] = 1
    tried: list[int] = []

    def work(txn: sqlstate.Transaction) -> int:
        seen: int = txn.get("a", 1)
        if len(tried) < 3:
            other["a"][1] = seen + 100
        tried.append(seen)
        txn.put("a", 1, seen + 1)
        return seen

    assert store.run(work) == 301
    assert tried == [1, 101, 201, 301]
    assert store["a"][1] == 302
    tried.clear()
    assert store.submit(work).result() == 602
    assert store["a"][1] == 603


def test_a_transaction_that_only_reads_is_of_one_moment(
    store: cluster.ClusterStore, other: cluster.ClusterStore
) -> None:
    store["a"].update({1: 1, 2: 1})

    def add(txn: sqlstate.Transaction) -> None:
        for key in (1, 2):
            txn.put("a", key, txn.get("a", key) + 1)

    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            other.run(add)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(30):
            one, two = store.run(lambda txn: (txn.get("a", 1), txn.get("a", 2)))
            assert one == two
            both = store["a"].get_many([1, 2])
            assert both[1] == both[2]
            proof = store.prove("a", 1)
            assert proof.kind == "present"
            assert len(store["a"]) == 2
    finally:
        ended.set()
        thread.join()


def test_the_log_is_read_while_others_write(store: cluster.ClusterStore, other: cluster.ClusterStore) -> None:
    for number in range(70):
        store["a"][1] = number
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            other["b"][1] = threading.get_ident()
            other["b"][1] = 0

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(5):
            assert [change.value for change in store["a"].history(1)][:3] == [69, 68, 67]
            assert [change.value for change in store.changes(collection="a")] == [*range(70)]
            assert [head.seq for head in store.commits()][:70] == [*range(1, 71)]
            assert [head.seq for head, _ in zip(store.watch(after=0, timeout=SECONDS), range(70), strict=False)][
                -1
            ] == 70
            with store.at(50) as past:
                assert past["a"][1] == 49
    finally:
        ended.set()
        thread.join()


def test_reads_after_writes_in_a_transaction(store: cluster.ClusterStore) -> None:
    with store.transaction() as txn:
        txn["a"].update({number: number for number in range(40)})
        assert len(txn["a"]) == 40
        with pytest.raises(KeyError), store.transaction() as inner:
            del inner["a"][3]
            assert len(inner["a"]) == 39
            raise KeyError
        assert 3 in txn["a"]
        del txn["a"][4]
        assert [*txn["a"].keys(limit=5)] == [0, 1, 2, 3, 5]
        assert txn.collections() == ["a"]
    assert len(store["a"]) == 39


def test_commits_changes_watch_and_past(store: cluster.ClusterStore, other: cluster.ClusterStore) -> None:
    for number in range(3):
        other["a"][1] = number
    assert [head.seq for head in store.commits()] == [1, 2, 3]
    assert [(change.seq, change.value) for change in store.changes()] == [(1, 0), (2, 1), (3, 2)]
    assert [change.value for change in store["a"].history(1)] == [2, 1, 0]
    watching = store.watch(changes=True, timeout=SECONDS)
    other["a"][1] = 3
    head, changes = next(watching)
    assert (head.seq, [each.value for each in changes]) == (4, [3])
    with store.at(2) as past:
        assert past["a"][1] == 1
    assert store.undo(4).seq == 5
    assert store.revert(1).seq == 6
    assert other["a"][1] == 0


def test_proofs_and_signed_heads(store: cluster.ClusterStore) -> None:
    pytest.importorskip("cryptography")
    signer = sqlstate.Signer.generate("example.com/cluster")
    store["a"].update({1: "one", 2: "two"})
    root = store.head().root
    sqlstate.proof.verify_present(store.prove("a", 1).to_bytes(), root, "a", 1, "one")
    sqlstate.proof.verify_absent(store.prove("a", 3).to_bytes(), root, "a", 3)
    assert sqlstate.proof.verify_range(store.prove_range("a").to_bytes(), root, "a") == [(1, "one"), (2, "two")]
    store["a"][3] = "three"
    head = sqlstate.headlog.verify_head(store.signed_head(signer).text, signer.public)
    assert sqlstate.headlog.verify_commit(store.prove_commit(1), head, 1).count == 2
    assert store.check(against=head).ok


def test_what_a_cluster_cannot_do_is_refused_by_name(store: cluster.ClusterStore) -> None:
    for name in cluster_store.REFUSED:
        with pytest.raises(StoreUnusable, match=rf"a store on a cluster has no {name}\(\): "):
            getattr(store, name)()
    for name in cluster_store.REFUSED_PROPERTIES:
        with pytest.raises(StoreUnusable, match=f"a store on a cluster has no {name}: "):
            getattr(store, name)


def test_reads_that_may_be_behind(nodes: Cluster, store: cluster.ClusterStore) -> None:
    store["a"][1] = 1
    nodes.wait(lambda: all(_has_it(url) for url in nodes.urls))
    with cluster.open(nodes.urls, timeout=SECONDS, stale_ok=60.0) as follower:
        nodes.wait(lambda: follower["a"].get(1) == 1)
        with pytest.raises(sqlstate.ReadOnly):
            follower["a"][1] = 2
    leader = nodes.wait_for_leader()
    follower_url = next(url for url in nodes.urls if url != leader.url)
    with pytest.raises(sqlstate.Busy, match="stale read"):  # a follower hears of the leader some times a second
        for _ in range(1000):
            with cluster.open([follower_url], timeout=0.01, stale_ok=0.001) as late:
                late["a"].get(1)


def _has_it(url: str) -> bool:
    try:
        with cluster.open([url], timeout=SECONDS, stale_ok=60.0) as follower:
            return follower["a"].get(1) == 1
    except (sqlstate.StoreMissing, sqlstate.NotAStore):  # it did not get the tables yet
        return False


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_tasks_share_commits(nodes: Cluster, store: cluster.ClusterStore) -> None:
    anyio = pytest.importorskip("anyio")

    async def add(number: int) -> None:
        await opened["a"].put(number, number)
        await opened.run(lambda txn: txn.put("sum", 0, txn.get("sum", 0, 0) + number))

    async with cluster.open_async(nodes.urls, timeout=SECONDS) as opened:
        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(add, number)
        assert await opened.get("sum", 0) == sum(range(10))
        assert [key async for key in opened["a"]] == [*range(10)]
        assert (await opened.head()).seq < 20
    assert store["sum"][0] == sum(range(10))


def test_threads_share_commits(store: cluster.ClusterStore) -> None:
    def write(thread: int) -> None:
        for number in range(20):
            store["n"][f"{thread}-{number}"] = number
            store.run(lambda txn: txn.put("sum", thread, txn.get("sum", thread, 0) + 1))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(store["n"]) == 320
    assert [store["sum"][thread] for thread in range(16)] == [20] * 16
    counters = store.stats().counters
    assert counters.transactions == 640
    assert counters.commits < 320


def test_what_a_read_held_that_was_cut_short_is_given_up_at_the_next(store: cluster.ClusterStore) -> None:
    readers = store._engine.readers
    block = readers.reading()
    block.enter()  # an exception at the first step of `__exit__` leaves it so
    assert len(readers._lent) == 1
    del block
    assert store["c"].get(1) is None
    assert len(readers._lent) == 0
