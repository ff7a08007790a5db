"""Entries outside a store: the exported form, and what other programs write, read as entries.

An exported line is one entry, `{"collection":"c","key":K,"value":V}`. K is a number for int, a string for
str, the base64 form for bytes. V is the stored document byte for byte, or the base64 form for bytes:
`{"$base64":true,"encoded":"…"}`. A document that is an object with a member `$base64` or `$json` is written
`{"$json":document}`, so that it is never taken for a form.

Sources are parsed with the standard library's json, which keeps an int of any size an int. Nothing here
knows a store; `transfer` does.
"""

from __future__ import annotations

import base64
import binascii
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isinf
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple, NoReturn, cast

import msgspec

from sqlstate.errors import Damaged, InvalidKey, InvalidOption, InvalidValue
from sqlstate.format import constants as fmt
from sqlstate.format.names import Key, Stored, check_collection

Format = Literal["json", "jsonl", "csv"]
Place = tuple[str, str, Key, Any]
"""Place in the source, collection, key and value of an entry."""

SUFFIXES: Final[dict[str, Format]] = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}

# Room for the largest value in base64, with its key. Without a limit a file without line ends is one line.
LINE_BYTES_MAX: Final = 2 * fmt.VALUE_BYTES_MAX

_BASE64: Final = "$base64"
_ENCODED: Final = "encoded"
_DOCUMENT: Final = "$json"
_EXPORTED: Final = frozenset(("collection", "key", "value"))
_BOM: Final = b"\xef\xbb\xbf"


class Source(NamedTuple):
    """One thing to import: a file, or an open binary stream that has a name to show."""

    name: str
    stream: IO[bytes] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How sources are read."""

    format: Format | None = None
    """Of all sources; None goes by the suffix of each name."""
    collection: str | None = None
    """Where the entries go; None: what the source says or, for CSV, the file's name without suffix."""
    key: Sequence[str] = ()
    """Fields of a record that can hold its key: the first that is there, and is not null or '', does."""
    key_type: Literal["str", "int"] | None = None
    """Make all keys that are read from fields and members text, or ints; None leaves them as they are."""


class ReadEntry(NamedTuple):
    """One entry as a source gives it."""

    place: str
    """Where it stands: line, record or member."""
    collection: str
    key: Key
    value: Any
    position: int
    """Bytes of the source that were read up to here."""


class SourceError(ValueError):
    """A source cannot be used.

    Attributes:
        place: line, record or member in it, `''` for the source as a whole.
        reason: what is wrong there.
    """

    def __init__(self, place: str, reason: object) -> None:
        super().__init__(place, str(reason))
        self.place = place
        self.reason = str(reason)


class _ContentError(ValueError):
    """A piece of text cannot be used; *at* is the place in it, if there is one."""

    def __init__(self, reason: str, at: int | None = None) -> None:
        super().__init__(reason)
        self.at = at


# ---- Entries as text ----


def quoted(text: str) -> str:
    """Return *text* as a JSON string."""
    return msgspec.json.encode(text).decode()


def key_text(key: Key) -> str:
    """Return JSON for a key.

    Raises:
        Damaged: it is of no type that a key can have.
    """
    if isinstance(key, str):
        return quoted(key)
    if isinstance(key, bytes):
        return _base64_form(key)
    if isinstance(key, int):
        return str(key)
    raise Damaged(f"I1: a key is a {type(key).__name__}; it was changed from outside. Restore a backup")


def value_text(stored: Stored) -> str:
    """Return JSON for a stored value, on one line.

    Raises:
        Damaged: it is not a JSON document and not bytes.
    """
    if isinstance(stored, bytes):
        return _base64_form(stored)
    try:
        _any_document.decode(stored)
        looks_like_form = ('"$' in stored or "\\u" in stored) and _has_form_member(stored)
    except (TypeError, msgspec.MsgspecError, RecursionError):
        raise Damaged("I1: a value is not a JSON document; it was changed from outside. Restore a backup") from None
    if "\n" in stored or "\r" in stored:
        # Only another program writes line ends into a document, and they can only stand between its parts.
        stored = stored.replace("\n", " ").replace("\r", " ")
    return f'{{"{_DOCUMENT}":{stored}}}' if looks_like_form else stored


