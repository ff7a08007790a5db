"""Members of a stored document that a type has no field for; msgspec drops them when it reads one."""

from __future__ import annotations

from typing import Any

from msgspec import inspect

from sqlstate.errors import InvalidValue


class UnknownFields:
    """Finds what a type would drop of a document, at any depth: dataclass, attrs class, Struct, TypedDict.

    Args:
        type_: a type that msgspec can decode.
    """

    __slots__ = ("_fields", "_type")

    def __init__(self, type_: Any) -> None:
        self._type = inspect.type_info(type_)
        self._fields: dict[int, dict[str, inspect.Type]] = {}  # of each type, by its id; _type keeps them alive

    def refuse(self, document: object) -> None:
        """Check a document that was decoded as the type.

        Raises:
            InvalidValue: it has members that the type has no field for; the error names them and their place.
        """
        self._check(document, self._type, "$")

    def _check(self, document: object, type_: Any, path: str) -> None:
        if isinstance(document, dict):
            self._object(document, _unwrapped(type_, document), path)
        elif isinstance(document, list):
            self._array(document, _unwrapped(type_, document), path)

    def _object(self, document: dict[str, object], type_: Any, path: str) -> None:
        if isinstance(type_, inspect.StructType | inspect.DataclassType | inspect.TypedDictType):
            fields = self._fields.get(id(type_))
            if fields is None:
                fields = self._fields[id(type_)] = {field.encode_name: field.type for field in type_.fields}
            tag = getattr(type_, "tag_field", None)
            unknown = [name for name in document if name not in fields and name != tag]
            if unknown:
                raise _refusal(", ".join(map(repr, unknown)), type_, path)
            for name, member in document.items():
                if name != tag:
                    self._check(member, fields[name], f"{path}.{name}")
        elif hasattr(type_, "value_type"):
            for name, member in document.items():
                self._check(member, type_.value_type, f"{path}.{name}")

    def _array(self, document: list[object], type_: Any, path: str) -> None:
        if hasattr(type_, "item_type"):
            for number, item in enumerate(document):
                self._check(item, type_.item_type, f"{path}[{number}]")
            return
        if hasattr(type_, "item_types"):
            types = list(type_.item_types)
        elif hasattr(type_, "fields"):
            types = [field.type for field in type_.fields]
            if getattr(type_, "tag", None) is not None:
                types.insert(0, inspect.AnyType())
            if len(document) > len(types):
                places = ", ".join(f"[{number}]" for number in range(len(types), len(document)))
                raise _refusal(places, type_, path)
        else:
            return
        for number, (item, item_type) in enumerate(zip(document, types, strict=False)):
            self._check(item, item_type, f"{path}[{number}]")


def _refusal(unknown: str, type_: Any, path: str) -> InvalidValue:
    name = getattr(type_.cls, "__name__", repr(type_.cls))
    return InvalidValue(
        f"the stored document has what {name} has no field for, and reading would drop it: {unknown}; "
        "bring the type up to date, or read the collection without forbid_unknown",
        path,
    )


def _unwrapped(type_: Any, document: dict[str, object] | list[object]) -> Any:
    """Return the one type of a union that *document* was decoded as; msgspec lets no union be ambiguous."""
    while isinstance(type_, inspect.Metadata):
        type_ = type_.type
    if not isinstance(type_, inspect.UnionType):
        return type_
    is_list = isinstance(document, list)
    fitting = [each for each in map(_bare, type_.types) if _is_array(each) == is_list]
    for each in fitting:
        tag = getattr(each, "tag", None)
        if tag is None or tag == (document[0] if isinstance(document, list) else document.get(each.tag_field)):
            return each
    return None


def _bare(type_: Any) -> Any:
    while isinstance(type_, inspect.Metadata):
        type_ = type_.type
    return type_


def _is_array(type_: Any) -> bool | None:
    """Return True if JSON holds a value of *type_* as an array; None if neither as one nor as an object."""
    if hasattr(type_, "item_type") or hasattr(type_, "item_types") or isinstance(type_, inspect.NamedTupleType):
        return True
    if isinstance(type_, inspect.StructType):
        return type_.array_like
    return False if hasattr(type_, "value_type") or hasattr(type_, "fields") else None
