"""Goal: a store goes into a cluster and comes back as it was: entries, log, commits, audit trail, proofs.

Method: files of some and of very many entries, loaded into three real nodes and backed up again; rqlite's own backup.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate import InvalidOption, cluster
from sqlstate.cluster.nodes import Nodes
from tests.cluster.nodes import SECONDS
from tests.conftest import UNDONE
from tests.reference import plain

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.nodes import Cluster

pytestmark = pytest.mark.cluster


def fill(path: Path, entries: int, commits: int) -> sqlstate.Head:
    with sqlstate.open(path) as store, store.batch() as batch:
        each = entries // commits
        for number in range(commits):
            batch["numbers"].update({number * each + place: {"place": place} for place in range(each)})
            batch.flush()
    with sqlstate.open(path) as store:
        store["names"]["it's"] = b"\0\1"
        store["names"]["nul\0"] = "a\0b"
        store.index_history()
        return store.head()


@pytest.mark.parametrize(
    ("entries", "commits"), [(300, 10), pytest.param(100_000, 1_000, marks=pytest.mark.slow)], ids=["small", "large"]
)
def test_a_file_goes_in_and_comes_out_as_it_was(nodes: Cluster, tmp_path: Path, entries: int, commits: int) -> None:
    file, copy = tmp_path / "file.db", tmp_path / "copy.db"
    head = fill(file, entries, commits)
    assert head.count == entries + 2
    assert cluster.load(file, nodes.urls, timeout=SECONDS) == head
    with cluster.open(nodes.urls, timeout=SECONDS) as store, sqlstate.open(file) as origin:
        assert store.head() == head
        assert list(store.commits()) == list(origin.commits())
        # The copy that was loaded has no entry of that backup; the file has.
        assert list(store.audit()) == list(origin.audit())
        assert [*sqlstate.diff(store, origin)] == []
        paper = store.prove("numbers", 7)
        sqlstate.proof.verify_present(paper.to_bytes(), origin.head().root, "numbers", 7, {"place": 7})
        assert store.check().ok
        report = store.backup(copy)
        assert report.head == head
        assert report.entry is not None
    with sqlstate.open(copy, read_only=True) as back, sqlstate.open(file) as origin:
        assert back.head() == origin.head()
        assert list(back.audit()) == list(origin.audit())
        assert [*sqlstate.diff(back, origin)] == []
        assert back.check().ok
    assert plain.judge(copy, history=min(50, UNDONE // head.count + 1)).findings == ()
    with sqlstate.open(copy) as again:
        again["names"]["more"] = 1
        assert again.head().seq == head.seq + 1


def test_rqlites_own_backup_is_a_store(nodes: Cluster, store: cluster.ClusterStore, tmp_path: Path) -> None:
    store["a"].update({number: number for number in range(100)})
    store.set_logging("b", "digests")
    store["b"][1] = 1
    file = tmp_path / "raw.db"
    with closing(Nodes(nodes.urls, auth=None, tls=None, timeout=SECONDS)) as asked, file.open("wb") as written:
        asked.backup(written.write)
    with sqlstate.open(file, recover="refuse") as opened:
        assert opened.head() == store.head()
        assert opened.recovery.clean
        opened["a"][1] = 2
    assert plain.judge(file).findings == ()
    assert sqlstate.restore(file, tmp_path / "restored.db").head.seq == 3


def test_backups_are_kept(store: cluster.ClusterStore, tmp_path: Path) -> None:
    for number in range(3):
        store["a"][1] = number
        report = store.backup(tmp_path / "b.db", keep=2)
    assert [report.rotated, report.removed] == [("b.db.1",), ("b.db.2",)]
    assert [each.kind for each in store.audit()].count("backup") == 3
    assert sorted(each.name for each in tmp_path.iterdir()) == ["b.db", "b.db.1"]


def test_what_cannot_be_loaded(nodes: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "file.db"
    with sqlstate.open(file) as origin:
        origin["a"][1] = 1
        draft = origin.stage()
        with pytest.raises(InvalidOption, match="it has staged transactions"):
            cluster.load(file, nodes.urls, timeout=SECONDS)
        draft.rollback()
        assert cluster.load(file, nodes.urls, timeout=SECONDS) == origin.head()
        with pytest.raises(InvalidOption, match="the cluster is not empty"):
            cluster.load(file, nodes.urls, timeout=SECONDS)
    nodes.clear()
    with pytest.raises(sqlstate.StoreMissing):
        cluster.load(tmp_path / "no.db", nodes.urls, timeout=SECONDS)
