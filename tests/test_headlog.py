"""Goal: proofs about commits hold exactly for the logs that they were made for. Method: every size up to 40 against the
plain log of tests/reference/log.py and against pymerkle, and every path with one thing changed; notes with each
character changed."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING

import pymerkle  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlstate import headlog
from sqlstate.errors import InvalidOption, ProofInvalid
from sqlstate.headlog import SignedHead, Signer, verify_head
from sqlstate.proof import Proof
from sqlstate.wal import Head
from tests.reference import log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SIZE_MAX = 40
LEAVES = [headlog.leaf_hash(sha256(b"%d" % number).digest()) for number in range(SIZE_MAX)]
ROOTS = [log.tree(LEAVES[:size]) for size in range(SIZE_MAX + 1)]
PATHS = [(index, size, log.inclusion(index, LEAVES[:size])) for size in range(1, SIZE_MAX + 1) for index in range(size)]
CHANGES = [
    (old, new, log.consistency(old, LEAVES[:new])) for new in range(1, SIZE_MAX + 1) for old in range(1, new + 1)
]


def subtree(start: int, stop: int) -> bytes:
    return log.tree(LEAVES[start:stop])


def spoilt(path: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield every path with one step changed, dropped, doubled or moved, and with one more at either end."""
    for at, step in enumerate(path):
        yield [*path[:at], bytes([step[0] ^ 1]) + step[1:], *path[at + 1 :]]
        yield [*path[:at], *path[at + 1 :]]
        yield [*path[:at], step, step, *path[at + 1 :]]
    for at, (before, after) in enumerate(pairwise(path)):
        yield [*path[:at], after, before, *path[at + 2 :]]
    yield [*path, bytes(32)]
    yield [bytes(32), *path]


def leads(index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    try:
        return headlog.root_from_inclusion(LEAVES[index], index, size, path) == root
    except ProofInvalid:
        return False


def begins(old: tuple[int, bytes], new: tuple[int, bytes], path: Sequence[bytes]) -> bool:
    try:
        headlog.check_consistency(old, new, path)
    except ProofInvalid:
        return False
    return True


# ---- The log ----


def test_the_root_is_that_of_the_plain_log_and_of_another_library() -> None:
    theirs = pymerkle.InmemoryTree(algorithm="sha256")
    for size in range(1, SIZE_MAX + 1):
        theirs.append_entry(sha256(b"%d" % (size - 1)).digest())
        assert headlog.tree_hash(LEAVES[:size]) == ROOTS[size] == theirs.get_root(size)
    assert headlog.tree_hash([]) == headlog.EMPTY == ROOTS[0]


def test_a_commit_is_included_by_the_plain_path_and_by_no_other() -> None:
    for index, size, path in PATHS:
        assert headlog.inclusion_path(subtree, index, size) == path
        assert leads(index, size, path, ROOTS[size])
        assert not any(leads(index, size, other, ROOTS[size]) for other in spoilt(path))


def test_a_path_of_one_commit_holds_for_no_other_commit_and_no_other_size() -> None:
    for index, size, path in PATHS:
        others = [other for other in (index - 1, index + 1) if 0 <= other < size]
        assert not any(leads(other, size, path, ROOTS[size]) for other in others)
        sizes = [other for other in (size - 1, size + 1) if index < other <= SIZE_MAX]
        assert not any(leads(index, other, path, ROOTS[other]) for other in sizes)


def test_a_log_begins_with_an_earlier_one_by_the_plain_path_and_by_no_other() -> None:
    for old, new, path in CHANGES:
        assert headlog.consistency_path(subtree, old, new) == path
        ours, theirs = (old, ROOTS[old]), (new, ROOTS[new])
        assert begins(ours, theirs, path)
        assert not any(begins(ours, theirs, other) for other in spoilt(path))
        assert not begins((old, sha256(b"").digest()), theirs, path)
        assert not begins(ours, (new, bytes(32)), path)


def test_a_shorter_log_and_another_of_the_same_size_do_not_continue_it() -> None:
    for old, new, path in CHANGES:
        if old < new:
            assert not begins((new, ROOTS[new]), (old, ROOTS[old]), path)
            assert not begins((old, ROOTS[old]), (old, ROOTS[new]), [])
    assert begins((0, headlog.EMPTY), (7, ROOTS[7]), [])
    assert not begins((0, ROOTS[1]), (7, ROOTS[7]), [])
    assert not begins((0, headlog.EMPTY), (7, ROOTS[7]), [bytes(32)])


@given(st.lists(st.integers(0, 2**64), max_size=200), st.data())
def test_any_log_is_the_plain_one(numbers: list[int], data: st.DataObject) -> None:
    leaves = [headlog.leaf_hash(sha256(str(number).encode()).digest()) for number in numbers]
    assert headlog.tree_hash(leaves) == log.tree(leaves)
    if leaves:
        index = data.draw(st.integers(0, len(leaves) - 1))
        path = headlog.inclusion_path(lambda start, stop: log.tree(leaves[start:stop]), index, len(leaves))
        assert path == log.inclusion(index, leaves)


# ---- Keys ----

SIGNER = Signer.generate("example.com/orders")
OTHER = Signer.generate("example.com/orders")
HEAD = Head(7, bytes(range(32)), 3, "2026-11-23T17:09:46.000000Z", bytes(32))
NOTE = headlog.sign_head(SIGNER, HEAD, bytes(reversed(range(32))))


def test_a_key_reads_back_and_shows_no_secret() -> None:
    again = Signer(SIGNER.text + "\n")
    assert (again.text, again.public, again.origin) == (SIGNER.text, SIGNER.public, "example.com/orders")
    secret = SIGNER.text.rpartition("+")[2]
    assert secret not in repr(SIGNER)
    with pytest.raises(InvalidOption) as caught:
        Signer(SIGNER.text[:-1])
    assert secret[:20] not in str(caught.value)


@pytest.mark.parametrize("origin", ["", " ", "a b", "a+b", "a\nb", "a\u2028b", "x" * 256, "\ud800", None, 5])
def test_what_cannot_be_an_origin_is_refused(origin: str) -> None:
    with pytest.raises(InvalidOption, match="origin"):
        Signer.generate(origin)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PRIVATE+KEY+",
        SIGNER.public,
        SIGNER.text.removeprefix("PRIVATE+KEY+"),
        SIGNER.text[:-2],
        SIGNER.text + "=",
        SIGNER.text.replace("orders", "borders"),
        SIGNER.text.replace("+", " "),
        None,
    ],
    ids=["empty", "name alone", "public", "no prefix", "cut", "too long", "other name", "spaces", "None"],
)
def test_what_is_no_private_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match="private key"):
        Signer(text)


