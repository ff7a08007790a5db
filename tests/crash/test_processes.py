"""Real processes killed, failed and damaged, by campaigns 6 to 11 and 24 to 26, at the counts for every change.

Method: as each campaign says of itself. `python -m tests.crash` runs them with a clock, and longer.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.crash import damaged
from tests.crash.campaign import SEED, check

pytestmark = pytest.mark.crash


def test_a_kill_loses_nothing_and_the_report_names_what_is_in_doubt() -> None:
    result = check(6)
    assert result.counts["rolled back"], "no kill left a staged transaction"
    assert result.counts["survivors closed"] + result.counts["survivors killed later"], "no writer survived"


def test_reports_count_what_sqlite_counts() -> None:
    """A journal is hot for a moment only, and no kill is aimed at it: other seeds are tried until one was."""
    found: Counter[str] = Counter()
    for seed in range(SEED, SEED + 20):
        found.update(check(11, seed=seed).counts)
        if found["frames recovered"] and found["hot journals"]:
            return
    raise AssertionError(f"no -wal was recovered, or no -journal was hot: {found}")


def test_a_failing_system_call_loses_nothing_and_its_error_says_the_truth() -> None:
    result = check(7)
    assert result.counts["injected"] > result.runs // 2, "most injections were not reached"


def test_a_flipped_bit_in_a_hot_wal_does_not_pass() -> None:
    check(8)


def test_a_wal_that_does_not_belong_is_noticed_and_an_honest_one_is_not_suspected() -> None:
    result = check(9)
    assert result.counts["unlinked"], "no -wal was unlinked"


def test_a_damaged_file_raises_only_our_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damaged, "TIMED", False)
    result = check(10)
    assert result.counts["success"], "no file was sound enough to be used"


def test_a_power_cut_under_processes_threads_and_tasks_loses_nothing() -> None:
    check(24)


def test_a_power_cut_during_upkeep_leaves_the_state_before_or_after() -> None:
    check(25)


def test_a_crash_during_a_compaction_leaves_the_file_as_it_was_or_compacted() -> None:
    check(26)
