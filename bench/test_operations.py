"""The commonest operations under pytest-benchmark, to watch a change: `pytest bench --benchmark-only`.

Each is timed by itself. To compare the two sides, use `python -m bench`, which times them in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.run import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_benchmark.fixture import BenchmarkFixture

    from bench.baselines import Baseline, Entry

_ENTRIES = 10_000


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both stores with the same entries."""
    pair = Pair(tmp_path_factory.mktemp("bench"), _ENTRIES, _ENTRIES)
    yield pair
    pair.close()


@pytest.fixture(params=["sqlstate", "raw"])
def store(request: pytest.FixtureRequest, pair: Pair) -> Baseline:
    """One of the two, as in a process that has run for a while."""
    ours, theirs = pair.steady()
    return ours if request.param == "sqlstate" else theirs


def test_put(benchmark: BenchmarkFixture, pair: Pair, store: Baseline) -> None:
    """Put a changed value durably."""
    benchmark.pedantic(  # type: ignore[no-untyped-call]  # of pytest-benchmark
        store.put, setup=lambda: (pair.changes(1)[0], {}), rounds=1_000, warmup_rounds=100
    )


def test_get(benchmark: BenchmarkFixture, pair: Pair, store: Baseline) -> None:
    """Get a value."""
    ((name,),) = pair.keys(1)
    benchmark(store.get, name)


def test_update_of_1000(benchmark: BenchmarkFixture, pair: Pair, store: Baseline) -> None:
    """Put 1,000 changed values in one transaction."""

    def entries() -> tuple[tuple[list[Entry]], dict[str, object]]:
        return (pair.changes(1_000),), {}

    benchmark.pedantic(store.bulk, setup=entries, rounds=30, warmup_rounds=3)  # type: ignore[no-untyped-call]
