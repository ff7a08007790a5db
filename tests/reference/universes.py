"""Small stores whose keys are chosen so that few of them give every shape of tree, and all questions about them.

A universe is written as one line for each entry: collection, kind of key, rank. The key is then looked for.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import chain, combinations, count, product
from typing import TYPE_CHECKING, TypeVar

from tests.reference import plain
from tests.reference.proving import Question, Tree, tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.reference.plain import Key, Name, Value

T = TypeVar("T")

SHAPES: dict[str, list[tuple[str, str, int]]] = {
    "empty": [],
    "one entry": [("c", "t", 0)],
    "one entry of rank 2": [("c", "i", 2)],
    "one run": [("c", "t", 0)] * 4,
    "two levels": [("c", "t", 0), ("c", "t", 1), ("c", "t", 0), ("c", "t", 1)],
    "three levels": [("c", "t", rank) for rank in (0, 1, 0, 0, 2, 1, 0, 1)],
    "three levels, all in the middle": [("c", "i", rank) for rank in (1, 0, 2, 0, 2, 0)],
    "nodes with one child": [("c", "t", 0), ("c", "i", 3), ("c", "t", 0), ("c", "t", 1)],
    "collections and kinds of keys": [
        ("a", "i", 0),
        ("a", "t", 1),
        ("a", "b", 0),
        ("a\0", "b", 1),
        ("b", "i", 2),
        ("b", "t", 0),
        ("\u00e9", "t", 1),
        ("\U0001f511", "b", 0),
    ],
}
VALUES: list[Value] = ["1", b"1", '"\u00e9\U0001f511"', b"", "null", '{"a":[1.5,true],"b":null}', "[]", b"\xff" * 40]


@cache
def universe(name: str) -> Tree:
    """The tree of a universe."""
    entries = [
        (collection, _key(collection, kind, number, rank), VALUES[number])
        for number, (collection, kind, rank) in enumerate(SHAPES[name])
    ]
    return tree(entries)


def _key(collection: str, kind: str, number: int, rank: int) -> Key:
    """The first key of this rank that stands behind those of lower numbers."""
    for tried in count():
        text = f"{number}{tried:x}"
        keys: dict[str, Key] = {"i": (number - 3) * 2**32 + tried, "t": text, "b": text.encode()}
        key = keys[kind]
        if plain.rank(collection, key) == rank:
            return key
    raise AssertionError


def behind(key: Key) -> Key:
    """The next key, which no universe holds."""
    if isinstance(key, int):
        return key + 1
    return key + "\0" if isinstance(key, str) else key + b"\0"


def gaps(of: Tree) -> list[Name]:
    """A name of no entry for each gap: behind each entry, before all, in collections that are not there."""
    names = [(collection, behind(key)) for collection, key, _ in of.entries]
    others: list[Name] = [("C", b"\xff"), ("\U0001f512", -5)]
    return [*names, *others, *((collection, -(2**63)) for collection in _collections(of))]


def _collections(of: Tree) -> list[str]:
    return list(dict.fromkeys(collection for collection, _, _ in of.entries)) or ["c"]


def bounds(of: Tree, collection: str) -> list[Key]:
    """Bounds at and behind each entry of a collection, and the least ones of str and bytes."""
    keys = [key for own, key, _ in of.entries if own == collection]
    return sorted({*keys, *map(behind, keys), "", b""}, key=lambda key: plain.sort_key("", key))


def spans(of: Tree) -> Iterator[Question]:
    """Every span that these bounds make, in each collection and in one that is not there; as counts."""
    for collection in [*_collections(of), "between"]:
        edges = bounds(of, collection)
        yield Question("count", collection)
        for edge in edges:
            yield Question("count", collection, start=edge)
            yield Question("count", collection, stop=edge)
        for start, stop in combinations(edges, 2):
            yield Question("count", collection, start=start, stop=stop)


def ranges(of: Tree, limits: Iterable[int] | None = None) -> Iterator[Question]:
    """Every span without and with limits, every limit up to one more than it holds unless they are given."""
    for span in spans(of):
        held = of.below(span.end()) - of.below(span.first())
        chosen = range(1, held + 2) if limits is None else sorted({min(limit, held + 1) for limit in limits})
        for limit in [None, *chosen]:
            yield replace(span, kind="range", limit=limit)


def presences(of: Tree) -> Iterator[Question]:
    """Each entry with its value and with others, and names that are not there."""
    for collection, key, value in of.entries:
        for said in {value, b"other", "true", value if isinstance(value, bytes) else value.encode()}:
            yield Question("present", collection, key, said)
    for collection, key in gaps(of):
        yield Question("present", collection, key, VALUES[0])


def absences(of: Tree) -> Iterator[Question]:
    """Each name that is not there, and those that are."""
    for collection, key in chain(gaps(of), (entry[:2] for entry in of.entries)):
        yield Question("absent", collection, key)


def manies(of: Tree) -> Iterator[Question]:
    """Every choice of entries and of gaps behind them, asked at once."""
    free = gaps(of)[: len(of.entries)] or gaps(of)[:1]
    for present, absent in product(subsets(of.entries), subsets(free)):
        if present or absent:
            yield Question("many", present=present, absent=absent)
    for collection, key, _ in of.entries:
        yield Question("many", present=((collection, key, b"other"),), absent=tuple(free[:1]))
        yield Question("many", absent=((collection, key), *free[:1]))
    for collection, key in free:
        yield Question("many", present=(*of.entries[:1], (collection, key, b"")))


def subsets(of: Iterable[T]) -> Iterator[tuple[T, ...]]:
    """Every subset, the empty one first."""
    pool = list(of)
    return chain.from_iterable(combinations(pool, size) for size in range(len(pool) + 1))
