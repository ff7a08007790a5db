"""Goal: the verbs work on a cluster as on a file, and a store goes in and out by them.

Method: the program itself, in this process, on three real nodes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate import cluster
from sqlstate.cli import main
from tests.cluster.nodes import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.nodes import Cluster

pytestmark = pytest.mark.cluster


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--timeout", str(SECONDS)])
    shown = capsys.readouterr()
    assert (caught.value.code or 0) == code, shown.err
    return shown.out + shown.err


def test_a_store_goes_in_and_out_by_verbs(nodes: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, copy = str(tmp_path / "a.db"), str(tmp_path / "b.db")
    with sqlstate.open(file) as origin:
        origin["users"].update({"ann": 1, "bob": 2})
        root = origin.head().root.hex()
    urls = ",".join(nodes.urls)
    assert f"loaded commit 1, 2 entries, root {root}" in run(capsys, "cluster", "load", file, *nodes.urls)
    assert json.loads(run(capsys, "head", urls, "--json"))["root"] == root
    run(capsys, "put", urls, "users", "cyd", "3")
    assert run(capsys, "get", urls, "users", "cyd").strip() == "3"
    assert "sound" in run(capsys, "check", urls)
    run(capsys, "backup", urls, copy)
    run(capsys, "diff", file, urls, code=1)
    assert run(capsys, "diff", copy, urls).strip() == "no difference"
    with sqlstate.open(copy) as back, cluster.open(nodes.urls, timeout=SECONDS) as store:
        assert back.head() == store.head()
        assert dict(back["users"]) == {"ann": 1, "bob": 2, "cyd": 3}
    assert "the cluster is not empty" in run(capsys, "cluster", "load", file, *nodes.urls, code=2)
    assert "a store on a cluster has no compact()" in run(capsys, "compact", urls, code=6)


def test_the_environment_gives_the_password(
    nodes: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLSTATE_CLUSTER_AUTH", "app:secret")  # nodes without users take any
    url = nodes.urls[0]
    run(capsys, "put", url, "a", "k", "1")
    assert "secret" not in run(capsys, "head", url)
    monkeypatch.setenv("SQLSTATE_CLUSTER_CERTIFICATES", "/nonexistent")
    assert "is not a file of certificates" in run(capsys, "head", url, code=2)