def entry_text(collection: str, key: Key, stored: Stored) -> str:
    """Return the exported form of an entry, without a line end.

    Raises:
        Damaged: the key or the value is not what an entry can have.
    """
    try:
        return f'{{"collection":{quoted(collection)},"key":{key_text(key)},"value":{value_text(stored)}}}'
    except Damaged as e:
        raise Damaged(f"{collection!r}[{key!r}]: {e}") from None


_any_document = msgspec.json.Decoder(msgspec.Raw)
_any_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _base64_form(raw: bytes) -> str:
    return f'{{"{_BASE64}":true,"{_ENCODED}":"{base64.b64encode(raw).decode()}"}}'


def _has_form_member(document: str) -> bool:
    if not document.lstrip().startswith("{"):
        return False
    members = _any_members.decode(document)
    return _BASE64 in members or _DOCUMENT in members


# ---- Sources ----


def check_reading(how: Reading) -> None:
    """Check what can be checked without a source.

    Raises:
        InvalidOption: the format, or the list of key fields, is not one.
        InvalidName: the collection's name cannot be one.
    """
    if how.format not in (None, *SUFFIXES.values()):
        raise InvalidOption(f"format={how.format!r} is not 'json', 'jsonl' or 'csv'")
    if how.key_type not in (None, "str", "int"):
        raise InvalidOption(f"key_type={how.key_type!r} is not 'str' or 'int'")
    if isinstance(how.key, str):
        raise InvalidOption(f"key={how.key!r} is text; give a list of fields")
    if how.collection is not None:
        check_collection(how.collection)


def format_of(source: Source, how: Reading) -> Format:
    """Return the format of *source*, if *how* fits it.

    Raises:
        InvalidOption: the format is not known, or collection and key do not go with it.
        InvalidName: a CSV file's name, without suffix, cannot be a collection's.
    """
    name, stream = source
    suffix = Path(name).suffix.lower()
    if how.format is None and (stream is not None or suffix not in SUFFIXES):
        raise InvalidOption(f"{name}: its name does not say what it is; give the format: json, jsonl or csv")
    format_ = how.format or SUFFIXES[suffix]
    if format_ == "csv" and not how.key:
        raise InvalidOption(f"{name}: the records of a CSV file need a key; give the column that holds it")
    if format_ == "csv" and how.collection is None:
        if stream is not None:
            raise InvalidOption(f"{name}: CSV without a file's name needs a collection; give one")
        check_collection(Path(name).stem)
    if format_ == "jsonl" and (how.collection is None) != (not how.key):
        raise InvalidOption(
            f"{name}: JSON lines are exported entries, which name collection and key themselves, "
            "or records, which need both a collection and a key; give both or none"
        )
    return format_


def read_entries(format_: Format, stream: IO[bytes], how: Reading, stem: str) -> Iterator[ReadEntry]:
    """Yield the entries of a source. JSON is read at once, the other formats line after line.

    Args:
        format_: as format_of() gave it.
        stream: the source.
        how: collection and key.
        stem: the collection for CSV, if *how* names none.

    Raises:
        SourceError: the source is not what its format says.
    """
    if format_ == "json":
        return _read_json(stream, how)
    if format_ == "jsonl":
        return _read_jsonl(stream, how)
    return _read_csv(stream, how, stem if how.collection is None else how.collection)


