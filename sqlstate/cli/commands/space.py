"""Verbs for what the log keeps: cut, claims, redact, logging."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

import click

from sqlstate.cli.exits import Exit
from sqlstate.cli.options import (
    MOMENT,
    Settings,
    collection_argument,
    common,
    file_argument,
    key_argument,
    key_type_option,
    parse_key,
)
from sqlstate.cli.output import Column, key_cell, write_list, write_object
from sqlstate.cli.transfer.exported import quoted

if TYPE_CHECKING:
    from datetime import datetime

    from sqlstate.store.past.redaction import Logging

_UNITS: Final = {"": 0, "k": 10, "m": 20, "g": 30}


class _Size(click.ParamType):  # type: ignore[type-arg]  # it is not generic at run time
    """A number of bytes: digits, with K, M or G for powers of 1,024; or "none"."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return the number of bytes, -1 for "none"."""
        match = re.fullmatch(r"(\d+)([kmg]?)(?:i?b)?", value, re.ASCII | re.IGNORECASE)
        if value == "none":
            return -1
        if match is None:
            self.fail(f"{value!r} is not a number of bytes, such as 500000 or 64M, or 'none'.", param, ctx)
        return int(match[1]) << _UNITS[match[2].lower()]


@click.command(short_help="Cut the oldest commits from the log, or bound it.")
@file_argument
@click.option("--before", type=MOMENT, metavar="MOMENT", help="Cut the commits before this number or time.")
@click.option("--limit", type=_Size(), metavar="SIZE", help="Keep the log at SIZE from now on, such as 64M, or none.")
@common
@click.pass_obj
def cut(settings: Settings, /, *, file: str, before: int | datetime | None, limit: int | None) -> int:
    """Cut commits from the log: what they changed cannot be looked back at any more, and 32 bytes of each stay.

    With --limit, later commits cut the oldest ones until the log is as small, some at a time; the file keeps the limit.
    The room in the file is used again; compact gives it back.
    """
    if before is None and limit is None:
        raise click.UsageError("Say what to cut: --before, --limit, or both.")
    with settings.write(file, create=False) as store:
        if limit is not None:
            store.set_log_limit(None if limit < 0 else limit)
        commits = 0 if before is None else store.cut(before).commits
        oldest, kept = store.oldest, store.log_limit
    if settings.asked:
        write_object({"commits": commits, "oldest": oldest, "log_limit": kept}, "json")
    if before is not None:
        settings.say(f"{commits:,} commit{'' if commits == 1 else 's'} cut; the oldest in the log is {oldest}")
    if limit is not None:
        settings.say("the log is kept as a whole" if kept is None else f"the log is kept at {kept:,} bytes")
    return Exit.OK


@click.command(short_help="Print who follows the commits, or end a claim.")
@file_argument
@click.option("--end", metavar="NAME", help="End the claim of NAME: its commits can be cut then.")
@common
@click.pass_obj
def claims(settings: Settings, /, *, file: str, end: str | None) -> int:
    """Print who follows the commits, and the last one that each has. Later ones are not cut from the log."""
    if end is not None:
        with settings.write(file, create=False) as store:
            there = store.claims.pop(end, None)
        settings.say(f"no claim of {key_cell(end)}" if there is None else f"the claim of {key_cell(end)} ended")
        return Exit.NO if there is None else Exit.OK
    with settings.read(file) as store:
        found = store.claims.items()
        columns = [Column("NAME", long=True), Column("SEQ", right=True)]
        if not write_list(found, settings.list_form, _claim_line, columns, _claim_cells):
            settings.say("no claims")
    return Exit.OK


def _claim_line(claim: tuple[str, int]) -> str:
    return f'{{"name":{quoted(claim[0])},"seq":{claim[1]}}}'


def _claim_cells(claim: tuple[str, int]) -> tuple[str, ...]:
    return key_cell(claim[0]), str(claim[1])


@click.command(short_help="Take the old values of an entry out of the log.")
@file_argument
@collection_argument()
@key_argument()
@key_type_option
@common
@click.pass_obj
def redact(settings: Settings, /, *, file: str, collection: str, key: str, key_type: str) -> int:
    """Take all values that an entry had out of the log, for good; digests stay in their place.

    The value that it has now stays: delete the entry first to forget that too. The key stays in the log.
    Backups and other copies are not changed. Exit code 1 if a reader still keeps the values in the -wal.
    """
    with settings.write(file, create=False) as store:
        report = store.redact(collection, parse_key(key, key_type))
    if settings.asked:
        facts = {"records": report.records, "entry": report.entry, "overwritten": report.overwritten}
        write_object(facts, "json")
    records = f"{report.records:,} record{'' if report.records == 1 else 's'}"
    if report.overwritten:
        settings.say(f"{records} redacted")
        return Exit.OK
    settings.say(f"{records} redacted; the -wal still has the values, because others use it. Redact again later")
    return Exit.NO


@click.command(short_help="Print or set what the log keeps of a collection.")
@file_argument
@collection_argument(required=False)
@click.argument("log", type=click.Choice(["values", "digests"]), required=False)
@common
@click.pass_obj
def logging(settings: Settings, /, *, file: str, collection: str | None, log: str | None) -> int:
    """Print the collections of which the log keeps digests only, or set what it keeps of COLLECTION.

    \b
    values   each value before and after a change, as at first
    digests  32 bytes in the place of each value: for caches and drafts

    It goes for what is written from then on.
    """  # noqa: D301, the backslash is click's mark for text that keeps its lines
    if collection is not None and log is not None:
        with settings.write(file, create=False) as store:
            store.set_logging(collection, cast("Logging", log))
        if settings.asked:
            write_object({"collection": collection, "log": log}, "json")
        settings.say(f"the log keeps the {log} of {key_cell(collection)}")
        return Exit.OK
    with settings.read(file) as store:
        found: list[str] = store.digest_logs()
    if collection is not None:
        of = "digests" if collection in found else "values"
        write_object({"collection": collection, "log": of}, settings.object_form)
        return Exit.OK
    columns: list[Any] = [Column("COLLECTION", long=True), Column("LOG")]
    if not write_list(iter(found), settings.list_form, _line, columns, lambda each: (key_cell(each), "digests")):
        settings.say("the log keeps the values of all collections")
    return Exit.OK


def _line(collection: str) -> str:
    return f'{{"collection":{quoted(collection)},"log":"digests"}}'
