"""Where checkpoints and their writes lie in a store: three collections, keyed by thread, namespace and checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast, overload

import msgspec
from langgraph.checkpoint.base import WRITES_IDX_MAP, CheckpointTuple, get_checkpoint_id, writes_sort_key

from sqlstate.errors import InvalidOption, InvalidValue
from sqlstate.format.names import check_collection

if TYPE_CHECKING:
    from collections.abc import Collection as Several
    from collections.abc import Iterable, Iterator

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, PendingWrite

    from sqlstate.integrations.langgraph.serializer import Serializer
    from sqlstate.store.collection import Collection
    from sqlstate.store.snapshot import Snapshot
    from sqlstate.store.transaction import Transaction
    from sqlstate.store.view import CollectionView

COUNTERS: Final = "counters_since_delta_snapshot"
"""Where the metadata name the channels that are kept as changes since an earlier checkpoint."""


Key = tuple[str, str, str]
"""Thread, namespace and id of a checkpoint."""
WriteKey = tuple[str, str, str, str, int]
"""The same of the checkpoint that is written behind, the task, and the number of the write."""


class Named(NamedTuple):
    """What a config of LangGraph names."""

    thread: str
    ns: str
    checkpoint: str

    @property
    def key(self) -> Key:
        """The key of the checkpoint."""
        return self.thread, self.ns, self.checkpoint

    @property
    def config(self) -> RunnableConfig:
        """The config that names it."""
        return {
            "configurable": {
                "thread_id": self.thread,
                "checkpoint_ns": self.ns,
                "checkpoint_id": self.checkpoint,
            }
        }


def named(config: RunnableConfig) -> Named:
    """Return what *config* names; the checkpoint is "" where it names none.

    Raises:
        InvalidOption: it names no thread.
    """
    given = config.get("configurable", {})
    if given.get("thread_id") is None:
        raise InvalidOption('the config names no thread: give {"configurable": {"thread_id": …}}')
    return Named(str(given["thread_id"]), given.get("checkpoint_ns") or "", get_checkpoint_id(config) or "")


@dataclass
class Described:
    """What is kept of a checkpoint beside its bytes: readable in any SQLite browser."""

    parent: str | None
    """Id of the checkpoint before it, of the same thread and namespace."""
    type: str
    """How the bytes were written."""
    metadata: dict[str, Any]
    """Source, step, run_id and what else LangGraph says of it."""


@dataclass
class Write:
    """What is kept of a write, as a line of JSON before its bytes."""

    channel: str
    """Where it goes."""
    type: str
    """How the bytes were written."""
    path: str
    """Of the task that made it."""


class Checkpoints:
    """The collections of one saver, as a snapshot or a transaction sees them.

    Args:
        prefix: text before the names of the collections.
    """

    def __init__(self, prefix: str) -> None:
        self.names = tuple(check_collection(f"{prefix}{kind}") for kind in ("checkpoints", "values", "writes"))

    # Reading.

    def newest(self, at: Snapshot | Transaction, thread: str, ns: str) -> str:
        """Return the id of the newest checkpoint, `""` if there is none."""
        for key in self._described(at).keys(prefix=(thread, ns), reverse=True, limit=1):
            return key[2]
        return ""

    def find(self, at: Snapshot | Transaction, of: Named, serde: Serializer) -> CheckpointTuple | None:
        """Return a checkpoint, or None."""
        described = self._described(at).get(of.key)
        if described is None:
            return None
        data = self._values(at).get(of.key)
        checkpoint = None if data is None else serde.loads_typed((described.type, data))
        if not (isinstance(checkpoint, dict) and isinstance(checkpoint.get("channel_values"), dict)):
            raise InvalidValue("no checkpoint of LangGraph is there", "$", self.names[1], of.key)
        return CheckpointTuple(
            config=of.config,
            checkpoint=cast("Checkpoint", checkpoint),
            metadata=cast("CheckpointMetadata", described.metadata),
            parent_config=of._replace(checkpoint=described.parent).config if described.parent else None,
            pending_writes=self._writes_of(at, of, serde),
        )

    def _writes_of(self, at: Snapshot | Transaction, of: Named, serde: Serializer) -> list[PendingWrite]:
        found = []
        for key, value in self._writes(at).items(prefix=of.key):
            head, _, data = value.partition(b"\n")
            try:
                write = msgspec.json.decode(head, type=Write)
            except msgspec.DecodeError as e:
                raise InvalidValue(f"it is no write of a task: {e}", "$", self.names[2], key) from e
            *_, task, index = key
            order = writes_sort_key(write.path, task, index)
            found.append((order, (task, write.channel, serde.loads_typed((write.type, data)))))
        return [write for _, write in sorted(found, key=lambda pair: pair[0])]

    def ancestors(
        self, at: Snapshot | Transaction, target: CheckpointTuple, serde: Serializer
    ) -> Iterator[CheckpointTuple]:
        """Yield the checkpoints before *target*, nearest first, each once: a chain of parents can be made a ring."""
        found: CheckpointTuple | None = target
        seen: set[Named] = set()
        while found is not None and found.parent_config is not None and named(found.config) not in seen:
            seen.add(named(found.config))
            parent = named(found.parent_config)
            found = None if parent in seen else self.find(at, parent, serde)
            if found is not None:
                yield found

    def listed(self, at: Snapshot, config: RunnableConfig | None, before: str) -> Iterator[Named]:
        """Yield what the checkpoints of a thread are called, or of all threads, newest first.

        With a namespace, they are read as they are wanted; else all are read first.
        """
        described = self._described(at)
        within = None if config is None else named(config)
        if within is not None and within.checkpoint:
            found: Iterable[Key] = [within.key]
        elif within is not None and config is not None and config["configurable"].get("checkpoint_ns") is not None:
            found = described.keys(prefix=(within.thread, within.ns), reverse=True)
        else:
            scan = described.keys() if within is None else described.keys(prefix=(within.thread,))
            found = sorted(scan, key=lambda key: key[2], reverse=True)
        return (Named(*key) for key in found if not before or key[2] < before)

    # Writing.

    def put(self, txn: Transaction, of: Named, described: Described, data: bytes) -> None:
        """Put a checkpoint."""
        self._described(txn)[of.key] = described
        self._values(txn)[of.key] = data

    def put_writes(self, txn: Transaction, of: Named, task: str, writes: Iterable[tuple[Write, bytes]]) -> None:
        """Put what a task wrote; what is there stays, but for the kinds of which a task has one each."""
        kept = self._writes(txn)
        for number, (write, data) in enumerate(writes):
            key = (*of.key, task, WRITES_IDX_MAP.get(write.channel, number))
            if key[-1] < 0 or key not in kept:
                kept[key] = msgspec.json.encode(write) + b"\n" + data

    def delete(self, txn: Transaction, found: Iterable[Named]) -> None:
        """Delete checkpoints, and their writes."""
        described, values, writes = self._all(txn)
        for each in found:
            described.pop(each.key, None)
            values.pop(each.key, None)
            for key in [*writes.keys(prefix=each.key)]:
                del writes[key]

    def delete_threads(self, txn: Transaction, threads: Iterable[str]) -> None:
        """Delete all of some threads."""
        for thread in threads:
            for collection in self._all(txn):
                for key in [*collection.keys(prefix=(thread,))]:
                    del collection[key]

    def delete_runs(self, txn: Transaction, runs: Several[str]) -> None:
        """Delete the checkpoints that some runs made."""
        found = ((Named(*key), described.metadata.get("run_id")) for key, described in self._described(txn).items())
        self.delete(txn, [each for each, run in found if isinstance(run, str) and run in runs])

    def copy(self, txn: Transaction, source: str, target: str) -> None:
        """Copy all of a thread to another one."""
        for collection in self._all(txn):
            found = [*collection.items(prefix=(source,))]
            collection.update({(target, *key[1:]): value for key, value in found})

    def keep_latest(self, txn: Transaction, threads: Iterable[str], serde: Serializer) -> None:
        """Delete all but the newest checkpoint of each namespace, and those that its channels are made from."""
        for thread in threads:
            found = [Named(*key) for key in self._described(txn).keys(prefix=(thread,))]
            kept: set[Named] = set()
            for newest in {each.ns: each for each in found}.values():  # the last one of each counts
                kept |= {newest, *self._needed(txn, newest, serde)}
            self.delete(txn, (each for each in found if each not in kept))

    def _needed(self, txn: Transaction, of: Named, serde: Serializer) -> Iterator[Named]:
        described = self._described(txn).get(of.key)
        counters = described and described.metadata.get(COUNTERS)
        found = self.find(txn, of, serde) if isinstance(counters, dict) else None
        if found is None or not isinstance(counters, dict):
            return
        missing = {*counters} - {*found.checkpoint["channel_values"]}
        for each in self.ancestors(txn, found, serde):
            if not missing:
                return
            missing -= {*each.checkpoint["channel_values"]}
            yield named(each.config)

    # The collections.

    @overload
    def _described(self, at: Transaction) -> Collection[Described, Key]: ...
    @overload
    def _described(self, at: Snapshot | Transaction) -> CollectionView[Described, Key]: ...
    def _described(self, at: Snapshot | Transaction) -> CollectionView[Described, Key]:
        return at.collection(self.names[0], type=Described, key=tuple[str, str, str])

    @overload
    def _values(self, at: Transaction) -> Collection[bytes, Key]: ...
    @overload
    def _values(self, at: Snapshot | Transaction) -> CollectionView[bytes, Key]: ...
    def _values(self, at: Snapshot | Transaction) -> CollectionView[bytes, Key]:
        return at.collection(self.names[1], type=bytes, key=tuple[str, str, str])

    @overload
    def _writes(self, at: Transaction) -> Collection[bytes, WriteKey]: ...
    @overload
    def _writes(self, at: Snapshot | Transaction) -> CollectionView[bytes, WriteKey]: ...
    def _writes(self, at: Snapshot | Transaction) -> CollectionView[bytes, WriteKey]:
        return at.collection(self.names[2], type=bytes, key=tuple[str, str, str, str, int])

    def _all(self, txn: Transaction) -> Iterator[Collection[Any, Any]]:
        return (txn.collection(name, key=tuple) for name in self.names)


def as_json(metadata: Any) -> Any:
    """Return metadata as JSON has them: a tuple is a list, and a number as a key is text.

    Raises:
        InvalidValue: something in them is not JSON.
    """
    try:
        return json.loads(json.dumps(metadata))
    except (TypeError, ValueError, RecursionError) as e:
        raise InvalidValue(f"the metadata are not JSON: {e}") from e
