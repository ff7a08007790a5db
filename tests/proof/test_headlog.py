"""Goal: proofs about commits hold exactly for the logs that they were made for. Method: every size up to 40 against the
plain log of tests/reference/log.py and against pymerkle, and every path with one thing changed; notes with each
character changed."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pymerkle  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlstate import headlog
from sqlstate.errors import Damaged, InvalidOption, ProofInvalid
from sqlstate.format.records import Head
from sqlstate.headlog import SignedHead, Signer, verify_head
from sqlstate.headlog.keys import encoded
from sqlstate.proof import EMPTY_ROOT, Proof
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
    secret = SIGNER.text.split("+", 4)[4]  # base64 may hold plus signs
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
        (NOTE.text.replace("\n", "\r\n"), "an empty line"),
        (NOTE.text + "more\n", "is no signature"),
        (NOTE.text + "\n" + NOTE.text, "no head of a store"),
        (NOTE.text.rstrip("\n"), "an empty line"),
        (NOTE.text + signature(SIGNER) * headlog.SIGNATURES_MAX, "more than 16 signatures"),
        (NOTE.text + "\u2014 " + "x" * headlog.NOTE_BYTES_MAX + "\n", "more than 131072 bytes"),
        (NOTE.text + "\u2014 " + "\u00e9" * (headlog.NOTE_BYTES_MAX // 2) + "\n", "more than 131072 bytes"),
        (NOTE.text.replace("\n7\n", "\n07\n"), "no head of a store"),
        (NOTE.text.replace("\n7\n", "\n+7\n"), "no head of a store"),
        (NOTE.text.replace("count 3", "count 9999999999999999999"), "no store can have"),
        (NOTE.text.replace(SIGNER.origin, "\ud800"), "lone surrogate"),
        ("", "no signed"),
        (None, "no signed"),
    ],
)
def test_what_is_not_our_note_is_refused(text: str, why: str) -> None:
    with pytest.raises(ProofInvalid, match=why):
        verify_head(text, SIGNER.public)


# ---- The form that C2SP gives a signed note ----

SPACES = "\t\v\f\r \x1c\x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's white space but the line end, and a control below U+0020 that is none."""


def witnessed(name: str, data: str = "AAAAAAA=") -> str:
    """The note with one more signature."""
    return f"{NOTE.text}\u2014 {name} {data}\n"


@pytest.mark.parametrize("character", [*SPACES, "+", "\0", "\x01", "\x1b", "\x1f"])
def test_a_signature_has_no_name_that_c2sp_forbids(character: str) -> None:
    for name in (character, f"a{character}b", f"a{character}", f"{character}a"):
        with pytest.raises(ProofInvalid, match="below the empty one is no signature"):
            verify_head(witnessed(name), SIGNER.public)


@pytest.mark.parametrize("name", ["a", "\u2014", "=", "\u00e9", "\U0001f511", "\u0378", "\u200b", "\x7f", "x" * 4096])
def test_a_signature_of_an_unknown_key_is_let_go_whatever_its_name(name: str) -> None:
    assert verify_head(witnessed(name), SIGNER.public).seq == HEAD.seq
    other = headlog.sign_head(OTHER, HEAD, NOTE.log_root).text.rpartition("\n\n")[2]
    assert verify_head(NOTE.text + other, SIGNER.public).seq == HEAD.seq, "another key of the same name"
    ours = signature(SIGNER).split(" ")[2]
    assert verify_head(witnessed(name, ours.strip()), SIGNER.public).seq == HEAD.seq, "another name, the same key id"


@pytest.mark.parametrize(
    "line",
    [
        *("\u2014 a\n", "\u2014 a \n", "\u2014  AAAAAAA=\n", "\u2014 a  AAAAAAA=\n", "\u2014 a AAAAAAA= \n"),
        *("\u2013 a AAAAAAA=\n", "\u2014a AAAAAAA=\n", " \u2014 a AAAAAAA=\n", "\u2014\xa0a AAAAAAA=\n"),
        *("\u2014 a AAAAAA==\n\u2014 a \n", "\u2014 a AAAAAA\n", "\u2014 a AAAA\n", "\u2014 a AAAAAAB=\n"),
        *("\u2014 a AAAAAA-_\n", "\u2014 a AAAAAAA\n", "\u2014 a AAAAAAA==\n", "\u2014 a AAAAAAA=\r\n", "\n\n"),
        *("\u2014 a AAAAAAA=\t\n", "\u2014 a AAAAAA\u00e9=\n", "\u2014 a =AAAAAAA\n", "\u2014 a AAAAAAA=x\n"),
    ],
)
def test_a_line_below_that_is_no_signature_is_refused(line: str) -> None:
    for text in (NOTE.text + line, NOTE.text.replace("\n\n", "\n\n" + line)):
        with pytest.raises(ProofInvalid):
            verify_head(text, SIGNER.public)


