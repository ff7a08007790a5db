"""What a report shows of a store, read from it, and put into text and numbers for the page.

Each part is read by itself: where the store is damaged, that part says so, and the others are there.
"""

from __future__ import annotations

import math
import os
from collections import Counter, deque
from contextlib import closing, suppress
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
from sqlstate.commit.clock import now
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
COLLECTIONS_COUNTED: Final = 2_000
COLLECTIONS_SHOWN: Final = 100
EVENTS_SHOWN: Final = 25
CHANGES_SHOWN: Final = 25
CHANGES_OF_A_COMMIT: Final = 5
FINDINGS_SHOWN: Final = 50
NAMES_SHOWN: Final = 20
CELL_CHARACTERS_MAX: Final = 160
SENTENCE_CHARACTERS_MAX: Final = 1000
# Of the key and the value that the page proves, and of the proof: the page carries them whole.
PROVEN_BYTES_MAX: Final = 1 << 16
PROOF_CHARACTERS_MAX: Final = 1 << 19

DIGEST_ONLY: Final = "(digest only)"

Part = dict[str, Any]


@dataclass(slots=True)
class Wanted:
    """What the caller wants in a report."""

    level: Level = "full"
    """Of the check."""
    entry: tuple[str, Key] | None = None
    """The entry that is proven; None for one that changed lately."""
    content: bool = True
    """Whether the page shows keys, values and notes, of the entry that the caller named aside."""
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
            "heads": lambda: _heads(store, head),
            "sizes": lambda: _sizes(store),
            "collections": lambda: _collections(store, view),
            "changes": lambda: _changes(store, head, wanted),
            "recovery": lambda: _recovery(store),
            "audit": lambda: _audit(store, wanted),
            "proof": lambda: _proof(store, view, wanted),
        }
        found: Part = {name: _read(store, part, wanted) for name, part in parts.items()}
    # It takes longest, and a snapshot keeps others' commits from being moved into the main file.
    found["check"] = _read(store, lambda: _check(store, wanted), wanted)
    found["head"] = {"seq": head.seq, "root": head.root.hex(), "count": head.count, "at": head.at}
    found["name"], found["store_id"] = printable(store.path.name), store.store_id.hex()
    found["content"] = wanted.content
    found["made"] = f"{now()[:19]}Z"
    return found


def _read(store: sqlstate.Store, part: Callable[[], Part], wanted: Wanted) -> Part:
    try:
        return part()
    except InvalidInput:
        raise  # the caller asked for what cannot be
    except StoreError as e:
        return {"problem": _said(store, in_shell_words(e)) if wanted.content else type(e).__name__}


def _check(store: sqlstate.Store, wanted: Wanted) -> Part:
    report = store.check(wanted.level, progress=wanted.progress)
    wanted.outcome = report.outcome
    if wanted.content:
        findings = [_said(store, f"{each.kind}: {each.what}") for each in report.findings[:FINDINGS_SHOWN]]
        more = len(report.findings) - len(findings) + report.more
    else:
        findings = [f"{kind}: {number:,}" for kind, number in Counter(each.kind for each in report.findings).items()]
        more = report.more
    return {
        "outcome": str(report.outcome),
        "said": OUTCOMES[report.outcome],
        "findings": findings,
        "more": more,
        "level": report.level,
        "read": {name: getattr(report, name) for name in ("entries", "nodes", "records", "commits", "events")},
        "foreign": [_short(printable(each)) for each in report.foreign[:FINDINGS_SHOWN]],
    }