class _Lines(Iterator[str]):
    """The lines of a stream as text; *number* is that of the last one read, *position* where it ends."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.number = 0
        self.position = 0
        self._stream = stream

    def __next__(self) -> str:
        raw = self._stream.readline(LINE_BYTES_MAX)
        if not raw:
            raise StopIteration
        self.number += 1
        self.position += len(raw)
        if len(raw) == LINE_BYTES_MAX and raw[-1:] != b"\n":
            raise SourceError(f"line {self.number}", f"the line is longer than {LINE_BYTES_MAX:,} bytes")
        if self.number == 1:
            raw = raw.removeprefix(_BOM)
        try:
            return raw.decode()
        except UnicodeDecodeError as e:
            raise SourceError(f"line {self.number}", f"byte {e.start + 1} of the line is not UTF-8") from None


def _read_jsonl(stream: IO[bytes], how: Reading) -> Iterator[ReadEntry]:
    lines = _Lines(stream)
    for line in lines:
        if not line.strip(" \t\r\n"):
            continue
        place = f"line {lines.number}"
        try:
            document = _parse(line)
            collection, key, value = _record(document, how) if how.key else _exported(document)
        except _ContentError as e:
            raise SourceError(place if e.at is None else f"{place}, column {e.at + 1}", e) from None
        yield ReadEntry(place, collection, key, value, lines.position)


def _read_csv(stream: IO[bytes], how: Reading, collection: str) -> Iterator[ReadEntry]:
    lines = _Lines(stream)
    rows = _csv_rows(lines)
    place, header = next(rows, ("", []))
    if not header:
        raise SourceError("", "it has no header line")
    if len(set(header)) < len(header):
        raise SourceError(place, "the header names a column twice")
    if not set(header) & set(how.key):
        raise SourceError(place, f"the header has no column {_either(how.key)}")
    for place, row in rows:
        if len(row) != len(header):
            raise SourceError(place, f"the record has {len(row)} fields, and the header {len(header)}")
        record = dict(zip(header, row, strict=True))
        try:
            key = _record_key(record, how)
        except _ContentError as e:
            raise SourceError(place, e) from None
        yield ReadEntry(place, collection, key, record, lines.position)


def _csv_rows(lines: _Lines) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the fields of each row that is not empty."""
    rows = csv.reader(lines, strict=True)
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


