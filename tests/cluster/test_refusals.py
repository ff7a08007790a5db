"""Goal: each bad input gets one clear error, and nothing is half done.

Method: real nodes, with passwords, without a leader, stopped, with other tables, with a newer store; and values that
are too large.
"""

from __future__ import annotations

import signal
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import sqlstate
from sqlstate import Busy, CannotOpen, FormatTooNew, InvalidOption, InvalidValue, NotAStore, StoreMissing, cluster
from sqlstate.cluster import connection
from sqlstate.cluster.nodes import Nodes
from tests.cluster.nodes import SECONDS, Cluster

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.cluster


def tables(nodes: Cluster) -> int:
    """How many tables there are."""
    return int(ask(nodes, "SELECT count(*) FROM sqlite_schema"))


def ask(nodes: Cluster, sql: str) -> Any:
    with closing(Nodes(nodes.urls, auth=nodes.auth, tls=None, timeout=SECONDS)) as asked:
        return asked.query([sql])[0]["values"][0][0]


def do(nodes: Cluster, *statements: str) -> None:
    with closing(Nodes(nodes.urls, auth=nodes.auth, tls=None, timeout=SECONDS)) as asked:
        assert asked.execute(statements) == ""


def test_a_wrong_password(tmp_path: Path) -> None:
    users = tmp_path / "users.json"
    users.write_bytes(msgspec.json.encode([{"username": "app", "password": "right", "perms": ["all"]}]))
    nodes = Cluster(tmp_path, ("-auth", str(users)))
    try:
        nodes.nodes[0].start("")
        url = [nodes.urls[0]]
        nodes.wait(lambda: _opens(url))
        with pytest.raises(CannotOpen, match="refused the user name or password"):
            cluster.open(url, auth=("app", "wrong"))
        with pytest.raises(CannotOpen, match="refused the user name or password"):
            cluster.open(url)
        with cluster.open(url, auth=("app", "right")) as store:
            store["a"][1] = 1
            assert store.check().ok
    finally:
        nodes.stop()


def _opens(url: list[str]) -> bool:
    try:
        cluster.open(url, auth=("app", "right"), timeout=1.0).close()
    except Busy:
        return False
    return True


def test_no_leader_and_a_node_that_answers_late(tmp_path: Path) -> None:
    nodes = Cluster(tmp_path)
    try:
        nodes.start()
        with cluster.open(nodes.urls, timeout=SECONDS) as store:
            store["a"][1] = 1
        leader = nodes.wait_for_leader()
        followers = [node for node in nodes.nodes if node is not leader]
        followers[0].signal(signal.SIGSTOP)
        with cluster.open([followers[0].url, leader.url], timeout=8.0) as store:  # the other answers
            store["a"][2] = 2
        with pytest.raises(Busy, match="no answer in time"):
            cluster.open([followers[0].url], timeout=0.5)
        followers[0].signal(signal.SIGCONT)
        short = cluster.open([leader.url], timeout=1.0)
        for node in followers:
            node.kill()
        with short, pytest.raises((Busy, sqlstate.CommitOutcomeUnknown)) as caught:
            for number in range(10):  # until the leader notices that it is alone
                short["a"][3] = number
        with pytest.raises(Busy, match="no node of the cluster gave an answer"):
            cluster.open([leader.url], timeout=1.0)
        for node in followers:
            node.start("")
        with cluster.open(nodes.urls, timeout=SECONDS) as store:
            unknown = isinstance(caught.value, sqlstate.CommitOutcomeUnknown)
            done = isinstance(caught.value, sqlstate.CommitOutcomeUnknown) and store.committed(caught.value)
            assert (store["a"].get(3) == number) is done, unknown  # before that was asked, it could still be done
            assert (store["a"][1], store["a"][2]) == (1, 2)
            assert store.check("replay").ok
    finally:
        nodes.stop()


def test_no_node_at_all() -> None:
    with pytest.raises(Busy, match=r"no node of the cluster gave an answer within 0\.2 s"):
        cluster.open(["http://127.0.0.1:1", "http://127.0.0.1:2"], timeout=0.2)


def test_other_tables(nodes: Cluster) -> None:
    do(nodes, "CREATE TABLE others (x)")
    with pytest.raises(NotAStore, match="the cluster holds tables of another program; nothing was changed"):
        cluster.open(nodes.urls, timeout=SECONDS)
    assert tables(nodes) == 1


def test_a_newer_format(nodes: Cluster) -> None:
    cluster.open(nodes.urls, timeout=SECONDS).close()
    do(nodes, "PRAGMA user_version=99")
    with pytest.raises(FormatTooNew, match="has format 99"):
        cluster.open(nodes.urls, timeout=SECONDS)


def test_an_empty_cluster_that_must_not_be_filled(nodes: Cluster) -> None:
    with pytest.raises(StoreMissing, match="the cluster is empty"):
        cluster.open(nodes.urls, create=False, timeout=SECONDS)
    assert tables(nodes) == 0


def test_a_value_beyond_the_limit(store: cluster.ClusterStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store["a"][1] = 1
    monkeypatch.setattr(connection, "REQUEST_BYTES", 100_000)
    head = store.head()
    with pytest.raises(InvalidValue, match=r"a request of .* bytes, and a cluster takes 100,000; nothing was changed"):
        store["a"][2] = bytes(100_000)
    with pytest.raises(InvalidValue, match="nothing was changed"), store.transaction() as txn:
        txn.put("a", 3, bytes(100_000))
    assert store.head() == head
    futures = [store.submit(partial(put_large, each)) for each in range(10)]
    for each in futures:  # together they are too large, and each by itself is not
        each.result()
    assert len(store["b"]) == 10


def put_large(key: int, txn: sqlstate.Transaction) -> None:
    txn.put("b", key, bytes(20_000))


def test_a_large_value(store: cluster.ClusterStore) -> None:
    content = bytes(range(256)) * 20_000
    store["a"][1] = content
    store["a"][2] = "é" * 2_000_000
    assert store["a"][1] == content
    assert store["a"][2] == "é" * 2_000_000


@pytest.mark.parametrize(
    ("urls", "options"),
    [
        ([], {}),
        ("http://localhost:4001", {}),
        (["localhost:4001"], {}),
        (["http://"], {}),
        (["http://a:b@localhost:4001"], {}),
        (["http://localhost:99999"], {}),
        ([1], {}),
        (["http://localhost:4001"], {"auth": "secret"}),
        (["http://localhost:4001"], {"timeout": -1}),
        (["http://localhost:4001"], {"stale_ok": "1"}),
        (["http://localhost:4001"], {"stale_ok": 0}),
        (["http://localhost:4001"], {"tls": "/nonexistent"}),
    ],
)
def test_invalid_arguments(urls: list[str], options: dict[str, object]) -> None:
    with pytest.raises(InvalidOption):
        cluster.open(urls, **options)  # type: ignore[arg-type]


def test_a_password_is_in_no_message(nodes: Cluster) -> None:
    with pytest.raises(InvalidOption) as caught:
        cluster.open(["http://name:secret@localhost:4001"])
    assert "secret" not in str(caught.value)
