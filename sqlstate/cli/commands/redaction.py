"""Verbs that keep values out of the log, and take them out of it: redact, logging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from sqlstate.cli.exits import Exit
from sqlstate.cli.options import Settings, common, file_argument, key_type_option, parse_key
from sqlstate.cli.output import Column, key_cell, write_list, write_object
from sqlstate.cli.transfer.exported import quoted

if TYPE_CHECKING:
    from sqlstate.store.past.redaction import Logging


@click.command(short_help="Take the old values of an entry out of the log.")
@file_argument
@click.argument("collection")
@click.argument("key")
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
@click.argument("collection", required=False)
@click.argument("log", type=click.Choice(["values", "digests"]), required=False)
@common
@click.pass_obj
def logging(settings: Settings, /, *, file: str, collection: str | None, log: str | None) -> int:
    """Print the collections of which the log keeps digests only, or set what it keeps of COLLECTION.

    \b
    values   each value before and after a change, as for every collection at first
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
