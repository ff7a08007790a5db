"""What a check finds, and the rows of the table state against the stored tree (I1 to I3).

A node proves itself when its digest stands in the node above, up to the recorded root. Who differs from what is
proven is damaged: an entry, or a node where the entries below it give the digest that is proven.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import EMPTY_ROOT, FIRST, RootBuilder, count_of, leaf, node_digest, rank
from sqlstate.format.names import name_bytes, stored_name
from sqlstate.proving.entries import is_document
from sqlstate.tables import merkle as tree
from sqlstate.tables import state, wal
from sqlstate.tables.raw_rows import are_children, is_entry_name, is_level, is_node_name, is_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlstate.format.names import Key, Name
    from sqlstate.sqlite.connection import Connection, Row
    from sqlstate.tables.wal import Head

FINDINGS_MAX: Final = 10_000
ROWS_AT_ONCE: Final = 4096
_ONE: Final = (1).to_bytes(fmt.COUNT_BYTES)
_WINDOW: Final = 64
_WINDOW_MAX: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a store."""

    kind: str
    """`"sqlite"`, `"schema"`, `"meta"`, `"entry"`, `"missing"`, `"extra"`, `"node"`, `"root"`, `"commit"`, `"record"`,
    `"staged"`, `"audit"`, `"block"`, `"against"` or `"unreadable"`."""
    what: str
    """One sentence; it begins with the number of the invariant that does not hold, where there is one."""
    collection: str | None = None
    """Of the entry, where one is named."""
    key: Key | None = None
    seq: int | None = None
    """Number of the commit, where one is named."""
    lsn: int | None = None
    """Number of the record of the write-ahead log, where one is named."""
    expected: bytes | None = None
    """Digest that the tree proves should be there: of a leaf, or of a node."""
    level: int | None = None
    """Of a node."""
    place: Name | None = None
    """Of a node: the name in its row."""


class Findings:
    """Findings as they come, of very many only the first."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.more = 0

    def add(self, kind: str, what: str, **where: Any) -> None:
        """Keep one more, or count it; *where* are further fields of Finding."""
        self.keep(Finding(kind, what, **where))

    def keep(self, finding: Finding) -> None:
        """Keep one more, or count it."""
        if len(self.kept) < FINDINGS_MAX:
            self.kept.append(finding)
        else:
            self.more += 1


def read_on(plain: Iterator[Row], verbatim: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Yield the rows of *plain*; from a text on that is no UTF-8 those of *verbatim*, which reads the same slower."""
    done = 0
    try:
        for row in plain:
            done += 1
            yield row
    except Damaged as e:
        if not isinstance(e.__cause__, UnicodeDecodeError):
            raise
    else:
        return
    yield from islice(verbatim(), done, None)


def leaf_of(row: Row) -> bytes:
    """Return the leaf of a row of state; nothing if it is no entry."""
    collection, key, value = row
    if is_entry_name(collection, key) and is_stored(value):
        return leaf(name_bytes(stored_name(collection, key)), value)
    return b""


def shown(collection: Any, key: Any) -> str:
    """Return the name of an entry for a sentence."""
    text = f"{collection!r}[{key!r}]"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_SHOWN: Final = 200


def named(collection: Any, key: Any) -> dict[str, Any]:
    """Return what names an entry in a Finding, as far as it is one."""
    return {
        "collection": collection if type(collection) is str else None,
        "key": key if type(key) in (int, str, bytes) else None,
    }


def compare(connection: Connection, head: Head, findings: Findings, advance: Callable[[int], None]) -> tuple[int, int]:
    """Compare tree with head, and entries with tree; return how many rows there are of state and of merkle."""
    levels = _read_levels(connection, findings, advance)
    nodes = sum(len(level.places) for level in levels.values())
    slots = _Judge(levels, head, findings).judge()
    if slots is None and levels:
        _check_names(levels, findings)
    no_documents: list[Row] = []
    rows = _noting(read_on(state.scan_all(connection), partial(state.scan_verbatim, connection)), no_documents)
    if not levels:
        count = _without_tree(rows, head, findings, advance)
    else:
        entries = _Entries(rows, advance)
        blocks = _Comparison(entries, findings, judged=slots is not None).run(
            _slots(connection, levels.get(1) or _Level(), slots)
        )
        _blame(connection, blocks, findings)
        count = entries.count
    blamed = {(each.collection, each.key) for each in findings.kept}
    for name in no_documents:
        if name not in blamed:
            findings.add("entry", f"I1: {shown(*name)} is not a JSON document", **named(*name))
    return count, nodes


