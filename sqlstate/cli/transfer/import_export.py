"""Import and export: a store's entries as JSON lines, and the files of other programs as entries.

`forms` reads and writes the formats; here they meet a store. Importing an export into an empty store gives the same
root.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, cast

from sqlstate.cli.transfer.exported import entry_text
from sqlstate.cli.transfer.forms import (
    Format,
    Reading,
    Source,
    SourceError,
    check_reading,
    format_of,
    read_entries,
)
from sqlstate.cli.transfer.seen import Seen
from sqlstate.errors import Damaged, ImportRejected, InvalidInput, InvalidOption, InvalidValue, StoreError
from sqlstate.files.identity import belongs_to
from sqlstate.files.replace import replacing
from sqlstate.format import constants as fmt
from sqlstate.format.documents import parsed_document
from sqlstate.format.names import Key, Name, Stored, check_collection, make_name
from sqlstate.format.values import Codec
from sqlstate.store.access import as_stored, entries_of
from sqlstate.store.view import CollectionView
from sqlstate.tables.state import Span

if TYPE_CHECKING:
    from sqlstate.format.records import Head
    from sqlstate.store.access import Face, Reads
    from sqlstate.store.open_transaction import OpenTransaction
    from sqlstate.store.snapshot import View
    from sqlstate.store.store import Store
    from sqlstate.store.transaction import Transaction

Progress = Callable[[int, int | None], None]
"""Called with what is done and what there is in all, None if that is not known."""

_PROGRESS_BYTES: Final = 1 << 16
_PROGRESS_ENTRIES: Final = 512
_JSON: Final[Codec[Any]] = Codec()


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote."""

    entries: int
    bytes: int
    head: Head
    """The commit that was exported."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did."""

    sources: int
    entries: int
    """Entries read."""
    changed: int
    """Those among them that were not in the store already, with that value."""
    commits: int
    head: Head
    """The newest commit afterwards."""


# ---- Export ----


class _AsStored(Codec[Stored]):
    """Gives values as they are stored."""

    __slots__ = ()

    def decode(self, stored: Stored) -> Stored:
        return stored

    def keeps(self, kinds: set[type]) -> bool:  # noqa: ARG002, all
        return True


def stored_view(view: Face[Reads], collection: str) -> CollectionView[Stored]:
    """Return a collection whose values are given as they are stored: str for a JSON document, or bytes."""
    return CollectionView(entries_of(view), check_collection(collection), _AsStored())


def export_lines(view: View, collections: Sequence[str] | None = None) -> Generator[bytes]:
    """Yield the entries of a snapshot as JSON lines, in their order: the same entries give the same bytes.

    Args:
        view: the snapshot.
        collections: only those of these collections; None for all.

    Raises:
        InvalidName: one of *collections* cannot be a name.
        Damaged: an entry is not what it can be; or all were asked for, and at the end they are not
            as many as the commit says.
    """
    for collection, key, stored in _rows(view, collections):
        yield entry_text(collection, key, stored).encode() + b"\n"


