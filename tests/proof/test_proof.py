"""Goal: a verifier accepts the true statements, each with one proof, and nothing else. Method: small universes,
exhaustively: every leaf opened in every form, against every question, judged by the plain prover of
tests/reference/proving.py; and honest proofs used for what they do not prove."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import chain, pairwise, product
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import proof as verifier
from sqlstate.errors import InvalidInput, InvalidOption, ProofInvalid
from sqlstate.proof import Document, Proof
from tests import ROOT
from tests.reference import plain, proving
from tests.reference.notation import sha256, u8, u32, u64
from tests.reference.proving import ASKED, BESIDE, CODES, LISTED, OPAQUE, OPENED, Question
from tests.reference.universes import (
    SHAPES,
    absences,
    bounds,
    gaps,
    manies,
    presences,
    ranges,
    spans,
    subsets,
    universe,
)
from tests.support.asking import REFUSED, ask, asked, expected

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from tests.reference.proving import Forms, Tree

SMALL = [name for name, shape in SHAPES.items() if len(shape) <= 4]
EVERY_FORM = OPAQUE, ASKED, BESIDE, LISTED


def questions(of: Tree, kind: str) -> Iterator[Question]:
    if kind == "range":
        return ranges(of)
    return {"present": presences, "absent": absences, "count": spans, "many": manies}[kind](of)


@cache
def bodies(name: str, forms: Sequence[int]) -> list[bytes]:
    """Every body that opens leaves of the universe in these forms."""
    of = universe(name)
    return list(dict.fromkeys(proving.encode(of, chosen) for chosen in choices(len(of.entries), forms)))


def choices(leaves: int, forms: Iterable[int]) -> Iterator[Forms]:
    for chosen in product(forms, repeat=leaves):
        yield {number: form for number, form in enumerate(chosen) if form != OPAQUE}


def judge(of: Tree, question: Question, tried: Iterable[bytes]) -> None:
    """Of these bodies the honest one is accepted, if the statement is true, with the true answer; no other is."""
    honest = proving.honest_body(of, question)
    truth = expected(of, question)
    for body in tried:
        said = asked(Proof(question.kind, body), of.root, question)
        if said != (truth if body == honest else REFUSED):
            pytest.fail(f"{question}: {said!r} to {body.hex()}, and the honest one is {honest and honest.hex()}")
    if honest is not None:
        assert ask(Proof(question.kind, honest), of.root, question) == truth


# ---- Every pruned tree, every question ----


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=pytest.mark.slow)
        if kind in ("many", "range") and name in ("one run", "nodes with one child")
        else (name, kind)
        for name in SMALL
        for kind in CODES
    ],
)
def test_of_all_pruned_trees_in_all_forms_only_the_honest_one_is_accepted(name: str, kind: str) -> None:
    of = universe(name)
    limits = (1, 2, 9) if len(of.entries) == 4 else None
    asked_of = ranges(of, limits) if kind == "range" else questions(of, kind)
    for question in asked_of:
        judge(of, question, bodies(name, EVERY_FORM))


@pytest.mark.parametrize("name", ["three levels", "collections and kinds of keys"])
@pytest.mark.parametrize(("kind", "form"), [("present", ASKED), ("absent", BESIDE), ("count", BESIDE)])
@pytest.mark.slow
def test_of_all_subsets_of_eight_leaves_only_the_honest_one_is_accepted(name: str, kind: str, form: int) -> None:
    of = universe(name)
    for question in questions(of, kind):
        judge(of, question, bodies(name, (OPAQUE, form)))


@pytest.mark.parametrize("name", ["three levels", "collections and kinds of keys"])
@pytest.mark.slow
def test_of_all_subsets_of_eight_leaves_only_the_honest_range_is_accepted(name: str) -> None:
    of = universe(name)
    for question in ranges(of, (2,)):
        judge(of, question, bodies_of_range(name, of.below(question.first()), of.below(question.end())))


@cache
def bodies_of_range(name: str, first: int, end: int) -> list[bytes]:
    """Every subset opened, entries within the range as its entries, others as neighbours."""
    of = universe(name)
    return [
        proving.encode(of, {number: LISTED if first <= number < end else BESIDE for number in opened})
        for opened in subsets(range(len(of.entries)))
    ]


@pytest.mark.parametrize("name", ["three levels", "collections and kinds of keys"])
@pytest.mark.slow
def test_of_all_subsets_of_eight_leaves_only_the_honest_proof_of_many_is_accepted(name: str) -> None:
    of = universe(name)
    entries, free = of.entries, gaps(of)
    chosen = [
        Question("many", present=tuple(entries[i] for i in picked), absent=absent)
        for picked in ((), (0,), (3,), (2, 3, 4), (0, 7), tuple(range(8)))
        for absent in ((), (free[3],), (free[0], free[7], free[8]), tuple(free))
        if picked or absent
    ]
    for question in chosen:
        for forms in ((OPAQUE, ASKED), (OPAQUE, BESIDE)):
            judge(of, question, bodies(name, forms))
        judge(of, question, mixed(of, {of.find(*entry[:2]) for entry in question.present}))


def mixed(of: Tree, asked_for: set[int | None]) -> Iterator[bytes]:
    """Every subset opened, the entries asked for as such and others as neighbours."""
    for opened in subsets(range(len(of.entries))):
        yield proving.encode(of, {number: ASKED if number in asked_for else BESIDE for number in opened})


# ---- Honest proofs, used for what they do not prove ----


def samples(of: Tree) -> list[Question]:
    """Some true statements of each kind."""
    kinds = (presences(of), absences(of), list(spans(of))[::9], list(ranges(of))[::17], list(manies(of))[1::1111])
    return [question for question in chain(*kinds) if proving.honest(of, question) is not None]


@pytest.mark.parametrize("name", ["three levels", "collections and kinds of keys", "empty"])
def test_a_proof_proves_one_question(name: str) -> None:
    of = universe(name)
    sampled = samples(of)
    made = {proving.honest_body(of, question) for question in sampled}
    for question in sampled:
        judge(of, question, (body for body in made if body is not None))


@pytest.mark.parametrize("name", SHAPES)
def test_a_proof_of_another_kind_is_refused(name: str) -> None:
    of = universe(name)
    for question in samples(of):
        body = proving.honest_body(of, question)
        assert body is not None
        for kind in {*CODES, "commit", "consistency"} - {question.kind}:
            assert asked(Proof(kind, body), of.root, question) == REFUSED


@pytest.mark.parametrize("name", SHAPES)
def test_a_proof_is_refused_for_another_root(name: str) -> None:
    of = universe(name)
    others = [universe(other).root for other in SHAPES if other != name]
    nearly = bytes([of.root[0] ^ 1]) + of.root[1:]
    for question in samples(of):
        proof = proving.honest(of, question)
        assert proof is not None
        for root in [*others, nearly, bytes(32)]:
            assert asked(proof, root, question) == REFUSED


def test_entries_left_out_of_the_tree_are_not_left_out_of_the_proof() -> None:
    of = universe("three levels, all in the middle")
    for kept in subsets(of.entries):
        fewer = proving.tree(kept)
        if len(kept) == len(of.entries):
            continue
        for question in chain(spans(of), ranges(of, (1, 3))):
            body = proving.honest_body(fewer, question)
            assert body is not None
            assert asked(Proof(question.kind, body), of.root, question) == REFUSED


@pytest.mark.parametrize("name", ["two levels", "three levels, all in the middle"])
def test_nodes_opened_for_nothing_are_refused(name: str) -> None:
    of = universe(name)
    for question in samples(of):
        forms = proving.honest_forms(of, question)
        assert forms is not None
        tried = (proving.encode(of, forms, frozenset(more)) for more in subsets(range(len(of.entries))))
        judge(of, question, tried)


def test_a_value_is_bound_with_its_kind() -> None:
    of = proving.tree([("c", "text", "1"), ("c", "bytes", b"1")])
    for entry, right, wrong in zip(of.entries, (b"1", Document("1")), (Document("1"), b"1"), strict=True):
        key = entry[1]
        proof = proving.honest(of, Question("present", *entry))
        assert proof is not None
        verifier.verify_present(proof, of.root, "c", key, right)
        with pytest.raises(ProofInvalid):
            verifier.verify_present(proof, of.root, "c", key, wrong)
        assert asked(proof, of.root, Question("present", "c", str(key).encode(), b"1")) == REFUSED


def test_a_leaf_cannot_be_taken_for_a_node_nor_a_node_for_a_leaf() -> None:
    of = universe("three levels")
    top = of.top
    question = Question("absent", "nowhere")
    leaf = proving.honest_body(proving.tree([of.entries[0]]), question)
    assert leaf is not None
    # The top node's digest as that of the one leaf, in place of a leaf, and as a single child.
    lone = u8(1) + u32(1) + u8(OPAQUE) + u64(top.count) + top.digest
    inner = top.children[0].children[0]
    posing = u8(1) + u32(1) + u8(OPAQUE) + u64(1) + inner.digest
    for body in (leaf, lone, posing, u8(2) + u32(1) + proving.opaque(top)):
        assert asked(Proof("absent", body), of.root, question) == REFUSED
        assert asked(Proof("absent", body), plain.leaf(*of.entries[0]), question) == REFUSED


def test_a_top_node_with_one_child_is_refused_even_where_its_digest_is_the_root() -> None:
    below = universe("one entry").top
    top = plain.inner_node(2, [below])
    question = Question("present", *universe("one entry").entries[0])
    for level, wrapped in ((1, u32(1) + u8(ASKED)), (2, u32(1) + u8(OPENED) + u32(1) + u8(ASKED))):
        root = (below, top)[level - 1].digest
        assert asked(Proof("present", u8(level) + wrapped), root, question) == (True if level == 1 else REFUSED)


@pytest.mark.parametrize("form", [ASKED, BESIDE, LISTED])
def test_a_leaf_above_level_one_is_refused_even_where_its_digest_is_there(form: int) -> None:
    entry: plain.Entry = ("c", 1, b"")
    leaf = plain.leaf_node(*entry)
    root = plain.inner_node(2, [leaf, leaf]).digest
    shown = u8(form) + plain.name_bytes("c", 1) + b"b" + (sha256(b"") if form == BESIDE else u32(0))
    body = u8(2) + u32(2) + (u8(form) if form == ASKED else shown) + proving.opaque(leaf)
    for question in (
        Question("present", *entry),
        Question("range", "c", limit=1),
        Question("count", "c", stop=1),
        Question("absent", "c", -1),
        Question("many", absent=(("c", -1),)),
    ):
        assert asked(Proof(question.kind, body), root, question) == REFUSED


def chained(levels: int) -> tuple[bytes, bytes]:
    """A tree of that many levels: two nodes below the top, and one child in each below; body and root."""
    below = plain.inner_node(1, [plain.leaf_node("c", 1, b"")])
    other = plain.inner_node(1, [plain.leaf_node("c", 2, b"")])
    body = u32(1) + u8(ASKED)
    for level in range(2, levels):
        below, other = plain.inner_node(level, [below]), plain.inner_node(level, [other])
        body = u32(1) + u8(OPENED) + body
    top = plain.inner_node(levels, [below, other])
    return u8(levels) + u32(2) + u8(OPENED) + body + proving.opaque(other), top.digest


@pytest.mark.parametrize(("levels", "truth"), [(2, True), (15, True), (16, True), (17, REFUSED), (255, REFUSED)])
def test_levels_end_at_sixteen(levels: int, truth: object) -> None:
    body, root = chained(levels)
    assert asked(Proof("present", body), root, Question("present", "c", 1, b"")) == truth


# ---- Numbers and lengths that would overflow or be taken for another ----


@pytest.mark.parametrize(
    "body",
    [
        b"",
        u8(0) + b"\0",
        u8(1),
        u8(1) + u32(0),
        u8(1) + u32(2**32 - 1),
        u8(1) + u32(2**32 - 1) + u8(ASKED),
        u8(16) + (u32(1) + u8(OPENED)) * 15 + u32(1) + u8(ASKED),
        u8(255) + (u32(1) + u8(OPENED)) * 254 + u32(1) + u8(ASKED),
        u8(1) + u32(1) + u8(OPENED) + u32(1) + u8(ASKED),
        u8(1) + u32(1) + u8(5),
        u8(1) + u32(1) + u8(255),
        u8(1) + u32(1) + u8(OPAQUE) + u64(2**64 - 1) + bytes(32),
        u8(2) + u32(2) + (u8(OPAQUE) + u64(2**64 - 1) + bytes(32)) * 2,
        u8(2) + u32(2) + (u8(OPAQUE) + u64(2**63) + bytes(32)) * 2 + u8(ASKED),
        u8(1) + u32(1) + u8(BESIDE) + u32(2**32 - 1),
        u8(1) + u32(1) + u8(BESIDE) + u32(1) + b"c" + b"i" + u32(2**32 - 1),
        u8(1) + u32(1) + u8(LISTED) + u32(1) + b"c" + b"b" + u32(1) + b"k" + b"j" + u32(2**32 - 1),
    ],
    ids=bytes.hex,
)
@pytest.mark.parametrize("kind", CODES)
def test_impossible_numbers_are_refused(kind: str, body: bytes) -> None:
    of = universe("three levels")
    held = of.entries[0]
    question = Question(kind, *held, present=(held,))
    for root in (of.root, plain.empty_root(), bytes(32)):
        assert asked(Proof(kind, body[:400]), root, question) == REFUSED


@pytest.mark.parametrize(
    ("level", "count", "truth"), [(1, 0, REFUSED), (1, 1, True), (1, 2, REFUSED), (2, 0, REFUSED), (2, 2, True)]
)
def test_a_part_that_is_not_opened_counts_what_it_can_have(level: int, count: int, truth: object) -> None:
    # The root is made of the count, so that nothing but the count itself is wrong.
    leaf = plain.leaf_node("c", 1, b"")
    first = leaf if level == 1 else plain.inner_node(1, [leaf])
    other = plain.Node(level - 1, ("c", 2), level, count, bytes(32))
    opened = u8(ASKED) if level == 1 else u8(OPENED) + u32(1) + u8(ASKED)
    body = u8(level) + u32(2) + opened + proving.opaque(other)
    root = plain.inner_node(level, [first, other]).digest
    assert asked(Proof("present", body), root, Question("present", "c", 1, b"")) == truth


def overflowing(total: int) -> tuple[Proof, bytes]:
    """A root that its maker says is over so many entries, and a count of them: one beside each bound."""
    first, last = plain.leaf_node("c", 1, b""), plain.leaf_node("c", 3, b"")
    left, right = plain.inner_node(1, [first]), plain.inner_node(1, [last])
    half = plain.Node(1, ("c", 2), 1, (total - 2) // 2, bytes(32))
    top = plain.inner_node(2, [left, half, half, right])
    beside = u8(BESIDE) + plain.name_bytes("c", 1) + b"b" + sha256(b"")
    after = u8(BESIDE) + plain.name_bytes("c", 3) + b"b" + sha256(b"")
    opened = [u8(OPENED) + u32(1) + leaf for leaf in (beside, after)]
    body = u8(2) + u32(4) + opened[0] + proving.opaque(half) * 2 + opened[1]
    return Proof("count", body), top.digest


def test_counts_are_added_exactly() -> None:
    proof, root = overflowing(2**63)
    assert verifier.verify_count(proof, root, "c") == 2**63


@pytest.mark.parametrize(
    ("named", "why"),
    [
        (u32(0) + b"b" + u32(1) + b"k", "a collection without a name"),
        (u32(256) + b"c" * 256 + b"b" + u32(1) + b"k", "a collection's name too long"),
        (u32(1) + b"\xff" + b"b" + u32(1) + b"k", "a collection's name that is no text"),
        (u32(3) + b"\xed\xa0\x80" + b"b" + u32(1) + b"k", "a surrogate in a collection's name"),
        (u32(1) + b"c" + b"b" + u32(0), "an empty key"),
        (u32(1) + b"c" + b"t" + u32(0), "an empty key"),
        (u32(1) + b"c" + b"t" + u32(1) + b"\xff", "a key that is no text"),
        (u32(1) + b"c" + b"t" + u32(2) + b"\xc0\x80", "a key in overlong UTF-8"),
        (u32(1) + b"c" + b"i" + u32(7) + bytes(7), "an int of 7 bytes"),
        (u32(1) + b"c" + b"i" + u32(9) + bytes(9), "an int of 9 bytes"),
        (u32(1) + b"c" + b"x" + u32(1) + b"k", "no kind of key"),
        (u32(1) + b"c" + b"b" + u32(2**20 + 1) + b"k" * (2**20 + 1), "a key too long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_neighbour_that_no_store_can_hold_is_refused(named: bytes, why: str) -> None:
    for vkind in (b"b", b"j"):
        leaf = sha256(b"\x00" + named + vkind + bytes(32))
        root = sha256(b"\x01" + u8(1) + u64(1) + leaf)
        body = u8(1) + u32(1) + u8(BESIDE) + named + vkind + bytes(32)
        for collection in ("A", "\U0001f512"):
            assert asked(Proof("absent", body), root, Question("absent", collection, 1)) == REFUSED, why


def test_a_value_of_no_kind_is_refused() -> None:
    named = plain.name_bytes("c", 1)
    for vkind in (b"x", b"\0"):
        leaf = sha256(b"\x00" + named + vkind + sha256(b"1"))
        root = sha256(b"\x01" + u8(1) + u64(1) + leaf)
        beside = u8(1) + u32(1) + u8(BESIDE) + named + vkind + sha256(b"1")
        listed = u8(1) + u32(1) + u8(LISTED) + named + vkind + u32(1) + b"1"
        assert asked(Proof("absent", beside), root, Question("absent", "c", 2)) == REFUSED
        assert asked(Proof("range", listed), root, Question("range", "c")) == REFUSED


def listed(raw: bytes) -> Any:
    """What the verifier reads, where a range has one document."""
    named = plain.name_bytes("c", 1)
    root = sha256(b"\x01" + u8(1) + u64(1) + sha256(b"\x00" + named + b"j" + sha256(raw)))
    body = u8(1) + u32(1) + u8(LISTED) + named + b"j" + u32(len(raw)) + raw
    answer = asked(Proof("range", body), root, Question("range", "c"))
    return answer if answer == REFUSED else answer[0][1]


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 100_000, "[1", "", "1 1", "NaN", "-Infinity", '"\ud800', '"\\ud800"', '["\\uDC00"]', '{"\\ud83d":1}'),
        *("9" * 310, "9" * 5000, "-" + "9" * 310, "1e309", "-1e309", "[1e999]", "\ufeff1", "01", "+1", "1.", '"\t"'),
        *(
            "[" * 201 + "]" * 201,
            '{"a":' * 201 + "1" + "}" * 201,
            "[" * 1_500 + "]" * 1_500,
            "[[]," * 201 + "1" + "]" * 201,
        ),
    ],
    ids=lambda text: repr(text)[:30],
)
def test_a_range_with_a_document_that_no_store_holds_is_refused(text: str) -> None:
    assert listed(text.encode("utf-8", "surrogatepass")) == REFUSED


def test_a_range_reads_what_the_page_allows() -> None:
    deep = listed(b"[" * 200 + b"]" * 200)
    for _ in range(199):
        (deep,) = deep
    assert deep == []
    assert listed(b"[" + b"[]," * 300 + b'"[[["]')[-1] == "[[["
    largest = 2**1024 - 2**970 - 1  # the next whole number is nearer to infinity than to a double
    assert (listed(str(largest).encode()), listed(str(largest + 1).encode())) == (largest, REFUSED)
    assert listed(b' {"a" : 1e-999,\r\n\t"a":-0} ') == {"a": 0}
    assert listed(rb'["\ud83d\udd11","\\ud83d","\/"]') == ["\U0001f511", r"\ud83d", "/"]


def test_a_range_is_refused_alike_whatever_a_program_allows_of_digits() -> None:
    before = sys.get_int_max_str_digits()
    try:
        for limit in (640, 0):
            sys.set_int_max_str_digits(limit)
            assert listed(b"1" + b"0" * 308) == 10**308
            assert listed(b"1" + b"0" * 309) == REFUSED
            assert listed(b"9" * 100_000) == REFUSED
    finally:
        sys.set_int_max_str_digits(before)


def test_leaves_out_of_order_are_refused() -> None:
    # Such a root can only be made on purpose: check() finds it.
    entries: list[plain.Entry] = [("c", 1, b"x"), ("c", 3, b"y"), ("c", 2, b"z"), ("c", 4, b"u")]
    top = plain.inner_node(1, [plain.leaf_node(*entry) for entry in entries])
    of = proving.Tree(tuple(entries), [[], [top]])
    for forms in choices(4, (OPAQUE, BESIDE, LISTED)):
        if {1, 2} <= set(forms):
            body = proving.encode(of, forms)
            for question in (Question("range", "c"), Question("range", "c", start=2), Question("count", "c", stop=3)):
                assert asked(Proof(question.kind, body), top.digest, question) == REFUSED
            for key in (2, 5):
                assert asked(Proof("absent", body), top.digest, Question("absent", "c", key)) == REFUSED


def test_one_entry_twice_is_refused() -> None:
    entries: list[plain.Entry] = [("c", 1, b"x"), ("c", 1, b"x"), ("c", 2, b"")]
    top = plain.inner_node(1, [plain.leaf_node(*entry) for entry in entries])
    of = proving.Tree(tuple(entries), [[], [top]])
    for forms in choices(3, (OPAQUE, BESIDE, LISTED)):
        if {0, 1} <= set(forms):
            body = proving.encode(of, forms)
            for question in (Question("range", "c"), Question("range", "c", limit=2), Question("count", "c", start=1)):
                assert asked(Proof(question.kind, body), top.digest, question) == REFUSED


# ---- Questions that are none ----


@pytest.mark.parametrize(
    ("start", "stop"), [(1, 1), (2, 1), ("", ""), ("", 5), (b"", "z"), (b"", b""), ("b", "a"), (None, -(2**63))]
)
def test_a_span_that_holds_no_key_is_no_question(start: Any, stop: Any) -> None:
    of = universe("three levels")
    for verify in (verifier.verify_range, verifier.verify_count):
        with pytest.raises(InvalidOption):
            verify(Proof("range", b""), of.root, "c", start, stop)


@pytest.mark.parametrize(
    "limit", [0, -1, True, 1.0, "1", 2**63, 10**5000], ids=["0", "-1", "True", "1.0", "text", "2^63", "huge"]
)
def test_a_limit_is_a_number_of_entries(limit: Any) -> None:
    with pytest.raises(InvalidOption, match="a limit is a number of entries from 1 to"):
        verifier.verify_range(Proof("range", b""), bytes(32), "c", limit=limit)


def test_a_limit_may_be_far_beyond_all_entries() -> None:
    of = universe("three levels")
    question = Question("range", "c", limit=2**63 - 1)
    proof = proving.honest(of, question)
    assert proof is not None
    assert ask(proof, of.root, question) == expected(of, question)


@pytest.mark.parametrize("key", ["", b"", True, 1.0, None, 2**63, -(2**63) - 1, "\ud800"])
def test_a_key_is_one_that_a_store_can_hold(key: Any) -> None:
    of = universe("empty")
    empty = Proof("absent", u8(0))
    verifier.verify_absent(empty, of.root, "c", 1)
    with pytest.raises(InvalidInput):
        verifier.verify_absent(empty, of.root, "c", key)
    with pytest.raises(InvalidInput):
        verifier.verify_present(Proof("present", u8(0)), of.root, "c", key, 1)
    with pytest.raises(InvalidInput):
        verifier.verify_many(Proof("many", u8(0)), of.root, {}, [("c", key)])


@pytest.mark.parametrize("collection", ["", "c" * 256, "\ud800", None, b"c", 1])
def test_a_collection_is_one_that_a_store_can_hold(collection: Any) -> None:
    of = universe("empty")
    with pytest.raises(InvalidInput):
        verifier.verify_absent(Proof("absent", u8(0)), of.root, collection, 1)
    with pytest.raises(InvalidInput):
        verifier.verify_count(Proof("count", u8(0)), of.root, collection)


@pytest.mark.parametrize("root", [b"", bytes(31), bytes(33), "00" * 32, None])
def test_a_root_is_32_bytes(root: Any) -> None:
    with pytest.raises((InvalidInput, ProofInvalid)):
        verifier.verify_absent(Proof("absent", u8(0)), root, "c", 1)


def test_nothing_asked_is_no_question() -> None:
    for name in SHAPES:
        with pytest.raises((InvalidOption, ProofInvalid)):
            verifier.verify_many(Proof("many", u8(0)), universe(name).root, {}, [])


def test_an_entry_cannot_be_proven_present_and_absent_at_once() -> None:
    for name in SMALL:
        of = universe(name)
        for collection, key, value in of.entries:
            question = Question("many", present=((collection, key, value),), absent=((collection, key),))
            for body in bodies(name, EVERY_FORM):
                with pytest.raises((InvalidOption, ProofInvalid)):
                    ask(Proof("many", body), of.root, question)


def test_a_name_asked_for_twice_is_asked_for_once() -> None:
    of = universe("three levels")
    question = Question("many", absent=(gaps(of)[3],))
    proof = proving.honest(of, question)
    assert proof is not None
    assert ask(proof, of.root, replace(question, absent=question.absent * 2))


@pytest.mark.parametrize("absent", [["ab"], "ab", [("c",)], [("c", 1, 1)], [None], [5]])
def test_a_name_is_a_collection_and_a_key(absent: Any) -> None:
    with pytest.raises(InvalidOption, match="asked for as"):
        verifier.verify_many(Proof("many", u8(0)), plain.empty_root(), {}, absent)
    with pytest.raises(InvalidOption, match="asked for as"):
        verifier.verify_many(Proof("many", u8(0)), plain.empty_root(), dict.fromkeys(absent, 1))
    with pytest.raises(InvalidOption, match="a dict"):
        verifier.verify_many(Proof("many", u8(0)), plain.empty_root(), absent)


@pytest.mark.parametrize("proof", [None, "SqSp", bytearray(b"SqSp\x01A\x00"), 5, b"", b"SqSp", b"SqSp\x01"])
def test_what_is_no_proof_is_refused(proof: Any) -> None:
    with pytest.raises((ProofInvalid, InvalidInput)):
        verifier.verify_absent(proof, plain.empty_root(), "c", 1)


# ---- The container ----


@pytest.mark.parametrize("name", SHAPES)
def test_bytes_and_json_are_the_plain_ones_and_read_back(name: str) -> None:
    of = universe(name)
    for question in samples(of):
        body = proving.honest_body(of, question)
        assert body is not None
        proof = Proof(question.kind, body)
        assert proof.to_bytes() == proving.container(question.kind, body)
        assert proof.to_json() == proving.as_json(question.kind, body)
        assert Proof.from_bytes(proof.to_bytes()) == proof == Proof.from_json(proof.to_json())
        assert Proof.from_json(proof.to_json() + "\n") == proof
        assert ask(proof.to_bytes(), of.root, question) == ask(proof, of.root, question)


FIRST_LINE = '{"sqlstate":"proof","version":1,"kind":"absent","body":"'


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "5", '""', "[]", "{}", "[" * 100_000, "9" * 5000, '{"kind":1,"body":1}', '{"body":"AA=="}'),
        *(' {"sqlstate":"proof","version":1,"kind":"absent","body":"AA=="}', FIRST_LINE + 'AA=="} '),
        *(FIRST_LINE + 'AA=="}\n\n', FIRST_LINE + 'AA=="}\r\n', "\ufeff" + FIRST_LINE + 'AA=="}'),
        *(FIRST_LINE + 'AA"}', FIRST_LINE + 'AB=="}', FIRST_LINE + 'AA==="}', FIRST_LINE + 'A-=="}'),
        *(FIRST_LINE + 'AA== "}', FIRST_LINE + 'AA=="', FIRST_LINE + '\\u0041A=="}', FIRST_LINE + '\u00e9"}'),
        FIRST_LINE + 'AA==","more":1}',
        FIRST_LINE + 'AA==","body":"AA=="}',
        '{"sqlstate":"proof","version":1.0,"kind":"absent","body":"AA=="}',
        '{"sqlstate":"proof","version":true,"kind":"absent","body":"AA=="}',
        '{"sqlstate":"proof","version":2,"kind":"absent","body":"AA=="}',
        '{"sqlstate":"proof","version":1,"kind":"none","body":"AA=="}',
        '{"sqlstate":"proof","version":1,"kind":["absent"],"body":"AA=="}',
        '{"version":1,"sqlstate":"proof","kind":"absent","body":"AA=="}',
        '{"sqlstate": "proof","version":1,"kind":"absent","body":"AA=="}',
        b'{"sqlstate":"proof","version":1,"kind":"absent","body":"AA=="}',
        *(None, 5),
    ],
    ids=lambda text: repr(text)[:70],
)
def test_any_other_spelling_as_json_is_refused(text: Any) -> None:
    with pytest.raises(ProofInvalid):
        Proof.from_json(text)


@pytest.mark.parametrize(
    "data",
    [b"", b"SqSp", b"SqSp\x01", b"sqsp\x01A", b"SqSt\x01A", b"SqSp\x00A", b"SqSp\x02A", b"SqSp\x01a", b"SqSp\x01\x00"],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ProofInvalid):
        Proof.from_bytes(data)


def test_a_proof_is_of_one_of_the_kinds() -> None:
    with pytest.raises(InvalidOption):
        Proof("presence", b"")


# ---- What verifying needs ----


def test_verifying_needs_nothing_that_is_installed(tmp_path: Path) -> None:
    of = universe("three levels")
    question = next(iter(ranges(of)))
    proof = proving.honest(of, question)
    assert proof is not None
    script = f"""
