"""LangGraph's store of long-term memories in a store file: a batch of operations is one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    PutOp,
    SearchItem,
    SearchOp,
    validate_op_namespace,
)

from sqlstate.errors import InvalidOption, InvalidValue
from sqlstate.format.names import check_collection
from sqlstate.integrations import awaited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from langgraph.store.base import MatchCondition, Op, Result

    from sqlstate.store.snapshot import Snapshot
    from sqlstate.store.store import Store
    from sqlstate.store.transaction import Transaction
    from sqlstate.store.view import CollectionView

NAME: Final = "langgraph/store"
Namespace = tuple[str, ...]
Key = tuple[str, ...]
"""The labels of the namespace, and the item's own key."""


@dataclass
class Memory:
    """An item as it is kept: a JSON document."""

    value: dict[str, Any]
    """What the application put."""
    created_at: str
    """When it was put first, in ISO 8601."""
    updated_at: str
    """When it was put last."""


class SqlstateStore(BaseStore):
    """Keeps the long-term memories of LangGraph's graphs in a store. Each is on the disk when its call returns.

    It has the methods of LangGraph's `BaseStore`, and each of them for tasks. A batch reads one moment, and then puts
    and deletes in one transaction. A value is a dict that JSON carries exactly; anything else raises InvalidValue.

    There is no search by meaning and no time to live: a query or a ttl raises InvalidOption. A filter reads every item
    below the namespace.

    Args:
        store: an open store; it stays open.
        name: of the collection.

    Raises:
        InvalidName: the name is not text of 1 to 255 bytes.
        InvalidOption: *store* is no open store.

    Examples:
        >>> memories = SqlstateStore(store)
        >>> memories.put(("users", "ada"), "food", {"likes": "olives"})
        >>> memories.get(("users", "ada"), "food").value, [item.key for item in memories.search(("users",))]
        ({'likes': 'olives'}, ['food'])
    """

    __slots__ = ("_name", "_store")

    def __init__(self, store: Store, *, name: str = NAME) -> None:
        self._store = awaited.check_store(store)
        self._name = check_collection(name)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Return what each operation gives, in their order. What they put is not seen by those that read.

        Cost: 1 snapshot, and 1 commit or a share of one if something is put or deleted.

        Args:
            ops: operations of LangGraph.

        Raises:
            InvalidValue: a value is not a dict that JSON carries exactly. Nothing was put.
            InvalidOption: a search has a query, or an item a ttl.
            InvalidNamespaceError: of LangGraph: a label is empty, no text, or has a period.
            StoreError: what `Store.run()` raises.

        Examples:
            >>> from langgraph.store.base import GetOp, PutOp
            >>> SqlstateStore(store).batch([PutOp(("a",), "k", {"x": 1}), GetOp(("a",), "k")])
            [None, None]
        """
        checked = _checked(ops)
        results = self._read(checked)
        if puts := _puts(checked):
            self._store.run(partial(self._write, puts=puts))
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do as batch(), in a task. See there."""
        checked = _checked(ops)
        puts = _puts(checked)
        results: list[Result] = [None] * len(checked)
        if any(not isinstance(op, PutOp) for op in checked):
            results = await awaited.read(partial(self._read, checked))
        if puts:
            await awaited.write(self._store, partial(self._write, puts=puts))
        return results

    def _read(self, ops: list[Op]) -> list[Result]:
        with self._store.snapshot() as at:
            return [self._result(at, op) for op in ops]

    def _result(self, at: Snapshot, op: Op) -> Result:
        if isinstance(op, GetOp):
            found = self._memories(at).get((*op.namespace, op.key))
            return None if found is None else self._item(Item, op.namespace, op.key, found)
        if isinstance(op, SearchOp):
            wanted = (item for item in self._items(at, op.namespace_prefix) if _matches(item.value, op.filter or {}))
            return [item for _, item in zip(range(op.offset + op.limit), wanted, strict=False)][op.offset :]
        if isinstance(op, ListNamespacesOp):
            return self._namespaces(at, op)
        return None

    def _memories(self, at: Snapshot) -> CollectionView[Memory, Key]:
        return at.collection(self._name, type=Memory, key=Key)

    def _items(self, at: Snapshot, within: Namespace) -> Iterator[SearchItem]:
        found = self._memories(at).items(prefix=within) if within else self._memories(at).items()
        for (*namespace, key), memory in found:
            if len(namespace) >= len(within):  # else the item's own key is the last label of the namespace
                yield self._item(SearchItem, tuple(namespace), key, memory)

    def _item(self, kind: type[Any], namespace: Namespace, key: str, memory: Memory) -> Any:
        try:
            created, updated = map(datetime.fromisoformat, (memory.created_at, memory.updated_at))
        except ValueError as e:
            raise InvalidValue(f"no time in ISO 8601: {e}", "$", self._name, (*namespace, key)) from e
        return kind(value=memory.value, key=key, namespace=namespace, created_at=created, updated_at=updated)

    def _namespaces(self, at: Snapshot, op: ListNamespacesOp) -> list[Namespace]:
        every = {key[:-1] for key in self._memories(at)}
        wanted = {
            namespace[: op.max_depth]
            for namespace in every
            if all(_fits(condition, namespace) for condition in op.match_conditions or ())
        }
        return sorted(wanted)[op.offset : op.offset + op.limit]

    def _write(self, txn: Transaction, puts: dict[Key, dict[str, Any] | None]) -> None:
        kept = txn.collection(self._name, type=Memory, key=Key)
        now = datetime.now(UTC).isoformat()
        for key, value in puts.items():
            if value is None:
                kept.pop(key, None)
            else:
                before = kept.get(key)
                kept[key] = Memory(value, now if before is None else before.created_at, now)


