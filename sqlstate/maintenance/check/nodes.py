"""The nodes of the stored tree by themselves (I2, I3).

A node proves itself when its digest stands in the node above, up to the recorded root.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlstate.format import constants as fmt
from sqlstate.format.merkle import EMPTY_ROOT, FIRST, count_of, node_digest, rank
from sqlstate.format.names import name_bytes, stored_name
from sqlstate.maintenance.check.findings import ROWS_AT_ONCE, FindingKind, Findings, read_on, shown
from sqlstate.tables import merkle
from sqlstate.tables.raw_rows import are_children, is_level, is_node_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlstate.format.names import Name
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection, Row


class NodeLevel:
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


def read_levels(connection: Connection, findings: Findings, advance: Callable[[int], None]) -> dict[int, NodeLevel]:
    """Return the nodes of each level; a row that cannot be a node is a finding."""
    levels: dict[int, NodeLevel] = {}
    waiting = 0
    for id_, level, collection, key, children in _node_rows(connection):
        waiting += 1
        if waiting == ROWS_AT_ONCE:
            advance(waiting)
            waiting = 0
        place = place_of(collection, key)
        if place is None or not _is_node(level, collection, key, children):
            where = {"level": level if type(level) is int else None, "place": place}
            findings.add(FindingKind.NODE, f"I2: node {shown_at(collection, key)} of level {level!r} is none", **where)
            continue
        if id_ >> fmt.NODE_ID_SHIFT != fmt.LEVEL_MAX - level:
            what = f"I2: node {shown_at(collection, key)} of level {level} has the id {id_}, which is of another level"
            findings.add(FindingKind.NODE, what, level=level, place=place)
        found = levels.setdefault(level, NodeLevel())
        count = len(children) // fmt.CHILD_BYTES if level == 1 else count_of(children)
        found.made.append((count % 2**64).to_bytes(fmt.COUNT_BYTES) + node_digest(level, children))
        found.places.append((collection, key))
        found.lengths.append(len(children))
        if level > 1:
            found.said += children
    advance(waiting)
    return levels


def _node_rows(connection: Connection) -> Iterator[Row]:
    return read_on(merkle.rows(connection), partial(merkle.rows, connection, verbatim_=True))


def _is_node(level: Any, collection: Any, key: Any, children: Any) -> bool:
    return is_level(level) and are_children(children) and is_node_name(collection, key)


def leaf_nodes(connection: Connection) -> Iterator[tuple[tuple[str, Any], bytes]]:
    """Yield name and children of the nodes of level 1, without rows that are none."""
    for _, level, collection, key, children in _node_rows(connection):
        if level == 1 and _is_node(level, collection, key, children):
            yield (collection, key), children


def place_of(collection: Any, key: Any) -> Name | None:
    """Return a node's name; None if no node can have it."""
    return stored_name(collection, key) if is_node_name(collection, key) else None


def shown_at(collection: Any, key: Any) -> str:
    """Return where a node begins, for a sentence."""
    return "at the start" if (collection, key) == (FIRST[0], FIRST[2]) else f"at {shown(collection, key)}"


class Slot(NamedTuple):
    """The place of a node of level 1: its row, None if there is none, and what is proven to be there, or nothing."""

    row: int | None
    expected: bytes
    proven: bool


