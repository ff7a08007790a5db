"""The rows of the table state against the stored tree (I1, I2).

Who differs from what is proven is damaged: an entry, or a node where the entries below it give the digest that is
proven.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate.format import constants as fmt
from sqlstate.format.merkle import RootBuilder, node_digest, rank
from sqlstate.format.names import name_bytes, stored_name
from sqlstate.maintenance.check.findings import FINDINGS_MAX, ROWS_AT_ONCE, FindingKind, leaf_of, named, read_on, shown
from sqlstate.maintenance.check.nodes import (
    NodeJudge,
    NodeLevel,
    Slot,
    check_names,
    count_in,
    cut,
    leaf_nodes,
    place_of,
    read_levels,
    shown_at,
    starts_run,
)
from sqlstate.proving.entries import is_document
from sqlstate.tables import state, wal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlstate.format.records import Head
    from sqlstate.maintenance.check.findings import Findings
    from sqlstate.sqlite.connection import Connection, Row

_ONE: Final = (1).to_bytes(fmt.COUNT_BYTES)
_WINDOW: Final = 64
_WINDOW_MAX: Final = 1 << 16


def compare(connection: Connection, head: Head, findings: Findings, advance: Callable[[int], None]) -> tuple[int, int]:
    """Compare tree with head, and entries with tree; return how many rows there are of state and of merkle."""
    levels = read_levels(connection, findings, advance)
    nodes = sum(len(level.places) for level in levels.values())
    slots = NodeJudge(levels, head, findings).judge()
    if slots is None and levels:
        check_names(levels, findings)
    no_documents: list[Row] = []
    rows = _noting(read_on(state.scan_all(connection), partial(state.scan_verbatim, connection)), no_documents)
    if not levels:
        count = _without_tree(rows, head, findings, advance)
    else:
        entries = _Entries(rows, advance)
        blocks = _Comparison(entries, findings, judged=slots is not None).run(
            _slots(connection, levels.get(1) or NodeLevel(), slots)
        )
        _blame(connection, blocks, findings)
        count = entries.count
    blamed = {(each.collection, each.key) for each in findings.kept}
    for name in no_documents:
        if name not in blamed:
            findings.add(FindingKind.ENTRY, f"I1: {shown(*name)} is not a JSON document", **named(*name))
    return count, nodes


def _noting(rows: Iterator[Row], no_documents: list[Row]) -> Iterator[Row]:
    """Yield *rows*, and note the names of those whose text is not a document, which no digest shows."""
    for row in rows:
        if type(row[2]) is str and not is_document(row[2]) and len(no_documents) < FINDINGS_MAX:
            no_documents.append(row[:2])
        yield row


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


def _slots(connection: Connection, level: NodeLevel, slots: list[Slot] | None) -> Iterator[_Leaves]:
    """Yield what should be in state, run by run."""
    if slots is None:
        for name, children in leaf_nodes(connection):
            yield _Leaves(children, name, b"", proven=True)
        return
    rows = [children for _, children in leaf_nodes(connection)]
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
            count = len(children) // fmt.CHILD_BYTES if children else count_in(place.expected)
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
        if first and place.name == ("", "") and not starts_run(row[:2], 1):
            return
        assert place.name is not None  # noqa: S101, for the type checker
        what = f"I2: node {shown_at(*place.name)} of level 1 has a name that is not its first entry's"
        self._findings.add(FindingKind.NODE, what, level=1, place=place_of(*place.name))

    def _stands(self, place: _Leaves, taken: list[tuple[Row, bytes]]) -> bool:
        """Tell whether the entries are what is proven of the place, though the node's row is not."""
        if place.proven or not place.expected:
            return False
        more = count_in(place.expected) - len(taken)
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
            self._findings.add(
                FindingKind.UNREADABLE, f"I2: the entries {names} cannot be proven: the node over them is lost"
            )
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
        return [(child[fmt.COUNT_BYTES :], place.proven) for child in cut(place.children)]

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
        findings.add(FindingKind.EXTRA, what, **named(collection, key))
    if not foreign and head.count:
        findings.add(FindingKind.MISSING, f"I2: all {head.count} entries are missing")
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
            findings.add(FindingKind.MISSING, what, expected=digest if proven else None, **named(*name))
    if len(unknown) == len(rows):
        for (digest, proven), row in zip(unknown, rows.values(), strict=True):
            _blame_entry(row[:2], digest, findings, proven=proven)
        return
    for digest, proven in unknown:
        where = _between(block)
        what = f"I2: an entry {where} is missing: the tree has it, and nothing in the log names it"
        findings.add(FindingKind.MISSING, what, expected=digest if proven else None)
    for collection, key, _ in rows.values():
        findings.add(FindingKind.EXTRA, f"I2: {shown(collection, key)} is not in the tree", **named(collection, key))


def _blame_entry(name: tuple[Any, Any], digest: bytes, findings: Findings, *, proven: bool) -> None:
    by = "" if proven else ", which does not prove itself either"
    what = f"I2: {shown(*name)} is not what the tree says: its value or key was changed{by}"
    findings.add(FindingKind.ENTRY, what, expected=digest if proven else None, **named(*name))


def _between(block: _Block) -> str:
    before = f"after {shown(*block.before[:2])}" if block.before is not None else "at the start"
    return f"{before} and before {shown(*block.after[:2])}" if block.after is not None else before
