"""Calls of Windows that Python has not, or does in another way. Only system.py imports it.

Names of functions, constants and structures are those of Microsoft's documentation of the Windows API (fileapi.h,
winbase.h, winternl.h).
"""

from __future__ import annotations

import sys

assert sys.platform == "win32"  # noqa: S101, for the type checker

import ctypes
import errno
import msvcrt
import os
import re
import time
from ctypes import wintypes
from typing import Any, Final

_kernel: Final = ctypes.WinDLL("kernel32", use_last_error=True)
_ntdll: Final = ctypes.WinDLL("ntdll")

_GENERIC_READ: Final = 0x80000000
_GENERIC_WRITE: Final = 0x40000000
_DELETE: Final = 0x10000
_FILE_WRITE_DATA: Final = 2  # of a folder: make files in it
_SHARE_ALL: Final = 1 | 2 | 4  # read, write, delete
_CREATE_NEW: Final = 1
_CREATE_ALWAYS: Final = 2
_OPEN_EXISTING: Final = 3
_OPEN_ALWAYS: Final = 4
_FILE_ATTRIBUTE_NORMAL: Final = 0x80
_FILE_FLAG_BACKUP_SEMANTICS: Final = 0x02000000  # without it no folder can be opened
_FILE_FLAG_OPEN_REPARSE_POINT: Final = 0x00200000
_FILE_ATTRIBUTE_REPARSE_POINT: Final = 0x400
_INVALID_HANDLE: Final = wintypes.HANDLE(-1).value
_MOVEFILE_REPLACE_EXISTING: Final = 1
_MOVEFILE_WRITE_THROUGH: Final = 8
_LOCKFILE_FAIL_IMMEDIATELY: Final = 1
_LOCKFILE_EXCLUSIVE_LOCK: Final = 2
_ERROR_ACCESS_DENIED: Final = 5
_ERROR_WRITE_PROTECT: Final = 19
_ERROR_SHARING_VIOLATION: Final = 32
_ERROR_LOCK_VIOLATION: Final = 33
_ERROR_HANDLE_EOF: Final = 38
_ERROR_IO_PENDING: Final = 997

# The locked byte lies behind the end of each file: Windows lets nobody read a byte that another has locked.
_LOCKED_BYTE: Final = 1 << 62
_PATIENCE_SECONDS: Final = 0.1
_LOOK_SECONDS: Final = 0.005


class _Overlapped(ctypes.Structure):
    _fields_ = (
        ("Internal", ctypes.c_void_p),
        ("InternalHigh", ctypes.c_void_p),
        ("Offset", wintypes.DWORD),
        ("OffsetHigh", wintypes.DWORD),
        ("hEvent", wintypes.HANDLE),
    )

    @classmethod
    def at(cls, offset: int) -> _Overlapped:
        return cls(None, None, offset & 0xFFFFFFFF, offset >> 32, None)


_kernel.CreateFileW.restype = wintypes.HANDLE
_kernel.CreateFileW.argtypes = (
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.LPVOID,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
)
_kernel.CloseHandle.argtypes = (wintypes.HANDLE,)
_kernel.MoveFileExW.argtypes = (wintypes.LPCWSTR, wintypes.LPCWSTR, wintypes.DWORD)
_kernel.LockFileEx.argtypes = (wintypes.HANDLE, *[wintypes.DWORD] * 4, ctypes.POINTER(_Overlapped))
for _io in (_kernel.ReadFile, _kernel.WriteFile):
    _io.argtypes = (
        wintypes.HANDLE,
        ctypes.c_char_p,
        wintypes.DWORD,
        ctypes.POINTER(wintypes.DWORD),
        ctypes.POINTER(_Overlapped),
    )


def _error(path: str | None = None, target: str | None = None) -> OSError:
    """Return the error of the last call; Python makes FileNotFoundError and the like of it."""
    code = ctypes.get_last_error()
    return OSError(errno.EIO, ctypes.FormatError(code).strip().rstrip("."), path, code, target)


def open_file(path: str, flags: int) -> int:
    """As system.open_file()."""
    access = _GENERIC_READ | _GENERIC_WRITE if flags & os.O_RDWR else _GENERIC_READ
    if flags & os.O_WRONLY:
        access = _GENERIC_WRITE
    how = _OPEN_EXISTING
    if flags & os.O_CREAT:
        how = _CREATE_NEW if flags & os.O_EXCL else _OPEN_ALWAYS
    handle = _kernel.CreateFileW(
        path, access, _SHARE_ALL, None, how, _FILE_ATTRIBUTE_NORMAL | _FILE_FLAG_OPEN_REPARSE_POINT, None
    )
    if handle == _INVALID_HANDLE:
        raise _error(path)
    try:
        descriptor = msvcrt.open_osfhandle(handle, os.O_NOINHERIT | (0 if access & _GENERIC_WRITE else os.O_RDONLY))
    except BaseException:
        _kernel.CloseHandle(handle)
        raise
    if os.fstat(descriptor).st_file_attributes & _FILE_ATTRIBUTE_REPARSE_POINT:
        os.close(descriptor)
        raise OSError(errno.ELOOP, "it is a link", path)
    return descriptor


