"""Clusters where a verb takes a store: the addresses of the nodes, joined by commas, in the place of a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlstate.cluster import ClusterStore

AUTH = "SQLSTATE_CLUSTER_AUTH"
CERTIFICATES = "SQLSTATE_CLUSTER_CERTIFICATES"


def is_cluster(file: str) -> bool:
    """Return True if *file* is the address of a node, or several."""
    return file.startswith(("http://", "https://"))


def open_cluster(file: str, *, timeout: float, create: bool) -> ClusterStore:
    """Open the store on the cluster whose addresses *file* is."""
    from sqlstate import cluster  # noqa: PLC0415, takes long to import, and a file needs none of it

    return cluster.open(file.split(","), timeout=timeout, create=create, **access())


def access() -> Any:
    """Return what the environment says of users and certificates: no password stands on a command line."""
    name, colon, password = os.environ.get(AUTH, "").partition(":")
    return {"auth": (name, password) if colon else None, "tls": os.environ.get(CERTIFICATES) or None}
