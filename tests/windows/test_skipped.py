"""The list of what is skipped on Windows: each entry is of a test that there is, and there are few."""

from __future__ import annotations

import ast
from functools import cache
from typing import TYPE_CHECKING

from tests import ROOT
from tests.windows import skipped

if TYPE_CHECKING:
    import pytest


@cache
def functions(module: str) -> set[str]:
    """Return the names of the tests of a module."""
    tree = ast.parse((ROOT / module).read_text("utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_what_is_listed_is_there_once_and_says_why() -> None:
    for module in skipped.MODULES:
        assert functions(module), module
    for test in skipped.TESTS:
        module, _, name = test.partition("::")
        assert name in functions(module), f"{test} is listed, and is no test"
        assert module not in skipped.MODULES, f"{test} is listed, and so is its file"
    for why in (*skipped.MODULES.values(), *skipped.TESTS.values()):
        assert len(why.split()) >= 4, f"{why!r} tells a user nothing"


def test_a_test_is_skipped_with_all_its_parameters_and_no_other_is() -> None:
    for test, why in skipped.TESTS.items():
        assert skipped.reason(test) == skipped.reason(f"{test}[a::b-1]") == why
        assert skipped.reason(f"{test}_too") == skipped.TESTS.get(f"{test}_too", "")
    assert skipped.reason("tests/windows/test_skipped.py::test_none") == ""


def test_few_are_listed(request: pytest.FixtureRequest) -> None:
    modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    tests = [f"{module}::{name}" for module in modules for name in functions(module)]
    # A run of the whole suite knows them with their parameters; a run of a part has to do with the functions.
    collected = [item.nodeid for item in request.session.items]
    if len({test.partition("[")[0] for test in collected}) > 0.8 * len(tests):
        tests = collected
    listed = sum(bool(skipped.reason(test)) for test in tests)
    assert listed <= skipped.SHARE * len(tests), f"{listed} of {len(tests)} tests are listed: mend some instead"
