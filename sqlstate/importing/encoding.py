"""From what a source gives to an entry as it is stored, or to the reason why it cannot be one."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, NoReturn

from sqlstate.errors import InvalidInput, InvalidKey, InvalidValue
from sqlstate.format import constants as fmt
from sqlstate.format.documents import parsed_document, short_repr
from sqlstate.format.exactness import Differs
from sqlstate.format.keys import pack_key
from sqlstate.format.names import Key, Name, Stored, check_collection, make_name
from sqlstate.format.plain import plain
from sqlstate.format.values import Codec
from sqlstate.importing.exact_json import ContentError
from sqlstate.importing.pickled import Unbuilt, weight

_JSON: Final[Codec[Any]] = Codec()


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


class Encoded(NamedTuple):
    """An entry of another store as it is stored."""

    name: Name
    stored: Stored
    made_plain: bool
    """Whether plain() made another value of it."""


def encode_foreign(collection: str, key: Any, value: Any, *, exact: bool = False) -> Encoded:
    """Return an entry as it is stored, of what another store's file holds: a tuple as key packed, the value plain.

    Args:
        collection: name of the collection.
        key: anything; an Unbuilt where it cannot be had.
        value: anything, with an Unbuilt in it for what cannot be had.
        exact: refuse what JSON does not carry back as it is.

    Raises:
        ContentError: it cannot be stored.
    """
    try:
        if isinstance(key, Unbuilt):
            raise InvalidKey(f"its key cannot be had: {key.reason}")
        if not is_small(key):
            raise InvalidKey(f"a key has at most {fmt.KEY_BYTES_MAX:,} bytes, and this {type(key).__name__} has more")
        name = make_name(check_collection(collection), pack_key(key) if type(key) is tuple else key)
        _check_built(value)
        try:
            return Encoded(name, _JSON.encode(value), made_plain=False)
        except InvalidValue:
            if exact:
                raise
            return Encoded(name, _JSON.encode(plain(value, default=_refuse)), made_plain=True)
    except InvalidValue as e:
        raise ContentError(e.reason if e.path == "$" else f"at {e.path}: {e.reason}") from None
    except InvalidInput as e:
        raise ContentError(str(e)) from None


def is_small(key: Any) -> bool:
    """Return False if *key* is more than any key, written out in full: it may be too much to look at."""
    try:
        return type(key) in _WHOLE or weight(key) <= _KEY_WEIGHT_MAX
    except ContentError:
        return False


def _refuse(value: object) -> NoReturn:
    raise Differs(f"{type(value).__name__} {short_repr(value)} has no plain form")


def _check_built(value: Any) -> None:
    """Raise if something in *value* could not be had, or if it is too much to be looked at.

    Raises:
        InvalidValue: names the place.
        ContentError: it is too large, or nested too deeply.
    """
    if type(value) in _WHOLE:
        return
    if weight(value) > fmt.VALUE_BYTES_MAX:
        raise ContentError(f"written out in full it is far larger than the limit of {fmt.VALUE_BYTES_MAX:,} bytes")
    seen: set[int] = set()
    waiting = [(value, "$")]
    while waiting:
        part, path = waiting.pop()
        if isinstance(part, Unbuilt):
            raise InvalidValue(part.reason, path)
        if type(part) in _WHOLE or id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            waiting += [(name, path) for name in part]
            waiting += [(member, f"{path}.{name}" if type(name) is str else path) for name, member in part.items()]
        elif isinstance(part, list | tuple):
            waiting += [(member, f"{path}[{number}]") for number, member in enumerate(part)]
        elif isinstance(part, set | frozenset):
            waiting += [(member, path) for member in part]


_KEY_WEIGHT_MAX: Final = 8 * fmt.KEY_BYTES_MAX  # the least that a part of a tuple takes is 2 bytes, and it weighs 16
_WHOLE: Final = frozenset((str, bytes, int, float, bool, type(None)))
