"""The logger `sqlstate` has one line for each recovery, late checkpoint and refusal, and none for ordinary work.

Method: processes killed, readers that stay, a -wal that is removed; what was logged is compared line by line.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate.sqlite import checkpoints
from tests import MIGRATIONS
from tests.recovery.test_recover import closed_while_staging, killed

if TYPE_CHECKING:
    from pathlib import Path


def work(path: Path) -> None:
    with sqlstate.open(path) as store:
        for number in range(50):
            store["c"]["k"] = number


def test_ordinary_work_is_not_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sqlstate")
    for _ in range(2):
        work(path)
    assert caplog.record_tuples == []


def test_a_recovery_is_one_line(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sqlstate")
    killed(path)
    for _ in range(2):
        sqlstate.open(path).close()
    said = f"{path}: recovered after a crash; the newest commit is 3; audit entry {len(MIGRATIONS) + 1}"
    assert caplog.record_tuples == [("sqlstate", logging.INFO, said)]


def test_a_recovery_that_rolled_something_back_is_a_warning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    txn = closed_while_staging(path)
    sqlstate.open(path).close()
    ((_, level, said),) = caplog.record_tuples
    assert (level, f"rolled back staged transactions {txn}; audit entry {len(MIGRATIONS) + 1}" in said) == (
        logging.WARNING,
        True,
    )


def test_a_recovery_that_was_not_done_is_a_warning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    killed(path)
    sqlstate.open(path, read_only=True).close()
    ((_, level, said),) = caplog.record_tuples
    assert (level, "there is something to recover, and it was not done" in said) == (logging.WARNING, True)


def test_a_checkpoint_that_is_late_is_logged_once_and_so_is_its_end(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "sqlstate")
    monkeypatch.setattr(checkpoints, "CHECKPOINT_PAGES", 20)
    with sqlstate.open(path) as store:
        for _ in range(2):
            with store.snapshot() as view:
                assert len(view["c"]) < 2
                for number in range(100):
                    store["c"]["k"] = number
            for number in range(100):
                store["c"]["k"] = number
    late, again = (logging.WARNING, "is late"), (logging.INFO, "in time again")
    for (_, level, said), (expected, words) in zip(caplog.record_tuples, [late, again, late, again], strict=True):
        assert (level, words in said) == (expected, True)
    assert "a snapshot of this handle" in caplog.messages[0]


def test_a_handle_that_refuses_further_work_says_so_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = sqlstate.open(path)
    store["c"]["k"] = 1
    path.with_name(f"{path.name}-wal").unlink()
    with pytest.raises(sqlstate.StoreIOError):
        store["c"]["k"] = 2
    for _ in range(3):
        with pytest.raises(sqlstate.StoreClosed):
            store["c"]["k"] = 3
    store.close()
    ((_, level, said),) = caplog.record_tuples
    assert level == logging.ERROR
    assert said.startswith(f"{path}: its -wal was removed")
    assert said.endswith("this handle refuses further work")


def test_a_handler_that_fails_fails_no_open(path: Path) -> None:
    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError(record.getMessage())

    killed(path)
    handler = Failing()
    logging.getLogger("sqlstate").addHandler(handler)
    try:
        with sqlstate.open(path) as store:
            assert store["c"]["k"] == 3
    finally:
        logging.getLogger("sqlstate").removeHandler(handler)


def test_a_program_that_configured_no_logging_sees_nothing(path: Path) -> None:
    closed_while_staging(path)
    program = "import sqlstate, sys; sqlstate.open(sys.argv[1]).close()"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
