"""Goal: nothing acknowledged is lost, nothing is done twice, and who was told nothing learns what became of it.

Method: tests/cluster/campaign.py, for some faults of each kind; the long form is run by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster import campaign
from tests.cluster.nodes import Cluster

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_writers_lose_nothing_when_leaders_are_killed_stopped_and_cut_off(tmp_path: Path) -> None:
    nodes = Cluster(tmp_path, proxied=True)
    try:
        nodes.start()
        outcome = campaign.run(nodes, tmp_path, ["kill", "stop", "cut", "kill", "kill", "stop"], (0.5, 1.5))
    finally:
        nodes.stop()
    assert (outcome.lost, outcome.extra, outcome.wrong) == ([], [], [])
    assert outcome.acknowledged > 0
