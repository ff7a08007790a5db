"""Damaged sources, and faults at each call of a backup, a restore, a repair and an open: campaigns 20 and 21.

Method: as each campaign says of itself, at the counts for every change. `python -m tests.crash` runs them longer.
"""

from __future__ import annotations

import pytest

from tests.crash.campaign import check

pytestmark = pytest.mark.crash


def test_of_a_damaged_source_nothing_takes_the_place_of_a_good_one() -> None:
    result = check(20)
    assert result.counts["refused"] > result.runs / 2


def test_a_fault_or_a_kill_at_a_call_is_told_rightly_and_leaves_nothing_behind() -> None:
    result = check(21)
    assert result.counts["told"] + result.counts["killed"] > result.runs / 3
