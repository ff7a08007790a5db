"""Values, and the bytes they are stored as (docs/reference/file-format.md, section 4).

A *stored* value is what SQLite holds: str for a JSON document, bytes for bytes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import msgspec

from sqlstate.errors import Damaged, InvalidOption, InvalidValue
from sqlstate.format import constants as fmt
from sqlstate.format.documents import document
from sqlstate.format.keys import keys_for
from sqlstate.format.typed import Typed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlstate.format.keys import Keys
    from sqlstate.format.names import Stored

T = TypeVar("T")


class Absent:
    """The type of ABSENT: no entry, where None would be the JSON value null."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"

    def __reduce__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()


class Redacted:
    """The type of REDACTED: there was a value, and the log has its digest alone."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "REDACTED"

    def __reduce__(self) -> str:
        return "REDACTED"


REDACTED: Final = Redacted()


def same(a: Stored | None, b: Stored | None) -> bool:
    """Return True if two stored values are equal; text and bytes never are, nor is no value to any."""
    return type(a) is type(b) and a == b


class Codec(Generic[T]):
    """Turns values, and keys, into what is stored and back.

    Without a type: bytes as they are, everything else as one JSON document that reads back equal and
    of the same types. With a type, any that msgspec can encode (dataclass, attrs class, Struct,
    TypedDict, datetime, Decimal, UUID, Enum, and containers of them): values are checked against it
    both ways. The type `bytes` stores bytes as they are.

    Args:
        type_: the type of all values, or None.
        forbid_unknown: refuse to read a document that has members which the type has no field for.
        key: the type of all keys, or None.

    Raises:
        InvalidOption: msgspec cannot decode the type; *forbid_unknown* without one; or no keys are of the type *key*.
    """

    __slots__ = ("_typed", "holds_bytes", "keys")

    keys: Keys
    """How keys are stored."""
    holds_bytes: bool
    """Whether bytes are values, as they are."""

    def __init__(self, type_: type[T] | None = None, *, forbid_unknown: bool = False, key: Any = None) -> None:
        if forbid_unknown and type_ is None:
            raise InvalidOption("forbid_unknown=True needs a type= that says which fields are known")
        self.keys = keys_for(key)
        self.holds_bytes = type_ is None or type_ is bytes
        self._typed = None if type_ is None else Typed(type_, forbid_unknown=forbid_unknown)

    @property
    def typed(self) -> bool:
        """Whether values are checked against a type."""
        return self._typed is not None

    def encode(self, value: T) -> Stored:
        """Return *value* as it is stored.

        Raises:
            InvalidValue: it would not read back exactly; the error names the place inside the value.
        """
        if type(value) is bytes and self.holds_bytes:
            stored = cast("Stored", value)
            size = len(stored)
        elif self._typed is None:
            raw = document(value)
            size, stored = len(raw), raw.decode()
        elif self.holds_bytes:
            raise InvalidValue(f"a value of this collection is bytes, not {type(value).__name__}")
        else:
            raw = self._typed.encode(value)
            size, stored = len(raw), raw.decode()
        if size > fmt.VALUE_BYTES_MAX:
            raise InvalidValue(f"{size:,} bytes as stored, and the limit is {fmt.VALUE_BYTES_MAX:,}")
        return stored

    def decode(self, stored: Stored) -> T:
        """Return the value that *stored* stands for.

        Raises:
            InvalidValue: it is not of the collection's type, or not JSON at all.
            Damaged: it is nothing that a value can be stored as.
        """
        if type(stored) is bytes:
            if self.holds_bytes:
                return cast("T", stored)
            raise InvalidValue("bytes are stored, and this collection's type is read from JSON")
        if type(stored) is not str:
            raise Damaged(f"I1: a value is stored as {stored!r}, neither a document nor bytes; restore a backup")
        if self._typed is None:
            try:
                return cast("T", _decode(stored))
            except (msgspec.MsgspecError, RecursionError) as e:
                raise InvalidValue(f"the stored document does not fit: {e}") from None
        if self.holds_bytes:
            raise InvalidValue("a JSON document is stored, and this collection's type is bytes")
        return self._typed.decode(stored)

    def keeps(self, kinds: set[type]) -> bool:
        """Return True if values that are stored as these types are what is stored."""
        return self.holds_bytes and kinds <= _BYTES

    def decode_all(self, stored: Sequence[Stored], kinds: set[type]) -> Sequence[T] | None:
        """Return the values that *stored* stand for, in one go; None if that must be done one by one.

        It must if one of them cannot be decoded, or if code of the type's own may run.

        Args:
            stored: str and bytes.
            kinds: which of them.
        """
        if self.keeps(kinds):
            return cast("Sequence[T]", stored)
        if self._typed is not None:
            return None
        try:
            if bytes in kinds:
                return [each if type(each) is bytes else _decode(each) for each in stored]  # type: ignore[misc]
            return [*map(_decode, stored)]
        except (msgspec.MsgspecError, RecursionError):
            return None


_BYTES: Final = {bytes}
_decode = msgspec.json.Decoder().decode


JSON: Final[Codec[Any]] = Codec()
"""Values without a type: bytes, or a JSON document."""


def codec_for(type_: Any, key: Any, *, forbid_unknown: bool = False) -> Codec[Any]:
    """Return the codec of a collection whose values are of *type_*, and whose keys are of the type *key*, if not None.

    Raises:
        InvalidOption: the type cannot be stored as JSON; *forbid_unknown* without a type; or *key* is no type
            of keys.
    """
    if type_ is None and key is None and not forbid_unknown:
        return JSON
    try:
        return _codec(type_, key, forbid_unknown)
    except TypeError:  # a type that has no hash, such as Annotated[int, []]
        return Codec(type_, forbid_unknown=forbid_unknown, key=key)


@lru_cache(maxsize=128)  # a transaction asks for the same types each time
def _codec(type_: Any, key: Any, forbid_unknown: bool) -> Codec[Any]:  # noqa: FBT001, arguments of a cache
    return Codec(type_, forbid_unknown=forbid_unknown, key=key)
