"""A plain reading of docs/reference/proofs.md: makes proofs over a list of entries, honest ones and others.

It imports nothing of sqlstate. `encode` writes the pruned tree for any leaves opened in any form, whatever that
proves or fails to prove. `honest` says, for a question, which leaves the page wants opened and how, and gives
the one proof, or None where the statement is false.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from tests.reference import plain
from tests.reference.notation import f, sha256, u8, u32, u64
from tests.reference.plain import Entry, Key, Name, Node, Value

# How a child stands in a proof.
OPAQUE, OPENED, ASKED, BESIDE, LISTED = range(5)
CODES = {"present": b"P", "absent": b"A", "range": b"R", "count": b"C", "many": b"M"}

Place = tuple[bytes, int, bytes]
"""Where an entry or a bound stands in the order of entries."""

Forms = Mapping[int, int]
"""ASKED, BESIDE or LISTED, by the number of the leaf; all others are opaque."""


@dataclass(frozen=True)
class Question:
    """What a verifier is asked. Which fields count depends on the kind."""

    kind: str
    collection: str = ""
    key: Key = 0
    value: Value = b""
    start: Key | None = None
    stop: Key | None = None
    limit: int | None = None
    present: tuple[Entry, ...] = ()
    absent: tuple[Name, ...] = ()

    def first(self) -> Place:
        """Where the span begins."""
        if self.start is None:
            return self.collection.encode(), -1, b""
        return plain.sort_key(self.collection, self.start)

    def end(self) -> Place:
        """Where the span ends."""
        if self.stop is None:
            return self.collection.encode(), 3, b""
        return plain.sort_key(self.collection, self.stop)


@dataclass(frozen=True)
class Tree:
    """The entries in order, and the tree over them."""

    entries: tuple[Entry, ...]
    levels: list[list[Node]] = field(repr=False)

    @cached_property
    def places(self) -> list[Place]:
        """Where each entry stands."""
        return [plain.sort_key(collection, key) for collection, key, _ in self.entries]

    @cached_property
    def root(self) -> bytes:
        """The digest that a verifier trusts."""
        return plain.root_of(self.levels)

    @property
    def top(self) -> Node:
        """The node whose digest is the root; an empty store has none."""
        return self.levels[-1][0]

    def below(self, place: Place) -> int:
        """How many entries stand before a place."""
        return sum(each < place for each in self.places)

    def find(self, collection: str, key: Key) -> int | None:
        """The number of an entry, None if there is none of this name."""
        place = plain.sort_key(collection, key)
        return self.places.index(place) if place in self.places else None


def tree(entries: Iterable[Entry]) -> Tree:
    """Order the entries and build their tree."""
    ordered = plain.sort_entries(entries)
    return Tree(tuple(ordered), plain.levels_over([plain.leaf_node(*entry) for entry in ordered]))


# ---- Writing ----


def encode(of: Tree, forms: Forms, opened: frozenset[int] = frozenset()) -> bytes:
    """The body of a proof that opens these leaves, and the nodes above them.

    *opened* are numbers of leaves whose nodes are opened too, though the leaves themselves stay opaque.
    """
    if not of.entries:
        return u8(0)
    return u8(of.top.level) + _node(of, of.top, 0, forms, opened)


def _node(of: Tree, node: Node, first: int, forms: Forms, opened: frozenset[int]) -> bytes:
    parts = [u32(len(node.children))]
    for child in node.children:
        span = range(first, first + child.count)
        if child.level == 0:
            parts.append(_leaf(child, of.entries[first], forms.get(first, OPAQUE)))
        elif any(number in forms or number in opened for number in span):
            parts.append(u8(OPENED) + _node(of, child, first, forms, opened))
        else:
            parts.append(opaque(child))
        first += child.count
    return b"".join(parts)


def opaque(child: Node) -> bytes:
    """A child that is not opened."""
    return u8(OPAQUE) + u64(child.count) + child.digest


def _leaf(child: Node, entry: Entry, form: int) -> bytes:
    collection, key, value = entry
    vkind, stored = (b"j", value.encode()) if isinstance(value, str) else (b"b", value)
    named = plain.name_bytes(collection, key) + vkind
    if form == OPAQUE:
        return opaque(child)
    if form == ASKED:
        return u8(ASKED)
    return u8(form) + named + (sha256(stored) if form == BESIDE else f(stored))


def container(kind: str, body: bytes) -> bytes:
    """A whole proof."""
    return b"SqSp" + u8(1) + CODES[kind] + body


def as_json(kind: str, body: bytes) -> str:
    """A whole proof as text."""
    text = base64.b64encode(body).decode("ascii")
    return f'{{"sqlstate":"proof","version":1,"kind":{json.dumps(kind)},"body":"{text}"}}'


# ---- What is true, and its one proof ----

Answer = list[tuple[Key, Value]] | int | bool


def answer(of: Tree, question: Question) -> Answer:
    """What a store with these entries answers: entries, a number, or whether the statement is true."""
    if question.kind == "present":
        return _holds(of, (question.collection, question.key, question.value))
    if question.kind == "absent":
        return of.find(question.collection, question.key) is None
    if question.kind == "many":
        held = all(_holds(of, entry) for entry in question.present)
        return held and all(of.find(*name) is None for name in question.absent)
    found = of.entries[of.below(question.first()) : of.below(question.end())]
    if question.kind == "count":
        return len(found)
    return [(key, value) for _, key, value in found[: question.limit]]


def _holds(of: Tree, entry: Entry) -> bool:
    number = of.find(*entry[:2])
    return number is not None and plain.leaf(*entry) == plain.leaf(*of.entries[number])


def honest_forms(of: Tree, question: Question) -> dict[int, int] | None:
    """The leaves to open, and how; None if the statement is false."""
    if answer(of, question) is False:
        return None
    if question.kind == "present":
        return _many(of, [(question.collection, question.key)], [])
    if question.kind == "absent":
        return _many(of, [], [(question.collection, question.key)])
    if question.kind == "many":
        return _many(of, [entry[:2] for entry in question.present], question.absent)
    first, end = of.below(question.first()), of.below(question.end())
    if question.kind == "count":
        return _beside(of, first, first) | _beside(of, end, end)
    cut = question.limit is not None and end - first >= question.limit
    if cut:
        end = first + (question.limit or 0)
    forms = _beside(of, first, end)
    if cut:
        forms.pop(end, None)
    return forms | dict.fromkeys(range(first, end), LISTED)


def _many(of: Tree, present: Iterable[Name], absent: Iterable[Name]) -> dict[int, int]:
    forms: dict[int, int] = {}
    for collection, key in absent:
        gap = of.below(plain.sort_key(collection, key))
        forms |= _beside(of, gap, gap)
    return forms | {number: ASKED for name in present if (number := of.find(*name)) is not None}


def _beside(of: Tree, first: int, end: int) -> dict[int, int]:
    """The last leaf before the one numbered *first*, and the leaf numbered *end*, where there are such."""
    return {number: BESIDE for number in (first - 1, end) if 0 <= number < len(of.entries)}


def honest_body(of: Tree, question: Question) -> bytes | None:
    """The body of the one proof of a question; None if the statement is false."""
    forms = honest_forms(of, question)
    return None if forms is None else encode(of, forms)


def honest(of: Tree, question: Question) -> bytes | None:
    """The one proof of a question; None if the statement is false."""
    body = honest_body(of, question)
    return None if body is None else container(question.kind, body)
