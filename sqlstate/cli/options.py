"""What verbs share: options, how a store is opened, how keys are written, messages and progress."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

import sqlstate
from sqlstate.cli import completing
from sqlstate.cli.clusters import is_cluster, open_cluster
from sqlstate.cli.output import on_terminal, printable, write_list
from sqlstate.cli.transfer.exported import elements_of
from sqlstate.cli.words import in_shell_words
from sqlstate.errors import InvalidKey, InvalidValue, ReadOnly, StoreFull
from sqlstate.format.keys import keys_for, pack_key, unpack_key
from sqlstate.importing.exact_json import ContentError, int_key, parse_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlstate.cli.output import Column, Form
    from sqlstate.format.keys import Elements
    from sqlstate.format.names import Key

F = TypeVar("F", bound="Callable[..., Any]")
T = TypeVar("T")

TERMINAL_ROWS_MAX: Final = 100
"""Rows of a table on a terminal, for which no limit was given."""


@dataclass(slots=True)
class Settings:
    """The values of the common options."""

    timeout: float = 5.0
    quiet: bool = False
    as_json: bool = False
    as_jsonl: bool = False

    def read(self, file: str) -> sqlstate.Store:
        """Open the store for reading."""
        if is_cluster(file):
            return open_cluster(file, timeout=self.timeout, create=False)
        return sqlstate.open(file, read_only=True, create=False, timeout=self.timeout)

    @contextmanager
    def view(self, store: sqlstate.Store, at: int | datetime | None) -> Iterator[sqlstate.Snapshot | sqlstate.PastView]:
        """Give the store as it is, or as it was *at* a moment, for the block."""
        with store.snapshot() if at is None else store.at(at) as view:
            yield view

    @contextmanager
    def write(self, file: str, *, create: bool) -> Iterator[sqlstate.Store]:
        """Open the store for writing, and close it at the end of the block."""
        with self.closing(self._opened(file, create=create)) as store:
            yield store

    def _opened(self, file: str, *, create: bool) -> sqlstate.Store:
        if is_cluster(file):
            return open_cluster(file, timeout=self.timeout, create=create)
        return sqlstate.open(file, create=create, timeout=self.timeout)

    @contextmanager
    def write_or_read(self, file: str) -> Iterator[sqlstate.Store]:
        """Open the store for writing, and where it cannot be written, for reading; close it at the end of the block."""
        try:
            opened = self._opened(file, create=False)
        except (ReadOnly, StoreFull):
            opened = self.read(file)
        with self.closing(opened) as store:
            yield store

    @contextmanager
    def closing(self, store: sqlstate.Store) -> Iterator[sqlstate.Store]:
        """Close the store at the end of the block; a disk too full to leave one file is only a warning."""
        try:
            yield store
        except BaseException:
            with suppress(StoreFull):
                store.close()
            raise
        try:
            store.close()
        except StoreFull as e:
            self.say(f"warning: {in_shell_words(e)}")

    @property
    def asked(self) -> bool:
        """Whether JSON was asked for."""
        return self.as_json or self.as_jsonl

    @property
    def list_form(self) -> Form:
        """The form of output for a list."""
        if self.as_json:
            return "json"
        return "table" if on_terminal() and not self.as_jsonl else "jsonl"

    @property
    def object_form(self) -> Form:
        """The form of output for a single thing."""
        return "table" if on_terminal() and not self.asked else "json"

    def show(
        self,
        items: Iterable[T],
        line: Callable[[T], str],
        columns: Sequence[Column],
        cells: Callable[[T], Sequence[str]],
        *,
        limit: int | None,
        none: str,
    ) -> None:
        """Write a list, and say where a terminal gets only the beginning.

        Args:
            items: what to write.
            line: gives the JSON of an item.
            columns: of the table.
            cells: gives the row of an item.
            limit: how many at most; None for all, and for a terminal's first rows.
            none: what to say if there are none.
        """
        form = self.list_form
        cut = limit is None and form == "table"
        rest = iter(items)
        count = write_list(islice(rest, TERMINAL_ROWS_MAX if cut else limit), form, line, columns, cells)
        if not count:
            self.say(none)
        elif cut and next(rest, None) is not None:
            self.say(f"the first {count}; there are more, and --limit says how many to print: a number, or all")

    def say(self, message: str) -> None:
        """Write a message to standard error."""
        if not self.quiet:
            click.echo(printable(message), err=True)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    settings = context.ensure_object(Settings)
    setattr(settings, str(parameter.name), value)
    if settings.as_json and settings.as_jsonl:
        raise click.UsageError("--json and --jsonl are two forms; ask for one.", context)


_COMMON: Final = (
    click.option(
        "--timeout",
        type=float,
        default=5.0,
        show_default=True,
        metavar="SECONDS",
        expose_value=False,
        callback=_keep,
        help="How long to wait for other writers.",
    ),
    click.option("--quiet", "-q", is_flag=True, expose_value=False, callback=_keep, help="No messages, no progress."),
    click.option(
        "--json", "as_json", is_flag=True, expose_value=False, callback=_keep, help="Print one JSON document."
    ),
    click.option(
        "--jsonl",
        "as_jsonl",
        is_flag=True,
        expose_value=False,
        callback=_keep,
        help="Print JSON, one item a line.",
    ),
)


def common(function: F) -> F:
    """Add the options that all verbs have."""
    for option in reversed(_COMMON):
        function = option(function)
    return function


def file_argument(function: F) -> F:
    """Add the argument for the store's file."""
    return click.argument("file", type=click.Path(readable=False))(function)


