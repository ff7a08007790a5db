"""What a report shows of a store, read from it, and put into text and numbers for the page.

Each part is read by itself: where the store is damaged, that part says so, and the others are there.
"""

from __future__ import annotations

from collections import deque
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

from sqlstate.cli.commands.check_and_repair import OUTCOMES
from sqlstate.cli.commands.past import logged_cell
from sqlstate.cli.commands.recovery_and_backup import event_text, report_cells
from sqlstate.cli.output import key_cell, printable, value_cell
from sqlstate.cli.report import charts
from sqlstate.cli.words import in_shell_words
from sqlstate.errors import InvalidInput, InvalidOption, StoreError
from sqlstate.format.names import check_collection, make_name
from sqlstate.format.values import ABSENT, REDACTED
from sqlstate.store.access import entries_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    import sqlstate
    from sqlstate.format.names import Key, Stored
    from sqlstate.format.records import Head
    from sqlstate.maintenance.check.check import Level
    from sqlstate.store.past.change import Change

COMMITS_READ_MAX: Final = 20_000
POINTS_MAX: Final = 400
COLLECTIONS_SHOWN: Final = 100
EVENTS_SHOWN: Final = 25
CHANGES_SHOWN: Final = 25
FINDINGS_SHOWN: Final = 50
NAMES_SHOWN: Final = 20
CELL_CHARACTERS_MAX: Final = 160
# Of the value that the page proves: the page carries it whole.
PROVEN_BYTES_MAX: Final = 1 << 16

Part = dict[str, Any]


@dataclass(slots=True)
class Wanted:
    """What the caller wants in a report."""

    level: Level = "full"
    """Of the check."""
    entry: tuple[str, Key] | None = None
    """The entry that is proven; None for one that changed lately."""
    progress: Callable[[int, int], None] | None = None
    """Of the check."""
    outcome: str = field(default="unknown", init=False)
    """Of the check, once it was made."""


def gather(store: sqlstate.Store, wanted: Wanted) -> Part:
    """Return what the page shows: a part for each of its sections, and `problem` in one that could not be read.

    Raises:
        StoreError: not even the newest commit could be read.
        InvalidName, InvalidKey: no entry can have the name that is to be proven.
        InvalidOption: its value is too large for a page.
    """
    with store.snapshot() as view:
        head = view.head
        parts: dict[str, Callable[[], Part]] = {
            "check": lambda: _check(store, wanted),
            "heads": lambda: _heads(store, head),
            "sizes": lambda: _sizes(store),
            "collections": lambda: _collections(store, view),
            "changes": lambda: _changes(store, head),
            "recovery": lambda: _recovery(store),
            "audit": lambda: _audit(store),
            "proof": lambda: _proof(store, view, wanted.entry),
        }
        found: Part = {name: _read(part) for name, part in parts.items()}
    found["head"] = {"seq": head.seq, "root": head.root.hex(), "count": head.count, "at": head.at}
    found["path"], found["store_id"] = printable(str(store.path)), store.store_id.hex()
    found["made"] = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return found


def _read(part: Callable[[], Part]) -> Part:
    try:
        return part()
    except InvalidInput:
        raise  # the caller asked for what cannot be
    except StoreError as e:
        return {"problem": printable(in_shell_words(e))}


def _check(store: sqlstate.Store, wanted: Wanted) -> Part:
    report = store.check(wanted.level, progress=wanted.progress)
    wanted.outcome = report.outcome
    findings = [printable(f"{each.kind}: {each.what}") for each in report.findings[:FINDINGS_SHOWN]]
    return {
        "outcome": str(report.outcome),
        "said": OUTCOMES[report.outcome],
        "findings": findings,
        "more": len(report.findings) - len(findings) + report.more,
        "level": report.level,
        "read": {name: getattr(report, name) for name in ("entries", "nodes", "records", "commits", "events")},
        "foreign": [printable(each) for each in report.foreign[:FINDINGS_SHOWN]],
    }


