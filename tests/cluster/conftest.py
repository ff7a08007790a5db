"""A cluster for all tests of a run, empty at the beginning of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sqlstate import cluster
from tests.cluster.nodes import SECONDS, Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("nodes"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def nodes(started: Cluster) -> Cluster:
    """Three nodes that hold nothing."""
    started.clear()
    return started


@pytest.fixture
def store(nodes: Cluster) -> Iterator[cluster.ClusterStore]:
    """A store on them, checked whole when the test ends."""
    with cluster.open(nodes.urls, timeout=SECONDS) as opened:
        yield opened
        if opened._engine.usable:
            report = opened.check("replay")
            assert report.ok, report.findings
