"""What a power cut or a kill can leave of files, given all that was done to them.

The model: a write is durable at the next sync of its file, a name at the next sync of the folder. Until
then each 512-byte piece of a write may have reached the disk or not, in any order, and one that did not may
hold anything; names reach it in any order too, but for those that concern one another. Bytes beside a write
are never touched by it (SQLite assumes the same, SQLITE_POWERSAFE_OVERWRITE).
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from tests.crash.vfs import Create, Delete, Link, Memory, Op, Rename, Sync, SyncFolder, Truncate, Write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from random import Random

Files: TypeAlias = dict[str, bytes]

SECTOR: Final = 512
# How a crash looks, and how many different ones of it are made at each point.
KINDS: Final = {"prefix": 1, "torn": 3, "drop": 1, "subset": 3, "trash": 3, "reorder": 3}
FRAME: Final = 24


class Point(NamedTuple):
    """One crash: after the first *position* operations, in the way that *kind* says, the *draw*-th such."""

    position: int
    kind: str
    draw: int


class _File:
    __slots__ = ("durable", "live", "pending")

    def __init__(self) -> None:
        self.durable = b""
        self.live = bytearray()
        self.pending: list[Write | Truncate] = []


class Disk:
    """The files of a folder while operations are done: as processes see them, and what of them is durable."""

    def __init__(self, files: Files | None = None) -> None:
        self._files: dict[int, _File] = {}
        self._live: dict[str, int] = {}
        self._durable: dict[str, int] = {}
        self._pending: list[Create | Delete | Rename | Link] = []
        self._memory_name = ""
        self._memory: list[bytes] = []  # what the shared memory held, oldest first
        for number, (name, data) in enumerate((files or {}).items(), 1):
            file = self._files[-number] = _File()
            file.durable, file.live = data, bytearray(data)
            if name.endswith("-shm"):
                self._memory_name, self._memory = name, [data]
                continue
            self._live[name] = self._durable[name] = -number

    def do(self, op: Op) -> None:
        """Do one operation."""
        match op:
            case Write() | Truncate():
                file = self._files[op.file]
                _apply(file.live, op)
                file.pending.append(op)
            case Sync():
                file = self._files[op.file]
                file.durable = bytes(file.live)
                file.pending.clear()
            case Create():
                self._files.setdefault(op.file, _File())
                self._name(op)
            case Delete() | Rename() | Link():
                self._name(op)
            case SyncFolder():
                self._durable = dict(self._live)
                self._pending.clear()
            case Memory(name, None):
                self._memory_name = name
                self._memory.clear()
            case Memory(name, data):
                assert data is not None
                self._memory_name = name
                self._memory.append(data)

    def pending(self) -> bool:
        """Tell whether a power cut now could lose anything."""
        return bool(self._pending) or any(self._files[file].pending for file in self._files)

    def image(self, kind: str, rng: Random, following: Op | None = None) -> Files:
        """Return what a crash now leaves.

        Args:
            kind: one of KINDS.
            rng: decides what the kind leaves open.
            following: the operation that the crash cuts short, with kind torn.
        """
        if kind in ("prefix", "torn"):
            files = {name: bytes(self._files[file].live) for name, file in self._live.items()}
            if kind == "torn" and isinstance(following, Write):
                name = next((name for name, file in self._live.items() if file == following.file), None)
                if name is not None:
                    part = bytearray(files[name])
                    _apply(part, following._replace(data=following.data[: _cut(len(following.data), rng)]))
                    files[name] = bytes(part)
            if self._memory:
                files[self._memory_name] = self._memory[-1]
            return files
        names = self._durable if kind == "drop" else self._some_names(rng)
        files = {name: self._content(self._files[file], kind, rng) for name, file in names.items()}
        if self._memory and rng.random() < 0.5:
            files[self._memory_name] = self._some_memory(rng)
        return files

    def _name(self, op: Create | Delete | Rename | Link) -> None:
        _rename(self._live, op)
        self._pending.append(op)

    def _some_names(self, rng: Random) -> dict[str, int]:
        """Return names as a power cut may leave them: an operation that is lost loses those that build on it."""
        names = dict(self._durable)
        keep = rng.choice((0.0, 0.5, 1.0))
        lost: set[str] = set()
        for op in self._pending:
            concerned = {op.source, op.target} if isinstance(op, Rename | Link) else {op.name}
            if lost & concerned or rng.random() >= keep:
                lost |= concerned
            else:
                _rename(names, op)
        return names

    def _content(self, file: _File, kind: str, rng: Random) -> bytes:
        if kind == "drop" or not file.pending:
            return file.durable
        content = bytearray(file.durable)
        keep = rng.choice((0.1, 0.5, 0.9))
        for op in file.pending:
            if isinstance(op, Truncate) or kind == "reorder":
                if rng.random() < keep:
                    _apply(content, op)
                continue
            for piece in _sectors(op):
                if rng.random() < keep:
                    _apply(content, piece)
                elif kind == "trash" and rng.random() < 0.5:
                    _apply(content, piece._replace(data=rng.randbytes(len(piece.data))))
        if rng.random() < 0.25 and len(content) < len(file.live):
            content.extend(bytes(len(file.live) - len(content)))  # the length reached the disk, the data did not
        return bytes(content)

    def _some_memory(self, rng: Random) -> bytes:
        """Return the shared memory as any moment left it, or pages of different moments."""
        one = rng.choice(self._memory[-8:])
        if rng.random() < 0.5:
            return one
        other = rng.choice(self._memory)
        cut = rng.choice((48, 96, 100, 136, 512, 4096))
        return other[:cut] + one[cut:]


def points(ops: Sequence[Op], start: Files | None = None) -> Iterator[Point]:
    """Yield every crash of KINDS at every point, for ops on *start*; some leave the same files as others."""
    disk = Disk(start)
    for position in range(len(ops) + 1):
        if position:
            disk.do(ops[position - 1])
        following = ops[position] if position < len(ops) else None
        if isinstance(following, Memory):
            continue
        for kind, draws in KINDS.items():
            if kind == "torn" and not isinstance(following, Write):
                continue
            if kind not in ("prefix", "torn") and not disk.pending():
                continue
            yield from (Point(position, kind, draw) for draw in range(draws))


def images(ops: Sequence[Op], chosen: Sequence[Point], seed: str, start: Files | None = None) -> Iterator[Files]:
    """Yield the files that each of *chosen*, in order of position, leaves.

    Args:
        ops: what was done.
        chosen: the crashes.
        seed: together with the point it fixes the image.
        start: what was there before the first operation, durable.
    """
    disk = Disk(start)
    done = 0
    for point in chosen:
        while done < point.position:
            disk.do(ops[done])
            done += 1
        following = ops[done] if done < len(ops) else None
        rng = random.Random(f"{seed}:{point}")  # noqa: S311, no secret
        yield disk.image(point.kind, rng, following)


def digest(files: Files) -> bytes:
    """Return a digest of names and contents."""
    hashed = hashlib.blake2b(digest_size=16)
    for name, data in sorted(files.items()):
        hashed.update(f"{name}\0{len(data)}\0".encode())
        hashed.update(data)
    return hashed.digest()


def _apply(content: bytearray, op: Write | Truncate) -> None:
    if isinstance(op, Truncate):
        if op.size < len(content):
            del content[op.size :]
        else:
            content.extend(bytes(op.size - len(content)))
        return
    if op.offset > len(content):
        content.extend(bytes(op.offset - len(content)))
    content[op.offset : op.offset + len(op.data)] = op.data


def _sectors(write: Write) -> Iterator[Write]:
    begin, end = write.offset, write.offset + len(write.data)
    while begin < end:
        stop = min(end, (begin // SECTOR + 1) * SECTOR)
        yield Write(write.file, begin, write.data[begin - write.offset : stop - write.offset])
        begin = stop


def _cut(size: int, rng: Random) -> int:
    return rng.choice((0, 1, min(size, FRAME), size // 2, max(0, size - 1), rng.randrange(size + 1)))


def _rename(names: dict[str, int], op: Create | Delete | Rename | Link) -> None:
    match op:
        case Create(name, file):
            names[name] = file
        case Delete(name):
            names.pop(name, None)
        case Rename(source, target) if source in names:
            names[target] = names.pop(source)
        case Link(source, target) if source in names:
            names[target] = names[source]
