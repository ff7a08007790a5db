"""Reads the log in a process of its own, beside the one that reads the entries.

That is `python -m sqlstate.maintenance.check.second_process`.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from base64 import b64decode, b64encode
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sqlstate.errors import StoreError
from sqlstate.maintenance.check.entries import Finding, Findings
from sqlstate.maintenance.check.log import Figures, Replay
from sqlstate.sqlite.connection import Connection
from sqlstate.tables import meta as metadata
from sqlstate.tables import wal

if TYPE_CHECKING:
    from sqlstate.format.records import Head
    from sqlstate.tables.meta import Meta

_TIMEOUT: Final = 30.0
_STEP: Final = b"s"
_END: Final = b"e"


def possible() -> bool:
    """Tell whether this program can start itself again as a Python interpreter; what embeds one cannot."""
    name = os.path.basename(sys.executable or "")
    return name.startswith(("python", "pypy")) and not getattr(sys, "frozen", False)


class Apart:
    """A process that reads the log of a store.

    Args:
        path: the file.
        lsn: the greatest in the log, as this process sees it.
        head: the newest commit, as this process sees it.
    """

    def __init__(self, path: str, lsn: int, head: Head) -> None:
        folder = str(Path(__file__).parents[3])
        paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.read = 0
        """Rows that it has read so far."""
        self._answer: bytes = b""
        self._process = subprocess.Popen(  # noqa: S603, this program again
            [sys.executable, "-P", "-m", "sqlstate.maintenance.check.second_process", path, str(lsn), head.chain.hex()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self._listener = threading.Thread(target=self._listen, name="sqlstate-check", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        with suppress(OSError, ValueError):  # closed meanwhile
            for line in self._process.stdout or ():
                if line[:1] == _STEP:
                    self.read = int(line[1:])
                elif line[:1] == _END:
                    self._answer = line[1:]

    def wait(self, seconds: float) -> bool:
        """Wait so long for its end; tell whether it has ended."""
        self._listener.join(seconds)
        return not self._listener.is_alive()

    def take(self, findings: Findings) -> Figures | None:
        """Return what it read, once it has ended; None if it could not, or saw another commit."""
        if self._process.wait() or not self._answer:
            return None
        answer: dict[str, Any] = msgspec.msgpack.decode(b64decode(self._answer))
        for each in answer["findings"]:
            if each["place"] is not None:
                each["place"] = tuple(each["place"])
            findings.keep(Finding(**each))
        findings.more += answer["more"]
        return Figures(*answer["figures"])

    def stop(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._listener.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


def main(arguments: list[str]) -> int:
    """Read the log of the file, if its newest commit is the one that is asked for; write what was found."""
    path, lsn, chain = arguments
    gc.disable()  # a tenth of the time, and nothing here refers to itself
    out = sys.stdout.buffer
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        out.write(_STEP + b"%d\n" % done)
        out.flush()

    findings = Findings()
    with closing(Connection(path, _TIMEOUT, read_only=True)) as connection:
        connection.settle("wal", read_only=True)
        with connection.one_state():
            meta: Meta = metadata.read(connection)
            newest, head = wal.last(connection, meta)
            if (newest, head.chain) != (int(lsn), bytes.fromhex(chain)):
                return 1
            figures = Replay(connection, meta, findings, advance).run()
    answer = {"findings": [asdict(each) for each in findings.kept], "more": findings.more, "figures": figures}
    out.write(_END + b64encode(msgspec.msgpack.encode(answer)) + b"\n")
    out.flush()
    return 0


if __name__ == "__main__":
    with suppress(StoreError, OSError):
        sys.exit(main(sys.argv[1:]))
    sys.exit(1)
