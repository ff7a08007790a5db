"""The rows of the tables state and merkle against each other and the newest commit's root (I1, I2, I3).

In a sound store one pass over both shows that they agree. If they do not, what differs from the tree that the root
proves is named (see maintenance.proven_tree): by its name where a row or the log has it, else by what lies around it.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import EMPTY_ROOT, FIRST, Leaf, count_of, node_digest, rank
from sqlstate.format.names import name_bytes, stored_name
from sqlstate.format.records import logged
from sqlstate.maintenance.check.findings import FINDINGS_MAX, ROWS_AT_ONCE, FindingKind, leaf_of, named
from sqlstate.maintenance.proven_tree import Comparison, Content, ProvenNode, Stray, between, entry_name
from sqlstate.proving.entries import is_document
from sqlstate.tables import merkle, state
from sqlstate.tables.raw_rows import are_children, is_level, is_node_name, shown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlstate.format.records import Head
    from sqlstate.maintenance.check.findings import Findings
    from sqlstate.sqlite.connection import Connection, Row
    from sqlstate.tables.raw_rows import RawRecord

_ONE: Final = (1).to_bytes(fmt.COUNT_BYTES)


def compare(connection: Connection, head: Head, findings: Findings, advance: Callable[[int], None]) -> tuple[int, int]:
    """Compare entries and nodes with each other and with *head*; return how many rows of each there are."""
    told = 0

    def tell(rows: int) -> None:
        nonlocal told
        told += rows
        advance(rows)

    no_documents: list[tuple[Any, Any]] = []
    found = _agreed(connection, head, no_documents, tell)
    if found is None:
        content = Content.of(connection)
        no_documents.clear()
        entries = sum(1 for _ in _noting(content.entries(), no_documents))
        found = entries, _blame(content, head, findings)
        tell(sum(found) - told)
    blamed = {(each.collection, each.key) for each in findings.kept}
    for name in no_documents:
        if name not in blamed:
            findings.add(FindingKind.ENTRY, f"I1: {shown_name(*name)} is not a JSON document", **named(*name))
    return found


def _noting(rows: Iterable[Row], no_documents: list[tuple[Any, Any]]) -> Iterator[Row]:
    """Yield *rows*, and note the names of those whose text is not a document, which no digest shows."""
    for row in rows:
        collection, key, value = row
        if type(value) is str and not is_document(value) and len(no_documents) < FINDINGS_MAX:
            no_documents.append((collection, key))
        yield row


# ---- A sound store ----


def _agreed(
    connection: Connection, head: Head, no_documents: list[tuple[Any, Any]], tell: Callable[[int], None]
) -> tuple[int, int] | None:
    """Return how many entries and nodes there are; None unless all of them lead to the root of *head*."""
    entries = _noting(state.scan_all(connection), no_documents)
    tree = _Tree(connection, entries, tell)
    try:
        top, nodes = merkle.size(connection)
        made = [child for child, _ in tree.level(top)] if top else []
        if next(entries, None) is not None:
            return None
    except _Disagree:
        return None
    except Damaged as e:
        if e.__cause__ is None or isinstance(e.__cause__, UnicodeDecodeError):  # what reads verbatim names it
            return None
        raise
    tree.all_told()
    empty = (head.root, head.count) == (EMPTY_ROOT, 0)
    expected = [] if empty else [head.count.to_bytes(fmt.COUNT_BYTES) + head.root]
    return (tree.entries, tree.nodes) if (made, tree.nodes) == (expected, nodes) else None


class _Disagree(Exception):
    """A node is not what the entries or nodes below it make."""


class _Tree:
    """Reads the tree level by level, all levels at once: a node is compared as soon as those below it are read.

    Memory holds one node of each level, and the entries below one.
    """

    def __init__(self, connection: Connection, entries: Iterator[Row], tell: Callable[[int], None]) -> None:
        self._connection = connection
        self._entries = entries
        self._tell = tell
        self._waiting = 0
        self.entries = 0
        self.nodes = 0

    def level(self, level: int) -> Iterator[tuple[bytes, tuple[Any, Any]]]:
        """Yield each node of a level as it stands in the level above, and the name of its first entry.

        Raises:
            _Disagree: one is not what is below it, or not all that is below is in one.
        """
        below = self.level(level - 1) if level > 1 else iter(())
        is_first = True
        for id_, collection, key, children in merkle.rows(self._connection, level):
            if not (are_children(children) and is_node_name(collection, key)):
                raise _Disagree
            if id_ >> fmt.NODE_ID_SHIFT != fmt.LEVEL_MAX - level:
                raise _Disagree
            number = len(children) // fmt.CHILD_BYTES
            if level == 1:
                count, (made, first) = number, self._leaves(number)
            else:
                taken = list(islice(below, number))
                made = b"".join([child for child, _ in taken])
                count, first = count_of(children), taken[0][1] if taken else ("", "")
            if made != children:
                raise _Disagree
            if (collection, key) != first and not (is_first and (collection, key) == ("", "") and _rank(first) < level):
                raise _Disagree
            is_first = False
            self.nodes += 1
            self._count(1)
            yield count.to_bytes(fmt.COUNT_BYTES) + node_digest(level, children), first
        if next(below, None) is not None:
            raise _Disagree

    def _leaves(self, number: int) -> tuple[bytes, tuple[Any, Any]]:
        """Take the next entries; return them as the children of a node, and the name of the first."""
        taken = list(islice(self._entries, number))
        if not taken:
            raise _Disagree
        self.entries += len(taken)
        self._count(len(taken))
        return _ONE + _ONE.join(map(leaf_of, taken)), taken[0][:2]

    def _count(self, rows: int) -> None:
        self._waiting += rows
        if self._waiting >= ROWS_AT_ONCE:
            self.all_told()

    def all_told(self) -> None:
        """Tell the rest of what was read."""
        self._tell(self._waiting)
        self._waiting = 0


# ---- A damaged one ----


def _blame(content: Content, head: Head, findings: Findings) -> int:
    """Name what is damaged; return how many nodes there are."""
    found = Comparison(content, head, believe=True)
    tree = found.tree
    if not found.proven and found.another is not None:
        root, count = found.another
        what = (
            f"I3: commit {head.seq} records the root {head.root.hex()} and {head.count} entries; the tree has "
            f"{root.hex()} and {count}"
        )
        findings.add(FindingKind.ROOT, what, seq=head.seq)
        return sum(1 for _ in content.nodes())
    if not found.proven:
        what = f"I3: neither nodes, entries nor log lead to the root of commit {head.seq}: no entry can be proven"
        findings.add(FindingKind.ROOT, what, seq=head.seq, expected=head.root)
        _blame_entries(content, found, findings)
        return sum(1 for _ in content.nodes())
    if head.count != (count_of(tree.children(head.root)) if tree.nodes else 0):
        what = f"I3: commit {head.seq} records {head.count} entries, and its root is that of another number"
        findings.add(FindingKind.ROOT, what, seq=head.seq)
    _blame_entries(content, found, findings)
    return _blame_nodes(content, found, head, findings)


def _blame_nodes(content: Content, found: Comparison, head: Head, findings: Findings) -> int:
    """Name the nodes that the tree lacks, and those that are missing; return how many rows there are."""
    wanted = {(node.level, node.digest): node for node in found.tree.nodes if not node.hole}
    names = found.node_names()
    names_of = {(level, digest): name for (level, name), digest in names.items()}
    rows = 0
    for id_, level, collection, key, children in content.nodes():
        rows += 1
        where = f"node {_shown_at(collection, key)} of level {level!r}"
        place = FIRST if (collection, key) == ("", "") else entry_name(collection, key)
        fields: dict[str, Any] = {"level": level if type(level) is int else None, "place": place}
        if not (is_level(level) and are_children(children)) or place is None:
            findings.add(FindingKind.NODE, f"I2: {where} is malformed", **fields)
            continue
        own = level, node_digest(level, children)
        if id_ >> fmt.NODE_ID_SHIFT != fmt.LEVEL_MAX - level:
            findings.add(FindingKind.NODE, f"I2: {where} has the id {id_}, which is of another level", **fields)
        if wanted.pop(own, None) is not None:
            if names_of.get(own, place) != place:
                what = f"I2: {where} has a name that is not its first entry's"
                findings.add(FindingKind.NODE, what, expected=own[1], **fields)
        elif (digest := names.get((level, place))) is not None:
            wanted.pop((level, digest), None)
            findings.add(FindingKind.NODE, f"I2: {where} is not what the node above says", expected=digest, **fields)
        else:
            findings.add(FindingKind.NODE, f"I2: {where} is not in the tree of commit {head.seq}", **fields)
    if not rows and head.count:
        what = f"I2: there are no nodes, and commit {head.seq} says that there are {head.count} entries"
        findings.add(FindingKind.NODE, what, expected=head.root)
        return rows
    for node in wanted.values():
        name = names_of.get((node.level, node.digest))
        _blame_missing(node, "" if name is None else f" {_shown_at(name[0], name[2])}", findings)
    for node in found.tree.nodes:
        if node.hole and node.level:
            _blame_missing(node, "", findings)
    return rows


def _blame_missing(node: ProvenNode, where: str, findings: Findings) -> None:
    what = f"I2: a node{where} of level {node.level} is missing, over {node.count} entries"
    findings.add(FindingKind.NODE, what, level=node.level, expected=node.digest)


def _blame_entries(content: Content, found: Comparison, findings: Findings) -> None:
    """Name the entries that are missing or changed, and the rows that the tree lacks."""
    order, gaps = found.order()
    strays: dict[int, list[Stray]] = {}
    for row in found.strays:
        at = -1 if row.name is None else bisect_left(order, row.name)
        strays.setdefault(at if at in gaps else -1, []).append(row)
    logged = _names_in_log(content.records(), found.missing)
    by = "" if found.proven else ", which does not prove itself either"

    def blame(kind: FindingKind, what: str, digest: bytes, name: tuple[Any, Any] | None = None) -> None:
        where = {} if name is None else named(*name)
        findings.add(kind, f"I2: {what}{by}", expected=digest if found.proven else None, **where)

    for gap, slots in gaps.items():
        rows = {(type(row.key), row.collection, row.key): row for row in strays.pop(gap, ())}
        unknown = []
        for slot in slots:
            name = logged.get(slot.digest)
            if name is None:
                unknown += [slot.digest] if slot.digest else []
            elif rows.pop((type(name[1]), *name), None) is not None:
                blame(FindingKind.ENTRY, f"{shown_name(*name)} {_CHANGED}", slot.digest, name)
            else:
                blame(FindingKind.MISSING, f"{shown_name(*name)} is missing: the tree has it", slot.digest, name)
        unproven = sum(slot.count for slot in slots if not slot.digest)
        if unproven:
            what = f"I2: {unproven} entries {between(order, gap)} cannot be proven: the node over them is lost"
            findings.add(FindingKind.UNREADABLE, what)
        elif len(unknown) == len(rows):
            for digest, row in zip(unknown, rows.values(), strict=True):
                name = row.collection, row.key
                blame(FindingKind.ENTRY, f"{shown_name(*name)} {_CHANGED}", digest, name)
            continue
        for digest in unknown:
            what = f"an entry {between(order, gap)} is missing: the tree has it, and nothing in the log names it"
            blame(FindingKind.MISSING, what, digest)
        if not unproven:
            strays.setdefault(-1, []).extend(rows.values())
    for collection, key, _ in strays.get(-1, ()):
        findings.add(
            FindingKind.EXTRA, f"I2: {shown_name(collection, key)} is not in the tree", **named(collection, key)
        )


_CHANGED: Final = "is not what the tree says: its value or key was changed"


def _names_in_log(records: Iterable[RawRecord], wanted: set[bytes]) -> dict[bytes, tuple[str, Any]]:
    """Return the names of those leaves in *wanted* that a record of the log has put or replaced."""
    found: dict[bytes, tuple[str, Any]] = {}
    for record in records if wanted else ():
        for stored in logged(record.before, record.value, record.digests):
            digest = stored or b""
            if type(stored) is not Leaf and stored is not None:
                digest = leaf_of((record.collection, record.key, stored))
            if digest in wanted:
                found[digest] = record.collection, record.key
    return found


def _shown_at(collection: Any, key: Any) -> str:
    """Return where a node begins, for a sentence."""
    return "at the start" if (collection, key) == (FIRST[0], FIRST[2]) else f"at {shown_name(collection, key)}"


def _rank(name: tuple[Any, Any]) -> int:
    return rank(name_bytes(stored_name(*name)))