@pytest.mark.parametrize(
    "key",
    ["", SIGNER.text, SIGNER.public[:-1], SIGNER.public.replace("orders", "borders"), None],
    ids=["empty", "private", "cut", "other name", "None"],
)
def test_what_is_no_public_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidOption, match="public key"):
        verify_head(NOTE.text, key)


# ---- Notes ----


def test_a_signed_head_reads_back() -> None:
    assert verify_head(NOTE.text, SIGNER.public) == NOTE == SignedHead.parse(NOTE.text)
    said = (NOTE.origin, NOTE.seq, NOTE.root, NOTE.count, NOTE.at)
    assert said == (SIGNER.origin, HEAD.seq, HEAD.root, HEAD.count, HEAD.at)


def test_no_changed_character_of_a_note_is_accepted() -> None:
    for at, character in enumerate(NOTE.text):
        for other in {chr(ord(character) ^ 1), "0", "\n", " ", "A", "\u2014", ""} - {character}:
            with pytest.raises(ProofInvalid):
                verify_head(NOTE.text[:at] + other + NOTE.text[at + 1 :], SIGNER.public)


def signature(signer: Signer) -> str:
    return headlog.sign_head(signer, HEAD, NOTE.log_root).text.rpartition("\n\n")[2]


def test_signatures_of_others_may_stand_beside_ours() -> None:
    witness = Signer.generate("witness.example")
    body = NOTE.text.removesuffix(signature(SIGNER))
    line = witness.sign(body.removesuffix("\n")).rpartition("\n\n")[2]
    for text in (NOTE.text + line, body + line + signature(SIGNER)):
        assert verify_head(text, SIGNER.public).seq == HEAD.seq
    with pytest.raises(ProofInvalid, match="not signed by this key"):
        verify_head(body + line, SIGNER.public)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (headlog.sign_head(OTHER, HEAD, NOTE.log_root).text, "not signed by this key"),
        (headlog.sign_head(Signer.generate("a.example"), HEAD, NOTE.log_root).text, "of origin 'a.example'"),
        (NOTE.text.replace("\n", "\r\n"), "no signed"),
        (NOTE.text + "more\n", "is no signature"),
        (NOTE.text + "\n" + NOTE.text, "no signed"),
        (NOTE.text.rstrip("\n"), "line end"),
        (NOTE.text + signature(SIGNER) * headlog.SIGNATURES_MAX, "no signed"),
        (NOTE.text + "\u2014 " + "x" * headlog.NOTE_BYTES_MAX + "\n", "no signed"),
        (NOTE.text.replace("\n7\n", "\n07\n"), "no signed head"),
        (NOTE.text.replace("\n7\n", "\n+7\n"), "no signed head"),
        (NOTE.text.replace("count 3", "count 9999999999999999999"), "no store can have"),
        (NOTE.text.replace(SIGNER.origin, "\ud800"), "lone surrogate"),
        ("", "no signed"),
        (None, "no signed"),
    ],
)
def test_what_is_not_our_note_is_refused(text: str, why: str) -> None:
    with pytest.raises(ProofInvalid, match=why):
        verify_head(text, SIGNER.public)


def test_heads_of_two_origins_are_not_one_history() -> None:
    proof = Proof("consistency", b"")
    with pytest.raises(ProofInvalid, match="two origins"):
        headlog.verify_consistency(proof, replace(NOTE, origin="a"), NOTE)
    headlog.verify_consistency(proof, NOTE, NOTE)