def _heads(store: sqlstate.Store, newest: Head) -> Part:
    oldest = store.oldest
    number = newest.seq - oldest + 1
    if number <= 0:
        return {"number": 0}
    if number <= COMMITS_READ_MAX:
        heads = [*_commits(store, oldest, number)]
    else:
        numbers = {oldest + (number - 1) * n // (POINTS_MAX - 1) for n in range(POINTS_MAX)}
        heads = [head for seq in sorted(numbers) for head in _commits(store, seq, 1)]
    if not heads:
        return {"number": 0}  # what comes to this was cut meanwhile
    points: list[tuple[float, Head]] = []
    latest = -math.inf
    for head in heads:
        latest = max(latest, _seconds(head.at))  # a clock can be set back
        points.append((latest, head))
    step = -(-len(points) // POINTS_MAX)
    drawn = [*points[::step], points[-1]]
    bars, most = charts.bars([(time, head.seq) for time, head in points], oldest - 1)
    return {
        "number": number,
        "oldest": oldest,
        "from": _moment(heads[0].at),
        "to": _moment(heads[-1].at),
        "greatest": max(head.count for head in heads),
        "line": charts.line([(time, head.count) for time, head in drawn]),
        "bars": bars,
        "most": most,
        "newest": [(head.seq, _moment(head.at), head.count, head.root.hex()) for head in heads[:-6:-1]],
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
    names = list(view.collections())
    counted = sorted(
        ((len(view[name]), name) for name in names[:COLLECTIONS_COUNTED]), key=lambda each: (-each[0], each[1])
    )
    shown = counted[:COLLECTIONS_SHOWN]
    greatest = max(1, counted[0][0]) if counted else 1  # a tree without nodes counts none
    return {
        "rows": [(key_cell(name), count, 100 * count / greatest, name in digests) for count, name in shown],
        "number": len(names),
        "uncounted": len(names) - len(counted),
        "rest": len(names) - len(shown),
        "rest_entries": view.head.count - sum(count for count, _ in shown),
    }


def _newest_changes(store: sqlstate.Store, head: Head) -> Iterator[Change | None]:
    """Yield changes, the newest commit's first and not all of any; None where some are left out."""
    for seq in range(head.seq, store.oldest - 1, -1):
        with closing(cast("Generator[Change]", store.changes(seq - 1, upto=seq))) as found:
            yield from islice(found, CHANGES_OF_A_COMMIT)
            if next(found, None) is not None:
                yield None


def _changes(store: sqlstate.Store, head: Head, wanted: Wanted) -> Part:
    hidden = {*store.digest_logs()}
    rows: list[tuple[str | int, ...] | None] = []
    with closing(cast("Generator[Change | None]", _newest_changes(store, head))) as found:
        for each in islice(found, CHANGES_SHOWN):
            if each is None:
                rows.append(None)
                continue
            row = (each.seq, _moment(each.at), key_cell(each.collection))
            if not wanted.content:
                rows.append((*row, _what(each)))
                continue
            values = [_value_cell(value, hidden=each.collection in hidden) for value in (each.before, each.value)]
            rows.append((*row, _short(key_cell(each.key)), *values, _short(printable(each.note))))
    return {"rows": rows}


def _what(change: Change) -> str:
    return "new" if change.before is ABSENT else "deleted" if change.value is ABSENT else "changed"


def _value_cell(value: Any, *, hidden: bool) -> str:
    """Return a value of the log; of a collection of which the log has digests, the value that is left is not shown."""
    return DIGEST_ONLY if hidden and value is not ABSENT else _short(logged_cell(value))


def _seconds(at: str) -> float:
    """Return the time of a commit; the beginning of time for one that was edited into what no calendar has."""
    try:
        return datetime.fromisoformat(at).timestamp()
    except (ValueError, OverflowError):
        return datetime.min.replace(tzinfo=UTC).timestamp()


def _moment(at: str) -> str:
    return at[:19].replace("T", " ")


def _said(store: sqlstate.Store, text: str) -> str:
    """Return a sentence for the page, without the store's folder, which may say whose machine it is."""
    text = printable(text.replace(os.path.join(store.path.parent, ""), ""))
    return text if len(text) <= SENTENCE_CHARACTERS_MAX else f"{text[:SENTENCE_CHARACTERS_MAX]}…"


def _short(text: str) -> str:
    return text if len(text) <= CELL_CHARACTERS_MAX else f"{text[:CELL_CHARACTERS_MAX]}…"


def _recovery(store: sqlstate.Store) -> Part:
    return {"due": store.recovery.due, "cells": {k: printable(v) for k, v in report_cells(store.recovery).items()}}


def _audit(store: sqlstate.Store, wanted: Wanted) -> Part:
    with closing(cast("Generator[Any]", store.audit())) as events:
        newest = deque(events, EVENTS_SHOWN)
    rows = [
        (
            each.number,
            _moment(each.at),
            _short(printable(each.kind)),
            each.seq,
            _short(printable(event_text(each))) if wanted.content else "",
        )
        for each in reversed(newest)
    ]
    findings = [_said(store, each) for each in islice(store.check_audit(), FINDINGS_SHOWN)]
    return {"rows": rows, "number": rows[0][0] if rows else 0, "findings": findings}


def _proof(store: sqlstate.Store, view: sqlstate.Snapshot, wanted: Wanted) -> Part:
    if wanted.entry is not None:
        return _paper(view, *wanted.entry)
    if not wanted.content:
        return {"question": None}
    for collection, key in _candidates(store, view):
        with suppress(InvalidOption):  # too large
            return _paper(view, collection, key)
    return {"question": None}


def _paper(view: sqlstate.Snapshot, collection: str, key: Key) -> Part:
    """Return a question about an entry, and the proof that answers it.

    Raises:
        InvalidName, InvalidKey: no entry can have that name.
        InvalidOption: it is too large for a page.
    """
    stored = entries_of(view).get_stored(make_name(check_collection(collection), key))
    for what, size in ("key", _bytes(key)), ("value", _bytes(stored)):
        if size > PROVEN_BYTES_MAX:
            raise InvalidOption(
                f"the {what} of the entry to prove has {size:,} bytes, and a report carries at most "
                f"{PROVEN_BYTES_MAX:,}; name another one"
            )
    proof = view.prove(collection, key).to_json()
    if len(proof) > PROOF_CHARACTERS_MAX:
        raise InvalidOption(f"the proof has {len(proof):,} characters, too many for a report; name another entry")
    question: Part = {"kind": "absent" if stored is None else "present", "collection": collection}
    question["key"] = {_KEY_FORMS[type(key)]: key.hex() if isinstance(key, bytes) else str(key)}
    if stored is not None:
        question["value"] = {"bytes": stored.hex()} if isinstance(stored, bytes) else {"json": stored}
    return {
        "question": question,
        "proof": proof,
        "collection": key_cell(collection),
        "key": _short(key_cell(key)),
        "value": "" if stored is None else _short(value_cell(stored)),
    }


_KEY_FORMS: Final = {int: "int", str: "text", bytes: "bytes"}


def _candidates(store: sqlstate.Store, view: sqlstate.Snapshot) -> Iterator[tuple[str, Key]]:
    """Yield entries that are there and may be shown: the latest changes first, and any if there is none.

    The log may be cut, or redacted. Who lets the log have no values of a collection does not want them in a page.
    """
    hidden = {*store.digest_logs()}
    with closing(cast("Generator[Change | None]", _newest_changes(store, view.head))) as found:
        names = [
            (each.collection, each.key)
            for each in islice(found, CHANGES_SHOWN)
            if each is not None and each.value is not ABSENT and each.value is not REDACTED
        ]
    names += [(name, key) for name in islice(view.collections(), NAMES_SHOWN) for key in view[name].keys(limit=1)]
    for collection, key in names:
        if collection not in hidden and entries_of(view).get_stored(make_name(collection, key)) is not None:
            yield collection, key


def _bytes(value: Key | Stored | None) -> int:
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, bytes) else 0
