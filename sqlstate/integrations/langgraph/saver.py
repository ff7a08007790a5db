"""A LangGraph checkpointer in a store file: each checkpoint is one transaction, and in the log."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, get_checkpoint_metadata

from sqlstate.errors import InvalidOption
from sqlstate.integrations import awaited
from sqlstate.integrations.langgraph.checkpoints import Checkpoints, Described, Named, Write, as_json, named
from sqlstate.integrations.langgraph.serializer import Serializer

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        DeltaChannelHistory,
        PendingWrite,
    )

    from sqlstate.store.snapshot import Snapshot
    from sqlstate.store.store import Store
    from sqlstate.store.transaction import Transaction

R = TypeVar("R")

PREFIX: Final = "langgraph/"


class SqlstateSaver(BaseCheckpointSaver[int]):
    """Keeps the checkpoints of LangGraph's graphs in a store. Each is on the disk when its call returns.

    It has the methods of LangGraph's `BaseCheckpointSaver`, the optional ones too, and each of them for tasks. A call
    is one transaction, whoever writes beside it: other threads, tasks and processes take turns and lose nothing. Those
    of a store with mode="group" share commits.

    Values are written by LangGraph's msgpack serializer, never by pickle. A class that it does not call safe must be in
    *allowed_types*; a value that would not be read back as what it is raises InvalidValue.

    The metadata of a checkpoint are a JSON document, so they can be queried and proven.

    Args:
        store: an open store; it stays open.
        allowed_types: classes of your states that may be read back, such as dataclasses and pydantic models.
        prefix: text before the names of the collections.

    Raises:
        InvalidName: the prefix is too long.
        InvalidOption: *store* is no open store.

    Examples:
        >>> from langgraph.checkpoint.base import empty_checkpoint
        >>> saver = SqlstateSaver(store)
        >>> config = {"configurable": {"thread_id": "7", "checkpoint_ns": ""}}
        >>> config = saver.put(config, empty_checkpoint(), {"source": "input", "step": -1}, {})
        >>> saver.get_tuple(config).metadata, store.head().seq
        ({'source': 'input', 'step': -1}, 1)
    """

    serde: Serializer
    """What writes and reads values."""

    def __init__(
        self, store: Store, *, allowed_types: Iterable[type | tuple[str, ...]] = (), prefix: str = PREFIX
    ) -> None:
        super().__init__(serde=Serializer(allowed_types))
        self._store = awaited.check_store(store)
        self._kept = Checkpoints(prefix)

    # Reading.

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that *config* names, or the newest of its thread and namespace, or None.

        Cost: 1 snapshot, 3 statements or 4.

        Args:
            config: names a thread, and perhaps a namespace and a checkpoint.

        Raises:
            InvalidOption: it names no thread.
            InvalidValue: what is there was written by something else.

        Examples:
            >>> SqlstateSaver(store).get_tuple({"configurable": {"thread_id": "7"}})
        """
        with self._store.snapshot() as at:
            return self._find(at, named(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002, LangGraph's word
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield the checkpoints of a thread, or of all, newest first. Each is read when its turn comes.

        Cost: reads keys, of the namespace as many as are wanted, of a thread or of all threads all of them; then
        1 snapshot for each checkpoint.

        Args:
            config: names a thread, and perhaps a namespace and a checkpoint; None for all threads.
            filter: what the metadata must have.
            before: names a checkpoint; only those with a smaller id are wanted.
            limit: the most checkpoints.

        Raises:
            InvalidOption, InvalidValue: as get_tuple().

        Examples:
            >>> [*SqlstateSaver(store).list(None, filter={"source": "input"})]
            []
        """
        left = limit
        for each in self._listed(config, before, None if filter else limit):
            if left is not None and left <= 0:
                return
            found = self._matching(each, filter)
            if found is not None:
                left = None if left is None else left - 1
                yield found

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return for each channel the newest value before the checkpoint, and the writes since then, oldest first.

        Cost: 1 snapshot; 3 statements for each checkpoint on the way.

        Args:
            config: as for get_tuple().
            channels: their names.

        Raises:
            InvalidOption, InvalidValue: as get_tuple().

        Examples:
            >>> SqlstateSaver(store).get_delta_channel_history(
            ...     config={"configurable": {"thread_id": "7"}}, channels=["messages"]
            ... )
            {'messages': {'writes': []}}
        """
        writes: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
        seeds: dict[str, Any] = {}
        with self._store.snapshot() as at:
            target = self._find(at, named(config)) if channels else None
            for found in () if target is None else self._kept.ancestors(at, target, self.serde):
                for write in reversed(found.pending_writes or []):
                    if write[1] in writes and write[1] not in seeds:
                        writes[write[1]].append(write)
                values = found.checkpoint["channel_values"]
                seeds |= {each: values[each] for each in writes if each in values and each not in seeds}
                if len(seeds) == len(writes):
                    break
        history: dict[str, DeltaChannelHistory] = {each: {"writes": writes[each][::-1]} for each in channels}
        for channel, seed in seeds.items():
            history[channel]["seed"] = seed
        return history

    def _find(self, at: Snapshot, of: Named) -> CheckpointTuple | None:
        if not of.checkpoint:
            of = of._replace(checkpoint=self._kept.newest(at, of.thread, of.ns))
        return self._kept.find(at, of, self.serde) if of.checkpoint else None

    def _listed(
        self, config: RunnableConfig | None, before: RunnableConfig | None, limit: int | None
    ) -> builtins.list[Named]:
        than = str((before or {}).get("configurable", {}).get("checkpoint_id") or "")
        with self._store.snapshot() as at:
            return [*islice(self._kept.listed(at, config, than), None if limit is None else max(limit, 0))]

    def _matching(self, of: Named, wanted: dict[str, Any] | None) -> CheckpointTuple | None:
        with self._store.snapshot() as at:
            found = self._find(at, of)
        if found is None or all(found.metadata.get(name) == value for name, value in (wanted or {}).items()):
            return found
        return None

    # Writing.

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,  # noqa: ARG002, LangGraph's signature
    ) -> RunnableConfig:
        """Keep a checkpoint, durably, and return the config that names it.

        Cost: 1 commit, or a share of one.

        Args:
            config: names the thread, the namespace, and the checkpoint before, if any.
            checkpoint: its id tells where it stands among the others.
            metadata: what LangGraph says of it.
            new_versions: not used: a checkpoint is kept whole.

        Raises:
            InvalidOption: the config names no thread.
            InvalidValue: something in it would not be read back as what it is.
            StoreError: what `Store.run()` raises.

        Examples:
            >>> from langgraph.checkpoint.base import empty_checkpoint
            >>> config = {"configurable": {"thread_id": "7", "checkpoint_ns": ""}}
            >>> sorted(SqlstateSaver(store).put(config, empty_checkpoint(), {}, {})["configurable"])
            ['checkpoint_id', 'checkpoint_ns', 'thread_id']
        """
        return self._store.run(self._put(config, checkpoint, metadata))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a task wrote behind a checkpoint, durably. What is there stays, but for errors and such.

        Cost: 1 commit, or a share of one.

        Args:
            config: names the checkpoint.
            writes: pairs of a channel and a value.
            task_id: names the task.
            task_path: its place among the tasks.

        Raises:
            InvalidOption: the config names no checkpoint.
            InvalidValue: a value would not be read back as what it is; nothing was kept.
            StoreError: what `Store.run()` raises.

        Examples:
            >>> config = {"configurable": {"thread_id": "7", "checkpoint_ns": "", "checkpoint_id": "1"}}
            >>> SqlstateSaver(store).put_writes(config, [("messages", "hello")], "task")
        """
        self._store.run(self._put_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Delete all of a thread, in one transaction.

        Cost: 1 commit that grows with the thread.

        Args:
            thread_id: names it.

        Raises:
            StoreError: what `Store.run()` raises.

        Examples:
            >>> SqlstateSaver(store).delete_thread("7")
        """
        self._store.run(self._prune([thread_id], "delete"))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that some runs made, in one transaction.

        A channel that is kept as changes loses those of the runs.

        Cost: reads the metadata of all checkpoints; 1 commit.

        Args:
            run_ids: as the metadata have them.

        Raises:
            StoreError: what `Store.run()` raises.

        Examples:
            >>> SqlstateSaver(store).delete_for_runs(["run-1"])
        """
        self._store.run(partial(self._kept.delete_runs, runs={*run_ids}))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all of a thread to another one, in one transaction.

        Cost: 1 commit that grows with the thread.

        Args:
            source_thread_id: names it.
            target_thread_id: names the copy.

        Raises:
            StoreError: what `Store.run()` raises.

        Examples:
            >>> SqlstateSaver(store).copy_thread("7", "8")
        """
        self._store.run(partial(self._kept.copy, source=str(source_thread_id), target=str(target_thread_id)))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete all but the newest checkpoint of each namespace of some threads, in one transaction.

        Where a channel of the newest is kept as changes since an earlier checkpoint, all from that one on stay.

        Cost: 1 commit that grows with the threads.

        Args:
            thread_ids: name them.
            strategy: "keep_latest", or "delete" for the whole threads.

        Raises:
            InvalidOption: there is no such strategy.
            StoreError: what `Store.run()` raises.

        Examples:
            >>> SqlstateSaver(store).prune(["7"])
        """
        self._store.run(self._prune(thread_ids, strategy))

    def _put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> Callable[[Transaction], RunnableConfig]:
        before = named(config)
        kind, data = self.serde.dumps_typed(checkpoint)
        described = Described(before.checkpoint or None, kind, as_json(get_checkpoint_metadata(config, metadata)))
        of = before._replace(checkpoint=checkpoint["id"])

        def put(txn: Transaction) -> RunnableConfig:
            self._kept.put(txn, of, described, data)
            return of.config

        return put

    def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> Callable[[Transaction], None]:
        of = named(config)
        if not of.checkpoint:
            raise InvalidOption("the config names no checkpoint that the writes could belong to")
        dumped = [(channel, *self.serde.dumps_typed(value)) for channel, value in writes]
        kept = [(Write(channel, kind, task_path), data) for channel, kind, data in dumped]
        return partial(self._kept.put_writes, of=of, task=task_id, writes=kept)

    def _prune(self, thread_ids: Iterable[str], strategy: str) -> Callable[[Transaction], None]:
        threads = [*map(str, thread_ids)]
        if strategy == "delete":
            return partial(self._kept.delete_threads, threads=threads)
        if strategy == "keep_latest":
            return partial(self._kept.keep_latest, threads=threads, serde=self.serde)
        raise InvalidOption(f"strategy={strategy!r} is not 'keep_latest' or 'delete'")

    # The same for tasks.

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Do as get_tuple(), in a task. See there."""
        return await awaited.read(partial(self.get_tuple, config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002, LangGraph's word
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Do as list(), in a task. See there."""
        left = limit
        for each in await awaited.read(partial(self._listed, config, before, None if filter else limit)):
            if left is not None and left <= 0:
                return
            found = await awaited.read(partial(self._matching, each, filter))
            if found is not None:
                left = None if left is None else left - 1
                yield found

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Do as get_delta_channel_history(), in a task. See there."""
        return await awaited.read(partial(self.get_delta_channel_history, config=config, channels=channels))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,  # noqa: ARG002, LangGraph's signature
    ) -> RunnableConfig:
        """Do as put(), in a task. See there."""
        return await awaited.write(self._store, self._put(config, checkpoint, metadata))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Do as put_writes(), in a task. See there."""
        await awaited.write(self._store, self._put_writes(config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        """Do as delete_thread(), in a task. See there."""
        await awaited.write(self._store, self._prune([thread_id], "delete"))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Do as delete_for_runs(), in a task. See there."""
        await awaited.write(self._store, partial(self._kept.delete_runs, runs={*run_ids}))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Do as copy_thread(), in a task. See there."""
        copy = partial(self._kept.copy, source=str(source_thread_id), target=str(target_thread_id))
        await awaited.write(self._store, copy)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Do as prune(), in a task. See there."""
        await awaited.write(self._store, self._prune(thread_ids, strategy))
