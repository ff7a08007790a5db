"""Handles that hold too long, exceptions at any moment, and forks, at the counts for every change: campaigns 15 to 19.

Method: as each campaign says of itself. `python -m tests.crash` runs them with a clock, and longer.
"""

from __future__ import annotations

import os

import pytest

from tests.crash.campaign import check

pytestmark = pytest.mark.crash


def test_a_scan_that_a_thread_leaves_holds_nothing() -> None:
    result = check(15)
    assert result.counts["scans left"] >= 500


def test_a_scan_that_a_task_leaves_holds_nothing_and_freezes_nothing() -> None:
    result = check(16)
    assert result.counts["scans left"] >= 500


def test_a_signal_at_any_moment_leaves_a_handle_that_works_or_says_that_it_does_not() -> None:
    check(17)


def test_an_exception_at_any_line_leaves_a_handle_that_works_or_says_that_it_does_not() -> None:
    result = check(18)
    assert result.counts["raised"] > result.runs * 0.9, "most lines were not reached"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_file_that_was_open_at_a_fork_is_refused_in_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLSTATE_TESTS_AT_ONCE", "5")  # how fast the machine is, is no matter of a test
    result = check(19)
    assert result.counts["forks"] > 20