class NodeJudge:
    """Says from the top down which nodes prove themselves, and blames those that do not."""

    def __init__(self, levels: dict[int, NodeLevel], head: Head, findings: Findings) -> None:
        self._levels = levels
        self._head = head
        self._findings = findings

    def judge(self) -> list[Slot] | None:
        """Return the places of level 1; None if every node proves itself."""
        levels, head = self._levels, self._head
        root = head.count.to_bytes(fmt.COUNT_BYTES) + head.root
        if not levels:
            if head.root != EMPTY_ROOT or head.count:
                what = f"I2: there are no nodes, and commit {head.seq} says that there are {head.count} entries"
                self._findings.add(FindingKind.NODE, what, expected=head.root)
            return None
        top = next((level for level in sorted(levels) if levels[level].made == [root]), max(levels))
        sound = levels[top].made == [root] and top == max(levels) and sorted(levels) == list(range(1, top + 1))
        if sound and all(bytes(levels[up].said) == b"".join(levels[up - 1].made) for up in range(2, top + 1)):
            return None
        for level in sorted(levels):
            if level > top:
                self._extra(level, range(len(levels[level].made)))
        return self._descend(top, root)

    def _descend(self, top: int, root: bytes) -> list[Slot]:
        expected: list[tuple[bytes, bool]] = [(root, True)]
        gap = False
        slots: list[Slot] = []
        for level in range(top, 0, -1):
            rows = self._levels.get(level) or NodeLevel()
            pairs, moved = _aligned([each for each, _ in expected], rows.made)
            self._moved(level, moved)
            slots, below = [], []
            extra = []
            for place, number in pairs:
                wanted, proven = expected[place] if place is not None else (b"", False)
                if number is None:
                    gap = True
                    what = f"I2: a node of level {level} is missing, over {count_in(wanted)} entries"
                    self._findings.add(FindingKind.NODE, what, level=level, expected=wanted[fmt.COUNT_BYTES :] or None)
                    slots.append(Slot(None, wanted, proven))
                    continue
                if place is None and not gap:
                    extra.append(number)
                    continue
                agrees = rows.made[number] == wanted
                if wanted and not agrees:
                    self._differs(level, number, wanted, proven=proven, is_top=level == top)
                slots.append(Slot(number, wanted if proven else b"", proven and agrees))
                if level > 1:
                    children = rows.children(number)
                    below += [(each, proven and agrees) for each in cut(children)]
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
                f"{rows.made[number][fmt.COUNT_BYTES :].hex()} and {count_in(rows.made[number])}"
            )
            self._findings.add(FindingKind.ROOT, what, seq=head.seq)
            return
        if not proven and self._mends(level + 1, wanted, rows.made[number]):
            return  # the row above is the damaged one: with this one's digest it would be what is proven
        by = "" if proven else ", which does not prove itself either"
        what = f"I2: node {shown_at(*rows.places[number])} of level {level} is not what the node above says{by}"
        digest = wanted[fmt.COUNT_BYTES :] if proven else None
        self._findings.add(FindingKind.NODE, what, expected=digest, **where)

    def _agrees_below(self, top: int) -> bool:
        levels = self._levels
        return all(
            up - 1 in levels and up in levels and bytes(levels[up].said) == b"".join(levels[up - 1].made)
            for up in range(2, top + 1)
        )

    def _mends(self, level: int, wrong: bytes, right: bytes) -> bool:
        """Tell whether a node of *level* with *right* for its child *wrong* would be what is proven of it."""
        rows = self._levels.get(level) or NodeLevel()
        above = self._levels.get(level + 1)
        proven = set(cut(bytes(above.said))) if above else {self._head.count.to_bytes(8) + self._head.root}
        for number in range(len(rows.made)):
            children = rows.children(number)
            if wrong not in cut(children) or rows.made[number] in proven:
                continue
            mended = children.replace(wrong, right, 1)
            made = (count_of(mended) % 2**64).to_bytes(fmt.COUNT_BYTES) + node_digest(level, mended)
            if made in proven:
                return True
        return False

    def _moved(self, level: int, numbers: set[int]) -> None:
        for number in numbers:
            place = self._levels[level].places[number]
            what = f"I2: node {shown_at(*place)} of level {level} has a name that is not its first entry's"
            digest = self._levels[level].made[number][fmt.COUNT_BYTES :]
            self._findings.add(FindingKind.NODE, what, level=level, place=stored_name(*place), expected=digest)

    def _extra(self, level: int, numbers: Iterable[int]) -> None:
        for number in numbers:
            place = self._levels[level].places[number]
            what = f"I2: node {shown_at(*place)} of level {level} is not in the tree"
            self._findings.add(FindingKind.NODE, what, level=level, place=stored_name(*place))


def count_in(child: bytes) -> int:
    """Return how many entries a child counts."""
    return int.from_bytes(child[: fmt.COUNT_BYTES])


def cut(children: bytes) -> list[bytes]:
    """Return the children of a node one by one: u64(count) ‖ digest."""
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


def check_names(levels: dict[int, NodeLevel], findings: Findings) -> None:
    """Compare the name of each node above level 1 with that of its first child."""
    for level in range(2, max(levels) + 1):
        below, at = levels[level - 1].places, 0
        for place, length in zip(levels[level].places, levels[level].lengths, strict=True):
            first = below[at]
            if place != first and not (at == 0 and place == ("", "") and not starts_run(first, level)):
                what = f"I2: node {shown_at(*place)} of level {level} has a name that is not its first entry's"
                findings.add(FindingKind.NODE, what, level=level, place=stored_name(*place))
            at += length // fmt.CHILD_BYTES


def starts_run(place: tuple[str, Any], level: int) -> bool:
    """Return True if the entry of that name starts a run of *level*."""
    return rank(name_bytes(stored_name(*place))) >= level
