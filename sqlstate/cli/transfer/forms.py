"""Sources of entries: the exported form, and what other programs write.

Nothing here knows a store; `import_export` does.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from sqlstate.cli.transfer.exported import BASE64, DOCUMENT, from_base64_form, packed_list
from sqlstate.cli.transfer.reading import SUFFIXES, Format, Reading, RecordKeys, either, kind_of, typed_key
from sqlstate.errors import InvalidOption
from sqlstate.format import constants as fmt
from sqlstate.format.names import Key, check_collection
from sqlstate.format.values import ABSENT
from sqlstate.importing.exact_json import ContentError, SourceError, parse, parse_file, shown

Place = tuple[str, str, Key, Any]
"""Place in the source, collection, key and value of an entry."""

COMPRESSED: Final = (".gz", ".zst")

# Room for the largest value in base64, with its key. Without a limit a file without line ends is one line.
LINE_BYTES_MAX: Final = 2 * fmt.VALUE_BYTES_MAX

_EXPORTED: Final = frozenset(("collection", "key", "value"))
_BOM: Final = b"\xef\xbb\xbf"


class Source(NamedTuple):
    """One thing to import: a file, or an open binary stream that has a name to show."""

    name: str
    stream: IO[bytes] | None = None


class ReadEntry(NamedTuple):
    """One entry as a source gives it."""

    place: str
    """Where it stands: line, record or member."""
    collection: str
    key: Key
    value: Any
    position: int
    """Bytes of the source that were read up to here."""


# ---- Sources ----


def plain_name(name: str) -> Path:
    """Return the name of a file without the suffix that says that it is compressed."""
    path = Path(name)
    return path.with_suffix("") if path.suffix.lower() in COMPRESSED else path


def format_of(source: Source, how: Reading) -> Format:
    """Return the format of *source*, if *how* fits it.

    Raises:
        InvalidOption: the format is not known, or collection and key do not go with it.
        InvalidName: a CSV file's name, without suffix, cannot be a collection's.
    """
    name, stream = source
    suffix = plain_name(name).suffix.lower()
    if how.format is None and (stream is not None or suffix not in SUFFIXES):
        raise InvalidOption(f"{name}: its name does not say what it is; give the format: json, jsonl or csv")
    format_ = how.format or SUFFIXES[suffix]
    if format_ == "csv" and not how.keyed:
        raise InvalidOption(
            f"{name}: the records of a CSV file need a key; give the column that holds it, several columns that do "
            "together, or ask for the numbers of the rows"
        )
    if format_ == "csv" and how.collection is None:
        if stream is not None:
            raise InvalidOption(f"{name}: CSV without a file's name needs a collection; give one")
        check_collection(plain_name(name).stem)
    if format_ == "jsonl" and (how.collection is None) == how.keyed:
        raise InvalidOption(
            f"{name}: JSON lines are exported entries, which name collection and key themselves, "
            "or records, which need both a collection and a key; give both or none"
        )
    return format_


def read_entries(
    format_: Format, stream: IO[bytes], keys: RecordKeys, stem: str, *, was_compressed: bool = False
) -> Iterator[ReadEntry]:
    """Yield the entries of a source. JSON is read at once, the other formats line after line.

    Args:
        format_: as format_of() gave it.
        stream: the source.
        keys: collection and key; the same for all sources of an import, whose rows it counts.
        stem: the collection for CSV, if *keys* names none.
        was_compressed: a little of it may become very much: do not read more JSON than one line may have.

    Raises:
        SourceError: the source is not what its format says.
    """
    if format_ == "json":
        return _read_json(stream, keys, LINE_BYTES_MAX if was_compressed else None)
    if format_ == "jsonl":
        return _read_lines(stream, keys.record if keys.how.keyed else _exported)
    return _read_csv(stream, keys, stem if keys.how.collection is None else keys.how.collection)


class _Lines(Iterator[bytes]):
    """The lines of a stream; *number* is that of the last one read, *position* where it ends."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.number = 0
        self.position = 0
        self._stream = stream

    def __next__(self) -> bytes:
        raw = self._stream.readline(LINE_BYTES_MAX)
        if not raw:
            raise StopIteration
        self.number += 1
        self.position += len(raw)
        if len(raw) == LINE_BYTES_MAX and raw[-1:] != b"\n":
            raise SourceError(f"line {self.number}", f"the line is longer than {LINE_BYTES_MAX:,} bytes")
        return raw.removeprefix(_BOM) if self.number == 1 else raw

    def not_text(self, e: UnicodeDecodeError) -> SourceError:
        """Return the error for the last line read, which is not UTF-8."""
        return SourceError(f"line {self.number}", f"byte {e.start + 1} of the line is not UTF-8")

    def texts(self) -> Iterator[str]:
        """Yield the lines as text."""
        for raw in self:
            try:
                yield raw.decode()
            except UnicodeDecodeError as e:
                raise self.not_text(e) from None