def _noting(rows: Iterator[Row], no_documents: list[Row]) -> Iterator[Row]:
    """Yield *rows*, and note the names of those whose text is not a document, which no digest shows."""
    for row in rows:
        if type(row[2]) is str and not is_document(row[2]) and len(no_documents) < FINDINGS_MAX:
            no_documents.append(row[:2])
        yield row


# ---- The tree by itself ----


class _Level:
    """The rows of one level: what each makes, u64(count) ‖ digest, its name, and all their children joined."""

    def __init__(self) -> None:
        self.made: list[bytes] = []
        self.places: list[tuple[str, Any]] = []
        self.said = bytearray()
        self.lengths: list[int] = []
        self._starts: list[int] = []

    def children(self, number: int) -> bytes:
        """Return the children of one row."""
        if len(self._starts) < len(self.lengths):
            self._starts = [0, *accumulate(self.lengths)]
        return bytes(self.said[self._starts[number] : self._starts[number + 1]])


def _read_levels(connection: Connection, findings: Findings, advance: Callable[[int], None]) -> dict[int, _Level]:
    levels: dict[int, _Level] = {}
    waiting = 0
    for id_, level, collection, key, children in _node_rows(connection):
        waiting += 1
        if waiting == ROWS_AT_ONCE:
            advance(waiting)
            waiting = 0
        place = _place(collection, key)
        if place is None or not _is_node(level, collection, key, children):
            where = {"level": level if type(level) is int else None, "place": place}
            findings.add("node", f"I2: node {_at(collection, key)} of level {level!r} is none", **where)
            continue
        if id_ >> fmt.NODE_ID_SHIFT != fmt.LEVEL_MAX - level:
            what = f"I2: node {_at(collection, key)} of level {level} has the id {id_}, which is of another level"
            findings.add("node", what, level=level, place=place)
        found = levels.setdefault(level, _Level())
        count = len(children) // fmt.CHILD_BYTES if level == 1 else count_of(children)
        found.made.append((count % 2**64).to_bytes(fmt.COUNT_BYTES) + node_digest(level, children))
        found.places.append((collection, key))
        found.lengths.append(len(children))
        if level > 1:
            found.said += children
    advance(waiting)
    return levels


def _node_rows(connection: Connection) -> Iterator[Row]:
    return read_on(tree.rows(connection), partial(tree.rows, connection, verbatim_=True))


def _is_node(level: Any, collection: Any, key: Any, children: Any) -> bool:
    return is_level(level) and are_children(children) and is_node_name(collection, key)


def _leaf_nodes(connection: Connection) -> Iterator[tuple[tuple[str, Any], bytes]]:
    """Yield name and children of the nodes of level 1, without rows that are none."""
    for _, level, collection, key, children in _node_rows(connection):
        if level == 1 and _is_node(level, collection, key, children):
            yield (collection, key), children


def _place(collection: Any, key: Any) -> Name | None:
    return stored_name(collection, key) if is_node_name(collection, key) else None


def _at(collection: Any, key: Any) -> str:
    return "at the start" if (collection, key) == (FIRST[0], FIRST[2]) else f"at {shown(collection, key)}"


class _Slot(NamedTuple):
    """The place of a node of level 1: its row, None if there is none, and what is proven to be there, or nothing."""

    row: int | None
    expected: bytes
    proven: bool