def _checked(ops: Iterable[Op]) -> list[Op]:
    checked = [*ops]
    for op in checked:
        validate_op_namespace(op)
        if isinstance(op, SearchOp):
            if op.query:
                raise InvalidOption(f"query={op.query!r}: this store does not search by meaning; use filter=")
            if op.limit < 0 or op.offset < 0:
                raise InvalidOption(f"limit={op.limit!r} and offset={op.offset!r} are numbers of items, 0 or more")
        elif isinstance(op, PutOp):
            if op.ttl is not None:
                raise InvalidOption(f"ttl={op.ttl!r}: items of this store do not expire; delete them")
            if not op.namespace:
                raise InvalidOption("an item needs a namespace of at least one label")
            if op.value is not None and type(op.value) is not dict:
                raise InvalidValue(f"an item is a dict, not {type(op.value).__name__}")
        elif not isinstance(op, GetOp | ListNamespacesOp):
            raise InvalidOption(f"{type(op).__name__} is no operation of LangGraph's stores")
    return checked


def _puts(ops: Iterable[Op]) -> dict[Key, dict[str, Any] | None]:
    """Return what is put, or None for what is deleted, by its key; the last of equal ones counts."""
    puts = (op for op in ops if isinstance(op, PutOp))
    return {(*op.namespace, op.key): None if op.value is None else dict(op.value) for op in puts}


def _fits(condition: MatchCondition, namespace: Namespace) -> bool:
    path = condition.path
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", label) for label, wanted in zip(part, path, strict=True))


_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "$eq": lambda value, wanted: bool(value == wanted),
    "$ne": lambda value, wanted: bool(value != wanted),
    "$gt": lambda value, wanted: bool(value > wanted),
    "$gte": lambda value, wanted: bool(value >= wanted),
    "$lt": lambda value, wanted: bool(value < wanted),
    "$lte": lambda value, wanted: bool(value <= wanted),
}


def _matches(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return bool(value == wanted)
    operators = [name for name in wanted if str(name).startswith("$")]
    if operators:
        return all(_compares(value, name, against) for name, against in wanted.items())
    return isinstance(value, dict) and all(_matches(value.get(name), each) for name, each in wanted.items())


def _compares(value: Any, operator: str, wanted: Any) -> bool:
    compare = _OPERATORS.get(operator)
    if compare is None:
        raise InvalidOption(f"{operator!r} is no operator of a filter; there are {', '.join(_OPERATORS)}")
    try:
        return compare(value, wanted)
    except TypeError:  # such as a number and a text: neither is greater
        return False
