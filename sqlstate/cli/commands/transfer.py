"""Verbs that carry entries, and whole stores, in and out: import, export, cluster."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from sqlstate.cli.clusters import access
from sqlstate.cli.exits import Exit
from sqlstate.cli.options import (
    Settings,
    at_option,
    collection_argument,
    common,
    counted,
    file_argument,
    note_option,
    progress,
)
from sqlstate.cli.output import Column, on_terminal, printable, write, write_json, write_list, write_object
from sqlstate.cli.transfer.forms import LINE_BYTES_MAX, Source
from sqlstate.cli.transfer.import_export import check_sources, export_file, export_lines, import_sources
from sqlstate.cli.transfer.reading import Reading
from sqlstate.errors import InvalidOption
from sqlstate.files.identity import belongs_to
from sqlstate.importing.decoding import Choices
from sqlstate.importing.import_from import KINDS, check_choices, import_from, survey

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlstate.importing.import_from import ImportReport, Refused


_FOR_RECORDS = ("format_", "key", "row_numbers")
_FOR_STORES = ("values", "exact", "dry_run", "skip_refused", "allow_pickle")


@click.command("import", short_help="Import JSON, JSON lines, CSV, and other stores.")
@file_argument
@click.argument("source", nargs=-1, required=True, type=click.Path(allow_dash=True, readable=False))
@click.option(
    "--format",
    "format_",
    type=click.Choice(["json", "jsonl", "csv"]),
    help="What the sources are; otherwise each name's suffix says it: .json, .jsonl, .ndjson, .csv.",
)
@click.option("--collection", metavar="NAME", help="Where the entries go.")
@click.option(
    "--key",
    multiple=True,
    metavar="FIELD",
    help="The field that holds a record's key, or several, as in country,city. Given again: the first that it has.",
)
@click.option("--row-numbers", is_flag=True, help="The key of a record is its number in its collection, from 1.")
@click.option("--key-type", type=click.Choice(["str", "int", "bytes"]), help="Make all keys text, ints, or bytes.")
@click.option("--from", "kind", type=click.Choice(KINDS), help="What made the SOURCE, if it is another store.")
@click.option(
    "--values",
    type=click.Choice(["bytes", "text", "json", "pickle"]),
    help="With --from dbm, lmdb, sqlitedict: what values are.",
)
@click.option("--exact", is_flag=True, help="With --from: refuse what would be made plain, such as tuples and dates.")
@click.option("--dry-run", is_flag=True, help="With --from: list what would be refused; exit code 1 if any.")
@click.option("--skip-refused", is_flag=True, help="With --from: leave out, and list, what cannot be stored.")
@click.option("--allow-pickle", is_flag=True, help="With --from: RUN the code in pickles. For files of your own only.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="One transaction for every N entries, not one for all.",
)
@click.option("--no-create", is_flag=True, help="Do not make the store if it is not there.")
@note_option
@common
@click.pass_obj
def import_(settings: Settings, /, *, file: str, source: tuple[str, ...], **given: Any) -> int:
    """Import the entries of all SOURCEs, all or nothing. A SOURCE of - is standard input.

    \b
    .json   {"users": {"ada": {...}}}  collections, each an object of entries
            {"users": [{...}, ...]}    or a list of records, with --key
            [{...}, ...]               records, with --collection and --key
            {"ada": {...}}             one collection, with --collection
    .jsonl  what export writes; or records, with --collection and --key
    .csv    a header line and records, with --key; the collection is the
            file's name without suffix, or --collection

    The value of a record is the whole record. Entries that the store has already are left alone, and if it
    has them all, no commit is made. A source that gives a key twice is refused. Sources may be compressed
    by gzip or zstd.

    With --from, SOURCE is the file or directory of another store, which is only read. No code in it runs:
    pickles are read for builtin types alone. Tuples, dates and the like are made plain JSON and counted. What
    cannot be stored is refused by name; --dry-run lists it.
    """  # noqa: D301, the backslash is click's mark for text that keeps its lines
    _check_together(given)
    if given["kind"] is not None:
        return _import_store(settings, file, source, given)
    if given["key_type"] == "bytes":
        raise click.UsageError("--key-type bytes goes with --from.")
    how = Reading(
        format=given["format_"],
        collection=given["collection"],
        key=[_fields(text) for text in given["key"]],
        key_type=given["key_type"],
        row_numbers=given["row_numbers"],
    )
    if source.count("-") > 1:
        raise click.UsageError("Standard input can be read once.")
    sources = [_source(name) for name in source]
    check_sources(sources, how)  # before a store is made for nothing
    csv.field_size_limit(LINE_BYTES_MAX)
    with settings.write(file, create=not given["no_create"]) as store, progress(settings, "import") as shown:
        done = import_sources(store, sources, how, batch=given["batch"], note=given["note"], progress=shown)
    if settings.asked:
        facts = {"sources": done.sources, "entries": done.entries, "changed": done.changed}
        write_object({**facts, "commits": done.commits, "seq": done.head.seq, "root": done.head.root.hex()}, "json")
    news = f"commit {done.head.seq}" if done.commits else "no commit was made"
    settings.say(f"{counted(done.entries)} read, {done.changed:,} changed; {news}")
    return Exit.OK


def _check_together(given: Mapping[str, Any]) -> None:
    """Raise if an option was given that says nothing about this kind of source."""
    other, goes = (_FOR_STORES, "only with") if given["kind"] is None else (_FOR_RECORDS, "not with")
    wrong = next((name for name in other if given[name]), None)
    if wrong is not None:
        raise click.UsageError(f"--{wrong.rstrip('_').replace('_', '-')} goes {goes} --from.")


def _import_store(settings: Settings, file: str, source: tuple[str, ...], given: Mapping[str, Any]) -> int:
    if len(source) != 1 or source[0] == "-":
        raise click.UsageError("--from takes one SOURCE, a file or a directory.")
    taken = {name: given[name] for name in ("collection", "key_type", "values", "allow_pickle")}
    check_choices(given["kind"], Choices(**taken))  # before a store is made for nothing
    if given["allow_pickle"]:
        click.echo(f"warning: --allow-pickle runs whatever code is in the pickles of {printable(source[0])}", err=True)
    if given["dry_run"]:
        with progress(settings, "read") as shown:
            done = survey(given["kind"], source[0], Choices(**taken), shown, exact=given["exact"])
        _show_refused(settings, done, {"read": done.read, "entries": done.entries, "made_plain": done.made_plain})
        made_plain = f" ({done.made_plain:,} made plain)" if done.made_plain else ""
        settings.say(
            f"{counted(done.read)} read: {done.entries:,} can be stored{made_plain}, {len(done.refused):,} refused"
        )
        return Exit.NO if done.refused else Exit.OK
    others = {name: given[name] for name in ("batch", "note", "skip_refused", "exact")}
    with settings.write(file, create=not given["no_create"]) as store, progress(settings, "import") as shown:
        done = import_from(store, given["kind"], source[0], progress=shown, **taken, **others)
        head = store.head()
    facts = {"read": done.read, "entries": done.entries, "made_plain": done.made_plain, "changed": done.changed}
    _show_refused(settings, done, {**facts, "commits": done.commits, "seq": head.seq, "root": head.root.hex()})
    besides = [(done.made_plain, "made plain"), (len(done.refused), "refused")]
    told = "".join(f", {number:,} {what}" for number, what in besides if number)
    news = f"commit {head.seq}" if done.commits else "no commit was made"
    settings.say(f"{counted(done.read)} read, {done.changed:,} changed{told}; {news}")
    return Exit.OK


def _show_refused(settings: Settings, done: ImportReport, facts: Mapping[str, Any]) -> None:
    if settings.as_json:
        write_object({**facts, "refused": [each._asdict() for each in done.refused]}, "json")
        return
    columns = (Column("COLLECTION", long=True), Column("KEY", long=True), Column("REASON"))
    write_list(done.refused, settings.list_form, _refused_line, columns, lambda each: [*map(printable, each)])


def _refused_line(refused: Refused) -> str:
    return json.dumps(refused._asdict(), ensure_ascii=False, separators=(",", ":"))


def _fields(text: str) -> str | tuple[str, ...]:
    """Return the field that *text* names, or several, written as a line of CSV."""
    try:
        [fields] = csv.reader([text], strict=True)
    except (csv.Error, ValueError):
        raise click.UsageError(f"--key {text!r} is no field, and no list of fields as in CSV.") from None
    return tuple(fields) if len(fields) > 1 else fields[0] if fields else text


def _source(name: str) -> Source:
    if name != "-":
        return Source(name)
    if sys.stdin is None:
        raise click.UsageError("Standard input is closed.")
    return Source("standard input", sys.stdin.buffer)


@click.command(short_help="Export entries as JSON lines.")
@file_argument
@collection_argument(nargs=-1)
@click.option(
    "-o", "--output", metavar="OUT", type=click.Path(allow_dash=True, readable=False), help="Write to a file."
)
@at_option
@common
@click.pass_obj
def export(
    settings: Settings, /, *, file: str, collection: tuple[str, ...], output: str | None, at: int | datetime | None
) -> int:
    """Print all entries, or those of COLLECTIONs, as JSON lines in their order; import reads them again.

    \b
    {"collection":"users","key":"ada","value":{"name":"Ada"}}

    Bytes are written {"$base64":true,"encoded":"..."}, and a document that has a member $base64 or $json
    {"$json":document}. The same entries give the same bytes, whatever was done to them before. With -o, OUT
    is complete and durable when the program ends, or as it was before.
    """  # noqa: D301, the backslash is click's mark for text that keeps its lines
    to_file = output is not None and output != "-"
    if settings.as_json and not to_file:
        raise click.UsageError("export writes JSON lines; --json needs -o, and prints what was written.")
    if output is not None and to_file and belongs_to(output, file):
        raise InvalidOption(f"{output} belongs to the store itself; nothing was written")
    with settings.read(file) as store, settings.view(store, at) as view:
        missing = [name for name in collection if not len(view[name])]
        if missing:
            settings.say(f"there is no collection {missing[0]!r}; nothing was written")
            return Exit.NO
        if output is None or not to_file:
            with closing(export_lines(view, collection or None)) as lines:
                for line in lines:
                    write_json(line[:-1].decode()) if on_terminal() else write(line)
            return Exit.OK
        with progress(settings, "export") as shown:
            done = export_file(view, output, collection or None, shown)
    if settings.asked:
        write_object(
            {
                "entries": done.entries,
                "bytes": done.bytes,
                "seq": done.head.seq,
                "root": done.head.root.hex(),
            },
            "json",
        )
    settings.say(f"{counted(done.entries)} of commit {done.head.seq} written, {done.bytes:,} bytes")
    return Exit.OK


@click.command(short_help="Start a cluster with a store's file.")
@click.argument("action", type=click.Choice(["load"]))
@file_argument
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@common
@click.pass_obj
def cluster(settings: Settings, /, *, action: str, file: str, urls: tuple[str, ...]) -> int:  # noqa: ARG001, the only one
    """Load a store into an empty rqlite cluster: entries, log, commits and audit trail.

    FILE is checked and copied first, and is not changed. A URL is the address of a node, http://host:4001.

    Most other verbs take the addresses of a cluster in the place of FILE, joined by commas: 'sqlstate backup
    http://a:4001,http://b:4001 DEST' makes a file of it again.

    \b
    SQLSTATE_CLUSTER_AUTH          name:password of a user of the cluster
    SQLSTATE_CLUSTER_CERTIFICATES  a file of certificates, for https
    """  # noqa: D301, the backslash is click's mark for text that keeps its lines
    from sqlstate.cluster import load  # noqa: PLC0415, takes long to import, and help needs none of it

    head = load(file, urls, timeout=settings.timeout, **access())
    if settings.asked:
        write_object({"seq": head.seq, "root": head.root.hex(), "count": head.count, "chain": head.chain.hex()}, "json")
    settings.say(f"loaded commit {head.seq}, {counted(head.count)}, root {head.root.hex()}")
    return Exit.OK