class _Judge:
    """Says from the top down which nodes prove themselves, and blames those that do not."""

    def __init__(self, levels: dict[int, _Level], head: Head, findings: Findings) -> None:
        self._levels = levels
        self._head = head
        self._findings = findings

    def judge(self) -> list[_Slot] | None:
        """Return the places of level 1; None if every node proves itself."""
        levels, head = self._levels, self._head
        root = head.count.to_bytes(fmt.COUNT_BYTES) + head.root
        if not levels:
            if head.root != EMPTY_ROOT or head.count:
                what = f"I2: there are no nodes, and commit {head.seq} says that there are {head.count} entries"
                self._findings.add("node", what, expected=head.root)
            return None
        top = next((level for level in sorted(levels) if levels[level].made == [root]), max(levels))
        sound = levels[top].made == [root] and top == max(levels) and sorted(levels) == list(range(1, top + 1))
        if sound and all(bytes(levels[up].said) == b"".join(levels[up - 1].made) for up in range(2, top + 1)):
            return None
        for level in sorted(levels):
            if level > top:
                self._extra(level, range(len(levels[level].made)))
        return self._descend(top, root)

    def _descend(self, top: int, root: bytes) -> list[_Slot]:
        expected: list[tuple[bytes, bool]] = [(root, True)]
        gap = False
        slots: list[_Slot] = []
        for level in range(top, 0, -1):
            rows = self._levels.get(level) or _Level()
            pairs, moved = _aligned([each for each, _ in expected], rows.made)
            self._moved(level, moved)
            slots, below = [], []
            extra = []
            for place, number in pairs:
                wanted, proven = expected[place] if place is not None else (b"", False)
                if number is None:
                    gap = True
                    what = f"I2: a node of level {level} is missing, over {_count(wanted)} entries"
                    self._findings.add("node", what, level=level, expected=wanted[fmt.COUNT_BYTES :] or None)
                    slots.append(_Slot(None, wanted, proven))
                    continue
                if place is None and not gap:
                    extra.append(number)
                    continue
                agrees = rows.made[number] == wanted
                if wanted and not agrees:
                    self._differs(level, number, wanted, proven=proven, is_top=level == top)
                slots.append(_Slot(number, wanted if proven else b"", proven and agrees))
                if level > 1:
                    children = rows.children(number)
                    below += [(each, proven and agrees) for each in _cut(children)]
            self._extra(level, extra)
            expected = below
        return slots

    def _differs(self, level: int, number: int, wanted: bytes, *, proven: bool, is_top: bool) -> None:
        """Blame the row of a node that is not what the node above, or the head, says."""
        rows = self._levels[level]
        where = {"level": level, "place": stored_name(*rows.places[number])}
        if is_top and self._agrees_below(level):
            head = self._head
            what = (
                f"I3: commit {head.seq} records the root {head.root.hex()} and {head.count} entries; the tree has "
                f"{rows.made[number][fmt.COUNT_BYTES :].hex()} and {_count(rows.made[number])}"
            )
            self._findings.add("root", what, seq=head.seq)
            return
        if not proven and self._mends(level + 1, wanted, rows.made[number]):
            return  # the row above is the damaged one: with this one's digest it would be what is proven
        by = "" if proven else ", which does not prove itself either"
        what = f"I2: node {_at(*rows.places[number])} of level {level} is not what the node above says{by}"
        digest = wanted[fmt.COUNT_BYTES :] if proven else None
        self._findings.add("node", what, expected=digest, **where)

    def _agrees_below(self, top: int) -> bool:
        levels = self._levels
        return all(
            up - 1 in levels and up in levels and bytes(levels[up].said) == b"".join(levels[up - 1].made)
            for up in range(2, top + 1)
        )

    def _mends(self, level: int, wrong: bytes, right: bytes) -> bool:
        """Tell whether a node of *level* with *right* for its child *wrong* would be what is proven of it."""
        rows = self._levels.get(level) or _Level()
        above = self._levels.get(level + 1)
        proven = set(_cut(bytes(above.said))) if above else {self._head.count.to_bytes(8) + self._head.root}
        for number in range(len(rows.made)):
            children = rows.children(number)
            if wrong not in _cut(children) or rows.made[number] in proven:
                continue
            mended = children.replace(wrong, right, 1)
            made = (count_of(mended) % 2**64).to_bytes(fmt.COUNT_BYTES) + node_digest(level, mended)
            if made in proven:
                return True
        return False

    def _moved(self, level: int, numbers: set[int]) -> None:
        for number in numbers:
            place = self._levels[level].places[number]
            what = f"I2: node {_at(*place)} of level {level} has a name that is not its first entry's"
            digest = self._levels[level].made[number][fmt.COUNT_BYTES :]
            self._findings.add("node", what, level=level, place=stored_name(*place), expected=digest)

    def _extra(self, level: int, numbers: Iterable[int]) -> None:
        for number in numbers:
            place = self._levels[level].places[number]
            what = f"I2: node {_at(*place)} of level {level} is not in the tree"
            self._findings.add("node", what, level=level, place=stored_name(*place))


