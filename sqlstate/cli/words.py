"""Puts the library's messages, which speak to Python programmers, into the words of the shell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sqlstate.errors import InvalidOption

if TYPE_CHECKING:
    from sqlstate.errors import StoreError

_ACCEPT: Final = "'sqlstate recover FILE --how accept'"
_MAKING: Final = "'sqlstate put' and 'sqlstate import' make"
# What the library says, and what it says at the shell.
_SENTENCES: Final = (
    ("; open it for writing with create=True to make it", f"; {_MAKING} one"),
    ("; open it for writing with create=True to make a store of it", f"; {_MAKING} a store of it"),
    ("; open it with create=True to make a store in it", f"; {_MAKING} a store in it"),
    ("auth=(name, password)", "SQLSTATE_CLUSTER_AUTH=name:password"),
    ("To read it, open it with read_only=True", "The verbs that read it work: get, list, export, check, backup"),
    ("To read it now, open it with read_only=True", "The verbs that read it work: get, list, export, check, backup"),
    ("was opened with read_only=True", "was opened for reading"),
    ("restore with replace=True", "restore with --replace"),
    ("as it is with accept_copy=True", "as it is with 'sqlstate restore --accept-copy'"),
    ("with Store.backup()", "with 'sqlstate backup'"),
    (
        'or open with recover="accept" to go on with what can be proven',
        f"or go on with what can be proven: {_ACCEPT} does so",
    ),
    ('open it with recover="accept"', f"run {_ACCEPT}"),
    ("and recover='refuse' asked", "and --how refuse asked"),
    ('Open with recover="rollback" to recover', "'sqlstate recover FILE' recovers"),
    ("its committed(error) says whether", "'sqlstate head' shows whether"),
    ("store.check_audit()", "'sqlstate audit --check'"),
    ("store.check()", "'sqlstate check'"),
    ("sqlstate.repair()", "'sqlstate repair'"),
    (
        "Look at it with store.wal.uncommitted(), and end it with rollback()",
        "'sqlstate recover' rolls it back once the process that made it is dead",
    ),
    ("store.salvage(DEST)", "'sqlstate backup --salvage'"),
    ("; bytes.fromhex() makes them of digits", ", 64 hexadecimal digits"),
    ("a greater log_limit keeps more, and store.claims", "a greater 'sqlstate cut --limit' keeps more, and a claim"),
    ("in store.claims", "with 'sqlstate claims --end'"),
    ("ask for a two-way merge (two_way)", "give --two-way"),
    (
        "dry_run=True lists all such entries, and skip_refused=True leaves them out",
        "--dry-run lists all such entries, and --skip-refused leaves them out",
    ),
    ("open with a longer timeout", "give a longer --timeout"),
)
_NAMES: Final = {
    "origin": "ORIGIN",
    "recover": "--how",
    "seq": "--commit",
    "tls": "SQLSTATE_CLUSTER_CERTIFICATES",
    "urls": "FILE",
}
# What an InvalidOption begins with; elsewhere it could be part of a key or a file's name.
_ARGUMENT: Final = re.compile(r"^([a-z][a-z_]*)=(?=['\"\d\[{-])")


def in_shell_words(error: StoreError) -> str:
    """Return the error's message without Python's words for arguments and calls."""
    message = str(error)
    for said, instead in _SENTENCES:
        message = message.replace(said, instead)
    if not isinstance(error, InvalidOption):
        return message
    return _ARGUMENT.sub(lambda match: f"{_NAMES.get(match[1]) or '--' + match[1].replace('_', '-')} ", message)