def test_each_signature_of_our_key_must_hold() -> None:
    ours = signature(SIGNER)
    assert verify_head(NOTE.text + ours, SIGNER.public).seq == HEAD.seq
    data = ours.split(" ")[2]
    for bad in (data[:8] + "AAAA" + data[12:], data[:4] + "AA==\n", data[:-5] + "AA==\n"):
        line = f"\u2014 {SIGNER.origin} {bad}"
        for text in (NOTE.text + line, NOTE.text.replace(ours, line + ours)):
            with pytest.raises(ProofInvalid):
                verify_head(text, SIGNER.public)


def test_sixteen_signatures_of_the_largest_kinds_fit() -> None:
    """C2SP: a verifier accepts up to 16, and a signature can have nearly 5 kB."""
    line = f"\u2014 {'w' * 200} {encoded(bytes(4 + 4_990))}\n"
    assert verify_head(NOTE.text + line * 15, SIGNER.public).seq == HEAD.seq


@pytest.mark.parametrize(
    "character", [*SPACES, "+", "\n", "\x7f", "\x80", "\u200b", "\u200e", "\u202e", "\u2066", "\ufeff"]
)
def test_an_origin_has_no_space_control_or_invisible_mark(character: str) -> None:
    for origin in (character, f"a{character}b", f"a{character}"):
        with pytest.raises(InvalidOption, match="origin"):
            Signer.generate(origin)
        text = NOTE.text.replace(f"{SIGNER.origin}\n", f"{origin}\n", 1)
        with pytest.raises(ProofInvalid):
            SignedHead.parse(text)


@pytest.mark.parametrize("origin", ["a", "\u00e9", "\u0378", "\ue000", "\U0001f511", "\U0010ffff", "\u2014", "a" * 255])
def test_an_origin_may_have_any_other_character_whatever_the_version_of_unicode(origin: str) -> None:
    signer = Signer.generate(origin)
    assert verify_head(headlog.sign_head(signer, HEAD, NOTE.log_root).text, signer.public).origin == origin


@pytest.mark.parametrize(
    ("before", "after", "truth"),
    [
        *(("", "", True), ("\n", "\r\n", True), (" \t", "\n\n", True), ("", "\v", False), ("", "\x1c", False)),
        *(("\ufeff", "", False), ("\xa0", "", False), ("", "\x85", False), ("", "\u2028", False), ("", " x", False)),
    ],
)
def test_spaces_and_line_ends_of_ascii_around_a_key_are_let_go(before: str, after: str, truth: bool) -> None:
    for read in (
        lambda: verify_head(NOTE.text, before + SIGNER.public + after),
        lambda: Signer(before + SIGNER.text + after),
    ):
        if truth:
            read()
        else:
            with pytest.raises(InvalidOption, match="key"):
                read()


# ---- Heads that contradict each other ----


def body_of(commit: Head, before: bytes = bytes(32)) -> tuple[bytes, bytes]:
    """What stands in a proof of a commit without its path, and the chain."""
    facts = commit.root + commit.count.to_bytes(8) + len(commit.at).to_bytes(4) + commit.at.encode() + bytes(32)
    return before + facts, sha256(b"\3" + before + commit.seq.to_bytes(8) + facts).digest()


OTHERS = (replace(NOTE, root=bytes(32)), replace(NOTE, count=4), replace(NOTE, at="2026-11-23T17:09:46.000001Z"))


@pytest.mark.parametrize("other", OTHERS, ids=["root", "count", "time"])
def test_two_heads_of_one_commit_say_the_same_of_it(other: SignedHead) -> None:
    proof = Proof("consistency", b"")
    headlog.verify_consistency(proof, other, other)
    for heads in ((NOTE, other), (other, NOTE)):
        with pytest.raises(ProofInvalid, match="say of commit 7 another root, count or time"):
            headlog.verify_consistency(proof, *heads)