def read_at(descriptor: int, amount: int, offset: int) -> bytes:
    """As system.read_at()."""
    buffer = ctypes.create_string_buffer(amount)
    done, place = wintypes.DWORD(), _Overlapped.at(offset)
    if not _kernel.ReadFile(msvcrt.get_osfhandle(descriptor), buffer, amount, done, place):
        if ctypes.get_last_error() == _ERROR_HANDLE_EOF:
            return b""
        raise _error()
    return buffer.raw[: done.value]


def write_at(descriptor: int, data: bytes, offset: int) -> int:
    """As system.write_at()."""
    done, place = wintypes.DWORD(), _Overlapped.at(offset)
    if not _kernel.WriteFile(msvcrt.get_osfhandle(descriptor), data, len(data), done, place):
        raise _error()
    return done.value


def lock(descriptor: int, *, exclusive: bool, wait: bool) -> None:
    """As system.lock()."""
    flags = (_LOCKFILE_EXCLUSIVE_LOCK if exclusive else 0) | (0 if wait else _LOCKFILE_FAIL_IMMEDIATELY)
    if not _kernel.LockFileEx(msvcrt.get_osfhandle(descriptor), flags, 0, 1, 0, _Overlapped.at(_LOCKED_BYTE)):
        if ctypes.get_last_error() in (_ERROR_LOCK_VIOLATION, _ERROR_IO_PENDING):
            raise BlockingIOError(errno.EWOULDBLOCK, "another process has locked it")
        raise _error()


def move(source: str, target: str, *, overwrite: bool) -> None:
    """Rename a file durably; a folder's entry is on the disk when it returns."""
    flags = _MOVEFILE_WRITE_THROUGH | (_MOVEFILE_REPLACE_EXISTING if overwrite else 0)

    def moved() -> OSError | None:
        return None if _kernel.MoveFileExW(source, target, flags) else _error(source, target)

    _patiently(moved)


def remove(path: str) -> None:
    """As system.remove()."""

    def removed() -> OSError | None:
        try:
            os.unlink(path)
        except OSError as e:
            return e
        return None

    _patiently(removed)


def is_open(path: str) -> bool:
    """Return True if a process has a file open."""
    handle = _kernel.CreateFileW(path, _DELETE, 0, None, _OPEN_EXISTING, _FILE_FLAG_OPEN_REPARSE_POINT, None)
    if handle == _INVALID_HANDLE:
        return ctypes.get_last_error() == _ERROR_SHARING_VIOLATION
    _kernel.CloseHandle(handle)
    return False


def check_unheld(path: str) -> None:
    """As system.check_unheld()."""
    _patiently(lambda: _error(path) if is_open(path) else None)


def _patiently(step: Any) -> None:
    """Take a step, again and again for a short time if somebody has the file open: virus scanners and indexers do."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while (error := step()) is not None:
        held = getattr(error, "winerror", None) in (_ERROR_ACCESS_DENIED, _ERROR_SHARING_VIOLATION)
        if not held or time.monotonic() >= until:
            raise error
        time.sleep(_LOOK_SECONDS)


def may_not_write(path: str) -> bool:
    """As system.may_not_write()."""
    handle = _kernel.CreateFileW(
        path, _FILE_WRITE_DATA, _SHARE_ALL, None, _OPEN_EXISTING, _FILE_FLAG_BACKUP_SEMANTICS, None
    )
    if handle == _INVALID_HANDLE:
        return ctypes.get_last_error() in (_ERROR_ACCESS_DENIED, _ERROR_WRITE_PROTECT)
    _kernel.CloseHandle(handle)
    return False


def boot_time() -> bytes:
    """As system.boot_id(). A clock that is set moves it too, and then it is taken for another boot, which is safe."""
    found = (ctypes.c_longlong * 6)()  # SYSTEM_TIMEOFDAY_INFORMATION begins with BootTime
    if _ntdll.NtQuerySystemInformation(_SYSTEM_TIME_OF_DAY, ctypes.byref(found), ctypes.sizeof(found), None):
        return b""
    return int(found[0]).to_bytes(16) if found[0] > 0 else b""


_SYSTEM_TIME_OF_DAY: Final = 3

# Microsoft's page "Naming Files, Paths, and Namespaces".
_FORBIDDEN: Final = re.compile(r'[<>:"|?*\x00-\x1f]')
_DEVICE: Final = re.compile(
    r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9\u00b9\u00b2\u00b3])(\..*)?", re.IGNORECASE
)
# Windows gives programs 259 characters, unless they say otherwise. We add names of 60 next to a store.
_SHORT_MAX: Final = 190
_PREFIX: Final = "\\\\?\\"


class Forbidden(Exception):
    """As system.Unusable."""


def usable(path: str) -> str:
    """As system.usable()."""
    path = os.path.abspath(path)
    if path.startswith(_PREFIX):
        return path
    if path.startswith("\\\\.\\"):  # what Python makes of the name of a device
        raise Forbidden("it is a device of Windows")
    drive, rest = os.path.splitdrive(path)
    for name in rest.split("\\"):
        if (wrong := _FORBIDDEN.search(name)) is not None:
            raise Forbidden(f"Windows allows no {wrong[0]!r} in a name")
        if _DEVICE.fullmatch(name):
            raise Forbidden(f"{name} is the name of a device on Windows")
    if len(path) <= _SHORT_MAX:
        return path
    return f"{_PREFIX}UNC{path[1:]}" if drive.startswith("\\\\") else _PREFIX + path
