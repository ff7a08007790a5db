"""The verifiers, a function for each question about entries.

A proof is a part of the Merkle tree: what the question needs is opened, and everything else is a digest. The
question is always the caller's, and so is the root; nothing of either is taken from the proof.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sqlstate.errors import InvalidOption, ProofInvalid
from sqlstate.format import constants as fmt
from sqlstate.proof.encoding import Proof
from sqlstate.proof.entries import Key, key_of, leaf_of, named, place_of, read_value, span_of, stored_form
from sqlstate.proof.opened import ASKED, ENTRY, NEIGHBOUR, Opened, Reader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlstate.proof.entries import Place


_LEAVES: Final = {
    "present": {ASKED},
    "absent": {NEIGHBOUR},
    "range": {NEIGHBOUR, ENTRY},
    "count": {NEIGHBOUR},
    "many": {ASKED, NEIGHBOUR},
}
"""Forms of leaves that each kind of proof may open."""


def verify_present(proof: Proof | bytes, root: bytes, collection: str, key: Key, value: Any) -> None:
    """Check that under *root* the entry *key* of *collection* is there, with exactly *value*. Return None.

    Cost: one hash for each node that the proof opens; no store and no SQLite.

    Args:
        proof: from `store.prove()`.
        root: the root that the caller trusts, 32 bytes.
        collection: text of 1 to 255 bytes.
        key: an int, str or bytes.
        value: bytes, what JSON holds, or a Document. Of a typed collection, what JSON holds of the value.

    Raises:
        ProofInvalid: the proof does not show it. That does not prove the contrary.
        InvalidOption, InvalidName, InvalidKey, InvalidValue: an argument is invalid.

    Examples:
        >>> store["settings"]["lang"] = "fr"
        >>> paper, root = store.prove("settings", "lang").to_bytes(), store.head().root
        >>> sqlstate.proof.verify_present(paper, root, "settings", "lang", "fr")
        >>> sqlstate.proof.verify_present(paper, root, "settings", "lang", "de")
        Traceback (most recent call last):
        ProofInvalid: ...
    """
    place = place_of(collection, key)
    _open(proof, "present", root, [(place, leaf_of(place, *stored_form(value)))])


def verify_absent(proof: Proof | bytes, root: bytes, collection: str, key: Key) -> None:
    """Check that under *root* there is no entry *key* in *collection*. Return None.

    Cost: one hash for each node that the proof opens; no store and no SQLite.

    Args:
        proof: from `store.prove()`.
        root: the root that the caller trusts, 32 bytes.
        collection: text of 1 to 255 bytes.
        key: an int, str or bytes.

    Raises:
        ProofInvalid: the proof does not show it. That does not prove the contrary.
        InvalidOption, InvalidName, InvalidKey: an argument is invalid.

    Examples:
        >>> paper, root = store.prove("settings", "zoom"), store.head().root
        >>> sqlstate.proof.verify_absent(paper, root, "settings", "zoom")
    """
    place = place_of(collection, key)
    opened = _open(proof, "absent", root)
    opened.check_spare(opened.gap(place, absent=True).neighbours)


def verify_range(
    proof: Proof | bytes,
    root: bytes,
    collection: str,
    start: Key | None = None,
    stop: Key | None = None,
    limit: int | None = None,
) -> list[tuple[Key, Any]]:
    """Return everything that *collection* holds in [start, stop) under *root*, in order, if the proof shows it.

    Cost: one hash for each entry and node that the proof opens; no store and no SQLite.

    Args:
        proof: from `store.prove_range()` with the same bounds and limit.
        root: the root that the caller trusts, 32 bytes.
        collection: text of 1 to 255 bytes.
        start: the first key of the range; None for no bound.
        stop: the first key beyond the range; None for no bound.
        limit: 1 to 2^63-1; with that many entries returned, the proof says nothing about what comes after the last.

    Returns:
        (key, value) pairs; a value is bytes, or what its JSON document holds.

    Raises:
        ProofInvalid: the proof does not show it.
        InvalidOption, InvalidName, InvalidKey: an argument is invalid.

    Examples:
        >>> store["users"].update({1: "ada", 2: "bob", 3: "cyd"})
        >>> paper = store.prove_range("users", limit=2)
        >>> sqlstate.proof.verify_range(paper, store.head().root, "users", limit=2)
        [(1, 'ada'), (2, 'bob')]
    """
    low, high = span_of(collection, start, stop)
    check_limit(limit)
    opened = _open(proof, "range", root)
    first = opened.gap(low)
    inside = [leaf for leaf in opened.leaves[first.next :] if leaf.place < high]
    if [leaf.position for leaf in inside] != list(range(first.position, first.position + len(inside))):
        raise ProofInvalid("the proof leaves entries out of the range")
    if limit is not None and len(inside) > limit:
        raise ProofInvalid(f"the proof holds {len(inside)} entries, and the question allows {limit}")
    needed = {*first.neighbours, *range(first.next, first.next + len(inside))}
    if len(inside) != limit:
        needed |= opened.gap(high).neighbours
    opened.check_spare(needed)
    for index, leaf in enumerate(opened.leaves):
        if (leaf.content is None) == (first.next <= index < first.next + len(inside)):
            raise ProofInvalid("the proof shows a value outside the range, or lacks one inside")
    return [(key_of(leaf.place), read_value(*leaf.content)) for leaf in inside if leaf.content is not None]


def verify_count(
    proof: Proof | bytes, root: bytes, collection: str, start: Key | None = None, stop: Key | None = None
) -> int:
    """Return the number of entries that *collection* has in [start, stop) under *root*, if the proof shows it.

    The number is what the maker of the tree counted.

    Cost: one hash for each node that the proof opens; no store and no SQLite.

    Args:
        proof: from `store.prove_count()` with the same bounds.
        root: the root that the caller trusts, 32 bytes.
        collection: text of 1 to 255 bytes.
        start: the first key of the range; None for no bound.
        stop: the first key beyond the range; None for no bound.

    Raises:
        ProofInvalid: the proof does not show it.
        InvalidOption, InvalidName, InvalidKey: an argument is invalid.

    Examples:
        >>> store["users"].update({1: "ada", 2: "bob", 3: "cyd"})
        >>> sqlstate.proof.verify_count(store.prove_count("users", start=2), store.head().root, "users", start=2)
        2
    """
    low, high = span_of(collection, start, stop)
    opened = _open(proof, "count", root)
    first, last = opened.gap(low), opened.gap(high)
    opened.check_spare(first.neighbours | last.neighbours)
    return last.position - first.position


def check_limit(limit: int | None) -> None:
    """Raise InvalidOption if *limit* is not a number that a range can be limited to."""
    if limit is not None and (type(limit) is not int or not 1 <= limit <= fmt.INT_MAX):
        raise InvalidOption("a limit is a number of entries from 1 to 2^63-1")


def verify_many(
    proof: Proof | bytes,
    root: bytes,
    present: Mapping[tuple[str, Any], Any],
    absent: Iterable[tuple[str, Key]] = (),
) -> None:
    """Check that under *root* all of *present* are there with these values, and none of *absent*. Return None.

    Cost: one hash for each node that the proof opens; no store and no SQLite.

    Args:
        proof: from `store.prove_many()` with just these names.
        root: the root that the caller trusts, 32 bytes.
        present: (collection, key) to value, as for verify_present().
        absent: (collection, key) of entries that are not there; a name given twice counts once.

    Raises:
        ProofInvalid: the proof does not show all of it. That does not prove the contrary.
        InvalidOption, InvalidName, InvalidKey, InvalidValue: an argument is invalid.

    Examples:
        >>> store["users"].update({1: "ada", 2: "bob"})
        >>> paper, root = store.prove_many([("users", 1), ("users", 3)]), store.head().root
        >>> sqlstate.proof.verify_many(paper, root, {("users", 1): "ada"}, [("users", 3)])
    """
    if not isinstance(present, Mapping):
        raise InvalidOption("entries that are there are asked for as a dict of (collection, key) to value")
    there = {named(name): value for name, value in present.items()}
    gone = {named(name) for name in absent}
    if not there and not gone:
        raise InvalidOption("ask for one entry or more")
    if there.keys() & gone:
        raise InvalidOption("ask for each entry once, and for its presence or its absence")
    asked = [(place, leaf_of(place, *stored_form(there[place]))) for place in sorted(there)]
    opened = _open(proof, "many", root, asked)
    needed = {index for index, leaf in enumerate(opened.leaves) if leaf.asked}
    for place in sorted(gone):
        needed |= opened.gap(place, absent=True).neighbours
    opened.check_spare(needed)


def _open(proof: Proof | bytes, kind: str, root: bytes, asked: Iterable[tuple[Place, bytes]] = ()) -> Opened:
    """Return what *proof* opens of the tree with *root*."""
    if type(root) is not bytes or len(root) != fmt.DIGEST_BYTES:
        raise InvalidOption(f"a root is {fmt.DIGEST_BYTES} bytes; bytes.fromhex() makes them of digits")
    if not isinstance(proof, Proof):
        proof = Proof.from_bytes(proof)
    if proof.kind != kind:
        raise ProofInvalid(f"the proof is of kind {proof.kind!r}, and the question needs one of kind {kind!r}")
    return Reader(proof.body, _LEAVES[kind], asked).read(root)
