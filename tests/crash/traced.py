"""What real processes did to a folder, in the order in which the kernel did it, by strace.

Where vfs.py sees one process through SQLite's VFS, this sees any number of them, and what they do without SQLite.
Shared memory is not seen: a power cut leaves nothing of it.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests import ROOT
from tests.crash.campaign import expect
from tests.crash.images import digest, images, points
from tests.crash.vfs import FOLDER, Create, Delete, Link, Rename, Sync, Truncate, Write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from tests.crash.images import Files, Point
    from tests.crash.vfs import Op

SECONDS_MAX: Final = 300
CALLS: Final = (
    "openat,pwrite64,write,ftruncate,fallocate,fdatasync,fsync,unlink,unlinkat,rename,renameat,renameat2,link,linkat,"
    "pwritev,writev,copy_file_range,sendfile"
)
STRACE: Final = ("strace", "-f", "-qq", "-xx", "-s", "16777216", "-y", "-e", "signal=none", "-e", f"trace={CALLS}")
IN_MEMORY: Final = ("-shm", "-acknowledged")
"""A power cut leaves nothing of these: the second is valid for one boot of the machine."""

_CALL: Final = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)", re.DOTALL)
_PATH: Final = re.compile(r"<((?:[^>\\]|\\x[0-9a-f]{2})*)>(\(deleted\))?")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


class Said(NamedTuple):
    """A line that a process wrote to its standard output."""

    position: int
    """How many operations there were before it."""
    line: bytes


class Traced(NamedTuple):
    """What was done, and what was said between."""

    ops: list[Op]
    said: list[Said]


def traced(module: str, arguments: Sequence[str], folder: Path, there: Iterable[str], log: Path) -> Traced:
    """Run `python -m MODULE ARGUMENTS` and all that it starts; return what was done in *folder*.

    Args:
        module: whose main program is run; it ends with 0.
        arguments: of the program.
        folder: where the operations count.
        there: the names in it at the beginning, numbered as images.Disk does.
        log: where strace may write, outside the folder.
    """
    command = [*STRACE, "-o", str(log), sys.executable, "-m", module, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=SECONDS_MAX, check=False)
    expect(done.returncode == 0, f"the process ended with {done.returncode}:\n{done.stderr.decode()[-2000:]}")
    reader = _Reader(folder, there)
    with log.open(encoding="ascii") as lines:
        for line in lines:
            reader.read(line)
    return Traced(reader.ops, reader.said)


class _Reader:
    """Reads strace's lines one by one.

    A call that another process's line interrupts has two. What is written counts from the second on, a sync from the
    first: it need not cover what was written while it was under way.
    """

    def __init__(self, folder: Path, there: Iterable[str]) -> None:
        self.ops: list[Op] = []
        self.said: list[Said] = []
        self._folder = str(folder.resolve())
        self._names = {name: -number for number, name in enumerate(there, 1)}
        self._made = 0
        self._sizes: Counter[int] = Counter()
        self._begun: dict[str, str] = {}  # of each process, the call that is under way

    def read(self, line: str) -> None:
        found = _CALL.match(line)
        if found is None:
            return
        process, resumed, call, rest = found.groups()
        if rest.rstrip().endswith("<unfinished ...>"):
            self._begun[process] = rest.rpartition("<unfinished")[0]
            if call in ("fsync", "fdatasync", "write"):
                self._do(call, rest)
            return
        if resumed:
            rest = self._begun.pop(process) + rest
            if resumed in ("fsync", "fdatasync", "write"):
                expect(_result(rest) >= 0, f"a call failed: {resumed}")
                return
        if _result(rest) >= 0:
            self._do(call or resumed, rest)

    def _do(self, call: str, rest: str) -> None:
        match call:
            case "openat":
                self._open(rest)
            case "pwrite64":
                self._write(rest)
            case "write":
                self._say_or_append(rest)
            case "ftruncate":
                if (file := self._file(rest)) is not None:
                    self.ops.append(Truncate(file, int(rest.rsplit(")", 1)[0].rsplit(", ", 1)[1])))
            case "fsync" | "fdatasync":
                self._sync(rest)
            case "unlink" | "unlinkat":
                for name in self._own(rest):
                    if self._names.pop(name, None) is not None:
                        self.ops.append(Delete(name))
            case "rename" | "renameat" | "renameat2":
                self._rename(rest)
            case "link" | "linkat":
                source, target = self._own(rest)
                self._names[target] = self._names[source]
                self.ops.append(Link(source, target))
            case _:
                expect(self._file(rest) is None, f"{call} is not understood here")

    def _open(self, rest: str) -> None:
        names = list(self._own(rest))
        if not names or "O_CREAT" not in rest or names[0].endswith(IN_MEMORY):
            return
        if names[0] not in self._names:
            self._made += 1
            self._names[names[0]] = self._made
            self.ops.append(Create(names[0], self._made))

    def _write(self, rest: str) -> None:
        file = self._file(rest)
        if file is not None:
            offset = int(rest.rsplit(")", 1)[0].rsplit(", ", 1)[1])
            data = bytes.fromhex(_TEXT.findall(rest)[0].replace("\\x", ""))
            expect(len(data) == _result(rest), "strace or the system cut a write short")
            self.ops.append(Write(file, offset, data))

    def _say_or_append(self, rest: str) -> None:
        if rest.startswith("1<"):
            text = bytes.fromhex(_TEXT.findall(rest)[0].replace("\\x", ""))
            self.said += [Said(len(self.ops), line) for line in text.splitlines()]
        elif (file := self._file(rest)) is not None:
            # Whoever writes so made the file, and writes from its start on.
            data = bytes.fromhex(_TEXT.findall(rest)[0].replace("\\x", ""))
            self.ops.append(Write(file, self._sizes[file], data))
            self._sizes[file] += len(data)

    def _sync(self, rest: str) -> None:
        path = _path(rest)
        if path == self._folder:
            self.ops.append(FOLDER)
        elif (file := self._file(rest)) is not None:
            self.ops.append(Sync(file))

    def _rename(self, rest: str) -> None:
        source, target = self._own(rest)
        expect("RENAME_" not in rest, "an exchange of two names is not understood here")
        self._names[target] = self._names.pop(source)
        self.ops.append(Rename(source, target))

    def _file(self, rest: str) -> int | None:
        """Return the file that the call's descriptor leads to, None if it is none of ours, or has no name."""
        folder, name = os.path.split(_path(rest))
        if folder != self._folder or name.endswith(IN_MEMORY):
            return None
        return self._names.get(name)

    def _own(self, rest: str) -> Iterator[str]:
        """Yield the names in the folder among a call's paths."""
        at = [_decoded(path) for path, _ in _PATH.findall(rest.partition('"')[0])]
        for text in _TEXT.findall(rest):
            path = os.path.join(*at[:1], _decoded(text))
            folder, name = os.path.split(os.path.normpath(path))
            if os.path.realpath(folder) == self._folder:
                yield name


