"""Proofs about a store's entries, and their verifier (docs/reference/proofs.md). Runs without SQLite.

A proof is a part of the Merkle tree: what the question needs is opened, and everything else is a digest. The
question is always the caller's, and so is the root; nothing of either is taken from the proof.
"""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from sqlstate.errors import InvalidKey, InvalidName, InvalidOption, InvalidValue, ProofInvalid
from sqlstate.format import constants as fmt

if TYPE_CHECKING:
    from collections.abc import Iterable

Key = int | str | bytes

MAGIC: Final = b"SqSp"
VERSION: Final = 1
KINDS: Final = {
    "present": b"P",
    "absent": b"A",
    "range": b"R",
    "count": b"C",
    "many": b"M",
    "commit": b"L",
    "consistency": b"K",
}
_KIND_OF: Final = {code: kind for kind, code in KINDS.items()}
_HEADER_BYTES: Final = len(MAGIC) + 2


@dataclass(frozen=True, slots=True)
class Proof:
    """What a verifier that has only the root needs to check one statement. Made by `store.prove()` and its like.

    Examples:
        >>> store["settings"]["lang"] = "fr"
        >>> paper = store.prove("settings", "lang")
        >>> paper.kind, sqlstate.Proof.from_bytes(paper.to_bytes()) == paper
        ('present', True)
    """

    kind: str
    """"present", "absent", "range", "count", "many", "commit" or "consistency"."""
    body: bytes
    """The bytes of the proof behind its header."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidOption(f"kind={self.kind!r} is none of {', '.join(KINDS)}")

    def __repr__(self) -> str:
        shown = self.body.hex() if len(self.body) <= 32 else f"{self.body[:32].hex()}…"
        return f"Proof(kind={self.kind!r}, body={shown}, {len(self.body):,} bytes)"

    def to_bytes(self) -> bytes:
        """Return the proof's one encoding as bytes.

        Cost: none.

        Examples:
            >>> store.prove("settings", "lang").to_bytes()[:8]
            b'...'
        """
        return MAGIC + bytes([VERSION]) + KINDS[self.kind] + self.body

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the proof that *data* encodes. It does not verify what the proof shows: the verify functions do.

        Cost: none.

        Args:
            data: what to_bytes() returned.

        Raises:
            ProofInvalid: *data* is not a proof of this version.

        Examples:
            >>> sqlstate.Proof.from_bytes(store.prove("settings", "lang").to_bytes()).kind
            'absent'
        """
        if type(data) is not bytes or data[: len(MAGIC)] != MAGIC or len(data) < _HEADER_BYTES:
            raise ProofInvalid("this is no proof of sqlstate")
        if data[len(MAGIC)] != VERSION:
            raise ProofInvalid(f"the proof is of version {data[len(MAGIC)]}, and this program knows version {VERSION}")
        kind = _KIND_OF.get(data[_HEADER_BYTES - 1 : _HEADER_BYTES])
        if kind is None:
            raise ProofInvalid("the proof is of a kind that there is not")
        return cls(kind, data[_HEADER_BYTES:])

    def to_json(self) -> str:
        """Return the proof as one JSON object without white space: its one form as text.

        Cost: none.

        Examples:
            >>> store.prove("settings", "lang").to_json()
            '{"sqlstate":"proof","version":1,"kind":"absent","body":"..."}'
        """
        return f"{_json_head(self.kind)}{base64.b64encode(self.body).decode()}{_JSON_END}"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the proof that to_json() wrote; one line end may follow it.

        Cost: none.

        Args:
            text: what to_json() returned.

        Raises:
            ProofInvalid: *text* is anything else.

        Examples:
            >>> sqlstate.Proof.from_json(store.prove("settings", "lang").to_json()).kind
            'absent'
        """
        # There is one spelling, so nothing is parsed: a parser would build what a stranger wrote before it is refused.
        kind = next((each for each in KINDS if text.startswith(_json_head(each))), None) if type(text) is str else None
        end = len(text.removesuffix("\n")) - len(_JSON_END) if kind else 0
        if kind and text.startswith(_JSON_END, end):
            encoded = text[len(_json_head(kind)) : end]
            try:
                body = base64.b64decode(encoded, validate=True)
            except ValueError:  # binascii.Error is one
                body = b""
            if base64.b64encode(body) == encoded.encode("ascii", "replace"):
                return cls(kind, body)
        raise ProofInvalid("this is no proof of sqlstate as JSON")


_JSON_END: Final = '"}'


def _json_head(kind: str) -> str:
    return f'{{"sqlstate":"proof","version":{VERSION},"kind":"{kind}","body":"'


class Document(str):
    """A JSON document exactly as it is stored, in place of a value whose text is known.

    Examples:
        >>> store["settings"]["size"] = [1, 2]
        >>> paper, root = store.prove("settings", "size"), store.head().root
        >>> sqlstate.proof.verify_present(paper, root, "settings", "size", sqlstate.proof.Document("[1,2]"))
    """

    __slots__ = ()


# ---- The questions ----


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
    place = _place(collection, key)
    _open(proof, "present", root, [(place, _leaf(place, *_stored(value)))])


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
    place = _place(collection, key)
    opened = _open(proof, "absent", root)
    opened.check_spare(opened.gap(place, absent=True).beside)


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
    low, high = _span(collection, start, stop)
    check_limit(limit)
    opened = _open(proof, "range", root)
    first = opened.gap(low)
    inside = [leaf for leaf in opened.leaves[first.next :] if leaf.place < high]
    if [leaf.position for leaf in inside] != list(range(first.position, first.position + len(inside))):
        raise ProofInvalid("the proof leaves entries out of the range")
    if limit is not None and len(inside) > limit:
        raise ProofInvalid(f"the proof holds {len(inside)} entries, and the question allows {limit}")
    needed = {*first.beside, *range(first.next, first.next + len(inside))}
    if len(inside) != limit:
        needed |= opened.gap(high).beside
    opened.check_spare(needed)
    for index, leaf in enumerate(opened.leaves):
        if (leaf.content is None) == (first.next <= index < first.next + len(inside)):
            raise ProofInvalid("the proof shows a value outside the range, or lacks one inside")
    return [(_key(leaf.place), read_value(*leaf.content)) for leaf in inside if leaf.content is not None]


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
    low, high = _span(collection, start, stop)
    opened = _open(proof, "count", root)
    first, last = opened.gap(low), opened.gap(high)
    opened.check_spare(first.beside | last.beside)
    return last.position - first.position


def check_limit(limit: int | None) -> None:
    """Raise InvalidOption if *limit* is no limit of a range."""
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
    there = {_named(name): value for name, value in present.items()}
    gone = {_named(name) for name in absent}
    if not there and not gone:
        raise InvalidOption("ask for one entry or more")
    if there.keys() & gone:
        raise InvalidOption("ask for each entry once, and for its presence or its absence")
    asked = [(place, _leaf(place, *_stored(there[place]))) for place in sorted(there)]
    opened = _open(proof, "many", root, asked)
    needed = {index for index, leaf in enumerate(opened.leaves) if leaf.asked}
    for place in sorted(gone):
        needed |= opened.gap(place, absent=True).beside
    opened.check_spare(needed)


# ---- Names and values ----

# Collection, class and bytes of a key: Python orders such triples as the tree orders entries.
_Place = tuple[bytes, int, bytes]
# Kind of a value, and its bytes.
_Content = tuple[bytes, bytes]

_KEY_KINDS: Final = (fmt.KIND_INT, fmt.KIND_STR, fmt.KIND_BYTES)
_BEYOND: Final = len(_KEY_KINDS)


def _named(name: tuple[str, Key]) -> _Place:
    if not isinstance(name, tuple | list) or len(name) != 2:
        raise InvalidOption(f"an entry is asked for as (collection, key), not {name!r}")
    return _place(*name)


def _place(collection: str, key: Key) -> _Place:
    """Return the place of an entry."""
    cls, raw = _bound(key)
    if not raw:
        raise InvalidKey("a key has 1 byte or more")
    return _collection(collection), cls, raw


def _collection(collection: str) -> bytes:
    if type(collection) is not str:
        raise InvalidName(f"a collection's name is a str, not {type(collection).__name__}")
    try:
        raw = collection.encode()
    except UnicodeEncodeError:
        raise InvalidName(f"{collection!r} holds a lone surrogate, which is not text in UTF-8") from None
    if not 1 <= len(raw) <= fmt.NAME_BYTES_MAX:
        raise InvalidName(f"a collection's name has 1 to {fmt.NAME_BYTES_MAX} bytes in UTF-8, this one {len(raw)}")
    return raw


def _bound(key: Key) -> tuple[int, bytes]:
    """Return class and bytes of a key, or of a bound of keys, which may be empty."""
    if type(key) is int:
        if not fmt.INT_MIN <= key <= fmt.INT_MAX:
            raise InvalidKey("an int key is from -2^63 to 2^63-1")
        return 0, (key - fmt.INT_MIN).to_bytes(8)
    try:
        cls, raw = (1, key.encode()) if type(key) is str else (2, key)
    except UnicodeEncodeError:
        raise InvalidKey("a key holds a lone surrogate, which is not text in UTF-8") from None
    if type(raw) is not bytes:
        raise InvalidKey(f"a key is an int, str or bytes, not {type(key).__name__}")
    if len(raw) > fmt.KEY_BYTES_MAX:
        raise InvalidKey(f"a key has at most {fmt.KEY_BYTES_MAX:,} bytes, this one {len(raw):,}")
    return cls, raw


def _span(collection: str, start: Key | None, stop: Key | None) -> tuple[_Place, _Place]:
    """Return the places between which a span lies."""
    name = _collection(collection)
    low = (name, *(_bound(fmt.INT_MIN if start is None else start)))
    high = (name, *((_BEYOND, b"") if stop is None else _bound(stop)))
    if low >= high:
        raise InvalidOption("the span is empty, whatever the store holds: its start is not before its stop")
    return low, high


def _leaf(place: _Place, kind: bytes, value: bytes) -> bytes:
    return _leaf_digest(place, kind, sha256(value).digest())


def _leaf_digest(place: _Place, kind: bytes, digest: bytes) -> bytes:
    collection, cls, raw = place
    name = len(collection).to_bytes(4) + collection + _KEY_KINDS[cls] + len(raw).to_bytes(4) + raw
    return sha256(fmt.TAG_LEAF + name + kind + digest).digest()


def _key(place: _Place) -> Key:
    _, cls, raw = place
    if cls == 0:
        return int.from_bytes(raw) + fmt.INT_MIN
    return raw.decode() if cls == 1 else raw


def read_value(kind: bytes, stored: bytes) -> Any:
    """Return the value of which a range holds these bytes.

    Raises:
        ProofInvalid: they are no document (docs/reference/file-format.md, section 3.2).
    """
    if kind == fmt.VKIND_BYTES:
        return stored
    try:
        text = stored.decode()
        value = json.loads(text, parse_int=_int, parse_float=_finite, parse_constant=_refuse)
    except RecursionError:
        if _depth(text) <= fmt.JSON_DEPTH_MAX:
            raise  # the caller's stack is used up
    except ValueError:
        pass
    else:
        if _depth(text) <= fmt.JSON_DEPTH_MAX and not _has_surrogates(text):
            return value
    raise ProofInvalid("a value under this root is no JSON document that a store holds")


_STRING: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"')


def _depth(text: str) -> int:
    """Return how deep the arrays and objects of a JSON document are nested."""
    if text.count("[") + text.count("{") <= fmt.JSON_DEPTH_MAX:
        return 0  # no more than that
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _has_surrogates(text: str) -> bool:
    """Tell whether a string of a JSON document has a surrogate without its other half, as an escape."""
    if not re.search(r"\\u[dD]", text):
        return False
    return any(re.search("[\ud800-\udfff]", json.loads(string)) for string in _STRING.findall(text))


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(digits)
    return number


def _int(digits: str) -> int:
    _finite(digits)  # before Python's own limit on digits, which a program can change
    return int(digits)


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _stored(value: Any) -> _Content:
    """Return kind and bytes of a value as the store keeps it."""
    if type(value) is bytes:
        return fmt.VKIND_BYTES, value
    try:
        return fmt.VKIND_JSON, (value if type(value) is Document else _json(value)).encode()
    except UnicodeEncodeError:
        raise InvalidValue("holds a lone surrogate, which is not text in UTF-8") from None
    except RecursionError:
        raise InvalidValue(f"nested more than {fmt.JSON_DEPTH_MAX} levels deep") from None


def _json(value: Any) -> str:
    """Return the one JSON document that the store keeps for *value*: members sorted, no white space."""
    if type(value) is float and isfinite(value):
        return _float(value)
    if type(value) is list:
        return f"[{','.join(map(_json, value))}]"
    if type(value) is dict and all(type(name) is str for name in value):
        return f"{{{','.join(f'{_text(name)}:{_json(value[name])}' for name in sorted(value))}}}"
    if type(value) is str:
        return _text(value)
    if type(value) is int and not fmt.JSON_INT_MIN <= value <= fmt.JSON_INT_MAX:
        raise InvalidValue("an int in JSON is from -2^63 to 2^64-1")
    if value is None or type(value) is bool or type(value) is int:
        return json.dumps(value)
    raise InvalidValue(f"{type(value).__name__} is nothing that the store keeps as JSON")


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _float(number: float) -> str:
    """Return the shortest digits that read back as *number*, in the form of the store's encoder."""
    mantissa, _, exponent = repr(number).partition("e")
    if not exponent:
        return mantissa
    if int(exponent) == _PLAIN_EXPONENT:
        sign = "-" if number < 0 else ""
        return f"{sign}0.0000{mantissa.removeprefix('-').replace('.', '')}"
    return f"{mantissa}e{int(exponent)}"