def _heads(store: sqlstate.Store, newest: Head) -> Part:
    oldest = store.oldest
    number = newest.seq - oldest + 1
    if number <= 0:
        return {"number": 0}
    if number <= COMMITS_READ_MAX:
        heads = [*_commits(store, oldest, number)]
    else:
        heads = [next(_commits(store, oldest + (number - 1) * n // (POINTS_MAX - 1), 1)) for n in range(POINTS_MAX)]
    points: list[tuple[float, Head]] = []
    for head in heads:
        time = datetime.fromisoformat(head.at).timestamp()
        points.append((max(time, points[-1][0]) if points else time, head))  # a clock can be set back
    step = -(-len(points) // POINTS_MAX)
    drawn = [*points[::step], points[-1]]
    bars, most = charts.bars([(time, head.seq) for time, head in points], oldest - 1)
    return {
        "number": number,
        "oldest": oldest,
        "from": heads[0].at,
        "to": heads[-1].at,
        "greatest": max(head.count for head in heads),
        "line": charts.line([(time, head.count) for time, head in drawn]),
        "bars": bars,
        "most": most,
        "newest": [(head.seq, head.at, head.count, head.root.hex()) for head in heads[:-6:-1]],
    }


def _commits(store: sqlstate.Store, first: int, number: int) -> Iterator[Head]:
    with closing(cast("Generator[Head]", store.commits(first))) as heads:
        yield from islice(heads, number)


def _sizes(store: sqlstate.Store) -> Part:
    stats, sizes = store.stats(), store.sizes()
    claims = [(printable(name), seq) for name, seq in islice(sorted(stats.claims.items()), NAMES_SHOWN)]
    return {
        "parts": list(zip(sizes._fields, sizes, charts.row(sizes), strict=True)),
        "total": sum(sizes),
        "stats": stats,
        "claims": claims,
        "limit": stats.log_limit,
    }


def _collections(store: sqlstate.Store, view: sqlstate.Snapshot) -> Part:
    digests = {*store.digest_logs()}
    counted = sorted(((len(view[name]), name) for name in view.collections()), key=lambda each: (-each[0], each[1]))
    shown = counted[:COLLECTIONS_SHOWN]
    greatest = counted[0][0] if counted else 1
    rest = counted[COLLECTIONS_SHOWN:]
    return {
        "rows": [(key_cell(name), count, 100 * count / greatest, name in digests) for count, name in shown],
        "number": len(counted),
        "rest": len(rest),
        "rest_entries": sum(count for count, _ in rest),
    }


def _newest_changes(store: sqlstate.Store, head: Head) -> Iterator[Change]:
    """Yield changes, the newest commit's first."""
    for seq in range(head.seq, store.oldest - 1, -1):
        with closing(cast("Generator[Change]", store.changes(seq - 1, upto=seq))) as found:
            yield from found


def _changes(store: sqlstate.Store, head: Head) -> Part:
    with closing(cast("Generator[Change]", _newest_changes(store, head))) as found:
        rows = [
            (
                each.seq,
                each.at,
                printable(each.note),
                key_cell(each.collection),
                _short(key_cell(each.key)),
                _short(logged_cell(each.before)),
                _short(logged_cell(each.value)),
            )
            for each in islice(found, CHANGES_SHOWN)
        ]
    return {"rows": rows}


def _short(text: str) -> str:
    return text if len(text) <= CELL_CHARACTERS_MAX else f"{text[:CELL_CHARACTERS_MAX]}…"


def _recovery(store: sqlstate.Store) -> Part:
    return {"due": store.recovery.due, "cells": {k: printable(v) for k, v in report_cells(store.recovery).items()}}


def _audit(store: sqlstate.Store) -> Part:
    with closing(cast("Generator[Any]", store.audit())) as events:
        newest = deque(events, EVENTS_SHOWN)
    rows = [
        (each.number, each.at, printable(each.kind), each.seq, _short(printable(event_text(each))))
        for each in reversed(newest)
    ]
    return {"rows": rows, "number": rows[0][0] if rows else 0, "findings": [*map(printable, store.check_audit())]}


def _proof(store: sqlstate.Store, view: sqlstate.Snapshot, entry: tuple[str, Key] | None) -> Part:
    if entry is None:
        entry = next(_candidates(store, view), None)
        if entry is None:
            return {"question": None}
    collection, key = entry
    stored = entries_of(view).get_stored(make_name(check_collection(collection), key))
    if stored is not None and _bytes(stored) > PROVEN_BYTES_MAX:
        raise InvalidOption(
            f"the value of the entry to prove has {_bytes(stored):,} bytes, and a report carries at most "
            f"{PROVEN_BYTES_MAX:,}; name another one"
        )
    question: Part = {"kind": "absent" if stored is None else "present", "collection": collection}
    question["key"] = {_KEY_FORMS[type(key)]: key.hex() if isinstance(key, bytes) else str(key)}
    if stored is not None:
        question["value"] = {"bytes": stored.hex()} if isinstance(stored, bytes) else {"json": stored}
    return {
        "question": question,
        "proof": view.prove(collection, key).to_json(),
        "collection": key_cell(collection),
        "key": _short(key_cell(key)),
        "value": "" if stored is None else _short(value_cell(stored)),
    }


_KEY_FORMS: Final = {int: "int", str: "text", bytes: "bytes"}


def _candidates(store: sqlstate.Store, view: sqlstate.Snapshot) -> Iterator[tuple[str, Key]]:
    """Yield entries that are there and small enough to be carried: the latest changes first, and any if there is none.

    The log may be cut, or redacted.
    """
    with closing(cast("Generator[Change]", _newest_changes(store, view.head))) as found:
        names = [
            (each.collection, each.key)
            for each in islice(found, CHANGES_SHOWN)
            if each.value is not ABSENT and each.value is not REDACTED
        ]
    names += [(name, key) for name in islice(view.collections(), NAMES_SHOWN) for key in view[name].keys(limit=1)]
    for collection, key in names:
        stored = entries_of(view).get_stored(make_name(collection, key))
        if stored is not None and _bytes(stored) <= PROVEN_BYTES_MAX:
            yield collection, key


def _bytes(stored: Stored) -> int:
    return len(stored if isinstance(stored, bytes) else stored.encode())
