"""SQLite VFSes that write down what is done to files, or let the N-th call fail.

Both do their work through the system's VFS. What the package does to files by itself, through `os`, is
written down by `watching_os`.
"""

from __future__ import annotations

import itertools
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from unittest import mock

import apsw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path


class Create(NamedTuple):
    """A name in the folder now leads to a new, empty file."""

    name: str
    file: int


class Write(NamedTuple):
    file: int
    offset: int
    data: bytes


class Truncate(NamedTuple):
    file: int
    size: int


class Sync(NamedTuple):
    """What was written to the file is durable."""

    file: int


class Delete(NamedTuple):
    name: str


class Rename(NamedTuple):
    source: str
    target: str


class Link(NamedTuple):
    """The file *source* has a second name."""

    source: str
    target: str


class SyncFolder(NamedTuple):
    """All names that were made or removed are durable as they are."""


class Memory(NamedTuple):
    """SQLite's shared memory, the file *name*, is seen to hold something else; None: it is gone."""

    name: str
    data: bytes | None


Op: TypeAlias = Create | Write | Truncate | Sync | Delete | Rename | Link | SyncFolder | Memory

FOLDER: Final = SyncFolder()
TRACKED: Final = (
    apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
)
# The first sync of one of these, once opened, syncs its folder too: os_unix.c, UNIXFILE_DIRSYNC.
SYNC_FOLDER: Final = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
SHARED_HEADER_BYTES: Final = 136

_numbers = itertools.count(1)


class Trace:
    """What was done to the files of one folder, in order.

    Args:
        folder: empty when the recording begins.
        main: name of the store's file in it, whose -shm is watched.
        there: the files that are in it from the beginning, numbered as images.Disk does.
    """

    def __init__(self, folder: Path, main: str, there: Iterable[str] = ()) -> None:
        self.ops: list[Op] = []
        self.folder = str(folder.resolve())
        self._names = {name: -number for number, name in enumerate(there, 1)}
        self._files = itertools.count(1)
        self._memory_name = f"{main}-shm"
        self._memory: tuple[int, int, bytes] | None = None  # descriptor, inode, header
        self._by_vfs: set[int] = set()

    def where(self) -> int:
        """Return how many operations there were."""
        return len(self.ops)

    def name_of(self, path: str) -> str | None:
        """Return the name in the folder of *path*, None if it lies elsewhere."""
        folder, name = os.path.split(os.path.realpath(path))
        return name if folder == self.folder else None

    def known(self, name: str) -> int | None:
        """Return the file that *name* leads to, None if there is none."""
        return self._names.get(name)

    def by_vfs(self, file: int) -> bool:
        """Tell whether SQLite writes the file, so that its content needs no look."""
        return file in self._by_vfs

    def open(self, name: str, *, by_vfs: bool) -> int:
        """Return the file that *name* leads to; note its creation if it was not known."""
        file = self._names.get(name)
        if file is None:
            file = self._names[name] = next(self._files)
            self._add(Create(name, file))
        if by_vfs:
            self._by_vfs.add(file)
        return file

    def write(self, file: int, offset: int, data: bytes) -> None:
        self._add(Write(file, offset, data))

    def truncate(self, file: int, size: int) -> None:
        self._add(Truncate(file, size))

    def sync(self, file: int) -> None:
        self._add(Sync(file))

    def sync_folder(self) -> None:
        self._add(FOLDER)

    def delete(self, name: str) -> None:
        if self._names.pop(name, None) is not None:
            self._add(Delete(name))

    def rename(self, source: str, target: str) -> None:
        file = self._names.pop(source, None)
        if file is not None:
            self._names[target] = file
            self._add(Rename(source, target))

    def link(self, source: str, target: str) -> None:
        file = self._names.get(source)
        if file is not None:
            self._names[target] = file
            self._add(Link(source, target))

    def look(self) -> None:
        """Look at SQLite's shared memory, which no VFS sees.

        One descriptor is kept for it: closing one would drop SQLite's locks on the file.
        """
        path = os.path.join(self.folder, self._memory_name)
        try:
            inode = os.stat(path).st_ino
        except FileNotFoundError:
            if self._memory is not None:
                os.close(self._memory[0])
                self._memory = None
                self.ops.append(Memory(self._memory_name, None))
            return
        if self._memory is not None and self._memory[1] != inode:
            os.close(self._memory[0])
            self._memory = None
        descriptor = _open(path, os.O_RDONLY) if self._memory is None else self._memory[0]
        header = os.pread(descriptor, SHARED_HEADER_BYTES, 0)
        if self._memory is None or self._memory[2] != header:
            self.ops.append(Memory(self._memory_name, os.pread(descriptor, 1 << 20, 0)))
        self._memory = (descriptor, inode, header)

    def close(self) -> None:
        """Give up the descriptor of the shared memory."""
        if self._memory is not None:
            os.close(self._memory[0])
            self._memory = None

    def catch_up(self, name: str) -> int:
        """Note what a file that Python wrote holds now, and return it."""
        file = self.open(name, by_vfs=False)
        if not self.by_vfs(file):
            descriptor = _open(os.path.join(self.folder, name), os.O_RDONLY)
            data = os.pread(descriptor, 1 << 30, 0)
            os.close(descriptor)
            self.truncate(file, len(data))
            if data:
                self.write(file, 0, data)
        return file

    def _add(self, op: Op) -> None:
        self.look()
        self.ops.append(op)


