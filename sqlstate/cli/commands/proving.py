"""Verbs for proofs: prove, which needs the store, and verify, which does not."""

from __future__ import annotations

import os
import re
import sys
from contextlib import nullcontext
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import click

from sqlstate import headlog, proof
from sqlstate.cli.commands.entries import raw_value, value_of
from sqlstate.cli.exits import Exit
from sqlstate.cli.options import (
    Settings,
    collection_argument,
    common,
    file_argument,
    key_argument,
    key_type_option,
    parse_bounds,
    parse_key,
)
from sqlstate.cli.output import Column, key_cell, value_cell, write, write_list, write_object
from sqlstate.cli.transfer.exported import entry_text
from sqlstate.cli.transfer.forms import ReadEntry, read_asked, read_texts
from sqlstate.errors import InvalidInput, InvalidKey, InvalidOption, ProofInvalid
from sqlstate.format.names import check_collection, make_name
from sqlstate.format.values import ABSENT
from sqlstate.importing.encoding import encode_entry
from sqlstate.importing.exact_json import SourceError
from sqlstate.proof import MAGIC, Document, Proof

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlstate.format.names import Key
    from sqlstate.headlog import SignedHead

PROOF_FILE_BYTES_MAX = 1 << 31


class _Question(NamedTuple):
    """What is asked about a store."""

    kind: str
    """`"entry"`, `"many"`, `"range"`, `"count"`, `"commit"` or `"consistency"`."""
    collection: str = ""
    key: Key | None = None
    start: Key | None = None
    stop: Key | None = None
    limit: int | None = None
    seq: int = 0