def test_a_proof_of_the_heads_own_commit_shows_what_the_head_says_or_is_refused() -> None:
    body, chain = body_of(HEAD)
    leaves = [*LEAVES[:6], headlog.leaf_hash(chain)]
    proof = Proof("commit", body + b"".join(log.inclusion(6, leaves)))
    head = headlog.sign_head(SIGNER, HEAD, log.tree(leaves))
    facts = headlog.verify_commit(proof, head, 7)
    assert facts == (7, HEAD.root, HEAD.count, HEAD.at, chain)
    for other in OTHERS:
        with pytest.raises(ProofInvalid, match=r"commit 7 .* another root, count or time than the head says"):
            headlog.verify_commit(proof, replace(other, log_root=head.log_root), 7)
    # Of an earlier commit the head says nothing.
    leaves.append(LEAVES[9])
    proof = Proof("commit", body + b"".join(log.inclusion(6, leaves)))
    assert headlog.verify_commit(proof, replace(OTHERS[0], seq=8, log_root=log.tree(leaves)), 7) == facts


@pytest.mark.parametrize(
    ("at", "why"),
    [
        ("", "cut short"),
        ("2026-11-23T17:09:46.00000Z", "cut short"),
        ("2026-11-23T17:09:46.0000000Z", "a time"),
        ("2026-11-23T17:09:46,000000Z", "a time"),
        ("2026-11-23t17:09:46.000000Z", "a time"),
        ("2026-11-23T17:09:4\u0663.00000Z", "a time"),
        ("x" * 27, "a time"),
    ],
)
def test_a_commit_has_a_time_of_one_form(at: str, why: str) -> None:
    raw = at.encode()
    body = bytes(32 + 32 + 8) + len(raw).to_bytes(4) + raw + bytes(32)
    root = headlog.leaf_hash(sha256(b"\3" + bytes(32) + (1).to_bytes(8) + body[32:]).digest())
    with pytest.raises(ProofInvalid, match=why):
        headlog.verify_commit(Proof("commit", body), replace(NOTE, seq=1, log_root=root), 1)


def test_a_commit_has_no_more_entries_than_a_store_can_have() -> None:
    for count, truth in ((2**63 - 1, True), (2**63, False)):
        body, chain = body_of(HEAD._replace(seq=1, count=count))
        head = replace(NOTE, seq=1, count=count, log_root=headlog.leaf_hash(chain))
        if truth:
            assert headlog.verify_commit(Proof("commit", body), head, 1).count == count
        else:
            with pytest.raises(ProofInvalid, match="no store can have"):
                headlog.verify_commit(Proof("commit", body), head, 1)


def test_a_head_of_no_commit_says_that_there_is_nothing() -> None:
    empty = Head(0, EMPTY_ROOT, 0, HEAD.at, bytes(32))
    assert verify_head(headlog.sign_head(SIGNER, empty, headlog.EMPTY).text, SIGNER.public).seq == 0
    wrong = [
        (empty, bytes(32)),
        (empty._replace(root=bytes(32)), headlog.EMPTY),
        (empty._replace(count=1), headlog.EMPTY),
    ]
    for head, log_root in wrong:
        lines = [SIGNER.origin, "0", encoded(log_root), f"root {head.root.hex()}", f"count {head.count}"]
        text = SIGNER.sign("\n".join([*lines, f"at {head.at}\n"]))
        with pytest.raises(ProofInvalid, match="of no commit, and says that there is something"):
            verify_head(text, SIGNER.public)
        with pytest.raises(Damaged, match="commit 0 has a root, count or time that no commit has"):
            headlog.sign_head(SIGNER, head, log_root)


def test_a_commit_that_nobody_could_verify_is_not_signed() -> None:
    for head in (HEAD._replace(at="yesterday"), HEAD._replace(at=HEAD.at + "\n"), HEAD._replace(count=2**63)):
        with pytest.raises(Damaged, match="commit 7 has"):
            headlog.sign_head(SIGNER, head, NOTE.log_root)


@pytest.mark.parametrize("head", [None, NOTE.text, HEAD, {}, 5])
def test_what_is_no_head_is_no_question(head: Any) -> None:
    for ask in (
        lambda: headlog.verify_commit(Proof("commit", b""), head, 1),
        lambda: headlog.verify_consistency(Proof("consistency", b""), head, NOTE),
        lambda: headlog.verify_consistency(Proof("consistency", b""), NOTE, head),
    ):
        with pytest.raises(InvalidOption, match="is a SignedHead"):
            ask()
    numbers: list[Any] = [0, 8, -1, True, 1.0, "1", None, 10**5000]
    for seq in numbers:
        with pytest.raises(InvalidOption, match="no commit of that number"):
            headlog.verify_commit(Proof("commit", b""), NOTE, seq)


def test_heads_of_two_origins_are_not_one_history() -> None:
    proof = Proof("consistency", b"")
    with pytest.raises(ProofInvalid, match="two origins"):
        headlog.verify_consistency(proof, replace(NOTE, origin="a"), NOTE)
    headlog.verify_consistency(proof, NOTE, NOTE)