def _path(rest: str) -> str:
    """Return the path of the call's descriptor, `""` if the file has no name any more."""
    found = _PATH.search(rest)
    return "" if found is None or found[2] else _decoded(found[1])


def _decoded(text: str) -> str:
    return re.sub(r"(?:\\x[0-9a-f]{2})+", lambda part: os.fsdecode(bytes.fromhex(part[0].replace("\\x", ""))), text)


def _result(rest: str) -> int:
    return int(rest.rpartition(" = ")[2].split(maxsplit=1)[0].split("<")[0])


def told(said: Iterable[Said], position: int) -> list[Any]:
    """Return the lines that were said by *position*."""
    return [each.line for each in said if each.position <= position]


def images_of(
    recording: Traced, seed: str, size: int, only: Point | None = None, there: Files | None = None
) -> Iterator[tuple[Point, Files]]:
    """Yield crashes of a recording and the files that each leaves, all different, none from before the first word.

    Args:
        recording: what was done.
        seed: decides which.
        size: how many at the most.
        only: the one that is wanted.
        there: the files before the first operation.
    """
    begin = recording.said[0].position
    every = [point for point in points(recording.ops, there) if point.position >= begin]
    random.Random(seed).shuffle(every)  # noqa: S311, no secret
    picked = sorted(every[: size * 2]) if only is None else [only]
    seen: set[tuple[int, bytes]] = set()
    for point, files in zip(picked, images(recording.ops, picked, seed, there), strict=True):
        key = point.position, digest(files)
        if key not in seen:
            seen.add(key)
            yield point, files
        if len(seen) == size:
            return
