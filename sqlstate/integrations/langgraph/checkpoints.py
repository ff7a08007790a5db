"""Where checkpoints and their writes lie in a store: three collections, keyed by thread, namespace and checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import msgspec
from langgraph.checkpoint.base import WRITES_IDX_MAP, CheckpointTuple, get_checkpoint_id, writes_sort_key

from sqlstate.errors import InvalidOption, InvalidValue
from sqlstate.integrations import keys

if TYPE_CHECKING:
    from collections.abc import Collection as Several
    from collections.abc import Iterable, Iterator

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import CheckpointMetadata, PendingWrite

    from sqlstate.integrations.langgraph.serializer import Serializer
    from sqlstate.store.snapshot import Snapshot
    from sqlstate.store.transaction import Transaction

COUNTERS: Final = "counters_since_delta_snapshot"
"""Where the metadata name the channels that are kept as changes since an earlier checkpoint."""


class Named(NamedTuple):
    """What a config of LangGraph names."""

    thread: str
    ns: str
    checkpoint: str

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
        self.described = f"{prefix}checkpoints"
        self.values = f"{prefix}values"
        self.writes = f"{prefix}writes"

    # Reading.

    def newest(self, at: Snapshot | Transaction, thread: str, ns: str) -> str:
        """Return the id of the newest checkpoint, `""` if there is none."""
        for key in at[self.described].keys(prefix=keys.prefix(thread, ns), reverse=True, limit=1):
            return keys.split(str(key))[-1]
        return ""

    def find(self, at: Snapshot | Transaction, of: Named, serde: Serializer) -> CheckpointTuple | None:
        """Return a checkpoint, or None."""
        key = keys.join(*of)
        described = at.collection(self.described, type=Described).get(key)
        if described is None:
            return None
        data = at[self.values].get(key)
        if not isinstance(data, bytes):
            raise InvalidValue("the bytes of the checkpoint are not there", "$", self.values, key)
        return CheckpointTuple(
            config=of.config,
            checkpoint=serde.loads_typed((described.type, data)),
            metadata=cast("CheckpointMetadata", described.metadata),  # or as it was edited in the file
            parent_config=of._replace(checkpoint=described.parent).config if described.parent else None,
            pending_writes=self._writes_of(at, of, serde),
        )

    def _writes_of(self, at: Snapshot | Transaction, of: Named, serde: Serializer) -> list[PendingWrite]:
        found = []
        for key, value in at[self.writes].items(prefix=keys.prefix(*of)):
            task, index = keys.split(str(key))[-2:]
            head, _, data = value.partition(b"\n") if isinstance(value, bytes) else (b"", b"", b"")
            try:
                write = msgspec.json.decode(head, type=Write)
                order = writes_sort_key(write.path, task, int(index))
            except (msgspec.DecodeError, ValueError) as e:
                raise InvalidValue(f"it is no write of a task: {e}", "$", self.writes, key) from e
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

    def names(self, at: Snapshot | Transaction, config: RunnableConfig | None, before: str) -> list[Named]:
        """Return what the checkpoints of a thread are called, or of all threads, newest first."""
        within = None if config is None else named(config)
        ns = None if config is None else config["configurable"].get("checkpoint_ns")
        scan = at[self.described].keys() if within is None else at[self.described].keys(prefix=keys.prefix(within[0]))
        found = [Named(*keys.split(str(key))) for key in scan]
        return sorted(
            (
                each
                for each in found
                if (ns is None or each.ns == ns)
                and (within is None or not within.checkpoint or each.checkpoint == within.checkpoint)
                and (not before or each.checkpoint < before)
            ),
            key=lambda each: each.checkpoint,
            reverse=True,
        )

    # Writing.

    def put(self, txn: Transaction, of: Named, described: Described, data: bytes) -> None:
        """Put a checkpoint."""
        key = keys.join(*of)
        txn.collection(self.described, type=Described)[key] = described
        txn.put(self.values, key, data)

    def put_writes(self, txn: Transaction, of: Named, task: str, writes: Iterable[tuple[Write, bytes]]) -> None:
        """Put what a task wrote; what is there stays, but for the kinds of which a task has one each."""
        for number, (write, data) in enumerate(writes):
            index = WRITES_IDX_MAP.get(write.channel, number)
            key = keys.join(*of, task, str(index))
            if index < 0 or key not in txn[self.writes]:
                txn.put(self.writes, key, msgspec.json.encode(write) + b"\n" + data)

    def delete(self, txn: Transaction, names: Iterable[Named]) -> None:
        """Delete checkpoints, and their writes."""
        for each in names:
            key = keys.join(*each)
            txn.delete(self.described, key)
            txn.delete(self.values, key)
            for write in [*txn[self.writes].keys(prefix=keys.prefix(*each))]:
                txn.delete(self.writes, write)

    def delete_threads(self, txn: Transaction, threads: Iterable[str]) -> None:
        """Delete all of some threads."""
        for thread in threads:
            for collection in (self.described, self.values, self.writes):
                for key in [*txn[collection].keys(prefix=keys.prefix(thread))]:
                    txn.delete(collection, key)

    def delete_runs(self, txn: Transaction, runs: Several[str]) -> None:
        """Delete the checkpoints that some runs made."""
        of_runs = [
            Named(*keys.split(str(key)))
            for key, described in txn.collection(self.described, type=Described).items()
            if described.metadata.get("run_id") in runs
        ]
        self.delete(txn, of_runs)

    def copy(self, txn: Transaction, source: str, target: str) -> None:
        """Copy all of a thread to another one."""
        begin = keys.prefix(source)
        for collection in (self.described, self.values, self.writes):
            copied = {
                f"{keys.prefix(target)}{str(key).removeprefix(begin)}": value
                for key, value in txn[collection].items(prefix=begin)
            }
            txn[collection].update(copied)

    def keep_latest(self, txn: Transaction, threads: Iterable[str], serde: Serializer) -> None:
        """Delete all but the newest checkpoint of each namespace, and those that its channels are made from."""
        for thread in threads:
            names = [Named(*keys.split(str(key))) for key in txn[self.described].keys(prefix=keys.prefix(thread))]
            kept: set[Named] = set()
            for ns in {each.ns for each in names}:
                newest = Named(thread, ns, max(each.checkpoint for each in names if each.ns == ns))
                kept |= {newest, *self._needed(txn, newest, serde)}
            self.delete(txn, (each for each in names if each not in kept))

    def _needed(self, txn: Transaction, of: Named, serde: Serializer) -> Iterator[Named]:
        found = self.find(txn, of, serde)
        if found is None:
            return
        missing = {*found.metadata.get(COUNTERS, ())} - {*found.checkpoint["channel_values"]}
        for each in self.ancestors(txn, found, serde):
            if not missing:
                return
            missing -= {*each.checkpoint["channel_values"]}
            yield named(each.config)


def as_json(metadata: Any) -> Any:
    """Return metadata as JSON has them: a tuple is a list, and a number as a key is text.

    Raises:
        InvalidValue: something in them is not JSON.
    """
    try:
        return json.loads(json.dumps(metadata))
    except (TypeError, ValueError, RecursionError) as e:
        raise InvalidValue(f"the metadata are not JSON: {e}") from e
