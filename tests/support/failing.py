"""An SQLite VFS whose next call of a kind fails, once."""

from __future__ import annotations

import apsw


class FailingVFS(apsw.VFS):
    """The system's files. Set `fails` to such as "sync wal" or "write main", and that call fails once."""

    def __init__(self) -> None:
        self.fails = ""
        super().__init__("failing", "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802, as SQLite's
        return _FailingFile(self, name, flags)


class _FailingFile(apsw.VFSFile):
    def __init__(self, vfs: FailingVFS, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._vfs = vfs
        self._what = "wal" if flags[0] & apsw.SQLITE_OPEN_WAL else "main"

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._step("sync")
        super().xSync(flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._step("write")
        super().xWrite(data, offset)

    def _step(self, call: str) -> None:
        if self._vfs.fails == f"{call} {self._what}":
            self._vfs.fails = ""
            raise apsw.IOError(f"{call} failed")