def read_asked(stream: IO[bytes]) -> Iterator[ReadEntry]:
    """Yield the entries of exported lines; one whose line has no value is no entry, and has the value ABSENT.

    Raises:
        SourceError: a line is not like this.
    """
    return _read_lines(stream, partial(_exported, value_missing=True))


def read_texts(stream: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Yield the place of each line that is not empty, and its text without line end.

    Raises:
        SourceError: a line is not UTF-8, or too long.
    """
    lines = _Lines(stream)
    for line in lines.texts():
        text = line.removesuffix("\n").removesuffix("\r")
        if text:
            yield f"line {lines.number}", text


def _read_lines(stream: IO[bytes], read: Callable[[Any], tuple[str, Key, Any]]) -> Iterator[ReadEntry]:
    lines = _Lines(stream)
    for line in lines:
        if not line.strip(b" \t\r\n"):
            continue
        place = f"line {lines.number}"
        try:
            document = parse(line)
            collection, key, value = read(document)
        except ContentError as e:
            raise SourceError(place if e.at is None else f"{place}, column {e.at + 1}", e) from None
        except UnicodeDecodeError as e:
            raise lines.not_text(e) from None
        yield ReadEntry(place, collection, key, value, lines.position)


def _read_csv(stream: IO[bytes], keys: RecordKeys, collection: str) -> Iterator[ReadEntry]:
    lines = _Lines(stream)
    rows = _csv_rows(lines)
    place, header = next(rows, ("", []))
    if not header:
        raise SourceError("", "it has no header line")
    if len(set(header)) < len(header):
        raise SourceError(place, "the header names a column twice")
    if not keys.how.row_numbers and not any(set(header) >= set(fields) for fields in keys.fields):
        raise SourceError(place, f"the header has no column {either(keys.fields)}")
    for place, row in rows:
        if len(row) != len(header):
            raise SourceError(place, f"the record has {len(row)} fields, and the header {len(header)}")
        record = dict(zip(header, row, strict=True))
        try:
            key = keys.of(record, collection)
        except ContentError as e:
            raise SourceError(place, e) from None
        yield ReadEntry(place, collection, key, record, lines.position)


def _csv_rows(lines: _Lines) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the fields of each row that is not empty."""
    rows = csv.reader(lines.texts(), strict=True)
    while True:
        place = f"line {lines.number + 1}"
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as e:
            raise SourceError(place, f"this is not CSV: {e}") from None
        if row:
            yield place, row


def _read_json(stream: IO[bytes], keys: RecordKeys, most: int | None) -> Iterator[ReadEntry]:
    raw = stream.read() if most is None else stream.read(most + 1)
    size = len(raw)
    if most is not None and size > most:
        raise SourceError("", f"decompressed, the JSON has more than {most:,} bytes; decompress it first")
    document = _parse_file(raw)
    del raw
    count = _count(document)
    for number, entry in enumerate(_json_entries(document, keys), 1):
        yield ReadEntry(*entry, size * min(number, count) // count)


def _parse_file(raw: bytes) -> Any:
    raw = raw.removeprefix(_BOM)
    try:
        return parse_file(raw)
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise SourceError(f"line {line}", f"byte {e.start + 1} of the file is not UTF-8") from None
    except ContentError as e:
        if e.at is None:
            raise SourceError("", e) from None
        text = raw.decode()
        line, column = text.count("\n", 0, e.at) + 1, e.at - text.rfind("\n", 0, e.at)
        raise SourceError(f"line {line}, column {column}", e) from None


def _count(document: Any) -> int:
    """Return about how many entries *document* holds, at least 1; it only serves to show progress."""
    members = document.values() if isinstance(document, dict) else [document]
    return max(1, sum(len(member) for member in members if isinstance(member, dict | list)))


def _json_entries(document: Any, keys: RecordKeys) -> Iterator[Place]:
    how = keys.how
    if isinstance(document, list):
        if how.collection is None:
            raise SourceError("", "it is a list of records, and needs a collection; give one")
        yield from _records(document, "", how.collection, keys)
        return
    if not isinstance(document, dict):
        raise SourceError("", f"it is {kind_of(document)}, and neither an object of collections nor a list of records")
    if how.collection is None:
        for collection, member in document.items():
            yield from _collection(collection, member, keys)
        return
    lists = [isinstance(member, list) for member in document.values()]
    if not how.keyed or not any(lists):
        yield from _members(document, "", how.collection, how)
        return
    if not all(lists):
        raise SourceError("", "some of its members are lists of records and some are not; import them one by one")
    for name, member in document.items():
        yield from _records(member, f"member {shown(name)}, ", how.collection, keys)


def _collection(name: str, member: Any, keys: RecordKeys) -> Iterator[Place]:
    """Yield the entries of one member of an object of collections."""
    place = f"member {shown(name)}"
    if isinstance(member, dict):
        yield from _members(member, f"{place}, ", name, keys.how)
    elif isinstance(member, list):
        yield from _records(member, f"{place}, ", name, keys)
    else:
        raise SourceError(
            place,
            f"it is {kind_of(member)}, and neither an object of entries nor a list of records; "
            "if the whole document is one collection, give its name",
        )


def _members(members: Mapping[str, Any], place: str, collection: str, how: Reading) -> Iterator[Place]:
    for name, value in members.items():
        at = f"{place}member {shown(name)}"
        try:
            key = typed_key(name, how)
        except ContentError as e:
            raise SourceError(at, e) from None
        yield at, collection, key, value


def _records(records: Sequence[Any], place: str, collection: str, keys: RecordKeys) -> Iterator[Place]:
    if not keys.how.keyed:
        at = place.removesuffix(", ")
        raise SourceError(
            at, "it is a list of records, and needs a key; give the field that holds it, or ask for numbers of rows"
        )
    for number, record in enumerate(records, 1):
        at = f"{place}record {number}"
        try:
            key = keys.of(record, collection)
        except ContentError as e:
            raise SourceError(at, e) from None
        yield at, collection, key, record


# ---- Exported entries ----


def _exported(document: Any, *, value_missing: bool = False) -> tuple[str, Key, Any]:
    """Return collection, key and value of a line as entry_text() writes it; of one that may lack it, ABSENT."""
    members = document.keys() if isinstance(document, dict) else ()
    if members != _EXPORTED and not (value_missing and members == _EXPORTED - {"value"}):
        what = 'the line is not an exported entry {"collection":…,"key":…,"value":…}'
        raise ContentError(
            f"{what}, nor one without its value"
            if value_missing
            else f"{what}; if it is a record, give a collection and a key"
        )
    collection, key, value = document["collection"], document["key"], document.get("value", ABSENT)
    if type(collection) is not str:
        raise ContentError(f"the collection is {kind_of(collection)}, and its name is a string")
    if type(key) is dict:
        key = from_base64_form(key)
    elif type(key) is list:
        key = packed_list(key)
    elif type(key) not in (int, str):
        raise ContentError(
            f"the key is {kind_of(key)}, and a key is a string, an int, bytes in the base64 form, or a list of these"
        )
    if type(value) is dict and BASE64 in value:
        value = from_base64_form(value)
    elif type(value) is dict and DOCUMENT in value:
        if len(value) != 1:
            raise ContentError(f'an object with the member {DOCUMENT} has no other: {{"{DOCUMENT}":document}}')
        value = value[DOCUMENT]
    return collection, key, value
