"""Goal: the examples in the docstrings of sqlstate.cluster print what they show.

Method: each is run on three real nodes that hold nothing.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import cluster
from tests.cluster.nodes import SECONDS
from tests.test_docstrings import failures

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.nodes import Cluster

pytestmark = pytest.mark.cluster

SHOWN: dict[str, Any] = {name: getattr(cluster, name) for name in cluster.__all__} | {
    f"ClusterStore.{name}": member
    for name, member in vars(cluster.ClusterStore).items()
    if inspect.isfunction(member)
    and not name.startswith("_")
    and member.__module__ == "sqlstate.cluster.store"
    and ">>>" in (member.__doc__ or "")
}


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_examples(name: str, nodes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {"sqlstate": sqlstate, "cluster": cluster, "urls": nodes.urls}
    store = None if name == "load" else cluster.open(nodes.urls, timeout=SECONDS)  # that one wants an empty cluster
    known["store"] = store
    text = inspect.getdoc(SHOWN[name]) or ""
    assert ">>> " in text
    assert failures(text, name, known) == []
    if store is not None:
        store.close()