def _read_json(stream: IO[bytes], how: Reading) -> Iterator[ReadEntry]:
    raw = stream.read()
    size = len(raw)
    document = _parse_file(raw)
    del raw
    count = _count(document)
    for number, entry in enumerate(_json_entries(document, how), 1):
        yield ReadEntry(*entry, size * min(number, count) // count)


def _parse_file(raw: bytes) -> Any:
    try:
        text = raw.removeprefix(_BOM).decode()
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise SourceError(f"line {line}", f"byte {e.start + 1} of the file is not UTF-8") from None
    try:
        return _parse(text)
    except _ContentError as e:
        if e.at is None:
            raise SourceError("", e) from None
        line, column = text.count("\n", 0, e.at) + 1, e.at - text.rfind("\n", 0, e.at)
        raise SourceError(f"line {line}, column {column}", e) from None


def _count(document: Any) -> int:
    """Return about how many entries *document* holds, at least 1; it only serves to show progress."""
    members = document.values() if isinstance(document, dict) else [document]
    return max(1, sum(len(member) for member in members if isinstance(member, dict | list)))


def _json_entries(document: Any, how: Reading) -> Iterator[Place]:
    if isinstance(document, list):
        if how.collection is None:
            raise SourceError("", "it is a list of records, and needs a collection; give one")
        yield from _records(document, "", how.collection, how)
        return
    if not isinstance(document, dict):
        raise SourceError("", f"it is {_kind(document)}, and neither an object of collections nor a list of records")
    if how.collection is None:
        for collection, member in document.items():
            yield from _collection(collection, member, how)
        return
    lists = [isinstance(member, list) for member in document.values()]
    if not how.key or not any(lists):
        yield from _members(document, "", how.collection, how)
        return
    if not all(lists):
        raise SourceError("", "some of its members are lists of records and some are not; import them one by one")
    for name, member in document.items():
        yield from _records(member, f"member {_shown(name)}, ", how.collection, how)


def _collection(name: str, member: Any, how: Reading) -> Iterator[Place]:
    """Yield the entries of one member of an object of collections."""
    place = f"member {_shown(name)}"
    if isinstance(member, dict):
        yield from _members(member, f"{place}, ", name, how)
    elif isinstance(member, list):
        yield from _records(member, f"{place}, ", name, how)
    else:
        raise SourceError(
            place,
            f"it is {_kind(member)}, and neither an object of entries nor a list of records; "
            "if the whole document is one collection, give its name",
        )


def _members(members: Mapping[str, Any], place: str, collection: str, how: Reading) -> Iterator[Place]:
    for name, value in members.items():
        at = f"{place}member {_shown(name)}"
        try:
            key = _typed_key(name, how)
        except _ContentError as e:
            raise SourceError(at, e) from None
        yield at, collection, key, value


def _records(records: Sequence[Any], place: str, collection: str, how: Reading) -> Iterator[Place]:
    if not how.key:
        at = place.removesuffix(", ")
        raise SourceError(at, "it is a list of records, and needs a key; give the field that holds it")
    for number, record in enumerate(records, 1):
        at = f"{place}record {number}"
        try:
            key = _record_key(record, how)
        except _ContentError as e:
            raise SourceError(at, e) from None
        yield at, collection, key, record


# ---- Keys, records and exported entries ----


def int_key(text: str) -> int:
    """Return the int that *text* writes.

    Raises:
        InvalidKey: it is not an int as an int is written: neither `007` nor `+7` is.
    """
    if _INT.fullmatch(text) is None:
        raise InvalidKey(f"key {_shown(text)} is not an int: a minus sign and digits, without leading zeros")
    return int(text)


# No key has more digits; the store refuses those of 19 that are too large.
_INT: Final = re.compile("0|-?[1-9][0-9]{0,18}")


def _record(document: Any, how: Reading) -> tuple[str, Key, Any]:
    return cast("str", how.collection), _record_key(document, how), document


def _record_key(record: Any, how: Reading) -> Key:
    if not isinstance(record, dict):
        raise _ContentError(f"a record is an object, this is {_kind(record)}")
    for field in how.key:
        value = record.get(field)
        if value is not None and value != "":
            if type(value) is str:
                return _typed_key(value, how)
            if type(value) is int:
                return value if how.key_type != "str" else str(value)
            raise _ContentError(f"the field {_shown(field)} is {_kind(value)}, and a key is a string or an int")
    raise _ContentError(f"the record has no field {_either(how.key)}")


def _typed_key(text: str, how: Reading) -> Key:
    if how.key_type != "int":
        return text
    try:
        return int_key(text)
    except InvalidKey as e:
        raise _ContentError(str(e)) from None


def _exported(document: Any) -> tuple[str, Key, Any]:
    """Return collection, key and value of a line as entry_text() writes it."""
    if not isinstance(document, dict) or document.keys() != _EXPORTED:
        raise _ContentError(
            'the line is not an exported entry {"collection":…,"key":…,"value":…}; '
            "if it is a record, give a collection and a key"
        )
    collection, key, value = document["collection"], document["key"], document["value"]
    if type(collection) is not str:
        raise _ContentError(f"the collection is {_kind(collection)}, and its name is a string")
    if type(key) is dict:
        key = _from_base64(key)
    elif type(key) not in (int, str):
        raise _ContentError(f"the key is {_kind(key)}, and a key is a string, an int, or bytes in the base64 form")
    if type(value) is dict and _BASE64 in value:
        value = _from_base64(value)
    elif type(value) is dict and _DOCUMENT in value:
        if len(value) != 1:
            raise _ContentError(f'an object with the member {_DOCUMENT} has no other: {{"{_DOCUMENT}":document}}')
        value = value[_DOCUMENT]
    return collection, key, value


def _from_base64(form: dict[str, Any]) -> bytes:
    encoded = form.get(_ENCODED)
    if form.keys() != {_BASE64, _ENCODED} or form[_BASE64] is not True or type(encoded) is not str:
        raise _ContentError(
            f'bytes are written {{"{_BASE64}":true,"{_ENCODED}":"…"}}, '
            f'and a document that has a member {_BASE64} is written {{"{_DOCUMENT}":document}}'
        )
    with suppress(binascii.Error, ValueError):
        raw = base64.b64decode(encoded)
        # Encoded again: the decoder skips what is not base64, and knows several texts for the same bytes.
        if base64.b64encode(raw).decode() == encoded:
            return raw
    raise _ContentError(f"{_shown(encoded)} is not base64")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "an int"}
    return kinds.get(type(value), "a number with a fraction or an exponent")


