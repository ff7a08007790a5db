"""Hostile edits of rows and schemas, at the counts for every change: campaign 22.

Method: as the campaign says of itself. `python -m tests.crash` runs it with a clock, and longer.
"""

from __future__ import annotations

import pytest

from tests.crash.campaign import check

pytestmark = pytest.mark.crash


def test_whatever_is_edited_only_our_errors_come_out_and_nothing_is_falsely_sound() -> None:
    result = check(22)
    assert result.counts["damaged"] > result.runs // 3
