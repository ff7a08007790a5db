"""A store on several machines: the same tables, SQL and roots on an rqlite cluster. Start with `opening.open()`."""

from __future__ import annotations

from sqlstate.cluster.opening import load as load
from sqlstate.cluster.opening import open as open  # noqa: A004, the word every Python programmer looks for
from sqlstate.cluster.opening import open_async as open_async
from sqlstate.cluster.store import ClusterStore as ClusterStore

__all__ = ["ClusterStore", "load", "open", "open_async"]
