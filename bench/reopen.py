"""Measures an open after a kill, by the size of the -wal: `python -m bench.reopen FOLDER [MEGABYTES …]`.

A snapshot keeps the -wal from being emptied while a process commits 200 entries of 3,900 bytes at a time, and dies. A
new process opens what it left for reading, and another lets SQLite alone recover a copy.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import apsw

import sqlstate

SIZES = (16, 64, 256, 1024)


def leave(path: Path, megabytes: int) -> None:
    """Make a store with a hot -wal of so many megabytes, and die."""
    warnings.simplefilter("ignore", sqlstate.WalPinned)
    rng = random.Random(1)
    store = sqlstate.open(path)
    store["c"]["first"] = 0
    with store.snapshot():
        while os.path.getsize(f"{path}-wal") < megabytes << 20:
            with store.transaction() as txn:
                for _ in range(200):
                    txn.put("c", rng.randrange(10**12), rng.randbytes(3900))
        os._exit(0)


def reopen(path: Path, warm: Path) -> None:
    """Open it for reading, once all that is imported is; say what it cost."""
    with sqlstate.open(warm) as store:
        store["c"]["k"] = 1
    before = time.process_time()
    with sqlstate.open(path, read_only=True) as store:
        _say(before)
        assert store.recovery.journal.agrees  # noqa: S101, a measurement


def recover(path: Path) -> None:
    """Let SQLite recover it, and say what it cost."""
    before = time.process_time()
    apsw.Connection(str(path)).execute("SELECT count(*) FROM sqlite_schema").fetchall()
    _say(before)
    os._exit(0)


def _say(before: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{time.process_time() - before:.3f} s of CPU, {peak} MB", flush=True)


def _child(*arguments: object) -> str:
    command = [sys.executable, "-m", "bench.reopen", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main(arguments: list[str]) -> None:
    """Run all of it, or, in a process of its own, one step."""
    if arguments[0] == "--leave":
        leave(Path(arguments[1]), int(arguments[2]))
    elif arguments[0] == "--reopen":
        reopen(Path(arguments[1]), Path(arguments[2]))
    elif arguments[0] == "--recover":
        recover(Path(arguments[1]))
    else:
        folder = Path(arguments[0])
        for size in map(int, arguments[1:] or SIZES):
            path, copy = folder / f"{size}.db", folder / f"{size}-copy.db"
            _child("--leave", path, size)
            for suffix in ("", "-wal"):
                shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
            ours, alone = _child("--reopen", path, folder / f"{size}-warm.db"), _child("--recover", copy)
            print(f"{size:5} MB: sqlstate {ours}; SQLite alone {alone}", flush=True)
            for file in folder.glob(f"{size}*"):
                file.unlink()


if __name__ == "__main__":
    main(sys.argv[1:])
