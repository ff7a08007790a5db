r"""What differs between systems. Nothing else in the package asks on which one it runs.

| what | Linux | macOS | Windows |
|---|---|---|---|
| lock on a file that ends with its process | flock | flock | LockFileEx, on a byte that no file has |
| content made durable | fsync | F_FULLFSYNC | FlushFileBuffers |
| new name made durable | fsync of the folder | F_FULLFSYNC of the folder | MoveFileEx, MOVEFILE_WRITE_THROUGH |
| a file that SQLite has open gets another name | yes | yes | no |
| a name that must not be taken yet | link, then unlink | link, then unlink | MoveFileEx without REPLACE_EXISTING |
| a file that a virus scanner holds | - | - | tried again for a tenth of a second |
| names that mean one file | equal ones | those that differ in case or composition | those that differ in case |
| names that are none | - | - | CON, NUL, COM1 …, those with one of <>:"|?* |
| paths of more than 190 characters | as they are | as they are | in their form with \\?\ |
| who may read a new file | mode 0600 | mode 0600 | whom its folder lets |
| which file a name leads to | statx, the inode alone | stat | the file's id on NTFS |
| which boot this is | boot_id in /proc | kern.bootsessionuuid | the time of the boot |
| who holds a lock, what is open | /proc | open files alone | not known |
| a fork | hooks around it | hooks around it | none |
| a process is killed | SIGKILL | SIGKILL | TerminateProcess |
| what a pipe gets of messages | the locale's encoding | the locale's encoding | UTF-8 |
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Final

if sys.platform == "win32":
    from sqlstate.files import windows
else:
    import fcntl
if sys.platform == "linux":
    from sqlstate.files import linux

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Descriptor = int

Identity = tuple[int, int]
"""Device and inode: which file it is, whatever its names are."""
HeldLock = tuple[int, bool, int, int]
"""A lock that a process holds on bytes of a file: the process, whether it is shared, and the first and last byte."""

# ---- Open files ----

PINS_OPEN_FILES: Final = sys.platform == "win32"
"""Whether a file that SQLite has open cannot be renamed, replaced or removed. Those that open_file() opened can."""
_STANDARD: Final = 3  # descriptors below are the program's input and output


def open_file(path: str, flags: int, mode: int = 0o600) -> Descriptor:
    """Open a file, as os.open() does, and return a descriptor: no child gets it, and it follows no link.

    Others may rename and remove the file meanwhile. What is not a regular file does not make the caller wait.

    Raises:
        OSError: it cannot be opened.
    """
    if sys.platform == "win32":
        return windows.open_file(path, flags)
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, mode)


def above_standard(descriptor: Descriptor) -> Descriptor:
    """Return a descriptor above those of standard input and output, which a program may have closed."""
    passed = []
    try:
        while descriptor < _STANDARD:
            passed.append(descriptor)
            descriptor = os.dup(descriptor)
    finally:
        for each in passed:
            os.close(each)
    return descriptor


def read_at(descriptor: Descriptor, amount: int, offset: int) -> bytes:
    """Return up to *amount* bytes from *offset* on; several threads may read at once."""
    if sys.platform == "win32":
        return windows.read_at(descriptor, amount, offset)
    return os.pread(descriptor, amount, offset)


def write_at(descriptor: Descriptor, data: bytes, offset: int) -> int:
    """Write *data* at *offset*; return how many bytes were written."""
    if sys.platform == "win32":
        return windows.write_at(descriptor, data, offset)
    return os.pwrite(descriptor, data, offset)


def lock(descriptor: Descriptor, *, exclusive: bool, wait: bool = False) -> None:
    """Lock an open file until its descriptor is closed, or its process has died.

    Raises:
        BlockingIOError: another descriptor holds a lock that excludes this one, and *wait* is False.
        OSError: the file system has no locks.
    """
    if sys.platform == "win32":
        windows.lock(descriptor, exclusive=exclusive, wait=wait)
    else:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))


def sync(descriptor: Descriptor) -> None:
    """Make the content of an open file durable."""
    if sys.platform == "darwin":
        with suppress(OSError):  # a file system that is not the system's own may lack it
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # fsync alone leaves the data in the disk's cache
            return
    os.fsync(descriptor)


SYNCS_IN_FULL: Final = sys.platform == "darwin"
"""Whether SQLite has to be told to ask the disk itself for durability (fullfsync)."""


# ---- Names ----


def replace(source: str, target: str) -> None:
    """Give a file the name *target*, whatever had it; on Windows durably.

    Raises:
        PermissionError: on Windows, somebody has one of them open.
        OSError: it cannot be done.
    """
    if sys.platform == "win32":
        windows.move(source, target, overwrite=True)
    else:
        os.replace(source, target)


def place(source: str, target: str) -> None:
    """Give a file a name that nothing has; on Windows durably.

    Raises:
        FileExistsError: something has it.
        OSError: it cannot be done.
    """
    if sys.platform == "win32":
        windows.move(source, target, overwrite=False)
        return
    try:
        os.link(source, target)
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        # A file system without links. Between the line above and this, another could make the target.
        os.rename(source, target)
    else:
        # It is done; a second name that stays is removed as one that the dead left.
        with suppress(OSError):
            os.unlink(source)


def remove(path: str) -> None:
    """Remove a file.

    Raises:
        PermissionError: on Windows, somebody has it open.
        OSError: it cannot be done.
    """
    if sys.platform == "win32":
        windows.remove(path)
    else:
        os.unlink(path)


def check_unheld(path: str) -> None:
    """Raise if somebody has a file open, so that it can get no other name.

    Raises:
        PermissionError: on Windows, somebody has.
    """
    if sys.platform == "win32":
        windows.check_unheld(path)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable. Windows: nothing to do, replace() and place() have done it."""
    if sys.platform != "win32":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)


