"""The tree that the records of the log make: entries packed run by run, and the nodes over them.

It shares no code with the tree that commits write, so that the one tests the other.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from struct import Struct
from typing import Final

import msgspec

from sqlstate.format import constants as fmt
from sqlstate.format.merkle import EMPTY_ROOT, node_digest, rank

_ONE: Final = (1).to_bytes(fmt.COUNT_BYTES)
_START: Final = b""
_TAGS: Final = [fmt.TAG_NODE + bytes([level]) for level in range(fmt.LEVEL_MAX + 1)]
# Insertions one by one into a long list cost more than sorting it from about so many on.
_FEW: Final = 16

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[bytes]).decode

# What a commit does to one entry: its leaf before, its leaf after, and its name_bytes().
Change = tuple[bytes | None, bytes | None, bytes]


@lru_cache(maxsize=1024)
def _ordered(collection: str) -> bytes:
    # "a" comes before "a\\0", and that before "ab".
    return collection.encode().replace(b"\0", b"\0\xff") + b"\0"


def order(collection: str, key: int | str | bytes) -> bytes:
    """Return bytes that sort as the entries of a store do."""
    if type(key) is str:
        return _ordered(collection) + b"\1" + key.encode()
    if type(key) is int:
        return _ordered(collection) + b"\0" + (key - fmt.INT_MIN).to_bytes(8)
    return _ordered(collection) + b"\2" + key  # type: ignore[operator]


class _Stage:
    """The nodes of one level. The first has the name b"", and no row if nothing comes before the next."""

    __slots__ = ("child", "names", "runs")

    def __init__(self) -> None:
        self.names: list[bytes] = [_START]
        self.runs: dict[bytes, bytes] = {_START: b""}  # name to children
        self.child: dict[bytes, bytes] = {}  # name to u64(count) ‖ digest

    def parent(self, name: bytes) -> bytes:
        """Return the name of the run that *name* falls into."""
        return self.names[bisect_right(self.names, name) - 1]

    def stop(self, name: bytes) -> bytes | None:
        """Return the name of the run after the one that *name* falls into."""
        at = bisect_right(self.names, name)
        return self.names[at] if at < len(self.names) else None

    def rename(self, added: list[bytes], removed: set[bytes]) -> None:
        """Add names, and remove others."""
        if len(added) + len(removed) <= _FEW:
            for name in removed:
                del self.names[bisect_left(self.names, name)]
            for name in added:
                insort(self.names, name)
            return
        if removed:
            self.names = [name for name in self.names if name not in removed]
        self.names += added
        self.names.sort()


class LogTree:
    """The tree of the entries that the log gives; commits are put into it one after the other."""

    def __init__(self) -> None:
        self._stages = [_Stage()]
        self._packed: dict[bytes, bytes] = {_START: _pack([])}  # names of the entries of each run of level 1
        self._ranks: dict[bytes, int] = {}  # of the names that start a run of level 1
        self._touched: set[bytes] = set()

    def put(self, changes: dict[bytes, Change]) -> list[tuple[bytes, bytes | None]]:
        """Change entries; return those that were not what they are said to have been, with what they were."""
        stage = self._stages[0]
        names = sorted(changes)
        wrong: list[tuple[bytes, bytes | None]] = []
        added: list[bytes] = []
        orphans: list[tuple[bytes, list[bytes], list[bytes]]] = []
        at = 0
        while at < len(names):
            place = bisect_right(stage.names, names[at])
            run = stage.names[place - 1]
            end = len(names)
            if end - at > 1 and place < len(stage.names):
                end = bisect_left(names, stage.names[place], at)
            some = names[at:end]
            self._touched.add(run)
            if not self._replace(run, some, changes):
                self._rewrite(run, some, changes, (wrong, added, orphans))
            at = end
        if added or orphans:
            stage.rename(added, {run for run, _, _ in orphans})
        for run, entries, leaves in orphans:
            before = stage.parent(run)
            self._touched.add(before)
            self._packed[before] = _pack(_unpack(self._packed[before]) + entries)
            stage.runs[before] += b"".join([_ONE + each for each in leaves])
        return wrong

    def _replace(self, run: bytes, names: list[bytes], changes: dict[bytes, Change]) -> bool:
        """Put new leaves in the place of others; False, with nothing done, if that is not all there is to do."""
        children = self._stages[0].runs[run]
        for name in names:
            before, after, _ = changes[name]
            if before is None or after is None:
                return False
            at = children.find(before)
            if at % fmt.CHILD_BYTES != fmt.COUNT_BYTES:
                return False
            children = children[:at] + after + children[at + fmt.DIGEST_BYTES :]
        self._stages[0].runs[run] = children
        return True

    def _rewrite(
        self,
        run: bytes,
        names: list[bytes],
        changes: dict[bytes, Change],
        out: tuple[list[tuple[bytes, bytes | None]], list[bytes], list[tuple[bytes, list[bytes], list[bytes]]]],
    ) -> None:
        wrong, added, orphans = out
        runs, ranks = self._stages[0].runs, self._ranks
        children = runs[run]
        leaves = {
            name: children[at + fmt.COUNT_BYTES : at + fmt.CHILD_BYTES]
            for name, at in zip(_unpack(self._packed[run]), range(0, len(children), fmt.CHILD_BYTES), strict=True)
        }
        starts = []
        for name in names:
            before, after, raw = changes[name]
            there = leaves.get(name)
            if there != before:
                wrong.append((name, there))
            if after is None:
                leaves.pop(name, None)
                continue
            leaves[name] = after
            if there is None and (levels := rank(raw)):
                ranks[name] = levels
                if name != run:
                    starts.append(name)
        entries = sorted(leaves) if len(leaves) > 1 else list(leaves)
        edges = [0, *(bisect_left(entries, name) for name in starts), len(entries)]
        for number, (start, stop) in enumerate(pairwise(edges)):
            part = entries[start:stop]
            digests = [leaves[name] for name in part]
            name = starts[number - 1] if number else run
            if not number and run != _START and run not in leaves:
                del ranks[run], runs[run], self._packed[run]
                orphans.append((run, part, digests))
                continue
            if number:
                added.append(name)
                self._touched.add(name)
            self._packed[name] = _pack(part)
            runs[name] = b"".join([_ONE + each for each in digests])

    def leaf(self, name: bytes) -> bytes | None:
        """Return the leaf of the entry with order() *name*, None if there is none."""
        stage = self._stages[0]
        run = stage.parent(name)
        entries = _unpack(self._packed[run])
        at = bisect_left(entries, name)
        if at == len(entries) or entries[at] != name:
            return None
        at = at * fmt.CHILD_BYTES + fmt.COUNT_BYTES
        return stage.runs[run][at : at + fmt.DIGEST_BYTES]

    def settle(self) -> tuple[bytes, int]:
        """Return root and number of entries, once all changes of a commit are in."""
        touched, self._touched = self._touched, set()
        if len(touched) == 1 and (only := self._settle_one(*touched)):
            return only[fmt.COUNT_BYTES :], int.from_bytes(only[: fmt.COUNT_BYTES])
        level = 0
        while True:
            level += 1
            stage = self._stages[level - 1]
            changed = self._hash(stage, level, touched)
            if len(stage.child) <= 1:
                del self._stages[level:]
                only = next(iter(stage.child.values()), None)
                if only is None:
                    return EMPTY_ROOT, 0
                return only[fmt.COUNT_BYTES :], int.from_bytes(only[: fmt.COUNT_BYTES])
            if level == len(self._stages):
                touched = self._begin(stage, level + 1)
            else:
                touched = self._climb(stage, self._stages[level], level + 1, changed)

    def _settle_one(self, name: bytes) -> bytes | None:
        """Do what settle() does after a change in one run of level 1, which was there and still is: one path.

        Returns u64(count) ‖ root; None, with nothing done, if the run was not there or is not any more.
        """
        stage = self._stages[0]
        before, children = stage.child.get(name), stage.runs.get(name)
        if before is None or not children:
            return None
        more = len(children) // fmt.CHILD_BYTES - int.from_bytes(before[: fmt.COUNT_BYTES])
        now = before
        for level, stage in enumerate(self._stages, 1):
            if level > 1:
                names = stage.names
                name = names[bisect_right(names, name) - 1]
                stage.runs[name] = children = stage.runs[name].replace(before, now, 1)
                before = stage.child[name]
            count = before[: fmt.COUNT_BYTES]
            if more:
                count = (int.from_bytes(count) + more).to_bytes(fmt.COUNT_BYTES)
            now = stage.child[name] = count + sha256(_TAGS[level] + children).digest()
        return now

    def _hash(self, stage: _Stage, level: int, touched: set[bytes]) -> list[tuple[bytes, bytes | None, bytes | None]]:
        """Hash the touched nodes of a level; return those that changed: name, child of the level above before, now."""
        changed: list[tuple[bytes, bytes | None, bytes | None]] = []
        for name in touched:
            before = stage.child.get(name)
            children = stage.runs.get(name)
            if not children:
                if before is not None:
                    del stage.child[name]
                    changed.append((name, before, None))
                continue
            now = _sum(level, children) + node_digest(level, children)
            if now != before:
                stage.child[name] = now
                changed.append((name, before, now))
        return changed

    def _begin(self, below: _Stage, level: int) -> set[bytes]:
        """Make a level above the topmost."""
        stage = _Stage()
        stage.names += [name for name in below.names if name != _START and self._ranks[name] >= level]
        self._stages.append(stage)
        touched = set(stage.names)
        self._fill(below, stage, touched)
        return touched

    def _climb(
        self, below: _Stage, stage: _Stage, level: int, changed: list[tuple[bytes, bytes | None, bytes | None]]
    ) -> set[bytes]:
        """Carry the changed nodes of the level below to a level; return its runs that are touched."""
        added, removed, anew = [], set(), set()
        for name, before, now in changed:
            if before is not None and now is not None:
                continue
            if name == _START:
                anew.add(name)
            elif now is None and name in stage.runs:
                removed.add(name)
                del stage.runs[name]
            elif now is not None and name not in stage.runs and self._ranks[name] >= level:
                added.append(name)
                stage.runs[name] = b""
        if added or removed:
            stage.rename(added, removed)
            for name in (*added, *removed):
                at = bisect_left(stage.names, name)
                anew |= {stage.names[at - 1], stage.parent(name)}
        touched = anew | removed
        for name, before, now in changed:
            run = stage.parent(name)
            touched.add(run)
            if before is None or now is None:
                anew.add(run)
            elif run not in anew:
                stage.runs[run] = stage.runs[run].replace(before, now, 1)
        self._fill(below, stage, anew)
        return touched

    @staticmethod
    def _fill(below: _Stage, stage: _Stage, runs: set[bytes]) -> None:
        """Put the children of some runs together anew."""
        names, child = below.names, below.child
        for run in runs:
            stop = stage.stop(run)
            start = bisect_left(names, run)
            part = names[start : len(names) if stop is None else bisect_left(names, stop, start)]
            stage.runs[run] = b"".join([child[name] for name in part if name in child])


def _sum(level: int, children: bytes) -> bytes:
    if level == 1:
        return (len(children) // fmt.CHILD_BYTES).to_bytes(fmt.COUNT_BYTES)
    count: int = sum(_counts(len(children) // fmt.CHILD_BYTES).unpack(children))
    return count.to_bytes(fmt.COUNT_BYTES)


@lru_cache(maxsize=256)
def _counts(number: int) -> Struct:
    return Struct(">" + f"Q{fmt.DIGEST_BYTES}x" * number)