# Python writes numbers below 10^-4 with an exponent, the store's encoder those below 10^-5.
_PLAIN_EXPONENT: Final = -5


# ---- The tree that a proof opens ----

# Forms of a child in a proof.
OPAQUE, NODE, ASKED, NEIGHBOUR, ENTRY = range(5)
_LEAVES: Final = {
    "present": {ASKED},
    "absent": {NEIGHBOUR},
    "range": {NEIGHBOUR, ENTRY},
    "count": {NEIGHBOUR},
    "many": {ASKED, NEIGHBOUR},
}
EMPTY_ROOT: Final = sha256(fmt.TAG_NODE + b"\x01").digest()
_COUNT_MAX: Final = 2 ** (8 * fmt.COUNT_BYTES) - 1


class _Opened(NamedTuple):
    """One leaf that a proof opens."""

    position: int
    """How many entries come before it."""
    place: _Place
    asked: bool
    content: _Content | None


class _Gap(NamedTuple):
    """Where a place falls among the leaves."""

    next: int
    """Index of the first leaf that is not before it."""
    position: int
    """How many entries come before it."""
    beside: set[int]
    """Indexes of the leaves that show it."""


class _Part:
    """What a proof opens of a tree whose root the caller trusts: leaves in order, and how many entries there are."""

    def __init__(self, leaves: list[_Opened], total: int) -> None:
        self.leaves = leaves
        self._total = total
        self._places = [leaf.place for leaf in leaves]
        if any(not before < after for before, after in pairwise(self._places)):
            raise ProofInvalid("the entries under this root are not in order")

    def gap(self, place: _Place, *, absent: bool = False) -> _Gap:
        """Return where *place* falls between two leaves with no entry between them.

        Raises:
            ProofInvalid: the proof does not show it; or, with *absent*, there is an entry at the place.
        """
        leaves, index = self.leaves, bisect_left(self._places, place)
        position = leaves[index].position if index < len(leaves) else self._total
        if position != (leaves[index - 1].position + 1 if index else 0):
            raise ProofInvalid("the proof does not show what lies on both sides of a key or bound of the question")
        if absent and index < len(leaves) and leaves[index].place == place:
            raise ProofInvalid("there is an entry with the key that is asked for")
        return _Gap(index, position, {each for each in (index - 1, index) if 0 <= each < len(leaves)})

    def check_spare(self, needed: set[int]) -> None:
        """Raise ProofInvalid if a leaf was opened that the question does not need."""
        if len(needed) != len(self.leaves):
            raise ProofInvalid("the proof opens what the question does not need")


