"""A SQLite file of another program, read at one state and not changed: not a byte, and no file is made next to it."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlstate.errors import Busy, CannotOpen, ImportRejected, NotAStore, StoreError, StoreForked
from sqlstate.files.paths import absolute
from sqlstate.importing.decoding import changed, check_regular
from sqlstate.recovery.sqlite_journal import scan_journal
from sqlstate.recovery.sqlite_wal import scan_wal
from sqlstate.sqlite.connection import Connection
from sqlstate.sqlite.main_file import MODES, SQLITE_MAGIC, page_size
from sqlstate.sqlite.opener import ImmutableFile
from sqlstate.sqlite.overlay import Pages
from sqlstate.sqlite.raw_file import read_at
from sqlstate.sqlite.sidecars import StoreFiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlstate.sqlite.connection import Row

_TIMEOUT: Final = 5.0


def is_sqlite(path: str) -> bool:
    """Return True if a regular file is of SQLite. It is read through SQLite, which knows this process's locks."""
    with _naming(path):
        return read_at(absolute(path, links=False), None, 0, len(SQLITE_MAGIC)) == SQLITE_MAGIC


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Turn errors about a store into errors about a source, but for those that go away by waiting or by permission."""
    try:
        yield
    except NotAStore:
        raise ImportRejected(path, "", "it is not an SQLite file, or is encrypted") from None
    except Busy as e:
        by = "another process" if e.holder is None else f"process {e.holder}"
        raise Busy(f"{path}: {by} has it locked; end that program, and try again", e.holder) from None
    except (CannotOpen, StoreForked):
        raise
    except StoreError as e:
        raise ImportRejected(path, "", f"SQLite cannot read it: {e.__cause__ or e}") from None


class ForeignTables:
    """The tables of an SQLite file, in one read transaction.

    To read a file in WAL mode, SQLite makes files next to it; and what a killed program left in a -wal or -journal, it
    moves into the file or takes back, if it may. So a file that nobody uses is read with those pages laid over its own,
    under SQLite's exclusive lock. One that is in use is read as its other readers do.

    Args:
        path: of the file.

    Raises:
        ImportRejected: it is no regular file, or open in this process, or cannot be read by SQLite.
        Busy: another process held it locked for 5 s.
        OSError: there is no such file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        check_regular(path)
        self._frozen: ImmutableFile | None = None
        self._held = ExitStack()
        try:
            with _naming(path):
                self._connection = self._connect()
                self._held.callback(self._connection.close)
                self._connection.run("BEGIN")
        except BaseException:
            self._held.close()
            raise

    def _connect(self) -> Connection:
        files = StoreFiles(absolute(self.path, links=False), None, 0.0)
        header = read_at(files.real_path, None, 0, MODES + 1)
        if (in_wal_mode := header[MODES:] == b"\2") or files.size("-journal"):
            lock = self._held.enter_context(ExitStack())
            if lock.enter_context(files.exclusive_lock()) is not False:
                pages = self._wal_pages(files) if in_wal_mode else self._journal_pages(files)
                self._frozen = ImmutableFile(files.real_path, None, pages)
                self._held.callback(self._frozen.close)
                return self._frozen.connect(_TIMEOUT)
            lock.close()  # what was taken of it kept others out
        return Connection(files.real_path, _TIMEOUT, read_only=True)

    def _wal_pages(self, files: StoreFiles) -> Pages | None:
        data = self._held.enter_context(files.sidecar_bytes("-wal"))
        scan = scan_wal(data, page_size(read_at(files.real_path, None, 0, MODES)))
        if scan.rot or scan.header == "damaged":
            raise self._damaged("-wal")
        return Pages(scan.page_size, data, scan.pages, scan.database_pages) if scan.committed else None

    def _journal_pages(self, files: StoreFiles) -> Pages | None:
        data = files.sidecar("-journal")
        scan = scan_journal(data)
        if scan.rot:
            raise self._damaged("-journal")
        return Pages(scan.page_size, data, scan.pages, scan.initial_pages) if scan.pages else None

    def _damaged(self, suffix: str) -> ImportRejected:
        reason = (
            f"its {suffix} is damaged: the program that made it has to open it first, or a backup to take its place"
        )
        return ImportRejected(self.path, "", reason)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        """Yield the rows of a statement."""
        with closing(self._connection.iterate(sql, values)) as rows:  # type: ignore[type-var]
            while True:
                with _naming(self.path):
                    row = next(rows, None)
                if row is None:
                    return
                yield row

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        return int(next(self.rows(f'SELECT count(*) FROM "{table.replace(chr(34), chr(34) * 2)}"'))[0])

    def names(self) -> list[str]:
        """Return the names of all ordinary tables: no view, and nothing that computes its rows."""
        sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' ORDER BY name"
        return [row[0] for row in self.rows(sql) if not row[0].startswith("sqlite_")]

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns."""
        return [row[0].lower() for row in self.rows("SELECT name FROM pragma_table_xinfo(?)", (table,))]

    def check_unchanged(self) -> None:
        """Raise if another program changed the file, although it was read without locks: it may not be written.

        Raises:
            ImportRejected: it did.
        """
        if self._frozen is not None and self._frozen.changed():
            raise changed(self.path)

    def close(self) -> None:
        """Close the file."""
        with _naming(self.path):
            self._held.close()
