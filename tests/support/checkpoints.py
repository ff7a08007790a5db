"""Configs and checkpoints of LangGraph, made by hand."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.base import empty_checkpoint


def config(thread: str = "t", ns: str = "", checkpoint: str | None = None) -> Any:
    """Return a config that names a thread, a namespace and perhaps a checkpoint."""
    named = {"thread_id": thread, "checkpoint_ns": ns}
    return {"configurable": named if checkpoint is None else {**named, "checkpoint_id": checkpoint}}


def checkpoint(number: int | str, **values: Any) -> Any:
    """Return a checkpoint that has a number for its id, and values."""
    name = f"{number:08}" if isinstance(number, int) else number
    versions = dict.fromkeys(values, 1)
    return {**empty_checkpoint(), "id": name, "channel_values": values, "channel_versions": versions}
