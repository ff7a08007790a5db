"""import_from(): what another store's files hold, into a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from sqlstate.errors import ImportRejected, InvalidOption
from sqlstate.files.identity import belongs_to
from sqlstate.format.documents import short_repr
from sqlstate.format.names import check_collection
from sqlstate.importing import lmdb_files, other_files, sqlite_files
from sqlstate.importing.decoding import Choices, Opening
from sqlstate.importing.encoding import encode_foreign, is_small
from sqlstate.importing.exact_json import ContentError, SourceError
from sqlstate.importing.pickled import Unbuilt
from sqlstate.importing.seen import Seen
from sqlstate.importing.transactions import Transactions, check_batch
from sqlstate.store.access import entries_of, refuse_inside
from sqlstate.store.entries import StoreEntries

if TYPE_CHECKING:
    from sqlstate.format.names import Name, Stored
    from sqlstate.importing.decoding import Found, KeyType, Opened, Values
    from sqlstate.store.store import Store

Kind = Literal["shelve", "dbm", "sqlitedict", "diskcache", "lmdb", "tinydb", "dir"]
Progress = Callable[[int, int | None], None]

_OPENERS: Final[dict[Kind, Callable[[str, Choices], Opening]]] = {
    "shelve": other_files.open_shelve,
    "dbm": other_files.open_dbm,
    "sqlitedict": sqlite_files.open_sqlitedict,
    "diskcache": sqlite_files.open_diskcache,
    "lmdb": lmdb_files.open_lmdb,
    "tinydb": other_files.open_tinydb,
    "dir": other_files.open_dir,
}
KINDS: Final = tuple(_OPENERS)
_VALUES: Final[dict[Kind, tuple[str, ...]]] = {
    "dbm": ("bytes", "text", "json", "pickle"),
    "lmdb": ("bytes", "text", "json", "pickle"),
    "sqlitedict": ("bytes", "text", "json", "pickle"),
    "diskcache": ("json",),
}
_PROGRESS_ENTRIES: Final = 512


class Refused(NamedTuple):
    """An entry of another store that cannot be stored as it is.

    Examples:
        >>> import shelve
        >>> with shelve.open("old") as old:
        ...     old["wave"] = 1 + 2j
        >>> [refused] = sqlstate.import_from(store, "shelve", "old", dry_run=True).refused
        >>> refused.collection, refused.key
        ('old', "'wave'")
    """

    collection: str
    """Where it would go."""
    key: str
    """The repr of its key, shortened."""
    reason: str
    """Why, with the place inside the value."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What import_from() read, put and refused: `entries` and the refused are what was `read`.

    Examples:
        >>> import shelve
        >>> with shelve.open("old") as old:
        ...     old.update(theme="dark", lang="fr")
        >>> report = sqlstate.import_from(store, "shelve", "old")
        >>> report.read, report.entries, report.changed, report.commits, report.refused
        (2, 2, 2, 1, ())
    """

    read: int
    """Entries that the source has."""
    entries: int
    """Entries that can be stored: they were put, or were there already; in a dry run, they would be."""
    made_plain: int
    """Those among them whose values are not as they were, but as plain() makes them."""
    changed: int
    """Entries that were not there with that value before; in a dry run 0."""
    commits: int
    """Commits that were made."""
    refused: tuple[Refused, ...]
    """The others, each with the reason."""


def import_from(  # noqa: PLR0913, each is a choice of whoever moves in
    store: Store,
    kind: Kind,
    path: str | os.PathLike[str],
    *,
    collection: str | None = None,
    key_type: KeyType | None = None,
    values: Values | None = None,
    exact: bool = False,
    dry_run: bool = False,
    skip_refused: bool = False,
    allow_pickle: bool = False,
    batch: int | None = None,
    note: str = "",
    progress: Progress | None = None,
) -> ImportReport:
    """Import what another store's files hold, all or nothing. Those files are only read.

    No code in them runs: of pickles, builtin types are built, and date, datetime, time, timedelta, Decimal and UUID; an
    entry that needs another class is refused. What JSON does not carry back as it is, such as a tuple or a date, is
    stored as `plain()` makes it, and counted; a tuple as a key is packed, as `store.collection(name, key=tuple)` reads
    it. What has no plain form is refused. Entries that are there already with the same value are left alone: an import
    that was killed goes on when it is called again.

    Cost: one pass over the source, and 1 commit, or one for each *batch*. Pickles take about 1 µs for each byte. A JSON
    file of TinyDB is read at once. The report keeps about 200 bytes for each refused entry.

    Limits: the C libraries of dbm can crash on files that were damaged on purpose. On systems other than Linux, a file
    that this process has open is not noticed: close it first.

    Args:
        store: an open store.
        kind: `"shelve"`; `"dbm"`, of any kind that this Python has; `"sqlitedict"`; `"diskcache"`, a directory of a
            Cache, an Index, a Deque or a FanoutCache; `"lmdb"`, which needs the extra `lmdb`; `"tinydb"`, its JSON
            file; or `"dir"`, a directory in which each file is an entry: `a/b.json` the document `a/b`, any other file
            bytes.
        path: the file or directory.
        collection: where all entries go. None: tables of sqlitedict and TinyDB, and databases of LMDB, each become a
            collection of their name; of the others, the name of the file or directory is the collection's.
        key_type: make keys `"str"`, `"int"` or `"bytes"`. None: bytes for LMDB, str for dbm, shelve and directories,
            int for TinyDB, and for the others what they have.
        values: what the values of dbm, LMDB and sqlitedict are: `"bytes"`, `"text"`, `"json"` or `"pickle"`. None:
            bytes for dbm and LMDB; pickles, or JSON where it is text, for sqlitedict. For diskcache, `"json"` says that
            its JSONDisk made the files.
        exact: refuse a value that JSON does not carry back as it is, instead of making it plain.
        dry_run: change nothing, and report all that would be refused.
        skip_refused: leave out what cannot be stored, and report it. Otherwise the first such entry ends the import.
        allow_pickle: let pickles run whatever code is in them. For a file that you made yourself, and that nobody else
            could change.
        batch: entries of each transaction, instead of one for all.
        note: for the BEGIN record of each transaction.
        progress: called with entries read, and entries in all, or None if that is not known.

    Raises:
        ImportRejected: the source is not what *kind* says, or an entry is refused. It names the entry, and its note
            says what was kept: nothing of the transaction.
        InvalidOption: an argument is none of the above, or *path* is the store itself.
        InvalidName: *collection* cannot be a collection's name.
        OSError: the source cannot be read.
        StoreUnusable: this thread has a transaction or batch open.
        StoreError: what `Store.transaction()` raises.

    Examples:
        >>> import shelve
        >>> with shelve.open("old") as old:
        ...     old.update(theme="dark", size=(800, 600), wave=1 + 2j)
        >>> report = sqlstate.import_from(store, "shelve", "old", dry_run=True)
        >>> report.read, report.entries, report.made_plain, [each.key for each in report.refused]
        (3, 2, 1, ["'wave'"])
        >>> sqlstate.import_from(store, "shelve", "old", skip_refused=True).changed
        2
        >>> dict(store["old"])
        {'size': [800, 600], 'theme': 'dark'}
    """
    if not hasattr(store, "_entries") or not isinstance(own := entries_of(store), StoreEntries):
        raise InvalidOption(f"{store!r} is not a store")
    choices = Choices(collection=collection, key_type=key_type, values=values, allow_pickle=allow_pickle)
    check_choices(kind, choices)
    check_batch(batch)
    if belongs_to(path, store.path):
        raise InvalidOption(f"{os.fsdecode(path)} is the store itself; nothing was changed")
    if dry_run:
        return survey(kind, path, choices, progress, exact=exact)
    refuse_inside(own.writer, "import_from")
    feed = _Feed(kind, os.fsdecode(path), choices, progress, skip=skip_refused, exact=exact)
    with closing(feed):
        run = Transactions(store, note, feed.check)
        run.put_all(iter(feed), batch)
    return ImportReport(feed.read, run.entries, feed.made_plain, run.changed, run.commits, tuple(feed.refused))


def survey(
    kind: Kind,
    path: str | os.PathLike[str],
    choices: Choices,
    progress: Progress | None = None,
    *,
    exact: bool = False,
) -> ImportReport:
    """Return what import_from() would, without a store: what would be refused, and how many entries would not.

    Raises:
        ImportRejected, InvalidOption, InvalidName, OSError: as import_from() does.
    """
    check_choices(kind, choices)
    with closing(_Feed(kind, os.fsdecode(path), choices, progress, skip=True, exact=exact)) as feed:
        entries = sum(1 for _ in feed)
        return ImportReport(feed.read, entries, feed.made_plain, 0, 0, tuple(feed.refused))


def check_choices(kind: Kind, choices: Choices) -> None:
    """Check what can be checked without the source.

    Raises:
        InvalidOption: a choice is not one, or does not go with the kind.
        InvalidName: the collection's name cannot be one.
    """
    if kind not in _OPENERS:
        raise InvalidOption(f"kind={short_repr(kind)} is not one of {', '.join(KINDS)}")
    if choices.key_type not in (None, "str", "int", "bytes"):
        raise InvalidOption(f"key_type={short_repr(choices.key_type)} is not 'str', 'int' or 'bytes'")
    fitting = _VALUES.get(kind, ())
    if choices.values not in (None, *fitting):
        known = f"has {', '.join(fitting)}" if fitting else "says itself what its values are"
        raise InvalidOption(f"values={short_repr(choices.values)} does not go with {kind}, which {known}")
    if choices.collection is not None:
        check_collection(choices.collection)


class _Feed:
    """The entries of another store, ready to be put; what is refused is kept, or ends the feed."""

    def __init__(
        self, kind: Kind, path: str, choices: Choices, progress: Progress | None, *, skip: bool, exact: bool
    ) -> None:
        self.read = 0
        self.made_plain = 0
        self.refused: list[Refused] = []
        self._kind = kind
        self._path = path
        self._choices = choices
        self._progress = progress
        self._skip = skip
        self._exact = exact
        self._seen = Seen()
        self._opened: Opened | None = None
        self._entries = self._all()

    def __iter__(self) -> Iterator[tuple[Name, Stored]]:
        return self._entries

    def check(self) -> None:
        """Raise if the source gave an entry twice, or changed while it was read; called before a commit."""
        if self._opened is not None:
            self._opened.check_unchanged()
        try:
            self._seen.check()
        except SourceError as e:
            raise ImportRejected(self._path, e.place, e.reason) from None

    def close(self) -> None:
        """Close the source."""
        cast("Any", self._entries).close()
        self._seen.close()

    def _all(self) -> Iterator[tuple[Name, Stored]]:
        with _OPENERS[self._kind](self._path, self._choices) as opened:
            self._opened = opened
            for found in opened.entries:
                self.read += 1
                entry = self._encoded(found)
                if entry is not None:
                    yield entry
                if self.read % _PROGRESS_ENTRIES == 0:
                    self._report(opened)
            self.check()
            self._opened = None
            self._report(opened)

    def _encoded(self, found: Found) -> tuple[Name, Stored] | None:
        try:
            name, stored, made_plain = encode_foreign(*found, exact=self._exact)
        except ContentError as e:
            self._refuse(found, str(e))
            return None
        except Exception as e:
            if not self._choices.allow_pickle:
                raise
            self._refuse(found, f"code of the pickle's classes raised {type(e).__name__}: {e}")
            return None
        try:
            self._seen.add(name, f"entry {self.read}")
        except SourceError as e:
            raise ImportRejected(self._path, e.place, e.reason) from None
        self.made_plain += made_plain
        return name, stored

    def _refuse(self, found: Found, reason: str) -> None:
        # The name of a directory may be no text.
        refused = Refused(found.collection.encode("utf-8", "backslashreplace").decode(), _shown(found.key), reason)
        if not self._skip:
            raise ImportRejected(
                self._path,
                f"{refused.collection!r}[{refused.key}]",
                f"{reason}. dry_run=True lists all such entries, and skip_refused=True leaves them out",
            ) from None
        self.refused.append(refused)

    def _report(self, opened: Opened) -> None:
        if self._progress is not None:
            self._progress(self.read, opened.total)


def _shown(key: Any) -> str:
    return "?" if isinstance(key, Unbuilt) or not is_small(key) else short_repr(key)