class _Reader:
    """Reads the part of a tree that a proof opens, and hashes it.

    Args:
        data: the body of the proof.
        allowed: forms of leaves that its kind may have.
        asked: place and leaf of the entries that the question holds, in order.
    """

    def __init__(self, data: bytes, allowed: set[int], asked: Iterable[tuple[_Place, bytes]]) -> None:
        self._data = data
        self._at = 0
        self._allowed = allowed
        self._asked = iter(asked)
        self._leaves: list[_Opened] = []
        self._position = 0

    def read(self, root: bytes) -> _Part:
        """Return what the proof opens, if all of it leads to *root*.

        Raises:
            ProofInvalid: it does not, or is not in its one encoding.
        """
        level = self._take(1)[0]
        if level > fmt.LEVEL_MAX:
            raise ProofInvalid(f"the proof has a tree of {level} levels, and there are at most {fmt.LEVEL_MAX}")
        digest = self._node(level, top=True) if level else EMPTY_ROOT
        if self._at != len(self._data):
            raise ProofInvalid("there are bytes behind the proof")
        if digest != root:
            raise ProofInvalid(
                "the proof leads to another root: what it was asked to show does not follow from this one"
            )
        if next(self._asked, None) is not None:
            raise ProofInvalid("the proof does not show every entry that is asked for")
        return _Part(self._leaves, self._position)

    def _node(self, level: int, *, top: bool = False) -> bytes:
        """Read a node, and return its digest."""
        number = self._number(4)
        if number < (2 if top and level > 1 else 1):
            raise ProofInvalid("the proof has a node with fewer children than it must have")
        opened = len(self._leaves)
        hashed = sha256(fmt.TAG_NODE + bytes([level]))
        for _ in range(number):
            before = self._position
            child = self._child(level)
            if self._position > _COUNT_MAX:
                raise ProofInvalid("the proof counts more entries than a store can have")
            hashed.update((self._position - before).to_bytes(fmt.COUNT_BYTES) + child)
        if len(self._leaves) == opened:
            raise ProofInvalid("the proof opens a node of the tree for nothing")
        return hashed.digest()

    def _child(self, level: int) -> bytes:
        """Read a child of a node of *level*, count its entries, and return its digest."""
        form = self._take(1)[0]
        if form == OPAQUE:
            count = self._number(fmt.COUNT_BYTES)
            if not count or (level == 1 and count > 1):
                raise ProofInvalid("the proof counts a part of the tree wrongly")
            self._position += count
            return self._take(fmt.DIGEST_BYTES)
        if form == NODE and level > 1:
            return self._node(level - 1)
        if form not in self._allowed or level > 1:
            raise ProofInvalid("the proof has a part that does not belong there")
        return self._read_leaf(form)

    def _read_leaf(self, form: int) -> bytes:
        content = None
        if form == ASKED:
            place, digest = next(self._asked, (None, b""))
            if place is None:
                raise ProofInvalid("the proof shows more entries than are asked for")
        else:
            place, kind = self._name(), self._take(1)
            if kind not in (fmt.VKIND_JSON, fmt.VKIND_BYTES):
                raise ProofInvalid("the proof has a value of a kind that there is not")
            if form == ENTRY:
                content = kind, self._field(fmt.VALUE_BYTES_MAX)
                digest = _leaf(place, *content)
            else:
                digest = _leaf_digest(place, kind, self._take(fmt.DIGEST_BYTES))
        self._leaves.append(_Opened(self._position, place, form == ASKED, content))
        self._position += 1
        return digest

    def _name(self) -> _Place:
        collection = self._field(fmt.NAME_BYTES_MAX)
        cls = _KEY_KINDS.index(kind) if (kind := self._take(1)) in _KEY_KINDS else _BEYOND
        raw = self._field(fmt.KEY_BYTES_MAX)
        try:
            collection.decode()
            if cls == 1:
                raw.decode()
        except UnicodeDecodeError:
            cls = _BEYOND
        if cls == _BEYOND or not collection or not raw or (cls == 0 and len(raw) != _INT_BYTES):
            raise ProofInvalid("the proof has a name that no entry can have")
        return collection, cls, raw

    def _field(self, limit: int) -> bytes:
        size = self._number(4)
        if size > limit:
            raise ProofInvalid(f"the proof has a part of {size} bytes, and the limit is {limit}")
        return self._take(size)

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size))

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise ProofInvalid("the proof is cut short")
        self._at += size
        return taken


_INT_BYTES: Final = 8


def _open(proof: Proof | bytes, kind: str, root: bytes, asked: Iterable[tuple[_Place, bytes]] = ()) -> _Part:
    """Return what *proof* opens of the tree with *root*."""
    if type(root) is not bytes or len(root) != fmt.DIGEST_BYTES:
        raise InvalidOption(f"a root is {fmt.DIGEST_BYTES} bytes; bytes.fromhex() makes them of digits")
    if not isinstance(proof, Proof):
        proof = Proof.from_bytes(proof)
    if proof.kind != kind:
        raise ProofInvalid(f"the proof is of kind {proof.kind!r}, and the question needs one of kind {kind!r}")
    return _Reader(proof.body, _LEAVES[kind], asked).read(root)