def export_file(
    view: View,
    path: str | os.PathLike[str],
    collections: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write export_lines() to *path*: the whole of it durably, or nothing. A file that is there is replaced.

    Args:
        view: the snapshot.
        path: the file; a new one gets mode 0600, its owner's alone, as a store does.
        collections: only those of these collections; None for all.
        progress: called with the number of entries written.

    Raises:
        InvalidOption: what is there is not a regular file.
        OSError: the file cannot be written; what was there before is untouched.
        InvalidName, Damaged: as for export_lines().
    """
    total = view.head.count if collections is None else sum(len(view[name]) for name in set(collections))
    entries = size = 0
    with replacing(path, view.store_id) as file:
        for line in export_lines(view, collections):
            size += file.write(line)
            entries += 1
            if progress is not None and entries % _PROGRESS_ENTRIES == 0:
                progress(entries, total)
    if progress is not None:
        progress(entries, total)
    return Exported(entries, size, view.head)


def _rows(view: View, collections: Sequence[str] | None) -> Iterator[tuple[str, Key, Stored]]:
    """Yield the entries of a snapshot; at the end of all of them, compare their number with what the commit says."""
    if collections is not None:
        for name in sorted({check_collection(name) for name in collections}):
            for key, stored in entries_of(view).scan(Span(name), as_stored, values=True):
                yield name, key, stored
        return
    there = 0
    for row in entries_of(view).scan_all():
        there += 1
        yield row
    if there != view.head.count:
        raise Damaged(
            f"I2: there are {there:,} entries to export, and commit {view.head.seq} says {view.head.count:,}; "
            "store.check() tells what is damaged. Repair the file, or restore a backup"
        )


# ---- Import ----


def import_sources(
    store: Store,
    sources: Sequence[Source | str | os.PathLike[str]],
    how: Reading | None = None,
    *,
    batch: int | None = None,
    note: str = "",
    progress: Progress | None = None,
) -> Imported:
    """Put the entries of all *sources* into *store*, in one transaction unless *batch* says otherwise.

    An entry that is there already with the same value is left alone, so a second import makes no commit. A
    later source can replace an entry that an earlier one gave; one source cannot give it twice.

    Formats: `json`, an object of collections, each an object of entries or a list of records; or a list of
    records. `jsonl`, exported lines, or records. `csv`, records with a header line, all values text. A
    record's value is the whole record. JSON is read at once; the other formats one line after the other. A CSV
    field has at most csv.field_size_limit() characters.

    Args:
        store: where to.
        sources: paths of files, and streams; read in this order.
        how: collection, key fields and format; see Reading.
        batch: entries in each transaction; they are read before it begins.
        note: for the BEGIN record of each transaction.
        progress: called with bytes read, and bytes in all.

    Raises:
        ImportRejected: a source is not what its format says. It names source and place, and its note says
            what was kept: nothing of the transaction.
        InvalidOption: *how* does not go with the sources, or one of them is the store itself.
        OSError: a source cannot be read; nothing of the transaction was kept.
        Busy, StoreFull, CommitOutcomeUnknown, ReadOnly: as for a transaction.
    """
    how = how or Reading()
    if batch is not None and (type(batch) is not int or batch < 1):
        raise InvalidOption(f"batch={batch!r} is not a number of entries, 1 or more")
    planned = _plan(sources, how)
    for plan in planned:
        if plan.source.stream is None and belongs_to(plan.source.name, store.path):
            raise InvalidOption(f"{plan.source.name} is the store itself; nothing was changed")
    run = _Import(store, _Feed(planned, how, progress), note)
    try:
        if batch is None:
            run.put(run.feed)
        else:
            while entries := list(islice(run.feed, batch)):
                run.put(entries)
    except (StoreError, OSError, KeyboardInterrupt) as e:
        run.explain(e)
        raise
    finally:
        run.feed.close()
    return Imported(len(sources), run.entries, run.changed, run.commits, store.head())


def check_sources(sources: Sequence[Source | str | os.PathLike[str]], how: Reading) -> None:
    """Find what can be found wrong with *sources* and *how* before a store is opened or made.

    Raises:
        InvalidOption: a format is not known, or *how* does not go with it.
        InvalidName: the collection's name cannot be one.
        OSError: there is no such file.
    """
    _plan(sources, how)


def encode_entry(collection: str, key: Key, value: Any) -> tuple[Name, Stored]:
    """Return the name of an entry, and its value as it is stored.

    Args:
        collection: name of the collection.
        key: the key.
        value: bytes, or what a JSON parser made; nobody else has it.

    Raises:
        InvalidName, InvalidKey, InvalidValue: it cannot be stored exactly.
    """
    name = make_name(check_collection(collection), key)
    raw = None if type(value) is bytes else parsed_document(value)
    if raw is not None and len(raw) <= fmt.VALUE_BYTES_MAX:
        return name, raw.decode()
    try:
        return name, _JSON.encode(value)
    except InvalidValue as e:
        raise e.located(collection, key) from None


def put_entry(txn: Transaction, name: Name, stored: Stored) -> bool:
    """Put an entry; return True if that changes the store."""
    entries = entries_of(txn)
    before = entries.get_stored(name)
    if type(before) is type(stored) and before == stored:
        return False
    entries.put_stored(name, stored)
    return True


class _Import:
    """One run of import_sources(), and what it has done so far."""

    def __init__(self, store: Store, feed: _Feed, note: str) -> None:
        self.feed = feed
        self.entries = 0
        self.changed = 0
        self.commits = 0
        self._store = store
        self._note = note
        self._kept = 0
        self._base: int | None = None  # number of the commit that the open transaction began from

    def put(self, entries: Iterable[tuple[Name, Stored]]) -> None:
        """Put *entries* in one transaction."""
        with self._store.transaction(self._note) as txn:
            self._base = self._store.head().seq
            within = entries_of(txn)
            within.put_all(self._counted(entries, within))
            self.feed.check_twice()
            within.apply()
            changed = within.changed
        self._kept = self.entries
        self.changed += changed
        self.commits += changed > 0 and self._store.head().seq > self._base
        self._base = None

    def _counted(
        self, entries: Iterable[tuple[Name, Stored]], within: OpenTransaction
    ) -> Iterator[tuple[Name, Stored]]:
        for entry in entries:
            self.entries += 1
            if within.holds(entry[0]):  # another source gave it: both changes count
                within.apply()
            yield entry

    def explain(self, e: BaseException) -> None:
        """Add to *e* what it means for the data."""
        if self._kept:
            number = f"{self._kept:,} {'entry' if self._kept == 1 else 'entries'}"
            e.add_note(f"{number} of the transactions before stay imported")
        if isinstance(e, KeyboardInterrupt) and self._doubtful():
            e.add_note("whether the last transaction was committed is not certain; the store's head tells")
        elif isinstance(e, ImportRejected | OSError | KeyboardInterrupt):  # others say it themselves
            e.add_note("nothing of this transaction was kept" if self._kept else "nothing was imported")

    def _doubtful(self) -> bool:
        """Return True if the transaction may have been committed although its block did not end."""
        try:
            return self._base is not None and self._store.head().seq != self._base
        except StoreError:
            return True


class _Planned(NamedTuple):
    """A source, and what is known before it is read."""

    source: Source
    format: Format
    size: int | None


def _plan(sources: Sequence[Source | str | os.PathLike[str]], how: Reading) -> list[_Planned]:
    check_reading(how)
    named = [source if isinstance(source, Source) else Source(os.fsdecode(source)) for source in sources]
    return [_Planned(source, format_of(source, how), _size(source)) for source in named]


def _size(source: Source) -> int | None:
    """Return the bytes of a source, None if that is not known."""
    try:
        status = os.stat(source.name if source.stream is None else source.stream.fileno())
    except (OSError, ValueError):
        if source.stream is None:
            raise
        return None  # a stream that is no file
    return status.st_size if stat.S_ISREG(status.st_mode) else None


class _Feed(Iterator[tuple[Name, Stored]]):
    """The entries of all sources, one after the other, ready to be put."""

    def __init__(self, planned: Sequence[_Planned], how: Reading, progress: Progress | None) -> None:
        self._how = how
        self._progress = progress
        sizes = [plan.size for plan in planned]
        self._total = None if None in sizes else sum(cast("list[int]", sizes))
        self._seen: Seen | None = None
        self._source = ""
        self._entries = self._all(planned)

    def __next__(self) -> tuple[Name, Stored]:
        return next(self._entries)

    def check_twice(self) -> None:
        """Raise if the source gave an entry twice; called before a commit."""
        if self._seen is not None:
            with self._naming_source():
                self._seen.check()

    def close(self) -> None:
        """Close the source that is open."""
        self._entries.close()

    def _all(self, planned: Sequence[_Planned]) -> Generator[tuple[Name, Stored]]:
        passed = 0
        for plan in planned:
            self._source = plan.source.name
            with self._naming_source(), closing(Seen()) as self._seen, _opened(plan.source) as stream:
                yield from self._one(plan, stream, self._seen, passed)
                self._seen.check()
            self._seen = None
            passed += plan.size or 0
            self._report(passed)

    def _one(self, plan: _Planned, stream: IO[bytes], seen: Seen, passed: int) -> Generator[tuple[Name, Stored]]:
        reported = 0
        for read in read_entries(plan.format, stream, self._how, Path(plan.source.name).stem):
            try:
                name, stored = encode_entry(read.collection, read.key, read.value)
            except InvalidInput as e:
                raise SourceError(read.place, e) from None
            seen.add(name, read.place)
            yield name, stored
            if read.position - reported >= _PROGRESS_BYTES:
                reported = read.position
                self._report(passed + reported)

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self._total)

    @contextmanager
    def _naming_source(self) -> Iterator[None]:
        try:
            yield
        except SourceError as e:
            raise ImportRejected(self._source, e.place, e.reason) from None


def _opened(source: Source) -> closing[IO[bytes]] | nullcontext[IO[bytes]]:
    return closing(open(source.name, "rb")) if source.stream is None else nullcontext(source.stream)
