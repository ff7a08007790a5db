"""How sources are read, and the keys that their records get."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from sqlstate.cli.transfer.exported import packed_list
from sqlstate.errors import InvalidKey, InvalidOption
from sqlstate.format.names import Key, check_collection
from sqlstate.importing.exact_json import ContentError, int_key, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

Format = Literal["json", "jsonl", "csv"]
SUFFIXES: Final[dict[str, Format]] = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How sources are read."""

    format: Format | None = None
    """Of all sources; None goes by the suffix of each name."""
    collection: str | None = None
    """Where the entries go; None: what the source says or, for CSV, the file's name without suffix."""
    key: Sequence[str | tuple[str, ...]] = ()
    """Fields of a record that can hold its key: the first that is there, and is not null or '', does. A tuple of fields
    holds a tuple."""
    row_numbers: bool = False
    """Make the key of a record its number in its collection, from 1, over all sources."""
    key_type: Literal["str", "int"] | None = None
    """Make all keys that are read from fields and members text, or ints; None leaves them as they are."""

    @property
    def keyed(self) -> bool:
        """Whether records get keys."""
        return bool(self.key) or self.row_numbers


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
    if how.key and how.row_numbers:
        raise InvalidOption("a key is a field or a number of a row; give one of both")
    if how.collection is not None:
        check_collection(how.collection)


class RecordKeys:
    """Gives the records of an import their keys.

    Args:
        how: which fields hold them.
    """

    def __init__(self, how: Reading) -> None:
        self.how = how
        self.fields = [(field,) if isinstance(field, str) else tuple(field) for field in how.key]
        """The fields that hold a key together, of each choice."""
        self._rows: Counter[str] = Counter()

    def record(self, document: Any) -> tuple[str, Key, Any]:
        """Return collection, key and value of a line that is a record."""
        collection = cast("str", self.how.collection)
        return collection, self.of(document, collection), document

    def of(self, record: Any, collection: str) -> Key:
        """Return the key of a record.

        Raises:
            ContentError: it has none.
        """
        if not isinstance(record, dict):
            raise ContentError(f"a record is an object, this is {kind_of(record)}")
        if self.how.row_numbers:
            self._rows[collection] += 1
            return self._rows[collection]
        for fields, choice in zip(self.fields, self.how.key, strict=True):
            if all(record.get(field) is not None and record[field] != "" for field in fields):
                parts = [_key_part(field, record[field], self.how) for field in fields]
                return parts[0] if isinstance(choice, str) else packed_list(parts)
        raise ContentError(f"the record has no field {either(self.fields)}")


def _key_part(field: str, value: Any, how: Reading) -> str | int:
    if type(value) is str:
        return typed_key(value, how)
    if type(value) is int:
        return value if how.key_type != "str" else str(value)
    raise ContentError(f"the field {shown(field)} is {kind_of(value)}, and a key is a string or an int")


def typed_key(text: str, how: Reading) -> str | int:
    """Return the key that a text of a source is.

    Raises:
        ContentError: ints are asked for, and it is none.
    """
    if how.key_type != "int":
        return text
    try:
        return int_key(text)
    except InvalidKey as e:
        raise ContentError(str(e)) from None


def kind_of(value: object) -> str:
    """Return what JSON calls a value of this kind."""
    if value is None:
        return "null"
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "an int"}
    return kinds.get(type(value), "a number with a fraction or an exponent")


def either(choices: Sequence[Sequence[str]]) -> str:
    """Return choices of fields, for a message."""
    return " or ".join(" with ".join(map(shown, fields)) for fields in choices)
