"""Carries a store into a cluster, and out of it: rqlite loads and backs up SQLite files, and a store is one."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlstate.cluster.nodes import Lost
from sqlstate.errors import Busy, StoreIOError
from sqlstate.store import opening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.cluster.nodes import Nodes
    from sqlstate.format.records import Head
    from sqlstate.store.store import Store


@contextmanager
def fetched(nodes: Nodes, path: str, head: Head) -> Iterator[Store]:
    """Write what a cluster holds to a new file, and return a block with that store, open for reading.

    Args:
        nodes: of the cluster.
        path: of the file.
        head: a commit that the copy must have.

    Raises:
        Busy: the nodes did not give it in time.
        StoreFull, StoreIOError: it could not be written.
    """
    until = time.monotonic() + nodes.timeout
    while True:
        try:
            with open(path, "wb") as file:
                nodes.backup(file.write)
        except OSError as e:
            raise StoreIOError(f"{path}: the copy of {nodes.name} could not be written ({e})") from e
        with opening.open(path, read_only=True) as store:
            newest = store.head()
            if newest.seq >= head.seq:
                yield store
                return
        if time.monotonic() >= until:
            raise Busy(
                f"{nodes.name}: the copy ends with commit {newest.seq}, and the newest was {head.seq} before; try again"
            )


def put(nodes: Nodes, path: str) -> None:
    """Have a cluster take a store's file in place of what it holds.

    Raises:
        StoreIOError: the cluster refused it, or nobody knows whether it took it.
        Busy: no node could be reached; nothing was sent.
    """
    try:
        with open(path, "rb") as file:
            error = nodes.load(file.read())
    except Lost as e:
        raise StoreIOError(
            f"{nodes.name}: the reply was lost ({e}), and the file may have been loaded or not. Look at the cluster's "
            "head, and load the file again if it is not there"
        ) from e
    if error:
        raise StoreIOError(f"{nodes.name}: the cluster refused the file ({error}); nothing was changed")
