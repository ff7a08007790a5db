"""Verbs for entries: put, get, delete, list, query, collections."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from sqlstate.cli.exits import Exit
from sqlstate.cli.options import (
    Settings,
    at_option,
    collection_argument,
    common,
    counted,
    file_argument,
    key_argument,
    key_type_option,
    limit_option,
    note_option,
    parse_bounds,
    parse_key,
    shown_key,
    twice_if_full,
)
from sqlstate.cli.output import (
    Column,
    key_cell,
    on_terminal,
    value_cell,
    write,
    write_json,
    write_object,
)
from sqlstate.cli.transfer.exported import entry_text, key_text, quoted, value_text
from sqlstate.cli.transfer.forms import LINE_BYTES_MAX
from sqlstate.cli.transfer.import_export import put_entry, stored_view
from sqlstate.cli.where import CONDITION
from sqlstate.errors import EntryNotFound, InvalidKey, InvalidValue, ValueRedacted
from sqlstate.format import constants as fmt
from sqlstate.format.names import Key, Name, Stored, check_collection, make_name
from sqlstate.format.values import JSON
from sqlstate.importing.encoding import encode_entry
from sqlstate.importing.exact_json import int_key, parse_document
from sqlstate.store.access import entries_of
from sqlstate.store.past.change import decoded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from sqlstate.cli.where import Condition
    from sqlstate.format.keys import Elements
    from sqlstate.store.access import Named
    from sqlstate.store.view import CollectionView

TEXT_KEY: Final = 1
"""The class of a key that is text, in a name."""


@click.command(short_help="Put an entry.")
@file_argument
@collection_argument()
@key_argument()
@click.argument("value", required=False, type=click.UNPROCESSED)
@click.option("--text", "as_text", is_flag=True, help="VALUE is text, stored as a JSON string.")
@click.option("--bytes", "as_bytes", is_flag=True, help="VALUE is bytes, stored as they are.")
@click.option("--from", "path", type=click.Path(readable=False), metavar="PATH", help="Read the value from a file.")
@click.option("--no-create", is_flag=True, help="Do not make the store if it is not there.")
@key_type_option
@note_option
@common
@click.pass_obj
def put(settings: Settings, /, *, file: str, collection: str, key: str, **given: Any) -> int:
    """Put an entry, durably: VALUE is a JSON document.

    VALUE is read from standard input if it is - or left out. An entry that has this value already is left
    alone, and no commit is made. Put -- before a VALUE or KEY that begins with a minus sign.
    """
    raw = raw_value(given["value"], given["path"])
    if given["as_bytes"] and given["as_text"]:
        raise click.UsageError("--bytes and --text are two forms of a value; give one.")
    value = raw if given["as_bytes"] else value_of(raw, as_text=given["as_text"])
    name, stored = encode_entry(collection, parse_key(key, given["key_type"]), value)  # before a store is made
    with settings.write(file, create=not given["no_create"]) as store:

        def work() -> bool:
            with store.transaction(given["note"]) as txn:
                return put_entry(txn, name, stored)

        changed = twice_if_full(work)
        head = store.head()
    if settings.asked:
        write_object({"changed": changed, "seq": head.seq, "root": head.root.hex()}, "json")
    settings.say(f"commit {head.seq}" if changed else "the entry has this value already; no commit was made")
    return Exit.OK


def raw_value(value: str | None, path: str | None) -> bytes:
    """Return the bytes of the VALUE that an argument gives, a file, or standard input."""
    if path is not None and value is not None:
        raise click.UsageError("--from says where the value is; leave out VALUE.")
    if path is not None and path != "-":
        with open(path, "rb") as file:
            return file.read(LINE_BYTES_MAX + 1)
    if value is not None and value != "-":
        return os.fsencode(value)
    if sys.stdin is None or (value is path is None and sys.stdin.isatty()):
        raise click.UsageError("Missing VALUE: give it, or - for standard input, or --from PATH.")
    try:
        return sys.stdin.buffer.read(LINE_BYTES_MAX + 1)
    except OSError as e:
        raise OSError(e.errno, e.strerror, "standard input") from e


def value_of(raw: bytes, *, as_text: bool) -> Any:
    """Return the value that *raw* writes: text, or a JSON document.

    Raises:
        InvalidValue: it writes none.
    """
    if len(raw) > LINE_BYTES_MAX:
        raise InvalidValue(f"more than {LINE_BYTES_MAX:,} bytes, and the limit is {fmt.VALUE_BYTES_MAX:,}", "the value")
    try:
        text = raw.decode("utf-8" if as_text else "utf-8-sig")
    except UnicodeDecodeError as e:
        raise InvalidValue(f"byte {e.start + 1} is not UTF-8; --bytes stores bytes as they are", "the value") from None
    return text if as_text else parse_document(text)


@click.command(short_help="Print the value of an entry.")
@file_argument
@collection_argument()
@key_argument()
@click.option("--raw", is_flag=True, help="Print bytes as they are and a string as its text, and no line end.")
@key_type_option
@at_option
@common
@click.pass_obj
def get(settings: Settings, /, *, file: str, collection: str, key: str, **given: Any) -> int:
    """Print the value of an entry as JSON; exit code 1 if it is not there.

    Bytes are printed as {"$base64":true,"encoded":"..."}, and a document that has a member $base64 or $json
    as {"$json":document}, as export does.
    """
    name = make_name(check_collection(collection), parse_key(key, given["key_type"]))
    with settings.read(file) as store, settings.view(store, given["at"]) as view:
        stored = entries_of(view).get_stored(name)
        note = "" if stored is not None else _int_note(entries_of(view), name)
    if stored is None:
        return _not_there(settings, name, note)
    if given["raw"]:
        write(_raw(stored))
        return Exit.OK
    text = value_text(stored)
    pretty = on_terminal() and not settings.asked
    write_json(msgspec.json.format(text, indent=2) if pretty else text)
    return Exit.OK


def _not_there(settings: Settings, name: Name, *notes: str) -> int:
    """Say that there is no such entry; with --quiet the exit code alone says it."""
    if settings.quiet:
        return Exit.NO
    error = EntryNotFound(name[0], name[2])
    for note in filter(None, notes):
        error.add_note(note)
    raise error


def _int_note(entries: Named, name: Name) -> str:
    """Return a note if an int is written as the text key that is not there, and there is an entry with that key."""
    with suppress(InvalidKey, ValueRedacted):
        other = make_name(name[0], int_key(str(name[2])))
        if name[1] == TEXT_KEY and entries.get_stored(other) is not None:
            return "there is an entry with this int as its key: give --key-type int"
    return ""


def _raw(stored: Stored) -> bytes:
    if isinstance(stored, bytes):
        return stored
    return (str(parse_document(stored)) if stored.startswith('"') else stored).encode()


@click.command(short_help="Delete entries.")
@file_argument
@collection_argument()
@key_argument(nargs=-1, required=True)
@click.option("--missing-ok", is_flag=True, help="Delete those that are there.")
@key_type_option
@note_option
@common
@click.pass_obj
def delete(settings: Settings, /, *, file: str, collection: str, key: tuple[str, ...], **given: Any) -> int:
    """Delete entries, in one transaction; if one is not there, none is deleted and the exit code is 1."""
    names = [make_name(check_collection(collection), parse_key(text, given["key_type"])) for text in key]
    with settings.write(file, create=False) as store:

        def work() -> tuple[int, list[Name]]:
            with store.transaction(given["note"]) as txn:
                there = {name: entries_of(txn).get_stored(name) is not None for name in names}
                missing = [name for name in there if not there[name]]
                if missing and not given["missing_ok"]:
                    return 0, missing
                return sum(txn.delete(name[0], name[2]) for name in there), []

        deleted, missing = twice_if_full(work)
        if missing:
            return _not_there(settings, missing[0], _int_note(entries_of(store), missing[0]), "nothing was deleted")
        head = store.head()
    if settings.asked:
        write_object({"deleted": deleted, "seq": head.seq, "root": head.root.hex()}, "json")
    settings.say(
        f"{counted(deleted)} deleted, commit {head.seq}" if deleted else "nothing to delete; no commit was made"
    )
    return Exit.OK


@click.command("list", short_help="Print the entries of a collection.")
@file_argument
@collection_argument(required=False)
@click.option("--start", metavar="KEY", help="First key wanted, if it is there.")
@click.option("--stop", metavar="KEY", help="First key no longer wanted.")
@click.option("--prefix", metavar="KEY", help="Only keys that begin with this.")
@click.option("--reverse", is_flag=True, help="From the greatest key to the smallest.")
@limit_option
@click.option("--keys", "keys_only", is_flag=True, help="Keys only.")
@key_type_option
@at_option
@common
@click.pass_obj
def list_(settings: Settings, /, *, file: str, collection: str | None, **given: Any) -> int:
    """Print the entries of a collection in the order of their keys: int before text before bytes.

    As JSON each is printed in the form of export, so that import reads it again. Without COLLECTION, the
    collections are printed.
    """
    bounds = parse_bounds(given)
    if collection is None:
        if bounds or given["reverse"] or given["keys_only"]:
            raise click.UsageError(
                "--start, --stop, --prefix, --reverse and --keys are for the entries of a COLLECTION."
            )
        return _show_collections(settings, file, given["at"], given["limit"])
    wanted: dict[str, Any] = {**bounds, "reverse": given["reverse"], "limit": given["limit"]}
    with settings.read(file) as store, settings.view(store, given["at"]) as state:
        view = stored_view(state, collection)
        stored = ((key, "") for key in view.keys(**wanted)) if given["keys_only"] else view.items(**wanted)
        items = ((shown_key(key, given["key_type"]), value) for key, value in stored)
        _show_entries(settings, collection, items, given, none="no entries")
    return Exit.OK


def _show_entries(
    settings: Settings,
    collection: str,
    items: Iterable[tuple[Key | Elements, Stored]],
    given: dict[str, Any],
    *,
    none: str,
) -> None:
    """Print entries, or their keys, as the options --keys and --limit want it."""
    keys_only = given["keys_only"]

    def line(item: tuple[Key | Elements, Stored]) -> str:
        if keys_only:
            return f'{{"collection":{quoted(collection)},"key":{key_text(item[0])}}}'
        return entry_text(collection, *item)

    def cells(item: tuple[Key | Elements, Stored]) -> tuple[str, ...]:
        return (key_cell(item[0]),) if keys_only else (key_cell(item[0]), value_cell(item[1]))

    columns = [Column("KEY")] if keys_only else [Column("KEY", long=True), Column("VALUE")]
    settings.show(items, line, columns, cells, limit=given["limit"], none=none)


@click.command(short_help="Print the entries whose fields fit.")
@file_argument
@collection_argument()
@click.option(
    "--where",
    "conditions",
    type=CONDITION,
    multiple=True,
    required=True,
    metavar="CONDITION",
    help="On a field of the value, such as '$.age > 30'; of several, all must fit.",
)
@limit_option
@click.option("--keys", "keys_only", is_flag=True, help="Keys only.")
@key_type_option
@at_option
@common
@click.pass_obj
def query(settings: Settings, /, *, file: str, collection: str, **given: Any) -> int:
    """Print the entries of a collection whose values have fields that fit. It is a scan: there is no index of
    values, and every entry is read, until --limit of them fit.

    \b
    $.name           there is such a field; it may be null
    $.age > 30       = != < <= > >= and a number, or text as JSON:
    $.lang = "fr"    text in double quotes; = and != take any JSON
    $."a b"[0].c     names that are not plain words, places in lists
    $ = 5            the whole value

    Numbers are compared with numbers, and text with text, by code points. An entry without the field does not
    fit, whatever the sign; nor does a value of bytes.
    """  # noqa: D205, D301, help prints the first paragraph whole; the backslash is click's mark
    conditions: tuple[Condition, ...] = given["conditions"]
    read = fit = 0
    ended = False

    def fitting(view: CollectionView[Stored]) -> Iterator[tuple[Key | Elements, Stored]]:
        nonlocal read, fit, ended
        for key, stored in view.items():
            read += 1
            value = decoded(JSON, collection, key, stored)
            if all(each.fits(value) for each in conditions):
                fit += 1
                yield shown_key(key, given["key_type"]), stored
        ended = True

    with settings.read(file) as store, settings.view(store, given["at"]) as state:
        found = fitting(stored_view(state, collection))
        _show_entries(settings, collection, found, given, none="no entry fits")
    outcome = f", {fit:,} {'fits' if fit == 1 else 'fit'}" if ended else "; the rest was not"
    settings.say(f"{counted(read)} read{outcome}")
    return Exit.OK


@click.command(short_help="Print the collections.")
@file_argument
@limit_option
@at_option
@common
@click.pass_obj
def collections(settings: Settings, /, *, file: str, limit: int | None, at: int | datetime | None) -> int:
    """Print the names of the collections, and how many entries each has."""
    return _show_collections(settings, file, at, limit)


def _show_collections(settings: Settings, file: str, at: int | datetime | None, limit: int | None) -> int:
    with settings.read(file) as store, settings.view(store, at) as view:
        settings.show(
            ((name, len(view[name])) for name in view.collections()),
            lambda item: f'{{"collection":{quoted(item[0])},"entries":{item[1]}}}',
            [Column("COLLECTION", long=True), Column("ENTRIES", right=True)],
            lambda item: (key_cell(item[0]), str(item[1])),
            limit=limit,
            none="no collections",
        )
    return Exit.OK
