"""LangGraph's serializer, which writes JSON-like msgpack, without what would run code from the file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import ormsgpack
from langgraph.checkpoint.serde._msgpack import SAFE_MSGPACK_METHODS, SAFE_MSGPACK_TYPES
from langgraph.checkpoint.serde.jsonplus import (
    EXT_DELTA_SNAPSHOT,
    EXT_METHOD_SINGLE_ARG,
    EXT_NUMPY_ARRAY,
    JsonPlusSerializer,
)

from sqlstate.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Iterable

# What LangGraph has under other names, such as pickle, is neither written nor read.
TYPES: Final = frozenset(("null", "bytes", "bytearray", "msgpack"))


class Serializer(JsonPlusSerializer):
    """LangGraph's own serializer, without pickle, for the types that it calls safe and those of the caller.

    A value of another type would be read back as its parts. It is refused when it is written instead.

    Args:
        allowed_types: further classes, or pairs of a module and a name.
    """

    def __init__(self, allowed_types: Iterable[type | tuple[str, ...]] = ()) -> None:
        super().__init__(pickle_fallback=False, allowed_json_modules=None, allowed_msgpack_modules=[*allowed_types])

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Return the kind of *obj* and its bytes.

        Raises:
            InvalidValue: it could not be read back as what it is.
        """
        try:
            kind, data = super().dumps_typed(obj)
            found = _extensions(data) if kind == "msgpack" else []
        except (TypeError, ValueError, RecursionError) as e:  # what ormsgpack raises is one of them
            reason = e.__cause__ or e
            raise InvalidValue(
                f"{reason}: LangGraph's serializer cannot store it without pickle, which is never used"
            ) from e
        for code, parts in found:
            self._check(code, parts)
        return kind, bytes(data)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Return the object that dumps_typed() was given.

        Raises:
            InvalidValue: the bytes were written by something else.
        """
        kind, value = data
        if kind not in TYPES:
            raise InvalidValue(f"it was written as {kind!r}, which is never read, since that could run code")
        try:
            return super().loads_typed((kind, value))
        except ormsgpack.MsgpackDecodeError as e:
            raise InvalidValue(f"its bytes are not msgpack: {e}") from e

    def _check(self, code: int, parts: Any) -> None:
        """Refuse what would not be read as what it is: LangGraph's reader puts its parts there, or None."""
        if code == EXT_DELTA_SNAPSHOT:
            return
        if code == EXT_NUMPY_ARRAY:
            if parts[0][1] in "OV":
                raise InvalidValue("it holds a NumPy array of objects or records; store a list of them")
            return
        module, name = parts[0], parts[1]
        is_method = code == EXT_METHOD_SINGLE_ARG
        if (module, name, parts[3]) in SAFE_MSGPACK_METHODS if is_method else (module, name) in SAFE_MSGPACK_TYPES:
            return
        what = f"it holds a {module}.{name}, which would not be read back as one"
        allowed = self._allowed_msgpack_modules
        if is_method:
            raise InvalidValue(f"{what}; store its text, or a plain datetime")
        if not isinstance(allowed, set) or (module, name) not in allowed:
            raise InvalidValue(f"{what}; give that class in allowed_types= of SqlstateSaver")
        if not hasattr(sys.modules.get(module), name):
            raise InvalidValue(f"{what}: no class has that name at the top of that module; define it there")


def _extensions(data: bytes) -> list[tuple[int, Any]]:
    """Return the code and the parts of each object in *data* that is no plain value, innermost first."""
    found: list[tuple[int, Any]] = []

    def look(code: int, inside: bytes) -> object:
        found.append((code, ormsgpack.unpackb(inside, ext_hook=look, option=ormsgpack.OPT_NON_STR_KEYS)))
        return ()  # hashable, where it is an item of a set or a key

    ormsgpack.unpackb(data, ext_hook=look, option=ormsgpack.OPT_NON_STR_KEYS)
    return found
