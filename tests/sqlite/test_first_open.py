"""What the first open of a process imports: a program that opens a store waits for it each time that it starts.

Method: in a process of its own, a store is made, closed and opened again; then the modules are listed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NEEDLESS = (
    "asyncio",
    "concurrent.futures",
    "importlib.resources",
    "hmac",
    "logging",
    "sqlstate.headlog",
    "sqlstate.maintenance.backup.backup",
    "sqlstate.maintenance.check.check",
    "sqlstate.recovery.judge",
    "sqlstate.recovery.sqlite_wal",
)
PROGRAM = """
import json, sys
import sqlstate
for _ in range(2):
    with sqlstate.open(sys.argv[1]) as store:
        store["c"]["k"] = store["c"].get("k", 0)
print(json.dumps([name for name in json.loads(sys.argv[2]) if name in sys.modules]))
"""


def test_an_open_a_get_and_a_put_import_nothing_that_they_do_not_need(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path / "test.db"), json.dumps(NEEDLESS)]

    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)

    assert json.loads(done.stdout) == []