def _count(child: bytes) -> int:
    return int.from_bytes(child[: fmt.COUNT_BYTES])


def _cut(children: bytes) -> list[bytes]:
    return [children[at : at + fmt.CHILD_BYTES] for at in range(0, len(children), fmt.CHILD_BYTES)]


def _aligned(expected: Sequence[bytes], made: Sequence[bytes]) -> tuple[list[tuple[int | None, int | None]], set[int]]:
    """Pair what should be there with what is: equal ones, moved ones, and in the gaps between, one after the other.

    Returns the pairs, and what was moved.
    """
    place = {each: number for number, each in enumerate(expected)}
    known = [(place[each], number) for number, each in enumerate(made) if each in place]
    anchors = _ascending(known)
    moved = {at: number for at, number in known if (at, number) not in anchors}
    used = set(moved.values())
    pairs: list[tuple[int | None, int | None]] = []
    next_expected = next_made = 0
    for at, number in [*sorted(anchors), (len(expected), len(made))]:
        left: list[int] = []
        for each in range(next_expected, at):
            if each in moved:
                pairs.append((each, moved[each]))
            else:
                left.append(each)
        right = [each for each in range(next_made, number) if each not in used]
        both = min(len(left), len(right))
        pairs += zip(left[:both], right[:both], strict=True)
        pairs += [(each, None) for each in left[both:]] + [(None, each) for each in right[both:]]
        if at < len(expected):
            pairs.append((at, number))
        next_expected, next_made = at + 1, number + 1
    return (sorted(pairs, key=lambda pair: (pair[0] is None, pair[0] or 0)) if moved else pairs), used


