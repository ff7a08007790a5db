"""Goal: after a lost request or a lost reply, everybody is told the truth: done once, or not done and never to be done.

Method: real nodes; of the client's requests that write, one is not sent, or its reply is dropped, or it arrives late.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import pytest

import sqlstate
from sqlstate import CommitOutcomeUnknown, StoreClosed, cluster
from sqlstate.cluster.nodes import Nodes
from tests.cluster.nodes import SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.nodes import Cluster

pytestmark = pytest.mark.cluster

FAULTS: Final = ["request lost", "reply lost", "late"]


class Line:
    """What happens to the client's writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults: list[str] = []  # of the next writes
        self.fences_lost = False
        self.late: list[Callable[[], Any]] = []
        send = Nodes._exchange

        def exchange(nodes: Nodes, node: Any, connection: Any, path: str, body: Any) -> Any:
            if path.startswith("/db/request") and self.fences_lost and b"UPDATE meta" in body:
                connection.close()
                raise TimeoutError
            if not path.startswith("/db/execute") or not self.faults:
                return send(nodes, node, connection, path, body)
            fault = self.faults.pop(0)
            if fault == "reply lost":
                send(nodes, node, connection, path, body)
                raise TimeoutError
            connection.close()
            if fault == "late":
                self.late.append(lambda: send(nodes, node, nodes._connect(node, SECONDS), path, body))
            raise TimeoutError

        monkeypatch.setattr(Nodes, "_exchange", exchange)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(monkeypatch)


def add(txn: sqlstate.Transaction) -> int:
    done: int = txn.get("n", "done", 0) + 1
    txn.put("n", "done", done)
    return done


@pytest.mark.parametrize("fault", FAULTS)
def test_work_is_done_once(store: cluster.ClusterStore, line: Line, fault: str) -> None:
    line.faults = [fault]
    assert store.run(add) == 1
    line.faults = [fault, fault]
    assert store.submit(add).result() == 2
    line.faults = [fault]
    store["a"][1] = 1
    line.faults = [fault]
    assert store["a"].pop(1) == 1
    for each in line.late:  # what arrives now is refused
        assert "error" in each()[0]
    assert (store["n"]["done"], 1 in store["a"], store.head().seq) == (2, False, 4)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_block_is_told_what_became_of_it(store: cluster.ClusterStore, line: Line, fault: str) -> None:
    line.faults = [fault]
    try:
        with store.transaction() as txn:
            add(txn)
        done = True
    except sqlstate.Conflict:
        done = False
    assert done is (fault == "reply lost")
    for each in line.late:
        each()
    assert store["n"].get("done", 0) == done


@pytest.mark.parametrize("fault", FAULTS)
def test_who_cannot_ask_in_time_can_ask_later(nodes: Cluster, line: Line, fault: str) -> None:
    with cluster.open(nodes.urls, timeout=1.0) as store:
        store["a"][1] = 1
        line.faults, line.fences_lost = [fault], True
        with pytest.raises(CommitOutcomeUnknown) as caught:
            store["a"][2] = 2
        line.fences_lost = False
        with pytest.raises(StoreClosed, match="what became of commit 2 is not known"):
            store["a"][3] = 3
    with cluster.open(nodes.urls, timeout=SECONDS) as again:
        assert again.committed(caught.value) is (fault == "reply lost")
        for each in line.late:
            each()
        assert again.committed(caught.value) is (2 in again["a"]) is (fault == "reply lost")
        again["a"][4] = 4
        assert again.committed(caught.value) is (fault == "reply lost")
        again.set_log_limit(0)
        again.cut(again.head().seq)
        assert again.committed(caught.value) is (fault == "reply lost")
        assert again.check("replay").ok


@pytest.mark.parametrize("fault", FAULTS)
def test_what_makes_no_commit_is_done_once(store: cluster.ClusterStore, line: Line, fault: str) -> None:
    line.faults = [fault]
    store.set_log_limit(12_345_678)
    assert store.log_limit == 12_345_678
    line.faults = [fault]
    store.set_logging("private", "digests")
    assert store.digest_logs() == ["private"]
    for each in line.late:
        each()
    assert [entry.kind for entry in store.audit()].count("setting") <= 2
    assert store.check_audit() == []


def test_ctrl_c_while_the_reply_is_waited_for(store: cluster.ClusterStore, monkeypatch: pytest.MonkeyPatch) -> None:
    send = Nodes._exchange
    interrupted: list[str] = []

    def exchange(nodes: Nodes, node: Any, connection: Any, path: str, body: Any) -> Any:
        found = send(nodes, node, connection, path, body)
        if path.startswith("/db/execute") and not interrupted:
            interrupted.append(path)
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(Nodes, "_exchange", exchange)
    with pytest.raises(KeyboardInterrupt) as caught, store.transaction() as txn:
        add(txn)
    assert caught.value.__notes__ == ["sqlstate: commit 1 was made before this exception, and is durable"]
    assert store.run(add) == 2


def test_two_processes_make_one_store(nodes: Cluster) -> None:
    made: list[bytes] = []

    def opened() -> None:
        with cluster.open(nodes.urls, timeout=SECONDS) as store:
            made.append(store.store_id)

    threads = [threading.Thread(target=opened) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(made) == 6
    assert len(set(made)) == 1
