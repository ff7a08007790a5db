"""Goal: whatever a campaign meets, what it prints says how to run that again.

Method: campaigns of one case, made up here, that miss their bar and that raise what nobody expected.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING

import pytest

from tests.crash import campaign
from tests.crash.__main__ import main
from tests.crash.campaign import MODULES, SEED, Plan, Result, check, merged, spread

if TYPE_CHECKING:
    from collections.abc import Callable


def missing(case: str) -> Result:
    result = Result(runs=1)
    result.miss(case, "lost it's way")
    return result


def raising(case: str) -> Result:
    raise LookupError(case)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], Result], str], None]:
    """Let campaign 6 be one that does this with the one case."""

    def make(work: Callable[[str], Result], case: str) -> None:
        def run(plan: Plan) -> Result:
            return merged(spread(plan, work, [plan.case or case]))

        monkeypatch.setitem(campaign.REGISTER, 6, campaign.Campaign(6, "made up", "0", 1, 1, run))

    importlib.import_module(f"tests.crash.{MODULES[6]}")  # which registers the real one
    return make


@pytest.mark.parametrize(
    ("case", "command"),
    [
        ("wal-4-20260101", "--only 6 --case wal-4-20260101"),
        ("it's:1", """--only 6 --case 'it'"'"'s:1'"""),
        ("", "--only 6 --seed 7"),  # of the campaign as a whole, a share say
    ],
)
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failure_prints_the_command_that_replays_it(
    made: Callable[[Callable[[str], Result], str], None], case: str, command: str, jobs: int
) -> None:
    made(missing, case)
    with pytest.raises(AssertionError) as caught:
        check(6, seed=7, jobs=jobs)
    assert str(caught.value).splitlines()[:2] == ["lost it's way", f"    python -m tests.crash {command}"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_exception_that_nobody_expected_says_where_it_came_up_and_how_to_run_it_again(
    made: Callable[[Callable[[str], Result], str], None], jobs: int
) -> None:
    made(raising, "wal-1-3")
    with pytest.raises(LookupError) as caught:
        check(6, jobs=jobs)
    assert caught.value.__notes__ == ["in the part 'wal-1-3'", f"python -m tests.crash --only 6 --seed {SEED}"]


def test_the_command_line_prints_it_too(
    made: Callable[[Callable[[str], Result], str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    made(missing, "wal-1-3")
    assert main(["--only", "6", "--jobs", "1"]) == 1
    assert "    python -m tests.crash --only 6 --case wal-1-3\n" in capsys.readouterr().out


@pytest.mark.parametrize("module", sorted(set(MODULES.values())))
def test_each_campaign_takes_a_case_back(module: str) -> None:
    assert "plan.case" in inspect.getsource(importlib.import_module(f"tests.crash.{module}"))
