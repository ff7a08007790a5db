"""Which SQLite library is in use, and what it was given: its version, and its virtual file systems (VFS)."""

from __future__ import annotations

from typing import Final

import apsw

from sqlstate.errors import InvalidOption, SQLiteTooOld

# 3.7.0 to 3.51.2 can lose committed data when two connections write and checkpoint at one moment.
# The fix was brought back to two older lines; 3.52.0 was withdrawn.
SQLITE_MIN: Final = (3, 51, 3)


def check_sqlite() -> str:
    """Return the version of the SQLite library in use.

    Raises:
        SQLiteTooOld: it has the WAL-reset bug.
    """
    version = apsw.sqlite_lib_version()
    number = tuple(int(part) for part in version.split("."))
    backported = number[:2] in ((3, 44), (3, 50)) and number >= {44: (3, 44, 6), 50: (3, 50, 7)}[number[1]]
    if (number < SQLITE_MIN and not backported) or number[:2] == (3, 52):
        raise SQLiteTooOld(
            f"SQLite {version} can lose committed data in WAL mode; install apsw 3.51.3.0 or newer, "
            "built with its own SQLite"
        )
    return version


def check_vfs(vfs: str | None) -> None:
    """Raise InvalidOption if SQLite knows no VFS of that name."""
    if vfs is not None and vfs not in apsw.vfs_names():
        raise InvalidOption(f"vfs={vfs!r} is not registered with SQLite; there are {', '.join(apsw.vfs_names())}")
