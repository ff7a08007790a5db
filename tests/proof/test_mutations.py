"""Goal: whatever bytes or text pose as a proof, a verifier accepts no false statement, raises ProofInvalid only, and
takes no more memory than the proof is worth. Method: tests/mutated_proofs.py, some thousand cases of it here and any
number by hand; memory is traced, for proofs that promise much and hold little."""

from __future__ import annotations

import sys
import tracemalloc

import pytest

from sqlstate.proof import Proof
from tests import mutated_proofs
from tests.mutated_proofs import deep_tree
from tests.reference import plain, proving
from tests.reference.notation import u8, u32, u64
from tests.reference.proving import ASKED, BESIDE, CODES, LISTED, OPAQUE, OPENED, Question
from tests.support.asking import REFUSED, asked, expected


def test_no_mutated_proof_is_accepted_for_a_false_statement() -> None:
    tally = mutated_proofs.run(3_000)
    accepted = sum(number for (_, result), number in tally.items() if result == "accepted")
    kinds = {how for how, _ in tally}
    # The cases are worth something: some are unharmed, most are not, and each mutation came up.
    assert 50 < accepted < 1_500
    assert {mutation.__name__ for mutation in mutated_proofs.MUTATIONS} < kinds
    assert {"another root", "another kind", "another question", "pruned otherwise", "the container", "JSON"} < kinds


def test_each_bit_of_an_honest_proof_counts() -> None:
    pool = mutated_proofs.stores(1)
    of = next(of for of in pool if len(of.entries) == 12 or len(of.entries) > 20)
    for question in (
        Question("present", *of.entries[1]),
        Question("absent", "nowhere", 5),
        Question("range", of.entries[0][0], limit=3),
        Question("count", of.entries[-1][0]),
    ):
        proof = proving.honest(of, question)
        assert proof is not None
        assert asked(proof, of.root, question) == expected(of, question)
        for number in range(8 * len(proof)):
            flipped = bytearray(proof)
            flipped[number // 8] ^= 1 << number % 8
            assert asked(bytes(flipped), of.root, question) == REFUSED
        for size in range(len(proof)):
            assert asked(proof[:size], of.root, question) == REFUSED


def test_the_parts_of_a_proof_are_found() -> None:
    """Mutations that never met the fields of the format would be worth little."""
    for of in mutated_proofs.stores(1):
        presences = (Question("present", *entry) for entry in of.entries)
        for question in (Question("count", "b"), Question("range", "a"), *presences):
            body = proving.honest_body(of, question)
            assert body is not None
            cut = mutated_proofs.parts(body)
            assert b"".join(cut) == body
            assert of.entries == () or {len(part) for part in cut} >= {1, 4}


# ---- Memory ----

NAMED = plain.name_bytes("c", 1)
TALL = u8(16) + (u32(1) + u8(OPENED)) * 15
POSING = {
    "children without end": u8(1) + u32(2**32 - 1),
    "children without end, behind many": u8(1) + u32(2**32 - 1) + (u8(OPAQUE) + u64(1) + bytes(32)) * 5_000,
    "children without end, on each level": TALL.replace(u32(1), u32(2**32 - 1)) + u32(2**32 - 1),
    "a collection without end": u8(1) + u32(1) + u8(BESIDE) + u32(2**32 - 1),
    "a key without end": u8(1) + u32(1) + u8(BESIDE) + u32(1) + b"cb" + u32(2**32 - 1),
    "a value without end": u8(1) + u32(1) + u8(LISTED) + NAMED + b"j" + u32(2**32 - 1),
    "a value at the limit": u8(1) + u32(1) + u8(LISTED) + NAMED + b"b" + u32(2**28),
    "counts without end": u8(2) + u32(2**20) + (u8(OPAQUE) + u64(2**63) + bytes(32)) * 5_000,
    "levels without end": u8(255) + (u32(1) + u8(OPENED)) * 20_000,
    "entries asked for without end": u8(1) + u32(100_000) + u8(ASKED) * 100_000,
    "many neighbours": u8(1) + u32(4_000) + (u8(BESIDE) + NAMED + b"b" + bytes(32)) * 4_000,
    "many entries": u8(1) + u32(9_000) + (u8(LISTED) + NAMED + b"b" + u32(0)) * 9_000,
    "much behind": u8(0) + bytes(300_000),
}


def peak(proof: Proof | bytes, root: bytes, question: Question) -> int:
    """Bytes that verifying took at most."""
    tracemalloc.start()
    try:
        assert asked(proof, root, question) == REFUSED
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("name", POSING)
def test_memory_is_bounded_by_the_bytes_of_the_proof_not_by_what_it_promises(name: str, kind: str) -> None:
    proof = Proof(kind, POSING[name])
    entry: plain.Entry = ("c", 2, b"")
    question = Question(kind, *entry, present=(entry,))
    assert peak(proof, bytes(32), question) < 16 * len(proof.body) + 100_000


def test_memory_of_honest_proofs_is_a_multiple_of_their_bytes() -> None:
    of = deep_tree([("c", number, str(number)) for number in range(3_000)])
    for question in (Question("range", "c"), Question("range", "c", start=5, limit=1_000), Question("count", "c")):
        proof = proving.honest(of, question)
        assert proof is not None
        # The one that is refused last: everything is read before the root is seen to be another.
        assert peak(proof, bytes(32), question) < 16 * len(proof) + 100_000


def test_memory_of_mutated_proofs_is_bounded_by_their_bytes() -> None:
    pool = mutated_proofs.stores(3)
    for number in range(300):
        one = mutated_proofs.case(pool, 3, number)
        assert peak(one.proof, bytes(32), one.question) < 64 * len(one.proof) + 100_000


def test_memory_of_text_is_bounded_by_its_length() -> None:
    head = '{"sqlstate":"proof","version":1,"kind":"absent","body":"'
    for text in (
        *("[" * 200_000, '{"a":' * 100_000, "9" * 200_000, '{"sqlstate":"proof","version":' + "1" * 100_000),
        *(
            "[" + "{},[]," * 100_000 + "0]",
            head + "A" * 200_000,
            head + "A" * 200_001 + '"}',
            head + "\u00e9" * 200_000 + '"}',
        ),
        *(head + '","a":[' + "{}," * 100_000 + '"}', head + "\U0001f511" * 50_000 + '"}'),
    ):
        tracemalloc.start()
        try:
            assert mutated_proofs.from_json(text) is None
            # A parser would make objects of ten times the text before anything is compared.
            assert tracemalloc.get_traced_memory()[1] < 4 * sys.getsizeof(text) + 20_000
        finally:
            tracemalloc.stop()