_QUESTION = (
    click.option("--range", "as_range", is_flag=True, help="About all that the collection holds between two keys."),
    click.option("--count", "as_count", is_flag=True, help="About how many entries it has between two keys."),
    click.option("--start", metavar="KEY", help="First key wanted, if it is there."),
    click.option("--stop", metavar="KEY", help="First key no longer wanted."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N entries of a range."),
    click.option(
        "--entries",
        type=click.Path(readable=False, allow_dash=True),
        metavar="PATH",
        help="About the entries of a file: JSON lines, as export writes them, or without a value.",
    ),
    click.option("--commit", type=click.IntRange(min=1), metavar="N", help="About commit N."),
    key_type_option,
)


def _question_options(function: Callable[..., int]) -> Callable[..., int]:
    for option in reversed(_QUESTION):
        function = option(function)
    return function


_KINDS: Final = {
    "as_range": "range",
    "as_count": "count",
    "keys_from": "many",
    "entries": "many",
    "commit": "commit",
    "consistency": "consistency",
    "against": "consistency",
}
_WITHOUT_COLLECTION: Final = ("entries", "commit", "consistency", "against")


def _question(collection: str | None, keys: Sequence[str], given: dict[str, Any]) -> _Question:
    """Return the one question that the arguments ask."""
    asked = [each for each in _KINDS if given.get(each) is not None and given[each] is not False]
    if len(asked) + bool(keys) != 1:
        raise click.UsageError(
            "Ask one question: COLLECTION KEY, --range or --count with COLLECTION, --entries, or about commits."
        )
    if (collection is None) != (asked[:1] != [] and asked[0] in _WITHOUT_COLLECTION):
        raise click.UsageError(
            "A question about entries names a COLLECTION; one about commits, or with --entries, does not."
        )
    bounds = {"start": None, "stop": None, **parse_bounds({**given, "prefix": None})}
    if given["limit"] is not None and asked != ["as_range"]:
        raise click.UsageError("--limit is for --range.")
    if any(bound is not None for bound in bounds.values()) and asked not in (["as_range"], ["as_count"]):
        raise click.UsageError("--start and --stop are for --range and --count.")
    if len(keys) == 1:
        return _Question("entry", collection or "", parse_key(keys[0], given["key_type"]))
    if given.get("commit") is not None or given.get("consistency") is not None:
        return _Question(_KINDS[asked[0]], seq=given[asked[0]])
    kind = _KINDS[asked[0]] if asked else "many"
    return _Question(kind, collection or "", None, bounds["start"], bounds["stop"], given["limit"])


@click.command(short_help="Make a proof about entries or commits.")
@file_argument
@collection_argument(required=False)
@key_argument(nargs=-1)
@_question_options
@click.option(
    "--keys-from",
    type=click.Path(readable=False, allow_dash=True),
    metavar="PATH",
    help="About the keys in a file, one a line.",
)
@click.option(
    "--consistency", type=click.IntRange(min=0), metavar="N", help="That history up to commit N is unchanged."
)
@click.option("--size", type=click.IntRange(min=0), metavar="N", help="Up to commit N instead of the newest.")
@click.option("--out", type=click.Path(readable=False), metavar="PATH", help="Write the proof to a new file.")
@click.option("--binary", is_flag=True, help="Write it as bytes instead of JSON.")
@common
@click.pass_obj
def prove(settings: Settings, /, *, file: str, collection: str | None, key: tuple[str, ...], **given: Any) -> int:
    """Make a proof that an entry is there, or is not, for a verifier that has the root: COLLECTION KEY.

    Of several KEYs, or those of a file, it is one proof, smaller than one for each. Or of all entries in a range, of
    their number, of a commit, or that history was only appended to: see the options. A PATH of - is standard
    input. The proof is printed as JSON; `sqlstate verify` checks it without the store.
    """
    question = _question(collection, key, given)
    names = _names(collection or "", key, given) if question.kind == "many" else set()
    if given["size"] is not None and question.kind not in ("commit", "consistency"):
        raise click.UsageError("--size is for --commit and --consistency.")
    with settings.read(file) as store:
        if question.kind in ("commit", "consistency"):
            size = store.head().seq if given["size"] is None else given["size"]
            make = store.prove_commit if question.kind == "commit" else store.prove_consistency
            made, about = make(question.seq, size), f"for a signed head of commit {size}"
        else:
            with store.snapshot() as view:
                made = _entries_proof(view, question, names)
                about = f"of commit {view.head.seq}, root {view.head.root.hex()}"
                if names:
                    there = sum(each in view[name] for name, each in names)
                    about += f"; {there:,} there, {len(names) - there:,} absent"
    data = made.to_bytes() if given["binary"] else made.to_json().encode() + b"\n"
    if given["out"] is None:
        write(data)
    else:
        with open(given["out"], "xb") as out:
            out.write(data)
    settings.say(f"proof of kind {made.kind!r}, {len(made.to_bytes()):,} bytes, {about}")
    return Exit.OK


def _names(collection: str, keys: Sequence[str], given: dict[str, Any]) -> set[tuple[str, Key]]:
    """Return the entries that several KEYs are, or those that a file names."""
    key_type = given["key_type"]
    if keys:
        return {(collection, parse_key(key, key_type)) for key in keys}
    if given["entries"] is not None:
        found = _from_file(given["entries"], read_asked)
    else:
        found = _from_file(given["keys_from"], lambda stream: _read_keys(stream, collection, key_type))
    return {(each.collection, each.key) for each in found}


def _read_keys(stream: IO[bytes], collection: str, key_type: str) -> Iterator[ReadEntry]:
    for place, text in read_texts(stream):
        try:
            key = parse_key(text, key_type)
        except InvalidKey as e:
            raise SourceError(place, e) from None
        yield ReadEntry(place, collection, key, ABSENT, 0)


def _from_file(path: str, read: Callable[[IO[bytes]], Iterator[ReadEntry]]) -> Iterator[ReadEntry]:
    """Yield what *read* finds in a file, or in standard input, if entries can have such names."""
    if path == "-" and sys.stdin is None:
        raise click.UsageError("Standard input is closed.")
    with nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb") as stream:
        try:
            for each in read(stream):
                try:
                    make_name(check_collection(each.collection), each.key)
                except InvalidInput as e:
                    raise SourceError(each.place, e) from None
                yield each
        except SourceError as e:
            raise InvalidOption(f"{_shown(path)}, {e.place}: {e.reason}") from None


def _shown(path: str) -> str:
    return "standard input" if path == "-" else path


def _entries_proof(view: Any, question: _Question, names: set[tuple[str, Key]]) -> Proof:
    if question.kind == "many":
        made: Proof = view.prove_many(names)
    elif question.kind == "range":
        made = view.prove_range(question.collection, question.start, question.stop, question.limit)
    elif question.kind == "count":
        made = view.prove_count(question.collection, question.start, question.stop)
    else:
        made = view.prove(question.collection, question.key)
    return made


@click.command(short_help="Verify a proof, without the store.")
@click.argument("proof_file", metavar="PROOF", type=click.Path(readable=False))
@click.argument("collection", required=False)
@click.argument("key", required=False)
@click.argument("value", required=False, type=click.UNPROCESSED)
@_question_options
@click.option("--absent", is_flag=True, help="Ask that there is no such entry.")
@click.option("--text", "as_text", is_flag=True, help="VALUE is text, stored as a JSON string.")
@click.option("--bytes", "as_bytes", is_flag=True, help="VALUE is bytes.")
@click.option("--from", "path", type=click.Path(readable=False), metavar="PATH", help="Read the value from a file.")
@click.option("--root", metavar="HEX", help="The root that you trust.")
@click.option(
    "--head", "note", type=click.Path(readable=False), metavar="HEAD", help="A signed head, instead of a root."
)
@click.option(
    "--key",
    "public",
    type=click.Path(readable=False),
    metavar="PUBLIC",
    help="The public key that you trust, or a file with it.",
)
@click.option(
    "--against",
    type=click.Path(readable=False),
    metavar="HEAD",
    help="An earlier signed head: was it only appended to?",
)
@common
@click.pass_obj
def verify(settings: Settings, /, *, proof_file: str, collection: str | None, key: str | None, **given: Any) -> int:
    """Check that a proof shows what is asked, under a root or signed head that you trust; exit code 1 if it does not.

    Ask what the proof was made for: COLLECTION KEY VALUE, or COLLECTION KEY with --absent; --entries for the same
    entries, each with its value, or without one if it must not be there; --range or --count with the same bounds;
    --commit N; or --against an earlier signed head. VALUE is a JSON document, read from standard input if it is -.
    PROOF is a file, or - for standard input. No store is needed.
    """
    question = _question(collection, () if key is None else (key,), given)
    if [proof_file, given["entries"], given["value"], given["path"]].count("-") > 1:
        raise click.UsageError("Standard input can be read once.")
    if question.kind != "entry" and (given["absent"] or given["value"] is not None):
        raise click.UsageError("VALUE and --absent are for a question about COLLECTION KEY.")
    made = _read_proof(proof_file)
    head = _head(given["note"], given["public"]) if given["note"] is not None else None
    if question.kind in ("commit", "consistency"):
        facts = _verify_commits(made, question, head, given)
    else:
        root = _root(given["root"], head)
        if question.kind == "range":
            return _print_range(settings, question, made, root)
        facts = _verify_entries(made, question, root, given)
    write_object({"proven": True, **facts}, settings.object_form)
    return Exit.OK


def _verify_entries(made: Proof, question: _Question, root: bytes, given: dict[str, Any]) -> dict[str, Any]:
    if question.kind == "count":
        return {"count": proof.verify_count(made, root, question.collection, question.start, question.stop)}
    if question.kind == "many":
        return _verify_many(made, root, given["entries"])
    assert question.key is not None  # noqa: S101, for the type checker
    if given["absent"]:
        proof.verify_absent(made, root, question.collection, question.key)
        return {"entry": "absent"}
    raw = raw_value(given["value"], given["path"])
    value = raw if given["as_bytes"] else value_of(raw, as_text=given["as_text"])
    proof.verify_present(
        made, root, question.collection, question.key, _known(question.collection, question.key, value)
    )
    return {"entry": "present"}


def _verify_many(made: Proof, root: bytes, path: str) -> dict[str, Any]:
    asked: dict[tuple[str, Key], Any] = {}
    for each in _from_file(path, read_asked):
        name = each.collection, each.key
        value = ABSENT if each.value is ABSENT else _known(*name, each.value)
        if asked.setdefault(name, value) != value:
            raise InvalidOption(
                f"{_shown(path)}, {each.place}: it asks something else of an entry that an earlier line names"
            )
    present = {name: value for name, value in asked.items() if value is not ABSENT}
    proof.verify_many(made, root, present, asked.keys() - present.keys())
    return {"present": len(present), "absent": len(asked) - len(present)}


def _known(collection: str, key: Key, value: Any) -> bytes | Document:
    """Return a value as a verifier takes it, exactly as it is stored."""
    _, stored = encode_entry(collection, key, value)
    return stored if isinstance(stored, bytes) else Document(stored)


def _print_range(settings: Settings, question: _Question, made: Proof, root: bytes) -> int:
    start, stop, limit = question.start, question.stop, question.limit
    found = proof.verify_range(made, root, question.collection, start, stop, limit)
    entries = [(key, encode_entry(question.collection, key, value)[1]) for key, value in found]
    count = write_list(
        entries,
        settings.list_form,
        lambda item: entry_text(question.collection, *item),
        [Column("KEY", long=True), Column("VALUE")],
        lambda item: (key_cell(item[0]), value_cell(item[1])),
    )
    settings.say(f"proven: these {count} and no others" + (" up to the last of them" if count == limit else ""))
    return Exit.OK


def _verify_commits(made: Proof, question: _Question, head: SignedHead | None, given: dict[str, Any]) -> dict[str, Any]:
    if head is None:
        raise click.UsageError("A question about commits needs --head HEAD and --key PUBLIC.")
    if question.kind == "commit":
        facts = headlog.verify_commit(made, head, question.seq)._asdict()
        return {name: each.hex() if isinstance(each, bytes) else each for name, each in facts.items()}
    old = _head(given["against"], given["public"])
    headlog.verify_consistency(made, old, head)
    return {"appended_only": True, "from": old.seq, "to": head.seq}


def _root(digits: str | None, head: SignedHead | None) -> bytes:
    if (digits is None) == (head is None):
        raise click.UsageError("Give what you trust: --root HEX, or --head HEAD with --key PUBLIC.")
    if head is not None:
        return head.root
    if re.fullmatch(r"[0-9a-fA-F]{64}", digits or "") is None:
        raise InvalidOption(f"{digits!r} is no root: 64 hexadecimal digits")
    return bytes.fromhex(digits or "")


def _head(note: str, public: str | None) -> SignedHead:
    """Return a signed head, verified by the key that the user trusts."""
    if public is None:
        raise click.UsageError("--key PUBLIC says whose signature you trust.")
    return read_head(note, public)


def read_head(note: str, public: str) -> SignedHead:
    """Return what a file with a signed head says, verified.

    Args:
        note: path of the file.
        public: the public key, or the path of a file with it.

    Raises:
        ProofInvalid: the file holds no signed head, or none signed by that key.
        InvalidOption: there is no such key.
    """
    text = _read(note, headlog.NOTE_BYTES_MAX)
    written = "+" in public and not os.path.lexists(public)
    key = public if written else _read(public, headlog.NOTE_BYTES_MAX).decode("utf-8", "replace")
    try:
        return headlog.verify_head(text.decode(), key)
    except UnicodeDecodeError:
        raise ProofInvalid(f"{note} is no signed head: it is not text in UTF-8") from None


def _read_proof(path: str) -> Proof:
    raw = _read(path, PROOF_FILE_BYTES_MAX)
    if raw.startswith(MAGIC):
        return Proof.from_bytes(raw)
    try:
        return Proof.from_json(raw.decode())
    except UnicodeDecodeError:
        raise ProofInvalid(f"{path} is no proof: neither JSON nor bytes of one") from None


def _read(path: str, limit: int) -> bytes:
    if path == "-":
        raw = b"" if sys.stdin is None else sys.stdin.buffer.read(limit + 1)
    else:
        with open(path, "rb") as file:
            raw = file.read(limit + 1)
    if len(raw) > limit:
        raise ProofInvalid(f"{path} has more than {limit:,} bytes, so it is not what it is taken for")
    return raw
