"""Values of a type: converted to a JSON document and back, and refused where they would not come back the same."""

from __future__ import annotations

import re
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from sqlstate.errors import InvalidOption, InvalidValue
from sqlstate.format.documents import document, short_repr
from sqlstate.format.exactness import Differs, compare, members
from sqlstate.format.unknown_fields import UnknownFields

T = TypeVar("T")

_TOO_DEEP: Final = "nested too deeply, or contains itself"


class Typed(Generic[T]):
    """Turns values of a type into documents and back.

    Args:
        type_: any type that msgspec can decode.
        forbid_unknown: refuse to read a document that has members which the type has no field for.

    Raises:
        InvalidOption: msgspec cannot decode the type.
    """

    __slots__ = ("_decoder", "_type", "_unknown")

    def __init__(self, type_: type[T], *, forbid_unknown: bool = False) -> None:
        self._type = type_
        try:
            self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(type_)
            self._unknown = UnknownFields(type_) if forbid_unknown else None
        except Exception as e:  # annotations are code, and msgspec has no one error for a type that it cannot decode
            raise InvalidOption(f"type={short_repr(type_)} cannot be stored as JSON: {_said(e)}") from e

    def encode(self, value: T) -> bytes:
        """Return the document of *value*.

        Raises:
            InvalidValue: what would be read back is not equal, or not of equal type all the way down; the error
                names the place inside the value.
        """
        raw = self._document(value)
        try:
            read = self._decoder.decode(raw)
        except MemoryError:
            raise
        except Exception as e:  # the type's own code runs when it is read
            raise self._unfit(raw, e, f"not of type {_type_name(self._type)}") from e
        try:
            converted = compare(value, read)
        except Differs as e:
            raise InvalidValue(e.reason, e.path) from None
        except MemoryError:
            raise
        except RecursionError:
            raise InvalidValue(_TOO_DEEP) from None
        except Exception as e:  # a value may be changed meanwhile, and keys have code of their own
            raise InvalidValue(f"cannot be compared with what would be read back: {_said(e)}") from e
        return self._document(read) if converted else raw

    def decode(self, stored: str) -> T:
        """Return the value of the document *stored*.

        Raises:
            InvalidValue: it is not of the type, or has fields that the type must not drop.
        """
        try:
            value = self._decoder.decode(stored)
        except MemoryError:
            raise
        except Exception as e:  # the type's own code runs when it is read
            raise self._unfit(stored.encode(), e, "the stored document does not fit") from e
        if self._unknown is not None:
            self._unknown.refuse(msgspec.json.decode(stored))
        return cast("T", value)

    def _document(self, value: object) -> bytes:
        try:
            plain = _builtins(value)
        except MemoryError:
            raise
        except Exception as e:  # the value's own code runs when it is converted
            path, reason = _culprit(value, e)
            raise InvalidValue(f"not of type {_type_name(self._type)}: {reason}", path) from e
        return document(plain, tuples=True)

    def _unfit(self, raw: bytes, error: Exception, what: str) -> InvalidValue:
        """Return the refusal of a document that cannot be read, with the place that msgspec's message ends with."""
        reason, _, place = _said(error).rpartition(" - at ")
        if not reason:
            return InvalidValue(f"{what}: {place}")
        kind, _, path = place.rpartition(" in ")
        path = self._without_gaps(raw, path.strip("`"))
        return InvalidValue(f"{what}: {reason}" + (f", as {kind.strip('`')}" if kind else ""), path)

    def _without_gaps(self, raw: bytes, path: str) -> str:
        """Return *path* with the names of members, which msgspec leaves out: `$[...]` for a dict's value."""
        root = [msgspec.json.decode(raw)]
        node, known = root[0], "$"
        for step in re.findall(r"\.[^.\[]*|\[\d+\]|\[\.\.\.\]", path):
            if not isinstance(node, dict | list):
                return path
            at: Any = int(step[1:-1]) if step[1:-1].isdecimal() else step[1:]
            if step == "[...]" and isinstance(node, dict):
                at = self._misfit(root, node)
            try:
                node = node[at]
            except (LookupError, TypeError):
                return path
            known += f"[{at}]" if type(at) is int else f".{at}"
        return known

    def _misfit(self, root: list[Any], node: dict[str, Any]) -> str:
        """Take members out of *node* until only the one is left without which the document *root* would fit."""
        left = list(node.items())
        while len(left) > 1:
            half = left[: len(left) // 2]
            node.clear()
            node.update(half)
            left = left[len(left) // 2 :] if self._fits(root[0]) else half
        node.clear()
        node.update(left)
        return left[0][0]

    def _fits(self, plain: object) -> bool:
        try:
            self._decoder.decode(msgspec.json.encode(plain))
        except Exception:  # noqa: BLE001, whatever it was before
            return False
        return True


def _builtins(value: object) -> object:
    """Return *value* in the types of JSON, and tuples, so that what JSON does not carry can be found in it."""
    return msgspec.to_builtins(value, str_keys=True, order="deterministic")


def _culprit(value: object, error: Exception) -> tuple[str, str]:
    """Return the place of the innermost part of *value* that cannot be converted, and why."""
    path = "$"
    while not isinstance(error, RecursionError):
        for step, member in members(value):
            try:
                _builtins(member)
            except Exception as e:  # noqa: BLE001, it becomes part of the message
                value, error = member, e
                path += step
                break
        else:
            return path, _said(error)
    return path, _TOO_DEEP


def _said(error: Exception) -> str:
    try:
        return str(error) or type(error).__name__
    except Exception:  # noqa: BLE001, an exception of the program's own
        return type(error).__name__


def _type_name(type_: object) -> str:
    return getattr(type_, "__name__", None) or short_repr(type_)
