"""The file `NAME-acknowledged` next to an open store: which commit was acknowledged last (file-format.md, section 1).

Once the process that wrote is dead, any SQLite program that looks at the file moves the -wal into it and removes the
-wal. The dirty flag then says that commits may be missing; this file says which ones were promised, so that opening
can check that they are there. It is written after each commit, before the commit is acknowledged, and never synced. A
process that dies leaves what it wrote. What a power cut leaves is not trusted: the boot id in the header is another
one then. Where the system has no boot id the file is never made, and a missing -wal stays damage.

Nothing here fails a commit. A handle that cannot keep the file gives the dirty flag a new nonce, of which the file
holds nothing. A handle makes or joins the file under SQLite's writer lock; from then on it holds the file's shared
lock, so that nobody removes the file. Each handle has two places in it and writes to them alternately, without
a lock.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.files import system
from sqlstate.files.identity import is_named
from sqlstate.files.system import open_file, read_at, write_at

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX: Final = "-acknowledged"
_MAGIC: Final = b"SqStAcknowledged"
_VERSION: Final = 1
_HEADER: Final = Struct(">16sQ16s16sQ")  # magic, version, store id, boot id, inode of the store's file
_NOTE: Final = Struct(">QQ32s")
_SEAL_BYTES: Final = 16
_PLACE: Final = _NOTE.size + _SEAL_BYTES  # 64, as the header
# Handles that died leave their places behind; beyond this size the file is made again.
_BYTES_MAX: Final = 1 << 20
_ATTEMPTS: Final = 3
_INODE_MAX: Final = (1 << 64) - 1


class Position(NamedTuple):
    """Where a store's log and audit trail ended."""

    lsn: int
    """The greatest LSN in the log."""
    audited: int
    """Number of the newest audit entry."""
    chain: bytes
    """Chain digest of the newest commit."""