# As they are while `watching_os` stands in front of them.
_open = os.open
_fsync = os.fsync
_unlink = os.unlink


class RecordingVFS(apsw.VFS):
    """Writes down in a trace what SQLite does to the files of a folder."""

    def __init__(self, trace: Trace) -> None:
        self.name = f"recording-{next(_numbers)}"
        self.trace = trace
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        path = _path(name)
        own = self.trace.name_of(path) if path and flags[0] & TRACKED else None
        return apsw.VFSFile("", name, flags) if own is None else RecordingFile(self.trace, own, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        name = self.trace.name_of(filename)
        if name is not None:
            self.trace.delete(name)
            if syncdir:
                self.trace.sync_folder()


class RecordingFile(apsw.VFSFile):
    """One open file of a RecordingVFS."""

    def __init__(self, trace: Trace, own: str, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._trace = trace
        self._file = trace.open(own, by_vfs=True)
        self._syncs_folder = bool(flags[0] & SYNC_FOLDER and flags[0] & apsw.SQLITE_OPEN_CREATE)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._trace.write(self._file, offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._trace.truncate(self._file, newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._trace.sync(self._file)
        if self._syncs_folder:
            self._syncs_folder = False
            self._trace.sync_folder()


@contextmanager
def watching_os(trace: Trace) -> Iterator[None]:
    """Write down in *trace* what Python code does to its folder through `os`."""
    paths: dict[int, str] = {}

    def opened(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        descriptor = _open(path, flags, *args, **kwargs)
        text = os.fsdecode(path) if not isinstance(path, int) else ""
        paths[descriptor] = text
        name = trace.name_of(text)
        if flags & os.O_CREAT and name is not None and not name.endswith("-shm"):
            trace.open(name, by_vfs=False)
        return descriptor

    def synced(descriptor: int) -> None:
        _fsync(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        name = trace.name_of(path)
        if os.path.realpath(path) == trace.folder:
            trace.sync_folder()
        elif name is not None:
            trace.sync(trace.catch_up(name))

    def named(real: Callable[..., None], note: Callable[[str, str], None]) -> Callable[..., None]:
        def name(source: Any, target: Any, **options: Any) -> None:
            old, new = trace.name_of(os.fsdecode(source)), trace.name_of(os.fsdecode(target))
            if old is not None:
                trace.catch_up(old)
            real(source, target, **options)
            if old is not None and new is not None:
                note(old, new)

        return name

    def unlinked(path: Any, **options: Any) -> None:
        _unlink(path, **options)
        name = trace.name_of(os.fsdecode(path))
        if name is not None:
            trace.delete(name)

    with ExitStack() as stack:
        for function, ours in (
            ("open", opened), ("fsync", synced), ("fdatasync", synced), ("unlink", unlinked), ("remove", unlinked),
            ("rename", named(os.rename, trace.rename)), ("replace", named(os.replace, trace.rename)),
            ("link", named(os.link, trace.link)),
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(os, function, ours))
        yield


class Fault(NamedTuple):
    """Which call fails, and how."""

    call: str
    """write, sync, truncate, delete, open or read."""
    number: int
    """The N-th one, from 1."""
    full: bool
    """The disk is full, instead of an error of the device."""
    lasting: bool
    """All that follow fail too."""


IO_ERRORS: Final = {
    "write": apsw.SQLITE_IOERR_WRITE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    "delete": apsw.SQLITE_IOERR_DELETE,
    "read": apsw.SQLITE_IOERR_READ,
}


class FailingVFS(apsw.VFS):
    """Lets the call fail that *fault* names; without one it only counts calls."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.name = f"failing-{next(_numbers)}"
        self.fault = fault
        self.calls: dict[str, int] = {}
        self.fired = 0
        super().__init__(self.name, "")

    def meet(self, call: str) -> None:
        """Count a call, and raise if it is one that fails."""
        number = self.calls[call] = self.calls.get(call, 0) + 1
        fault = self.fault
        if fault is None or call != fault.call:
            return
        if number == fault.number or (fault.lasting and number > fault.number):
            self.fired += 1
            raise failure(fault)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        self.meet("open")
        return FailingFile(self, name, flags) if _path(name) else apsw.VFSFile("", name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self.meet("delete")
        super().xDelete(filename, syncdir)


class FailingFile(apsw.VFSFile):
    """One open file of a FailingVFS."""

    def __init__(self, vfs: FailingVFS, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._vfs = vfs

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        self._vfs.meet("write")
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._vfs.meet("truncate")
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._vfs.meet("sync")
        super().xSync(flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._vfs.meet("read")
        return super().xRead(amount, offset)


def failure(fault: Fault) -> apsw.Error:
    """Return the error that SQLite would get from the system."""
    if fault.full:
        return apsw.FullError("seeded: no space left on device")
    if fault.call == "open":
        return apsw.CantOpenError("seeded: the file cannot be opened")
    error = apsw.IOError(f"seeded: input/output error in {fault.call}")
    error.extendedresult = IO_ERRORS[fault.call]  # type: ignore[attr-defined]
    return error


def _path(name: Any) -> str:
    """Return the path that SQLite wants to open, `""` for a file without a name."""
    if name is None:
        return ""
    return str(name.filename() if isinstance(name, apsw.URIFilename) else name)
