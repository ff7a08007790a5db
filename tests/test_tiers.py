"""Goal: a run without a choice takes the default tier; whoever names files, marks or `--all` gets what they named.

Method: the hook of tests/conftest.py is asked with each kind of command line, and the marks of the modules are read.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import conftest

TESTS = Path(__file__).parent


def chosen(*arguments: str, markexpr: str = "", every: bool = False) -> str:
    """Return the expression of marks that a run from the root of the sources ends up with."""
    config: Any = SimpleNamespace(
        args=[*arguments],
        option=SimpleNamespace(all=every, markexpr=markexpr),
        invocation_params=SimpleNamespace(dir=TESTS.parent),
    )
    conftest.pytest_configure(config)
    return str(config.option.markexpr)


@pytest.mark.parametrize("arguments", [["tests"], ["tests/crash"], ["tests", "bench"], ["."]])
def test_without_a_choice_the_default_tier_runs(arguments: list[str]) -> None:
    assert chosen(*arguments) == conftest.DEFAULT_TIER


@pytest.mark.parametrize("named", ["tests/maintenance/test_backup.py", "tests/crash/test_images.py::test_x[wal-1]"])
def test_a_file_that_is_named_runs_whole(named: str) -> None:
    assert chosen("tests", named) == ""


def test_marks_and_all_choose() -> None:
    assert chosen("tests", markexpr="slow") == "slow"
    assert chosen("tests", every=True) == ""


@pytest.mark.parametrize("name", sorted({file.stem for file in TESTS.glob("crash/test_*.py")} - {"test_campaign"}))
def test_each_module_of_campaigns_is_of_the_tier_of_crashes(name: str) -> None:
    assert importlib.import_module(f"tests.crash.{name}").pytestmark == pytest.mark.crash