def _either(fields: Sequence[str]) -> str:
    return " or ".join(_shown(field) for field in fields)


def _shown(text: str) -> str:
    shown = json.dumps(text, ensure_ascii=not text.isprintable())
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


# ---- Parsing JSON ----


def parse_document(text: str) -> Any:
    """Return the value of one JSON document: ints stay ints, whatever their size.

    Raises:
        InvalidValue: it is not JSON, or gives a member twice.
    """
    try:
        return _parse(text)
    except _ContentError as e:
        raise InvalidValue(str(e), "the value" if e.at is None else f"column {e.at + 1} of the value") from None


def _parse(text: str) -> Any:
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError as e:
        what = e.msg.removesuffix(" at").removesuffix(" starting")
        raise _ContentError(f"this is not JSON: {what}", e.pos) from None
    except RecursionError:
        raise _ContentError(f"nested more than {fmt.JSON_DEPTH_MAX} levels deep") from None
    except ValueError:
        raise _fault(text) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError
    return members


def _shown_number(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def _constant(_name: str) -> NoReturn:
    raise ValueError


def _float(text: str) -> float:
    """Return the double nearest to a number, which must have one: nothing turns into zero or infinity."""
    number = float(text)
    if _is_lost(text, number):
        raise ValueError
    return number


def _is_lost(text: str, number: float) -> bool:
    return isinf(number) or (not number and not _zero.match(text))


_zero = re.compile(r"-?[0.]+(?:[eE]|$)")
_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
_parts = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)


def _fault(text: str) -> _ContentError:
    """Return what is wrong with JSON that a hook of the decoder refused; the hooks do not say where."""
    names: list[set[str] | None] = []  # of the members of each object that is open; None for a list
    name_next = False
    for match in _parts.finditer(text):
        part = match[0]
        if part in "{[":
            names.append(set() if part == "{" else None)
            name_next = part == "{"
        elif part in "}]":
            names.pop()
            name_next = False
        elif part == ",":
            name_next = names[-1] is not None
        elif part in ("NaN", "Infinity", "-Infinity"):
            return _ContentError(f"{part} is not a number in JSON", match.start())
        elif part[0] in "-0123456789" and not part.lstrip("-").isdecimal() and _is_lost(part, float(part)):
            what = "too small: the nearest double is 0" if not float(part) else "too large for a double"
            return _ContentError(f"the number {_shown_number(part)} is {what}; store it as a string", match.start())
        elif part[0] != '"' and len(part) > 1000:  # Python limits the digits that int() takes
            return _ContentError(f"an int of {len(part):,} digits is outside -2^63 to 2^64-1", match.start())
        elif name_next and (seen := names[-1]) is not None:
            name = json.loads(part)
            if name in seen:
                return _ContentError(f"the member {_shown(name)} is given twice in one object", match.start())
            seen.add(name)
            name_next = False
    return _ContentError("this is not JSON")