def folded(name: str) -> str:
    """Return a name in a form that is equal for all names that may lead to the same file."""
    if sys.platform == "win32":
        return os.path.normcase(name)
    if sys.platform == "darwin":
        from unicodedata import normalize  # noqa: PLC0415, one system needs it

        return normalize("NFC", name).casefold()
    return name


class Unusable(Exception):
    """The system lets no file have a path; the message says why."""


def usable(path: str) -> str:
    """Return a path as it can be used, whatever its length; on Windows it is absolute.

    Raises:
        Unusable: it says why no file can have it.
    """
    if sys.platform == "win32":
        try:
            return windows.usable(path)
        except windows.Forbidden as e:
            raise Unusable(*e.args) from None
    return path


def long_path_vfs(path: str, suffix: str = "") -> str | None:
    """Return the SQLite VFS that a path which usable() changed needs; None is the system's."""
    return f"win32-longpath{suffix}" if PINS_OPEN_FILES and path.startswith("\\\\?\\") else None


# ---- Permissions ----


def may_not_write(path: str) -> bool:
    """Return True if this user may not write the file or folder, by its permissions or its file system."""
    if sys.platform == "win32":
        return windows.may_not_write(path)
    effective = os.access in os.supports_effective_ids
    return not os.access(path, os.W_OK, effective_ids=effective)


def set_mode(descriptor: Descriptor, mode: int) -> None:
    """Set a file's mode. Windows: nothing, its folder decides."""
    if sys.platform != "win32":
        os.fchmod(descriptor, mode)


def give(descriptor: Descriptor, like: os.stat_result) -> int:
    """Give a file the owner and group of another, as far as this user may; return the mode that is safe then."""
    mode = stat.S_IMODE(like.st_mode)
    if sys.platform == "win32":
        return mode
    for owner in (like.st_uid, -1):
        with suppress(OSError):
            os.fchown(descriptor, owner, like.st_gid)
            break
    if os.fstat(descriptor).st_gid != like.st_gid:  # what was its group's is not another's
        mode &= ~stat.S_IRWXG | (mode & stat.S_IRWXO) << 3
    return mode


def is_for_others(descriptor: Descriptor) -> bool:
    """Return True if others may read an open file by its mode. Windows does not say."""
    return sys.platform != "win32" and bool(os.fstat(descriptor).st_mode & (stat.S_IRWXG | stat.S_IRWXO))


OPEN_FILES_LIMIT: Final = "" if sys.platform == "win32" else " (ulimit -n)"
"""How to see and raise the number of files that a process may have open."""


def free_blocks(folder: str) -> tuple[int, int] | None:
    """Return the size of a block of a folder's file system, and the free bytes; None where no file has holes."""
    if sys.platform == "win32":
        return None
    try:
        system = os.statvfs(folder)
    except OSError:
        return None
    return system.f_frsize, system.f_bavail * system.f_frsize


def occupied(path: str) -> int:
    """Return the bytes that a file occupies on the disk; 0 if there is none, or it is not known."""
    if sys.platform == "win32":
        return 0
    try:
        return os.stat(path).st_blocks * 512
    except OSError:
        return 0


