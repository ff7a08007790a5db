"""Verbs for what a store was, and how it changed: changes, history, index, undo, revert, diff, merge."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, cast

import click

import sqlstate
from sqlstate.cli.exits import Exit
from sqlstate.cli.options import (
    MOMENT,
    Settings,
    collection_argument,
    common,
    counted,
    file_argument,
    key_argument,
    key_type_option,
    limit_option,
    note_option,
    parse_key,
    parse_tuple,
    shown_key,
)
from sqlstate.cli.output import Column, key_cell, value_cell, write_json, write_list, write_object
from sqlstate.cli.transfer.exported import key_text, quoted, value_text
from sqlstate.errors import Conflict
from sqlstate.format.values import ABSENT, JSON, REDACTED

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from datetime import datetime

    from sqlstate.format.names import Key
    from sqlstate.format.records import Head
    from sqlstate.store.past.change import Change
    from sqlstate.store.past.diff import Difference
    from sqlstate.store.past.merge import Collision

_CHANGE_COLUMNS = [
    Column("SEQ", right=True),
    Column("COLLECTION", long=True),
    Column("KEY", long=True),
    Column("BEFORE", long=True),
    Column("VALUE"),
]


@click.command(short_help="Print what commits changed, or follow it.")
@file_argument
@collection_argument(required=False)
@click.option("--prefix", metavar="KEY", help="Only keys that begin with this.")
@click.option("--after", type=click.IntRange(min=0), metavar="N", help="Only commits after number N; without it, all.")
@click.option("--upto", type=click.IntRange(min=0), metavar="N", help="Only commits up to number N.")
@limit_option
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C, as JSON lines.")
@key_type_option
@common
@click.pass_obj
def changes(settings: Settings, /, *, file: str, collection: str | None, **given: Any) -> int:
    """Print what commits changed: each entry with its value before and after, in the order of commits.

    Of all collections, or of COLLECTION alone. An entry that several transactions of one commit changed is
    one change. A value that is left out was or is no entry; one of which the log has the digest only is
    named in "redacted". Values have the form of export.
    """
    key_type = given["key_type"]
    wanted: dict[str, Any] = {"collection": collection}
    if given["prefix"] is not None:
        if key_type == "int":
            raise click.UsageError("--prefix is the beginning of text, bytes or a tuple; an int has none.")
        as_tuple = key_type == "tuple"
        wanted["prefix"] = parse_tuple(given["prefix"]) if as_tuple else parse_key(given["prefix"], key_type)
        wanted["key"] = tuple if as_tuple else None
    if given["follow"]:
        if given["upto"] is not None or settings.as_json:
            raise click.UsageError("--follow has no end, so it goes neither with --upto nor with --json.")
        with settings.read(file) as store:
            after = store.oldest - 1 if given["after"] is None else given["after"]
            found = chain.from_iterable(each for _, each in store.watch(after, changes=True, **wanted))
            for change in islice(_shown(found, key_type), given["limit"]):
                write_json(_change_line(change))
                sys.stdout.flush()
        return Exit.OK
    with settings.read(file) as store:
        after = store.oldest - 1 if given["after"] is None else given["after"]
        every = store.changes(after, upto=given["upto"], **wanted)
        return _write_changes(settings, every, given["limit"], key_type)


@click.command(short_help="Print how an entry changed, newest first.")
@file_argument
@collection_argument()
@key_argument()
@limit_option
@key_type_option
@common
@click.pass_obj
def history(settings: Settings, /, *, file: str, collection: str, key: str, limit: int | None, key_type: str) -> int:
    """Print the changes of one entry, newest first, as changes prints them."""
    with settings.read(file) as store:
        found = store[collection].history(parse_key(key, key_type))
        return _write_changes(settings, found, limit, key_type)


@click.command(short_help="Keep an index for history, or drop it.")
@file_argument
@click.option("--drop", is_flag=True, help="Remove the index.")
@common
@click.pass_obj
def index(settings: Settings, /, *, file: str, drop: bool) -> int:
    """Make an index by which history finds the changes of an entry without reading the whole log.

    The file keeps it, and each later put writes a page or two more. A crash leaves all of it or nothing. Writers
    wait while it is made, and give up at their timeout.
    """
    with settings.write(file, create=False) as store:
        changed = store.index_history(drop=drop)
    if settings.asked:
        write_object({"changed": changed, "history_index": not drop}, "json")
    if changed:
        settings.say("the index was removed" if drop else "the index was made; from now on it is kept")
    else:
        settings.say("there is no index; nothing was changed" if drop else "the index is there; nothing was changed")
    return Exit.OK


def _shown(found: Iterable[Change], key_type: str) -> Iterator[Change]:
    return (change._replace(key=shown_key(change.key, key_type)) for change in found)


def _write_changes(settings: Settings, found: Iterator[Change], limit: int | None, key_type: str) -> int:
    with closing(cast("Generator[Change]", found)):
        settings.show(
            _shown(found, key_type), _change_line, _CHANGE_COLUMNS, _change_cells, limit=limit, none="no changes"
        )
    return Exit.OK


def _change_line(change: Change) -> str:
    note = f'"note":{quoted(change.note)},' if change.note else ""
    return (
        f'{{"seq":{change.seq},"at":{quoted(change.at)},{note}"collection":{quoted(change.collection)},'
        f'"key":{key_text(change.key)}{_members(before=change.before, value=change.value)}}}'
    )


def _members(**values: Any) -> str:
    """Return the members of a JSON object that these values are, without those of no entry; those redacted by name."""
    there = {name: value for name, value in values.items() if value is not ABSENT and value is not REDACTED}
    redacted = [f'"{name}"' for name, value in values.items() if value is REDACTED]
    members = "".join(f',"{name}":{value_text(JSON.encode(value))}' for name, value in there.items())
    return f'{members},"redacted":[{",".join(redacted)}]' if redacted else members


def logged_cell(value: Any) -> str:
    """Return a value of the log for a table: nothing for no entry."""
    if value is REDACTED:
        return "(redacted)"
    return "" if value is ABSENT else value_cell(JSON.encode(value))


def _change_cells(change: Change) -> tuple[str, ...]:
    place = str(change.seq), key_cell(change.collection), key_cell(change.key)
    return *place, logged_cell(change.before), logged_cell(change.value)


@click.command(short_help="Take back what a commit changed.")
@file_argument
@click.argument("seq", type=click.IntRange(min=0))
@note_option
@common
@click.pass_obj
def undo(settings: Settings, /, *, file: str, seq: int, note: str) -> int:
    """Take back what commit number SEQ changed, in a new commit; to undo that one is to redo it.

    If later commits changed an entry of it, nothing is changed, the entries are named, and the exit code is 1.
    """
    with settings.write(file, create=False) as store:
        try:
            return _say_commit(settings, store, lambda: store.undo(seq, note))
        except Conflict as e:
            for collection, key in e.entries:
                settings.say(f"changed since: {key_cell(collection)} {key_cell(cast('Key', key))}")
            raise


@click.command(short_help="Make the state what it was.")
@file_argument
@click.argument("moment", type=MOMENT)
@note_option
@common
@click.pass_obj
def revert(settings: Settings, /, *, file: str, moment: int | datetime, note: str) -> int:
    """Make all entries what they were at MOMENT, in a new commit.

    MOMENT is the number of a commit, or a time such as 2026-11-28T17:30, local where it names no zone.
    """
    with settings.write(file, create=False) as store:
        return _say_commit(settings, store, lambda: store.revert(moment, note))


def _say_commit(settings: Settings, store: sqlstate.Store, work: Callable[[], Head]) -> int:
    before, head = store.head(), work()
    if settings.asked:
        write_object({"changed": head != before, "seq": head.seq, "root": head.root.hex()}, "json")
    settings.say(f"commit {head.seq}" if head != before else "there is no difference; no commit was made")
    return Exit.OK


@click.command(short_help="Print the entries that differ between two stores.")
@click.argument("a", type=click.Path(readable=False))
@click.argument("b", type=click.Path(readable=False))
@click.option("--at-a", type=MOMENT, metavar="MOMENT", help="A as it was: a commit's number, or a time.")
@click.option("--at-b", type=MOMENT, metavar="MOMENT", help="B as it was.")
@common
@click.pass_obj
def diff(settings: Settings, /, *, a: str, b: str, **given: Any) -> int:
    """Print the entries that differ between the stores A and B. Exit code 0: none; 1: some.

    Only parts of the two trees whose digests differ are read. A value that is left out is no entry. To
    compare a store with what it was, name it twice, once with --at-a.
    """
    with (
        settings.read(a) as first,
        settings.read(b) as second,
        settings.view(first, given["at_a"]) as left,
        settings.view(second, given["at_b"]) as right,
    ):
        columns = [Column("COLLECTION", long=True), Column("KEY", long=True), Column("A", long=True), Column("B")]
        count = write_list(sqlstate.diff(left, right), settings.list_form, _difference_line, columns, _difference_cells)
    settings.say(f"{counted(count)} {'differs' if count == 1 else 'differ'}" if count else "no difference")
    return Exit.NO if count else Exit.OK


def _difference_line(found: Difference) -> str:
    name = f'"collection":{quoted(found.collection)},"key":{key_text(found.key)}'
    return f"{{{name}{_members(a=found.a, b=found.b)}}}"


def _difference_cells(found: Difference) -> tuple[str, ...]:
    return key_cell(found.collection), key_cell(found.key), logged_cell(found.a), logged_cell(found.b)


@click.command(short_help="Merge a copy that went its own way.")
@click.argument("ours", type=click.Path(readable=False))
@click.argument("theirs", type=click.Path(readable=False))
@click.option(
    "--prefer",
    type=click.Choice(["ours", "theirs"]),
    help="Whose value an entry gets that both changed. Without it, ours stays and the exit code is 1.",
)
@click.option("--two-way", is_flag=True, help="Where a log was cut too far: merge without what both had in common.")
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be.")
@common
@click.pass_obj
def merge(settings: Settings, /, *, ours: str, theirs: str, prefer: Any, two_way: bool, dry_run: bool) -> int:
    """Carry into the store OURS what its copy THEIRS changed since the two parted, in one commit.

    From the last commit that both have, each entry that only THEIRS changed is taken over. One that both
    changed, to different values, is a collision; all of them are printed. THEIRS is not changed.

    With --two-way, what only one side has is taken to be new there, so deleted entries come back.
    """
    opened = settings.read(ours) if dry_run else sqlstate.open(ours, create=False, timeout=settings.timeout)
    with settings.closing(opened) as store, settings.read(theirs) as copy:
        report = sqlstate.merge(store, copy, prefer=prefer, two_way=two_way, dry_run=dry_run)
    facts = {"common": report.common, "seq": report.head.seq, "root": report.head.root.hex(), "applied": report.applied}
    if settings.object_form == "json":
        listed = ",".join(map(_collision_line, report.collisions))
        write_json(f'{json.dumps(facts, separators=(",", ":"))[:-1]},"collisions":[{listed}]}}')
    else:
        _print_collisions(report.collisions)
    collisions = f"{len(report.collisions):,} collision{'' if len(report.collisions) == 1 else 's'}"
    news = "nothing was changed" if dry_run or not report.applied else f"commit {report.head.seq}"
    would = "to change" if dry_run else "changed"
    settings.say(f"parted after commit {report.common}: {counted(report.applied)} {would}, {collisions}; {news}")
    return Exit.NO if report.collisions and prefer is None else Exit.OK


def _collision_line(found: Collision) -> str:
    name = f'"collection":{quoted(found.collection)},"key":{key_text(found.key)}'
    return f"{{{name}{_members(base=found.base, ours=found.ours, theirs=found.theirs)}}}"


def _print_collisions(found: Iterable[Collision]) -> None:
    columns = [Column(title, long=True) for title in ("COLLECTION", "KEY", "BASE", "OURS")]
    write_list(
        found,
        "table",
        _collision_line,
        [*columns, Column("THEIRS")],
        lambda each: (key_cell(each.collection), key_cell(each.key), *map(logged_cell, each[2:])),
    )