import sys
sys.modules.update(dict.fromkeys(("apsw", "msgspec", "click", "anyio", "cryptography", "sqlite3")))
import sqlstate
proof = sqlstate.proof  # loaded by its name alone
entries = proof.verify_range(bytes.fromhex({proof.hex()!r}), bytes.fromhex({of.root.hex()!r}), "c")
assert len(entries) == 8, entries
proof.verify_absent(proof.Proof("absent", b"\\0"), bytes.fromhex({plain.empty_root().hex()!r}), "c", 1)
loaded = sorted(name for name in sys.modules if name.startswith("sqlstate"))
print(*loaded)
"""
    # -S: without what is installed.
    ran = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    allowed = {"sqlstate", "sqlstate.errors", "sqlstate.format", "sqlstate.format.constants"}
    assert {name for name in ran.stdout.split() if not name.startswith("sqlstate.proof")} <= allowed


def test_public_names_of_the_verifiers_say_the_folder_that_they_are_imported_from() -> None:
    public: list[Any] = [
        sqlstate.proof.Proof, sqlstate.proof.Document, sqlstate.proof.verify_range, sqlstate.headlog.SignedHead,
        sqlstate.headlog.Signer, sqlstate.headlog.CommitFacts, sqlstate.headlog.verify_commit,
    ]  # fmt: skip
    for each in public:
        assert getattr(sys.modules[each.__module__], each.__qualname__) is each
        assert each.__module__ in ("sqlstate.proof", "sqlstate.headlog")
    proof = Proof("absent", b"\0")
    assert pickle.loads(pickle.dumps(proof)) == proof  # noqa: S301, made here


def test_bounds_of_these_tests_reach_every_gap() -> None:
    """The exhaustive tests above are worth what their questions are."""
    for name in SHAPES:
        of = universe(name)
        for collection in {entry[0] for entry in of.entries}:
            keys = [key for own, key, _ in of.entries if own == collection]
            edges = [plain.sort_key("", bound) for bound in bounds(of, collection)]
            for one, two in pairwise(keys):
                low, high = plain.sort_key("", one), plain.sort_key("", two)
                assert any(low < edge < high for edge in edges)
        reached = {of.below(plain.sort_key(*gap)) for gap in gaps(of)}
        assert reached == set(range(len(of.entries) + 1))
