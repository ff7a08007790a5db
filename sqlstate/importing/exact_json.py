"""JSON of others, parsed as it is: an int of any size stays one, and what a float would lose is refused.

msgspec parses it. Where that may have lost something, or refuses the text, the standard library's json does it again,
with hooks, which take several times as long.
"""

from __future__ import annotations

import json
import re
from math import isinf
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from sqlstate.errors import InvalidKey, InvalidValue
from sqlstate.format import constants as fmt

if TYPE_CHECKING:
    from collections.abc import Iterator


class ContentError(ValueError):
    """A piece of text cannot be used; *at* is the place in it, if there is one."""

    def __init__(self, reason: str, at: int | None = None) -> None:
        super().__init__(reason)
        self.at = at


class SourceError(ValueError):
    """A source cannot be used.

    Attributes:
        place: line, record or member in it, `''` for the source as a whole.
        reason: what is wrong there.
    """

    def __init__(self, place: str, reason: object) -> None:
        super().__init__(place, str(reason))
        self.place = place
        self.reason: str = str(reason)


def shown(text: str) -> str:
    """Return *text* for a message, quoted and not too long."""
    quoted = json.dumps(text, ensure_ascii=not text.isprintable())
    return quoted if len(quoted) <= 80 else f"{quoted[:77]}..."


def int_key(text: str) -> int:
    """Return the int that *text* writes.

    Raises:
        InvalidKey: it is not an int as an int is written: neither `007` nor `+7` is.
    """
    if _INT.fullmatch(text) is None:
        raise InvalidKey(f"key {shown(text)} is not an int: a minus sign and digits, without leading zeros")
    return int(text)


# No key has more digits; the store refuses those of 19 that are too large.
_INT: Final = re.compile("0|-?[1-9][0-9]{0,18}")


def parse_document(text: str) -> Any:
    """Return the value of one JSON document: ints stay ints, whatever their size.

    Raises:
        InvalidValue: it is not JSON, or gives a member twice.
    """
    try:
        return _parse_exactly(text)
    except ContentError as e:
        raise InvalidValue(str(e), "the value" if e.at is None else f"column {e.at + 1} of the value") from None


def parse(raw: bytes) -> Any:
    """Return the value of one JSON document in UTF-8.

    Raises:
        ContentError: it is not JSON, or gives a member twice; places are counted in characters.
        UnicodeDecodeError: it is not UTF-8.
    """
    try:
        value = _decode(raw)
        if not _may_underflow(raw) and _quotes(raw) == _quotes(_encode(value)) >= 0:
            return value
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        pass
    return _parse_exactly(raw.decode())


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_ZEROS = b"0" * 200
_small = re.compile(rb"[eE]-0*[1-9][0-9]{2}")


def parse_file(raw: bytes) -> Any:
    """Return the value of one JSON document, as parse() does.

    If it is a list, or an object with lists as members, the items of those are parsed now, to see that they can be, and
    again when their turn comes: a large file is never in memory as objects, which the garbage collector would look at
    again and again.
    """
    try:
        whole = _decode_parts(raw)
        if isinstance(whole, list):
            return _in_parts(whole)
        members = {name: bytes(part) for name, part in whole.items()}
        if 2 * len(members) + sum(map(_quotes, members.values())) == _quotes(raw) >= 0:
            return {
                name: _in_parts(_decode_list(part)) if part.startswith(b"[") else parse(part)
                for name, part in members.items()
            }
    except (msgspec.MsgspecError, RecursionError, UnicodeError, ContentError):
        pass
    return parse(raw)  # it says where the fault is


class _Parts(list[Any]):
    """A list of documents, which are parsed when their turn comes."""

    def __iter__(self) -> Iterator[Any]:
        return map(_decode, super().__iter__())


def _in_parts(documents: list[msgspec.Raw]) -> _Parts:
    for each in documents:
        parse(bytes(each))
    return _Parts(documents)


_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_parts = msgspec.json.Decoder(list[msgspec.Raw] | dict[str, msgspec.Raw]).decode


def _may_underflow(raw: bytes) -> bool:
    """Return False if no number in *raw* can be so near to zero that its double is zero.

    10^-323 takes an exponent of three digits, or a row of zeros.
    """
    return _ZEROS in raw or ((b"e-" in raw or b"E-" in raw) and _small.search(raw) is not None)


def _quotes(raw: bytes) -> int:
    """Return the number of quotes around strings in *raw*, which is JSON; -1 if it cannot be told.

    A member that is given twice is read once: what was read then has fewer of them than the text.
    """
    quotes = raw.count(b'"')
    if b"\\" in raw:
        if b"\\\\" in raw:
            return -1
        quotes -= raw.count(b'\\"')
    return quotes


def _parse_exactly(text: str) -> Any:
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError as e:
        what = e.msg.removesuffix(" at").removesuffix(" starting")
        raise ContentError(f"this is not JSON: {what}", e.pos) from None
    except RecursionError:
        raise ContentError(f"nested more than {fmt.JSON_DEPTH_MAX} levels deep") from None
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
    if is_lost(text, number):
        raise ValueError
    return number


def is_lost(text: str, number: float) -> bool:
    """Return True if *number*, the double nearest to what *text* writes, is not near to it at all."""
    return isinf(number) or (not number and not _zero.match(text))


_zero = re.compile(r"-?[0.]+(?:[eE]|$)")
_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
_parts = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)


def _fault(text: str) -> ContentError:
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
            return ContentError(f"{part} is not a number in JSON", match.start())
        elif part[0] in "-0123456789" and not part.lstrip("-").isdecimal() and is_lost(part, float(part)):
            what = "too small: the nearest double is 0" if not float(part) else "too large for a double"
            return ContentError(f"the number {_shown_number(part)} is {what}; store it as a string", match.start())
        elif part[0] != '"' and len(part) > 1000:  # Python limits the digits that int() takes
            return ContentError(f"an int of {len(part):,} digits is outside -2^63 to 2^64-1", match.start())
        elif name_next and (seen := names[-1]) is not None:
            name = json.loads(part)
            if name in seen:
                return ContentError(f"the member {shown(name)} is given twice in one object", match.start())
            seen.add(name)
            name_next = False
    return ContentError("this is not JSON")
