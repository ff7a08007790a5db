"""LangGraph's serializer, which writes JSON-like msgpack, without what would run code from the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import ormsgpack
from langgraph.checkpoint.serde._msgpack import SAFE_MSGPACK_TYPES
from langgraph.checkpoint.serde.jsonplus import EXT_DELTA_SNAPSHOT, EXT_NUMPY_ARRAY, JsonPlusSerializer

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
        except (ormsgpack.MsgpackEncodeError, TypeError, ValueError, RecursionError) as e:
            reason = e.__cause__ or e
            raise InvalidValue(
                f"{reason}: LangGraph's serializer cannot store it without pickle, which is never used"
            ) from e
        if kind == "msgpack":
            for module, name in _classes(data):
                if (module, name) not in SAFE_MSGPACK_TYPES and (module, name) not in self._allowed():
                    raise InvalidValue(
                        f"it holds a {module}.{name}, which would not be read back as one; "
                        f"give that class in allowed_types= of SqlstateSaver"
                    )
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

    def _allowed(self) -> set[tuple[str, ...]]:
        return self._allowed_msgpack_modules or set()


def _classes(data: bytes) -> set[tuple[str, str]]:
    """Return module and name of each class that reading *data* would construct."""
    found: set[tuple[str, str]] = set()

    def look(code: int, inside: bytes) -> object:
        if code == EXT_NUMPY_ARRAY:
            return None
        parts = ormsgpack.unpackb(inside, ext_hook=look, option=ormsgpack.OPT_NON_STR_KEYS)
        if code != EXT_DELTA_SNAPSHOT:
            found.add((parts[0], parts[1]))
        return ()  # hashable, where it is an item of a set or a key

    ormsgpack.unpackb(data, ext_hook=look, option=ormsgpack.OPT_NON_STR_KEYS)
    return found
