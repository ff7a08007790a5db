"""Power cuts, failing calls, short sequences and seeded faults, with the counts that each change is tested with.

The campaigns stand in tests/crash; `python -m tests.crash` runs them with any count.
"""

from __future__ import annotations

import pytest

from tests.crash.campaign import check

pytestmark = pytest.mark.crash


def test_every_crash_of_a_store_with_sqlites_wal_is_recovered_from() -> None:
    check(1)


def test_every_crash_of_a_store_with_a_rollback_journal_is_recovered_from() -> None:
    check(2)


def test_a_crash_during_recovery_ends_in_the_same_state() -> None:
    check(3)


def test_faults_put_into_the_package_are_caught_by_these_campaigns() -> None:
    check(4)


def test_every_failing_call_leaves_a_sound_store_and_is_reported_right() -> None:
    check(5)


def test_every_short_sequence_of_operations_survives_crashes() -> None:
    check(12)