def collection_argument(**how: Any) -> Callable[[F], F]:
    """Return what adds the argument for a collection, which the shell can complete."""
    return click.argument("collection", shell_complete=completing.collections, **how)


def key_argument(**how: Any) -> Callable[[F], F]:
    """Return what adds the argument for a key, which the shell can complete."""
    return click.argument("key", shell_complete=completing.keys, **how)


def note_option(function: F) -> F:
    """Add the option for a note in the log."""
    return click.option("--note", default="", metavar="TEXT", help="A note for the write-ahead log.")(function)


def key_type_option(function: F) -> F:
    """Add the option that says how keys are written."""
    return click.option(
        "--key-type",
        type=click.Choice(["str", "int", "hex", "tuple"]),
        default="str",
        show_default=True,
        help="How keys are written here: as text, as an int, as bytes in hexadecimal digits, or as a JSON list of the "
        "elements of a tuple.",
    )(function)


def twice_if_full(work: Callable[[], T]) -> T:
    """Do *work*, and once more if the disk was full: the first try made the store free what room it can."""
    try:
        return work()
    except StoreFull:
        return work()


def counted(number: int) -> str:
    """Return a number of entries in words."""
    return f"{number:,} {'entry' if number == 1 else 'entries'}"


def parse_key(text: str, key_type: str) -> Key:
    """Return the key that *text* writes.

    Raises:
        InvalidKey: *text* does not write a key of that type.
    """
    if key_type == "int":
        return int_key(text)
    if key_type == "str":
        return text
    if key_type == "tuple":
        return pack_key(parse_tuple(text))
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidKey(f"key {text!r} is not bytes in hexadecimal digits, two for each byte") from None


def parse_bounds(given: dict[str, Any]) -> dict[str, Key | None]:
    """Return the bounds of a scan that the options --start, --stop and --prefix write.

    Raises:
        InvalidKey: one is no key of the type that --key-type says.
        InvalidOption: --prefix is given together with another.
    """
    texts = {name: given[name] for name in ("start", "stop", "prefix") if given.get(name) is not None}
    if given["key_type"] != "tuple":
        return {name: parse_key(text, given["key_type"]) for name, text in texts.items()}
    start, stop = keys_for(tuple).bounds(**{name: parse_tuple(text) for name, text in texts.items()})
    return {"start": start, "stop": stop}


def shown_key(key: Key, key_type: str) -> Key | Elements:
    """Return a key as it is shown where keys are written like this: bytes that a tuple is stored as, as that."""
    if key_type == "tuple" and type(key) is bytes:
        with suppress(InvalidKey):
            return unpack_key(key)
    return key


def parse_tuple(text: str) -> Elements:
    """Return the elements of a tuple that *text* writes, as a JSON list.

    Raises:
        InvalidKey: it writes none.
    """
    try:
        items = parse_document(text)
        if type(items) is list:
            return elements_of(items)
    except (InvalidValue, ContentError) as e:
        raise InvalidKey(f"key {text!r} is not a JSON list of the elements of a tuple: {e}") from None
    raise InvalidKey(f"key {text!r} is not a JSON list of the elements of a tuple, such as '[\"ann\",9]'")


class _Moment(click.ParamType):  # type: ignore[type-arg]  # in older versions of click it has none
    """The number of a commit, or a time."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | datetime:
        """Return the number, or the time: local where it names no zone."""
        if isinstance(value, int | datetime):
            return value
        if value.isdecimal() and value.isascii():
            return int(value)
        try:
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is neither the number of a commit nor a time such as 2026-11-28T17:30.", param, ctx)


MOMENT: Final = _Moment()


class _Limit(click.ParamType):  # type: ignore[type-arg]  # in older versions of click it has none
    """A number of rows, or all of them."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; for "all" one that nothing reaches."""
        if isinstance(value, int):
            return value
        if value == "all":
            return sys.maxsize
        if not re.fullmatch(r"[0-9]{1,18}", value):
            self.fail(f"{value!r} is neither a number, 0 or more, nor all.", param, ctx)
        return int(value)


def limit_option(function: F) -> F:
    """Add the option for how many to print."""
    return click.option(
        "--limit",
        type=_Limit(),
        metavar="N",
        help=f"At most N, or all. Without it a terminal gets the first {TERMINAL_ROWS_MAX}.",
    )(function)


def at_option(function: F) -> F:
    """Add the option that asks for what the store was."""
    return click.option(
        "--at",
        type=MOMENT,
        metavar="MOMENT",
        help="As it was: the number of a commit, or a time such as 2026-11-28T17:30.",
    )(function)


class _Bar:
    """A progress bar that appears once it is known how much there is to do."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Any = None  # click does not export its type
        self._done = 0

    def __call__(self, done: int, total: int | None) -> None:
        if not total:
            return
        if self._bar is None:
            self._bar = click.progressbar(length=total, label=self._label, file=sys.stderr)
            self._bar.__enter__()
        self._bar.update(done - self._done)
        self._done = done

    def close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)


@contextmanager
def progress(settings: Settings, label: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """Give a function to call with what is done and what there is in all; None if no terminal would show it."""
    if settings.quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    bar = _Bar(label)
    try:
        yield bar
    finally:
        bar.close()
