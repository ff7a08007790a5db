"""Goal: a store on a cluster does what a store in a file does: the same results, errors, roots, log and past.

Method: the machine of tests/test_model.py, against a cluster of three real nodes, without what a cluster refuses. After
each step the root is compared with that of a file to which the same was done.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, run_state_machine_as_test

import sqlstate
from sqlstate import cluster
from tests.cluster.nodes import SECONDS
from tests.reference import plain
from tests.test_model import COLLECTIONS, StoreMachine

if TYPE_CHECKING:
    from tests.cluster.nodes import Cluster

pytestmark = pytest.mark.cluster


class ClusterMachine(StoreMachine):
    """A store on a cluster, a store in a file, and the dicts that say what both must hold."""

    nodes: ClassVar[Cluster]

    # What a cluster refuses.
    stage = stage_put = stage_delete = end_staged = redact = batch = reopen = None  # type: ignore[assignment]

    @initialize(limit=st.sampled_from([None, None, 4000, 0]))
    def begin(self, limit: int | None) -> None:
        self.nodes.clear()
        self.store = cluster.open(self.nodes.urls, timeout=SECONDS)
        self.store.set_log_limit(limit)
        self.mirror = sqlstate.open(self.path)
        self.oldest = 1
        self.claims: dict[str, int] = {}

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = cluster.open(self.nodes.urls, timeout=SECONDS)

    @rule()
    def check(self) -> None:
        assert self.store.check("replay").findings == ()
        assert self.store.check_audit() == []

    @invariant()
    def the_store_holds_what_the_dicts_hold(self) -> None:
        head = self.compared()
        with self.mirror.transaction() as txn:
            for name in COLLECTIONS:
                txn[name].replace(self.model[name])
        assert (head.root, head.count) == (self.mirror.head().root, self.mirror.head().count)

    def teardown(self) -> None:
        if hasattr(self, "mirror"):
            self.judge()
            self.mirror.close()
            self.store.close()
        self.folder.cleanup()

    def judge(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.db"
            report = self.store.backup(copy)
            assert report.head == self.store.head()
            assert plain.judge(copy).findings == ()


@pytest.mark.parametrize(("examples", "steps"), [(5, 15), pytest.param(12, 25, marks=pytest.mark.slow)])
def test_a_cluster_does_what_a_file_does(nodes: Cluster, examples: int, steps: int) -> None:
    ClusterMachine.nodes = nodes
    chosen: Any = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would take very many requests
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    run_state_machine_as_test(ClusterMachine, settings=chosen)
