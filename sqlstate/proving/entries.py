"""Makes proofs about the entries of one commit, from its tree and rows (docs/reference/proofs.md).

A prover needs no trust: what it hands out leads to the root that the commit recorded, or the store is damaged.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from contextlib import contextmanager
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from sqlstate.errors import Damaged, InvalidOption, ProofInvalid
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import EMPTY_ROOT, leaf, node_digest
from sqlstate.format.names import (
    check_bound,
    check_collection,
    first_name,
    make_name,
    name_bytes,
    next_collection,
    stored_name,
)
from sqlstate.proof import (
    ASKED,
    ENTRY,
    NEIGHBOUR,
    NODE,
    OPAQUE,
    Document,
    Proof,
    check_limit,
    read_value,
    verify_absent,
    verify_count,
    verify_many,
    verify_range,
)
from sqlstate.tables import merkle, state
from sqlstate.tables.state import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection

PROOF_BYTES_MAX: Final = 1 << 30

# Entries to open: the form of the leaf, and the value.
_Opened = dict["Name", tuple[int, "Stored"]]


class Provable(ABC):
    """Something that proofs can be made of: an open store, or a snapshot of it."""

    __slots__ = ()

    @abstractmethod
    def _state(self) -> AbstractContextManager[tuple[Connection, Head]]:
        """Return a block in which one commit can be read, and that commit."""

    def prove(self, collection: str, key: Key) -> Proof:
        """Return a proof that an entry is there with its value, or that it is not there.

        Its kind is "present" or "absent", and `sqlstate.proof` has a verifier for each. It holds under the root of the
        newest commit, or of the snapshot.

        Cost: 2 statements or more for each entry that is shown.

        Args:
            collection: name of the collection.
            key: key of the entry.

        Raises:
            InvalidName, InvalidKey: no entry can have this name.
            Damaged: the entry, or a node of the tree, is not what the commit recorded.

        Examples:
            >>> store["settings"]["lang"] = "fr"
            >>> paper, root = store.prove("settings", "lang").to_bytes(), store.head().root
            >>> sqlstate.proof.verify_present(paper, root, "settings", "lang", "fr")  # elsewhere, without the store
        """
        name = make_name(check_collection(collection), key)
        with self._state() as (connection, head), _holding(connection):
            stored = state.get(connection, collection, key)
            if stored is None:
                made = _prove(connection, head, "absent", _neighbours(connection, name))
                verify_absent(made, head.root, collection, key)
                return made
            return _prove(connection, head, "present", {name: (ASKED, stored)})

    def prove_range(
        self, collection: str, start: Key | None = None, stop: Key | None = None, limit: int | None = None
    ) -> Proof:
        """Return a proof of all that a collection holds in [start, stop), values included.

        Cost: 2 statements or more for each entry that is shown.

        Args:
            collection: its name.
            start: the first key of the range; None for no bound.
            stop: the first key beyond the range; None for no bound.
            limit: the most entries, 1 to 2^63-1; the proof says nothing about what comes after the last of them.

        Raises:
            InvalidName, InvalidKey: a bound is invalid.
            InvalidOption: the range is empty whatever the store holds, the limit is invalid, or the proof would have
                more than 1 GiB.
            Damaged: an entry, or a node of the tree, is not what the commit recorded.

        Examples:
            >>> store["users"].update({1: "ada", 2: "bob", 3: "cyd"})
            >>> paper = store.prove_range("users", start=2)
            >>> sqlstate.proof.verify_range(paper, store.head().root, "users", start=2)
            [(2, 'bob'), (3, 'cyd')]
        """
        low, high = _bounds(collection, start, stop)
        check_limit(limit)
        with self._state() as (connection, head), _holding(connection):
            inside = _inside(connection, Span(collection, start, stop), limit)
            before, after = state.neighbours(connection, low), state.neighbours(connection, high)
            shown = before if not inside else [before[0], None if len(inside) == limit else after[1]]
            leaves = _shown(shown) | inside
            made = _prove(connection, head, "range", leaves, span=True)
            try:
                verify_range(made, head.root, collection, start, stop, limit)
            except ProofInvalid:
                _check_documents(connection, inside)
                raise
            return made

    def prove_count(self, collection: str, start: Key | None = None, stop: Key | None = None) -> Proof:
        """Return a proof of the number of entries of a collection in [start, stop), without showing them.

        Cost: 2 statements or more for each of up to four neighbours that are shown.

        Args:
            collection: its name.
            start: the first key of the range; None for no bound.
            stop: the first key beyond the range; None for no bound.

        Raises:
            InvalidName, InvalidKey, InvalidOption, Damaged: as prove_range().

        Examples:
            >>> store["users"].update({1: "ada", 2: "bob", 3: "cyd"})
            >>> sqlstate.proof.verify_count(store.prove_count("users"), store.head().root, "users")
            3
        """
        low, high = _bounds(collection, start, stop)
        with self._state() as (connection, head), _holding(connection):
            made = _prove(connection, head, "count", _neighbours(connection, low) | _neighbours(connection, high))
            verify_count(made, head.root, collection, start, stop)
            return made

    def prove_many(self, names: Iterable[tuple[str, Key]]) -> Proof:
        """Return one proof for several entries, each there or not. They share what their paths have in common.

        Cost: 2 statements or more for each entry that is shown.

        Args:
            names: (collection, key) of each entry, one or more. A name given twice counts once.

        Raises:
            InvalidName, InvalidKey: no entry can have such a name.
            InvalidOption: there are no names.
            Damaged: an entry, or a node of the tree, is not what the commit recorded.

        Examples:
            >>> store["settings"]["lang"] = "fr"
            >>> paper, root = store.prove_many([("settings", "lang"), ("settings", "zoom")]), store.head().root
            >>> sqlstate.proof.verify_many(paper, root, {("settings", "lang"): "fr"}, [("settings", "zoom")])
        """
        asked = {make_name(check_collection(collection), key) for collection, key in names}
        if not asked:
            raise InvalidOption("ask for one entry or more")
        with self._state() as (connection, head), _holding(connection):
            leaves: _Opened = {}
            for name in asked:
                stored = state.get(connection, name[0], name[2])
                if stored is not None:
                    leaves[name] = ASKED, stored
            present = {(name[0], name[2]): _as_stored(stored) for name, (_, stored) in leaves.items()}
            absent = asked - leaves.keys()
            for name in absent:
                for neighbour, shown in _neighbours(connection, name).items():
                    leaves.setdefault(neighbour, shown)
            made = _prove(connection, head, "many", leaves)
            verify_many(made, head.root, present, [(name[0], name[2]) for name in absent])
            return made


@contextmanager
def _holding(connection: Connection) -> Iterator[None]:
    """Raise Damaged for a new proof that its own verifier refuses: only a missing row can cause that."""
    try:
        yield
    except ProofInvalid as e:
        raise _damaged(connection) from e


def _as_stored(stored: Stored) -> bytes | Document:
    return stored if isinstance(stored, bytes) else Document(stored)


def _bounds(collection: str, start: Key | None, stop: Key | None) -> tuple[Name, Name]:
    """Return the names between which a span lies."""
    low = first_name(check_collection(collection))
    high = first_name(next_collection(collection))
    if start is not None:
        low = stored_name(collection, check_bound(start))
    if stop is not None:
        high = stored_name(collection, check_bound(stop))
    if low >= high:
        raise InvalidOption("the span is empty, whatever the store holds: its start is not before its stop")
    return low, high


def _inside(connection: Connection, span: Span, limit: int | None) -> _Opened:
    """Return the entries of a range, to be shown with their values."""
    inside: _Opened = {}
    size = 0
    for key, stored in islice(state.scan(connection, span, values=True), limit):
        inside[stored_name(span.collection, key)] = ENTRY, stored
        size += len(stored)
        if size > PROOF_BYTES_MAX:
            raise InvalidOption(f"the proof would have more than {PROOF_BYTES_MAX:,} bytes; give it a limit")
    return inside


def is_document(text: str) -> bool:
    """Return True if a stored text is one JSON document (docs/reference/file-format.md, section 3.2).

    msgspec reads a text ten times as fast as the verifier does, but lets deeper nesting and larger numbers pass.
    """
    try:
        _any_document(text)
        exact = len(text) > fmt.JSON_DEPTH_MAX and (  # a shorter one has neither
            text.count("[") + text.count("{") > fmt.JSON_DEPTH_MAX or _LONG_NUMBER.search(text) is not None
        )
    except msgspec.MsgspecError:
        return False
    except RecursionError:  # of the document, or of the caller
        exact = True
    if exact:
        try:
            read_value(fmt.VKIND_JSON, text.encode())
        except ProofInvalid:
            return False
    return True


_any_document: Final = msgspec.json.Decoder().decode
_LONG_NUMBER: Final = re.compile("[0-9]{309}")  # the largest double has 309 digits


def _check_documents(connection: Connection, inside: _Opened) -> None:
    """Raise Damaged for an entry whose value is no document: no range can hold it."""
    for (collection, _, key), (_, stored) in inside.items():
        if isinstance(stored, str) and not is_document(stored):
            raise Damaged(
                f"I1: {connection.path}: {collection!r}[{key!r}] is not a JSON document, so no range can "
                "show it; put it again, or restore a backup"
            )


def _neighbours(connection: Connection, name: Name) -> _Opened:
    """Return the entries on both sides of a place, to be shown without their values."""
    return _shown(state.neighbours(connection, name))


def _shown(rows: Iterable[tuple[str, Key, Stored] | None]) -> _Opened:
    found = (row for row in rows if row is not None)
    return {stored_name(collection, key): (NEIGHBOUR, stored) for collection, key, stored in found}


def _prove(connection: Connection, head: Head, kind: str, opened: _Opened, *, span: bool = False) -> Proof:
    """Return the proof that opens some leaves of the tree of *head*.

    Args:
        connection: reads that commit.
        head: the commit.
        kind: of the proof.
        opened: the entries to open, each with the form of its leaf and its value.
        span: they are all that there are between the first and the last of them.

    Raises:
        Damaged: they do not lead to the commit's root.
    """
    leaves: dict[bytes, bytes] = {}
    for name, (form, stored) in opened.items():
        raw = name_bytes(name)
        leaves[leaf(raw, stored)] = _leaf(raw, form, stored)
    if not leaves:
        if head.root != EMPTY_ROOT:
            raise _damaged(connection)
        return Proof(kind, b"\0")
    top, nodes = merkle.opened(connection, sorted(opened), span=span)
    pruned = _Pruned({node_digest(level, children): children for level, children in nodes}, leaves)
    body = bytes([top]) + pruned.node(top, head.root)
    if pruned.found != len(leaves) or len(body) > PROOF_BYTES_MAX:
        raise _damaged(connection)
    return Proof(kind, body)


class _Pruned:
    """Encodes the part of a tree that leads to some of its leaves.

    Args:
        nodes: children of the nodes that do, by digest.
        leaves: how each of the leaves stands in the proof, by digest.
    """

    def __init__(self, nodes: dict[bytes, bytes], leaves: dict[bytes, bytes]) -> None:
        self.found = 0
        self._nodes = nodes
        self._leaves = leaves

    def node(self, level: int, digest: bytes) -> bytes:
        """Return the node with *digest*, opened; nothing if it is not among the nodes."""
        children = self._nodes.get(digest, b"")
        parts = [(len(children) // fmt.CHILD_BYTES).to_bytes(4)]
        for at in range(0, len(children), fmt.CHILD_BYTES):
            child = children[at : at + fmt.CHILD_BYTES]
            below = child[fmt.COUNT_BYTES :]
            if level == 1 and below in self._leaves:
                self.found += 1
                parts.append(self._leaves[below])
            elif level > 1 and below in self._nodes:
                parts += bytes([NODE]), self.node(level - 1, below)
            else:
                parts += bytes([OPAQUE]), child
        return b"".join(parts)


def _leaf(name: bytes, form: int, stored: Stored) -> bytes:
    """Return a leaf as it stands in a proof."""
    if form == ASKED:
        return bytes([form])
    kind, raw = (fmt.VKIND_JSON, stored.encode()) if isinstance(stored, str) else (fmt.VKIND_BYTES, stored)
    content = len(raw).to_bytes(4) + raw if form == ENTRY else sha256(raw).digest()
    return bytes([form]) + name + kind + content


def _damaged(connection: Connection) -> Damaged:
    return Damaged(
        f"I2: {connection.path}: an entry or a node of the tree is not what the newest commit recorded, so nothing "
        "can be proven about it. store.check() tells what is damaged; repair the file, or restore a backup"
    )