class Notes:
    """The notes that one handle keeps of its acknowledged commits.

    Args:
        path: of the store, without links.
        store_id: of the store.
    """

    __slots__ = ("_closing", "_descriptor", "_file", "_path", "_place", "_seal", "_second", "_store_id")

    def __init__(self, path: str, store_id: bytes) -> None:
        self._path = path
        self._file = path + SUFFIX
        self._store_id = store_id
        self._closing: Iterator[None] = iter(())  # advancing it closes the descriptor; it advances once
        self._descriptor = -1
        self._place = 0  # offset of the first of this handle's two places
        self._second = False  # the newest note is in the second
        self._seal: Any = None  # what each note's seal begins with; None: nothing is noted

    def __del__(self) -> None:
        next(getattr(self, "_closing", iter(())), None)  # __init__ may have been interrupted

    @property
    def kept(self) -> bool:
        """Whether this handle notes its commits."""
        return self._seal is not None

    def join(self, nonce: bytes) -> bool:
        """Join the notes of a dirty flag with *nonce*; return False if the flag needs a new nonce first."""
        self.close()
        header = _header(self._path, self._store_id)
        if not header:
            return not os.path.lexists(self._file)  # else others can read it, and would miss what is not noted
        try:
            data = self._open(header)
            seal = sha256(header + nonce)
            if not data or next(_notes(data, seal), None) is None:
                self.close()
                return False
            self._claim(len(data))
        except OSError:
            self.close()
            return False
        self._seal = seal
        return True

    def begin(self, nonce: bytes, position: Position) -> None:
        """Begin notes for a dirty flag with a new *nonce*, from *position* on; notes of other nonces stay."""
        self.close()
        header = _header(self._path, self._store_id)
        if not header:
            return
        try:
            for _ in range(_ATTEMPTS):  # others may be removing one
                data = self._open(header)
                if data or self._make(header):
                    break
            else:
                return
            self._claim(len(data) or len(header))
            self._seal = sha256(header + nonce)
            write_at(self._descriptor, self._sealed(*position), self._place)
        except OSError:
            self.close()

    def write(self, lsn: int, audited: int, chain: bytes) -> bool:
        """Note a commit; return False if that failed: the caller must call invalidate() then."""
        if self._seal is None:
            return True
        self._second = not self._second
        try:
            note = self._sealed(lsn, audited, chain)
            return write_at(self._descriptor, note, self._place + _PLACE * self._second) == _PLACE
        except OSError:
            return False

    def invalidate(self) -> None:
        """Invalidate the notes of this nonce, because a commit is missing among them."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        with suppress(OSError):
            if _is_ours(self._file):
                system.remove(self._file)
        self.close()

    def remove(self) -> None:
        """Remove the file, unless another handle that writes has it open. A file that is not ours stays."""
        self.close()
        with suppress(OSError):
            if not _is_ours(self._file):
                return
            descriptor = open_file(self._file, os.O_RDONLY)
            try:
                if _lock(descriptor, exclusive=True) and is_named(self._file, descriptor):
                    system.remove(self._file)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Stop noting commits."""
        self._seal = None
        next(self._closing, None)

    def _hold(self, flags: int) -> None:
        """Open the file, and keep it open."""
        self._descriptor = system.above_standard(open_file(self._file, flags))
        self._closing = map(os.close, (self._descriptor,))

    def _sealed(self, lsn: int, audited: int, chain: bytes) -> bytes:
        note = _NOTE.pack(lsn, audited, chain)
        seal = self._seal.copy()
        seal.update(note)
        digest: bytes = seal.digest()
        return note + digest[:_SEAL_BYTES]

    def _open(self, header: bytes) -> bytes:
        """Open the file and return its content; empty if it does not exist, or is of another store or boot."""
        if not _is_plain(self._file):
            return b""
        self._hold(os.O_RDWR)
        if _lock(self._descriptor) and is_named(self._file, self._descriptor):
            data = read_at(self._descriptor, _BYTES_MAX + 1, 0)
            if data[: len(header)] == header and len(data) < _BYTES_MAX:
                return data
        self.close()
        return b""

    def _make(self, header: bytes) -> bool:
        """Make the file, replacing one of an earlier boot or one that is cut short. A file that is not ours stays.

        Returns False if another process removed it before it was locked.
        """
        if _is_ours(self._file):
            system.remove(self._file)
        self._hold(os.O_RDWR | os.O_CREAT | os.O_EXCL)
        if not _lock(self._descriptor) or not is_named(self._file, self._descriptor):
            self.close()
            return False
        status = os.stat(self._path)
        with suppress(OSError):  # who may write the store should be able to note what it commits
            system.give(self._descriptor, status)
        with suppress(OSError):
            system.set_mode(self._descriptor, stat.S_IMODE(status.st_mode) & 0o666)
        write_at(self._descriptor, header, 0)
        return True

    def _claim(self, size: int) -> None:
        """Append two places for this handle."""
        self._place = -(-size // _PLACE) * _PLACE
        self._second = False
        write_at(self._descriptor, bytes(2 * _PLACE), self._place)


def newest(path: str, store_id: bytes, nonce: bytes, *, last: bool = False) -> Position | None:
    """Return the newest acknowledged position of a dirty store whose writers died, None if it is not known.

    Args:
        path: of the store, without links; the caller is alone with it.
        store_id: of the store.
        nonce: of the dirty flag.
        last: return None too if the newest notes have another nonce: that flag may not have reached the file.
    """
    header = _header(path, store_id)
    if not header:
        return None
    try:
        if not _is_plain(path + SUFFIX):
            return None
        descriptor = open_file(path + SUFFIX, os.O_RDONLY)
        try:
            data = read_at(descriptor, _BYTES_MAX + 1, 0)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    if data[: len(header)] != header or len(data) > _BYTES_MAX:
        return None
    seal = sha256(header + nonce)
    ends = range(len(data) // _PLACE * _PLACE, _PLACE, -_PLACE)
    end = next((end for end in ends if any(data[end - _PLACE : end])), 0)
    if last and not any(_notes(data[end - 2 * _PLACE : end], seal)):
        return None
    return max(_notes(data, seal), default=None)


def _notes(data: bytes, seal: Any) -> Iterator[Position]:
    """Yield the notes with a valid seal."""
    for at in range(_PLACE, len(data) - _PLACE + 1, _PLACE):
        note = data[at : at + _NOTE.size]
        if any(note):
            expected = seal.copy()
            expected.update(note)
            if expected.digest()[:_SEAL_BYTES] == data[at + _NOTE.size : at + _PLACE]:
                yield Position(*_NOTE.unpack(note))


def _header(path: str, store_id: bytes) -> bytes:
    """Return how the file must begin, empty where the system has no boot id."""
    try:
        inode = os.stat(path).st_ino & _INODE_MAX  # ReFS has ids of 128 bits
    except OSError:
        return b""
    boot = system.boot_id()
    return _HEADER.pack(_MAGIC, _VERSION, store_id, boot, inode) if boot else b""


def _is_plain(path: str) -> bool:
    """Return True if opening the file is harmless: one with a second hard link could be the store itself."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _is_ours(path: str) -> bool:
    """Return True if this module made the file, for any store, or began to make it."""
    if not _is_plain(path):
        return False
    descriptor = open_file(path, os.O_RDONLY)
    try:
        start = read_at(descriptor, _HEADER.size, 0)
    finally:
        os.close(descriptor)
    return not any(start) or start.startswith(_MAGIC)


def _lock(descriptor: int, *, exclusive: bool = False) -> bool:
    """Lock a file without waiting; return False if another process holds it. Where there are no locks, return True."""
    try:
        system.lock(descriptor, exclusive=exclusive)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