# ---- Which file, which boot ----


if sys.platform == "linux":
    Inode = linux.Inode
else:

    class Inode:
        """Which file a path leads to, asked again and again.

        Args:
            path: absolute path.
        """

        __slots__ = ("_path",)

        def __init__(self, path: str) -> None:
            self._path = path

        def now(self) -> int:
            """Return the inode of the file, 0 if there is no file."""
            try:
                return os.stat(self._path).st_ino
            except OSError:
                return 0


_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


def boot_id() -> bytes:
    """Return 16 bytes that are others after each start of the system, empty where they are not known."""
    if sys.platform == "win32":
        return windows.boot_time()
    try:
        if sys.platform == "darwin":
            text = _sysctl(b"kern.bootsessionuuid")
        else:
            with open(_BOOT_ID, encoding="ascii") as file:
                text = file.read(64)
        boot = bytes.fromhex(text.strip().replace("-", ""))
    except (OSError, ValueError):
        return b""
    return boot if len(boot) == 16 and any(boot) else b""


def _sysctl(name: bytes) -> str:
    """Return a text that macOS knows under *name*."""
    found, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
    if ctypes.CDLL(None, use_errno=True).sysctlbyname(name, found, ctypes.byref(size), None, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found.value.decode("ascii")


# ---- What processes hold ----


def open_files() -> Iterator[tuple[Identity, str]]:
    """Yield each file that this process has open, by whichever library, and its name, "" where it is not known.

    Closing another descriptor of a file drops the locks that this process has on it; not so on Windows, where nothing
    is yielded.
    """
    if sys.platform == "win32":
        return
    try:
        numbers = [int(name) for name in os.listdir(_DESCRIPTORS)]
    except OSError:
        return
    for number in numbers:
        with suppress(OSError):  # it was closed since
            found = os.fstat(number)
            yield (found.st_dev, found.st_ino), _name(number) if found.st_nlink else "without a name"


_DESCRIPTORS: Final = "/dev/fd"


def _name(number: Descriptor) -> str:
    with suppress(OSError):
        if sys.platform == "darwin":
            return os.fsdecode(fcntl.fcntl(number, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
        return os.readlink(f"{_DESCRIPTORS}/{number}")
    return ""


def held_locks(path: str) -> list[HeldLock] | None:
    """Return the locks that processes hold on bytes of a file, None where the system does not say."""
    if sys.platform == "linux":
        return linux.held_locks(path)
    return None


def is_held(path: str) -> bool | None:
    """Return True if a process holds a lock on bytes of a file, or on Windows has it open; None if it is not known."""
    if sys.platform == "win32":
        return windows.is_open(path)
    held = held_locks(path)
    return None if held is None else bool(held)


def process_name(pid: int) -> str:
    """Return the name of a process as the system shows it, "" if it is not known."""
    if sys.platform == "linux":
        return linux.process_name(pid)
    return ""


# ---- Processes ----

ENDING: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
"""The signals that end programs."""
if sys.platform == "win32":
    KILLED: Final = 1
else:
    KILLED: Final = -signal.SIGKILL
"""How a process ends that was killed, as subprocess tells it."""


def command_line(words: Sequence[str]) -> str:
    """Return a command as a user would type it."""
    # Both take milliseconds to import, and are seldom needed.
    if sys.platform == "win32":
        from subprocess import list2cmdline  # noqa: PLC0415

        return list2cmdline(words)
    from shlex import join  # noqa: PLC0415

    return join(words)


def write_utf8() -> None:
    """Let what the program says be UTF-8. On Windows a pipe or a file would get it in an encoding of the region's."""
    if sys.platform == "win32":
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def has_no_reader(e: OSError) -> bool:
    """Return True if an error says that nobody reads a pipe any more. Windows calls that EINVAL."""
    return isinstance(e, BrokenPipeError) or (sys.platform == "win32" and e.errno == errno.EINVAL)


def at_fork(
    *,
    before: Callable[[], None] | None = None,
    in_parent: Callable[[], None] | None = None,
    in_child: Callable[[], None] | None = None,
) -> None:
    """Call functions around each fork of this process. Windows has no fork."""
    if sys.platform != "win32":
        given = {"before": before, "after_in_parent": in_parent, "after_in_child": in_child}
        os.register_at_fork(**{name: function for name, function in given.items() if function is not None})