def _ascending(pairs: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return the longest part of *pairs*, sorted by their second, whose first grow."""
    ends: list[int] = []
    last: list[int] = []
    before: list[int] = []
    for number, (at, _) in enumerate(pairs):
        length = bisect_left(ends, at)
        before.append(last[length - 1] if length else -1)
        ends[length : length + 1] = [at]
        last[length : length + 1] = [number]
    found = set()
    number = last[-1] if last else -1
    while number >= 0:
        found.add(pairs[number])
        number = before[number]
    return found


def _check_names(levels: dict[int, _Level], findings: Findings) -> None:
    """Compare the name of each node above level 1 with that of its first child."""
    for level in range(2, max(levels) + 1):
        below, at = levels[level - 1].places, 0
        for place, length in zip(levels[level].places, levels[level].lengths, strict=True):
            first = below[at]
            if place != first and not (at == 0 and place == ("", "") and not _starts(first, level)):
                what = f"I2: node {_at(*place)} of level {level} has a name that is not its first entry's"
                findings.add("node", what, level=level, place=stored_name(*place))
            at += length // fmt.CHILD_BYTES


def _starts(place: tuple[str, Any], level: int) -> bool:
    return rank(name_bytes(stored_name(*place))) >= level


# ---- Entries against the tree ----


class _Entries:
    """The rows of state with their leaves, in order, some of them put back."""

    def __init__(self, rows: Iterator[Row], advance: Callable[[int], None]) -> None:
        self._rows = rows
        self._back: deque[tuple[Row, bytes]] = deque()
        self._advance = advance
        self._told = 0
        self.count = 0

    def take(self, number: int) -> list[tuple[Row, bytes]]:
        """Return the next so many, or as many as there are."""
        taken = [self._back.popleft() for _ in range(min(number, len(self._back)))]
        for row in islice(self._rows, number - len(taken)):
            taken.append((row, leaf_of(row)))
            self.count += 1
        if self.count - self._told >= ROWS_AT_ONCE:
            self._advance(self.count - self._told)
            self._told = self.count
        return taken

    def put_back(self, taken: Sequence[tuple[Row, bytes]]) -> None:
        """Let take() return these next."""
        self._back.extendleft(reversed(taken))

    def all_told(self) -> None:
        """Tell the rest of what was read."""
        self._advance(self.count - self._told)


class _Leaves(NamedTuple):
    """A place of level 1 with what its row holds."""

    children: bytes
    name: tuple[str, Any] | None
    expected: bytes
    proven: bool


def _slots(connection: Connection, level: _Level, slots: list[_Slot] | None) -> Iterator[_Leaves]:
    """Yield what should be in state, run by run."""
    if slots is None:
        for name, children in _leaf_nodes(connection):
            yield _Leaves(children, name, b"", proven=True)
        return
    rows = [children for _, children in _leaf_nodes(connection)]
    for slot in slots:
        if slot.row is None:
            yield _Leaves(b"", None, slot.expected, proven=False)
        else:
            yield _Leaves(rows[slot.row], level.places[slot.row], slot.expected, slot.proven)


class _Block(NamedTuple):
    """Leaves that should be there, and rows that are there instead, with the row before and the row after."""

    expected: list[tuple[bytes, bool]]
    rows: list[Row]
    before: Row | None
    after: Row | None


class _Comparison:
    """Compares entries with the nodes of level 1, a run at a time, and finds their step again behind differences."""

    def __init__(self, entries: _Entries, findings: Findings, *, judged: bool) -> None:
        self._entries = entries
        self._findings = findings
        self._judged = judged
        self._blocks: list[_Block] = []
        self._last: Row | None = None

    def run(self, places: Iterator[_Leaves]) -> list[_Block]:
        """Return where entries and tree differ."""
        entries = self._entries
        first = True
        for place in places:
            children = place.children
            count = len(children) // fmt.CHILD_BYTES if children else _count(place.expected)
            taken = entries.take(count) if count < _WINDOW_MAX else []
            if taken and _ONE + _ONE.join([each for _, each in taken]) == children:
                if not self._judged:
                    self._check_name(place, taken[0][0], first=first)
                self._last = taken[-1][0]
            elif not self._stands(place, taken):
                self._differ(place, taken, places)
            elif taken:
                self._last = taken[-1][0]
            first = False
        rest = entries.take(_WINDOW_MAX)
        while rest:
            self._note([], rest, None)
            rest = entries.take(_WINDOW_MAX)
        entries.all_told()
        return self._blocks

    def _check_name(self, place: _Leaves, row: Row, *, first: bool) -> None:
        if place.name == row[:2] and type(row[1]) is type(place.name[1]):
            return
        if first and place.name == ("", "") and not _starts(row[:2], 1):
            return
        assert place.name is not None  # noqa: S101, for the type checker
        what = f"I2: node {_at(*place.name)} of level 1 has a name that is not its first entry's"
        self._findings.add("node", what, level=1, place=_place(*place.name))

    def _stands(self, place: _Leaves, taken: list[tuple[Row, bytes]]) -> bool:
        """Tell whether the entries are what is proven of the place, though the node's row is not."""
        if place.proven or not place.expected:
            return False
        more = _count(place.expected) - len(taken)
        if more > 0:
            taken += self._entries.take(min(more, _WINDOW_MAX))
        elif more < 0:
            self._entries.put_back(taken[more:])
            del taken[more:]
        joined = _ONE + _ONE.join([each for _, each in taken])
        if node_digest(1, joined) == place.expected[fmt.COUNT_BYTES :]:
            return True
        if not place.children:
            names = f"from {shown(*taken[0][0][:2])} to {shown(*taken[-1][0][:2])}" if taken else "there"
            self._findings.add("unreadable", f"I2: the entries {names} cannot be proven: the node over them is lost")
            return True
        return False

    def _differ(self, place: _Leaves, taken: list[tuple[Row, bytes]], places: Iterator[_Leaves]) -> None:
        """Go on leaf by leaf up to the end of a run, comparing with further runs where that shows the step again."""
        expected = self._digests(place)
        while expected:
            if not taken:
                taken = self._entries.take(1)
            if taken and taken[0][1] == expected[0][0]:
                self._last = taken[0][0]
                del expected[0], taken[0]
                continue
            left, right = self._step(expected, taken, places)
            block, rows = expected[:left], taken[:right]
            del expected[:left], taken[:right]
            self._note(block, rows, taken[0][0] if taken else None)
        self._entries.put_back(taken)

    def _digests(self, place: _Leaves) -> list[tuple[bytes, bool]]:
        return [(child[fmt.COUNT_BYTES :], place.proven) for child in _cut(place.children)]

    def _step(
        self, expected: list[tuple[bytes, bool]], taken: list[tuple[Row, bytes]], places: Iterator[_Leaves]
    ) -> tuple[int, int]:
        """Return how many of both differ before they agree again."""
        window = _WINDOW
        while True:
            taken += self._entries.take(max(0, window - len(taken)))
            while len(expected) < window and (place := next(places, None)) is not None:
                expected += self._digests(place)
            at = {digest: number for number, (digest, _) in enumerate(expected)}
            agree = [(number + at[each], at[each], number) for number, (_, each) in enumerate(taken) if each in at]
            if agree:
                _, left, right = min(agree)
                return left, right
            if window >= _WINDOW_MAX or (len(expected) < window and len(taken) < window):
                return len(expected), len(taken)
            window *= 4

    def _note(self, expected: list[tuple[bytes, bool]], taken: list[tuple[Row, bytes]], after: Row | None) -> None:
        rows = [row for row, _ in taken]
        if len(self._blocks) >= FINDINGS_MAX:
            self._findings.more += max(len(expected), len(rows))
            return
        self._blocks.append(_Block(expected, rows, self._last, after))
        if rows:
            self._last = rows[-1]


def _without_tree(rows: Iterator[Row], head: Head, findings: Findings, advance: Callable[[int], None]) -> int:
    """Check the entries of a store that has no nodes; return how many there are."""
    builder, count = RootBuilder(), 0
    foreign: list[tuple[Any, Any]] = []
    for row in rows:
        count += 1
        digest = leaf_of(row)
        if digest:
            builder.add(digest, rank(name_bytes(stored_name(row[0], row[1]))))
        if len(foreign) < FINDINGS_MAX:
            foreign.append(row[:2])
    advance(count)
    if builder.finish() == (head.root, head.count):
        return count
    for collection, key in foreign:
        what = f"I2: {shown(collection, key)} is not in the tree, which has no nodes"
        findings.add("extra", what, **named(collection, key))
    if not foreign and head.count:
        findings.add("missing", f"I2: all {head.count} entries are missing")
    return count


# ---- Blame ----


def names_in_log(connection: Connection, wanted: set[bytes]) -> dict[bytes, tuple[str, Any]]:
    """Return the names of those leaves in *wanted* that a record of the log has put or replaced."""
    found: dict[bytes, tuple[str, Any]] = {}
    if not wanted:
        return found
    for row in read_on(wal.rows(connection), partial(wal.scan_verbatim, connection)):
        collection, key, value, before = row[4:8]
        if collection is None:
            continue
        for stored in (value, before):
            digest = b"" if stored is None else leaf_of((collection, key, stored))
            if digest in wanted:
                found[digest] = collection, key
    return found


def _blame(connection: Connection, blocks: list[_Block], findings: Findings) -> None:
    names = names_in_log(connection, {digest for block in blocks for digest, _ in block.expected})
    for block in blocks:
        _blame_block(block, names, findings)


def _blame_block(block: _Block, names: dict[bytes, tuple[str, Any]], findings: Findings) -> None:
    rows = {(type(row[1]), *row[:2]): row for row in block.rows}
    unknown = []
    for digest, proven in block.expected:
        name = names.get(digest)
        if name is None:
            unknown.append((digest, proven))
        elif rows.pop((type(name[1]), *name), None) is not None:
            _blame_entry(name, digest, findings, proven=proven)
        else:
            what = f"I2: {shown(*name)} is missing: the tree has it"
            findings.add("missing", what, expected=digest if proven else None, **named(*name))
    if len(unknown) == len(rows):
        for (digest, proven), row in zip(unknown, rows.values(), strict=True):
            _blame_entry(row[:2], digest, findings, proven=proven)
        return
    for digest, proven in unknown:
        where = _between(block)
        what = f"I2: an entry {where} is missing: the tree has it, and nothing in the log names it"
        findings.add("missing", what, expected=digest if proven else None)
    for collection, key, _ in rows.values():
        findings.add("extra", f"I2: {shown(collection, key)} is not in the tree", **named(collection, key))


def _blame_entry(name: tuple[Any, Any], digest: bytes, findings: Findings, *, proven: bool) -> None:
    by = "" if proven else ", which does not prove itself either"
    what = f"I2: {shown(*name)} is not what the tree says: its value or key was changed{by}"
    findings.add("entry", what, expected=digest if proven else None, **named(*name))


def _between(block: _Block) -> str:
    before = f"after {shown(*block.before[:2])}" if block.before is not None else "at the start"
    return f"{before} and before {shown(*block.after[:2])}" if block.after is not None else before
