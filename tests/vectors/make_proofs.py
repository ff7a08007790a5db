"""Write proofs.json from the plain prover: `python -m tests.vectors.make_proofs`, the same bytes each time.

`universes` are small stores, each with its root; `accepted` are true statements about them with their one proof,
as bytes and as JSON, and what a range or a count answers; `refused` are proofs that a verifier must refuse, with
the root and the question that they are given for, why, and the error that sqlstate's verifier gives; `no_questions`
are refused before any proof. In `answer`, values are as stored: text is a JSON document. Keys and values stand as in
the other vectors (make.py).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlstate.errors import ProofInvalid
from tests.reference import plain, proving
from tests.reference.notation import sha256, u8, u32, u64
from tests.reference.proving import ASKED, BESIDE, LISTED, OPAQUE, OPENED, Question, Tree
from tests.reference.universes import SHAPES, absences, gaps, manies, presences, ranges, spans, universe
from tests.support.asking import ask
from tests.vectors.make import typed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.reference.plain import Entry, Name

HERE = Path(__file__).parent
ABOUT = "docs/reference/proofs.md; a present value and an answer's value: as stored, text is a JSON document"


def question_of(question: Question) -> dict[str, Any]:
    """A question in the notation of the vectors: only the members that its kind has."""
    if question.kind == "many":
        present: list[Any] = [[collection, typed(key), typed(value)] for collection, key, value in question.present]
        absent: list[Any] = [[collection, typed(key)] for collection, key in question.absent]
        return {"kind": question.kind, "present": present, "absent": absent}
    result: dict[str, Any] = {"kind": question.kind, "collection": question.collection}
    if question.kind in ("present", "absent"):
        result["key"] = typed(question.key)
        return result | ({"value": typed(question.value)} if question.kind == "present" else {})
    result |= {"start": typed(question.start), "stop": typed(question.stop)}
    return result | ({"limit": question.limit} if question.kind == "range" else {})


# ---- Accepted ----


def chosen(of: Tree) -> Iterator[Question]:
    """True statements of each kind, every so many of all that there are."""
    yield from [question for question in presences(of) if proving.answer(of, question) is True]
    yield from [question for question in absences(of) if proving.answer(of, question) is True][::3]
    for every, most in ((ranges(of), 14), (spans(of), 9), (manies(of), 6)):
        some = list(every)
        for question in some[:: max(1, -(-len(some) // most))]:
            if proving.answer(of, question) is not False:
                yield question


def accepted() -> Iterator[dict[str, Any]]:
    """True statements, each with its one proof."""
    for name in SHAPES:
        of = universe(name)
        for question in chosen(of):
            body = proving.honest_body(of, question)
            if body is None:
                raise ValueError(f"not true: {question}")
            answer = proving.answer(of, question)
            case: dict[str, Any] = {"universe": name, "question": question_of(question)}
            case |= {"proof": proving.container(question.kind, body).hex()}
            case |= {"json": proving.as_json(question.kind, body)}
            if isinstance(answer, list):
                case["answer"] = [[typed(key), typed(value)] for key, value in answer]
            elif question.kind == "count":
                case["answer"] = answer
            yield case
    question = Question("many", present=THREE.entries[2:3], absent=(("c", GAPS[2]),))
    body = proving.honest_body(THREE, question) or b""
    case = {"universe": "three levels", "question": question_of(replace(question, absent=question.absent * 2))}
    yield case | {"proof": proving.container("many", body).hex(), "json": proving.as_json("many", body)}


# ---- Refused ----

Refused = tuple[bytes, Question, bytes, str]
"""Root, question, the whole proof, and why it is refused."""


def refused() -> Iterator[dict[str, Any]]:
    """Proofs that a verifier must refuse."""
    for make in (false_statements, other_prunings, other_uses, other_bytes, other_trees, other_names):
        for root, question, proof, why in make():
            case = {"root": root.hex(), "question": question_of(question), "proof": proof.hex(), "why": why}
            yield case | {"error": error_of(proof, root, question)}


def error_of(proof: bytes, root: bytes, question: Question) -> str:
    """What sqlstate's verifier says: from here on, other words or another reason are a change of the file."""
    try:
        ask(proof, root, question)
    except ProofInvalid as error:
        return str(error)
    raise ValueError(f"accepted: {question}")


def no_questions() -> Iterator[dict[str, Any]]:
    """What no verifier can be asked."""
    entry, gone = THREE.entries[2], ("c", GAPS[2])
    for question, why in (
        (Question("many"), "nothing is asked for"),
        (Question("many", present=(entry,), absent=(entry[:2],)), "one name, present and absent"),
        (Question("many", present=(entry, entry)), "one name twice, present"),
        (Question("many", present=(entry, (*entry[:2], b"")), absent=(gone,)), "one name twice, with two values"),
        (Question("range", "c", limit=0), "a limit of 0"),
        (Question("range", "c", limit=-1), "a limit below 0"),
        (Question("range", "c", limit=2**63), "a limit of 2^63"),
        *(
            (Question(kind, "c", start=start, stop=stop), "an empty span")
            for kind in ("range", "count")
            for start, stop in ((1, 1), (2, 1), ("b", "a"), ("", ""), (b"", "z"), ("", 5), (None, -(2**63)))
        ),
        *(
            (Question("absent", name, 1), f"a collection of {len(name.encode())} bytes")
            for name in ("", "c" * 256, "\u00e9" * 128)
        ),
        *((Question("absent", "c", key), f"an empty key of {type(key).__name__}") for key in ("", b"")),
        *((Question("absent", "c", key), "a key beyond 64 bits") for key in (2**63, -(2**63) - 1)),
    ):
        yield {"question": question_of(question), "why": why}


def honest(of: Tree, question: Question) -> bytes:
    """The proof of a true statement."""
    proof = proving.honest(of, question)
    if proof is None:
        raise ValueError(f"not true: {question}")
    return proof


def pruned(of: Tree, question: Question, forms: proving.Forms, *opened: int) -> bytes:
    """A proof whose digests are right, of any leaves in any form."""
    return proving.container(question.kind, proving.encode(of, forms, frozenset(opened)))


THREE = universe("three levels")
MIXED = universe("collections and kinds of keys")
KEYS = [key for _, key, _ in THREE.entries]
GAPS = [key for _, key in gaps(THREE)]


def false_statements() -> Iterator[Refused]:
    """Honest proofs of something close to what is asked."""
    entry = THREE.entries[2]
    question = Question("present", *entry)
    proof = honest(THREE, question)
    yield THREE.root, replace(question, value=b"null"), proof, "the value is another"
    yield THREE.root, replace(question, value=b'"\xc3\xa9\xf0\x9f\x94\x91"'), proof, "bytes are no JSON document"
    yield THREE.root, replace(question, key=KEYS[3]), proof, "the key is another"
    yield THREE.root, replace(question, key=str(KEYS[2]).encode()), proof, "the key is of another kind"
    yield THREE.root, replace(question, collection="c\0"), proof, "the collection is another"
    gone = Question("absent", "c", KEYS[2])
    yield THREE.root, gone, pruned(THREE, gone, {1: BESIDE, 3: BESIDE}), "the entry is there, between the neighbours"
    yield THREE.root, gone, pruned(THREE, gone, {1: BESIDE, 2: BESIDE, 3: BESIDE}), "the entry is there, and shown"
    yield THREE.root, gone, pruned(THREE, gone, {2: BESIDE}), "the entry is there, and its own neighbour"
    free = Question("present", "c", GAPS[2], "1")
    for number in (2, 3):
        yield THREE.root, free, pruned(THREE, free, {number: ASKED}), "there is no such entry"
    yield THREE.root, free, pruned(THREE, free, {2: BESIDE, 3: BESIDE}), "neighbours prove absence, not presence"
    for what in ("present", "absent"):
        many = Question("many", present=(entry,)) if what == "present" else Question("many", absent=(("c", KEYS[2]),))
        other = Question("many", present=(THREE.entries[3],))
        yield THREE.root, many, honest(THREE, other), f"another entry is proven, asked: {what}"


def other_prunings() -> Iterator[Refused]:
    """Proofs whose digests are right, which open less or more than the question needs, or otherwise."""
    span = Question("range", "c", start=KEYS[2], stop=KEYS[6])
    forms = proving.honest_forms(THREE, span) or {}
    for number in forms:
        fewer = {other: form for other, form in forms.items() if other != number}
        why = "an entry of the range is hidden" if forms[number] == LISTED else "a neighbour of the range is not shown"
        yield THREE.root, span, pruned(THREE, span, fewer), why
        turned = forms | {number: BESIDE if forms[number] == LISTED else LISTED}
        why = "an entry without its value" if forms[number] == LISTED else "a neighbour with its value"
        yield THREE.root, span, pruned(THREE, span, turned), why
    yield THREE.root, span, pruned(THREE, span, forms | {0: BESIDE}), "a leaf opened for nothing"
    yield THREE.root, span, pruned(THREE, span, forms | {7: BESIDE}), "a leaf opened for nothing, at the end"
    yield THREE.root, span, pruned(THREE, span, forms | {3: ASKED}), "a form that ranges do not have"
    limited = replace(span, limit=2)
    cut = {1: BESIDE, 2: LISTED, 3: LISTED}
    yield THREE.root, limited, pruned(THREE, limited, cut | {4: BESIDE}), "a neighbour behind the limit"
    yield THREE.root, limited, pruned(THREE, limited, cut | {4: LISTED}), "more entries than the limit"
    yield THREE.root, limited, pruned(THREE, limited, {1: BESIDE, 2: LISTED}), "fewer entries than the limit"
    yield THREE.root, limited, pruned(THREE, limited, {1: BESIDE, 3: LISTED, 4: LISTED}), "the first entry is hidden"
    counted = replace(span, kind="count")
    opened = proving.honest_forms(THREE, counted) or {}
    for leaf in opened:
        fewer = {other: form for other, form in opened.items() if other != leaf}
        yield THREE.root, counted, pruned(THREE, counted, fewer), "a bound of the count has one neighbour"
    yield THREE.root, counted, pruned(THREE, counted, opened | {4: BESIDE}), "a leaf opened for nothing, in the count"
    whole = Question("range", "c")
    listed = dict.fromkeys(range(8), LISTED)
    for hidden in (0, 4, 7):
        fewer = {other: form for other, form in listed.items() if other != hidden}
        yield THREE.root, whole, pruned(THREE, whole, fewer), "an entry of the whole collection is hidden"
    gone = Question("absent", "c", GAPS[2])
    yield THREE.root, gone, pruned(THREE, gone, {2: BESIDE}), "one neighbour"
    yield THREE.root, gone, pruned(THREE, gone, {3: BESIDE}), "the other neighbour"
    yield THREE.root, gone, pruned(THREE, gone, {2: BESIDE, 3: BESIDE, 5: BESIDE}), "a leaf opened for nothing"
    yield THREE.root, gone, pruned(THREE, gone, {2: BESIDE, 3: BESIDE}, 7), "a node opened for nothing"
    yield THREE.root, gone, pruned(THREE, gone, {2: LISTED, 3: BESIDE}), "a form that absence does not have"
    yield THREE.root, gone, pruned(THREE, gone, {}), "nothing opened"
    for place, key in ((7, -1), (0, b"\xff")):
        beyond = Question("absent", "c", key)
        yield THREE.root, beyond, pruned(THREE, beyond, {place: BESIDE}), "a neighbour at the wrong end"
    many = Question("many", present=(THREE.entries[2],), absent=(("c", GAPS[2]),))
    yield THREE.root, many, pruned(THREE, many, {2: BESIDE, 3: BESIDE}), "an entry asked for, as a neighbour"
    yield THREE.root, many, pruned(THREE, many, {2: ASKED}), "an absent one without its neighbour"
    yield THREE.root, many, pruned(THREE, many, {2: ASKED, 3: ASKED}), "more entries than were asked for"
    yield THREE.root, many, pruned(THREE, many, {2: ASKED, 3: BESIDE, 6: BESIDE}), "a leaf opened for nothing"


def other_uses() -> Iterator[Refused]:
    """Honest proofs, used for another root, another kind or another question."""
    for question in (
        Question("present", *MIXED.entries[3]),
        Question("absent", "b", b"\0"),
        Question("absent", "nowhere", 1),
        Question("range", "a"),
        Question("count", "a", start="", stop=b""),
        Question("many", present=MIXED.entries[:1], absent=(("a", b"none"),)),
    ):
        proof = honest(MIXED, question)
        yield THREE.root, question, proof, "the root of another store"
        yield plain.empty_root(), question, proof, "the root of an empty store"
        for kind, code in proving.CODES.items():
            if kind != question.kind:
                yield MIXED.root, question, proof[:5] + code + proof[6:], f"it calls itself a proof of kind {kind}"
    spanned = Question("range", "c", start=KEYS[2], stop=KEYS[4])
    for question in (spanned, replace(spanned, kind="count")):
        proof = honest(THREE, question)
        for bound in (GAPS[1], GAPS[2], KEYS[1], None):
            changed = replace(question, start=bound)
            if honest(THREE, changed) != proof:
                yield THREE.root, changed, proof, "the range begins elsewhere"
        for bound in (GAPS[4], KEYS[6], None):
            yield THREE.root, replace(question, stop=bound), proof, "the range ends elsewhere"
        yield THREE.root, replace(question, collection="d"), proof, "the range is of another collection"
    limited = Question("range", "c", start=KEYS[2], limit=2)
    yield THREE.root, replace(limited, limit=3), honest(THREE, limited), "the limit is another"
    yield THREE.root, replace(limited, limit=None), honest(THREE, limited), "the range has no limit"


def other_bytes() -> Iterator[Refused]:
    """Proofs changed in their bytes."""
    question = Question("absent", "c", GAPS[2])
    proof = honest(THREE, question)
    root = THREE.root
    for size in (0, 3, 5, 6, 7, 11, len(proof) // 2, len(proof) - 1):
        yield root, question, proof[:size], f"cut off after {size} bytes"
    yield root, question, proof + b"\0", "a byte behind"
    yield root, question, proof + proof[6:], "the body twice"
    yield root, question, b"SqSt" + proof[4:], "another beginning"
    for version in (0, 2, 255):
        yield root, question, proof[:4] + u8(version) + proof[5:], f"version {version}"
    for code in (b"a", b"\0", b"L", b"K"):
        yield root, question, proof[:5] + code + proof[6:], f"kind {code!r}"
    for at in (6, 10, 11, 20, 40, len(proof) // 2, len(proof) - 1):
        yield root, question, proof[:at] + bytes([proof[at] ^ 1]) + proof[at + 1 :], f"bit 0 of byte {at} flipped"
    present = Question("present", "c", KEYS[0], "1")
    for body, why in (
        (u8(0), "an empty store"),
        (u8(0) + b"\0", "an empty store, and a byte behind"),
        (u8(1) + u32(0), "a node without children"),
        (u8(1) + u32(2**32 - 1) + u8(ASKED), "more children than there are bytes"),
        (u8(17) + (u32(1) + u8(OPENED)) * 16 + u32(1) + u8(ASKED), "17 levels"),
        (u8(255) + (u32(1) + u8(OPENED)) * 254 + u32(1) + u8(ASKED), "255 levels"),
        (u8(1) + u32(1) + u8(OPENED) + u32(1) + u8(ASKED), "a node in place of a leaf"),
        (u8(1) + u32(2) + u8(ASKED) + u8(OPAQUE) + u64(2) + bytes(32), "a leaf that counts two"),
        (u8(1) + u32(2) + u8(ASKED) + u8(OPAQUE) + u64(0) + bytes(32), "a leaf that counts nothing"),
        (u8(1) + u32(2) + u8(ASKED) + u8(OPAQUE) + u64(2**64 - 1) + bytes(32), "counts beyond 64 bits"),
        (u8(1) + u32(1) + u8(5), "a form that there is not"),
        (u8(1) + u32(1) + u8(BESIDE) + u32(2**32 - 1), "a length beyond the bytes"),
    ):
        yield root, present, proving.container("present", body), why


def other_trees() -> Iterator[Refused]:
    """Trees that no store has, with their own root: made on purpose, and refused all the same."""
    one = plain.leaf_node("c", 1, "1")
    single = plain.inner_node(1, [one])
    present = Question("present", "c", 1, "1")
    tall = plain.inner_node(2, [single])
    body = u8(2) + u32(1) + u8(OPENED) + u32(1) + u8(ASKED)
    yield tall.digest, present, proving.container("present", body), "a top node of level 2 with one child"
    above = plain.inner_node(2, [one, one])
    body = u8(2) + u32(2) + u8(ASKED) + proving.opaque(one)
    yield above.digest, present, proving.container("present", body), "a leaf at level 2"
    for count in (0, 2):
        counting = plain.Node(0, ("c", 2), 0, count, bytes(32))
        body = u8(1) + u32(2) + u8(ASKED) + proving.opaque(counting)
        root = plain.inner_node(1, [one, counting]).digest
        yield root, present, proving.container("present", body), f"a leaf that counts {count}, under its root"
    high, other = single, plain.inner_node(1, [plain.leaf_node("c", 2, "1")])
    body = u32(1) + u8(ASKED)
    for level in range(2, 17):
        high, other = plain.inner_node(level, [high]), plain.inner_node(level, [other])
        body = u32(1) + u8(OPENED) + body
    top = plain.inner_node(17, [high, other])
    body = u8(17) + u32(2) + u8(OPENED) + body + proving.opaque(other)
    yield top.digest, present, proving.container("present", body), "17 levels, under their root"
    for key, why in ((2, "leaves out of order"), (1, "the same leaf twice")):
        of = unordered([("c", key, "1"), ("c", 1, "1")])
        whole = Question("range", "c")
        yield of.root, whole, pruned(of, whole, {0: LISTED, 1: LISTED}), why
        gone = Question("absent", "c", 5)
        yield of.root, gone, pruned(of, gone, {0: BESIDE, 1: BESIDE}), why
    empty = Question("present", "c", 1, "1")
    yield plain.empty_root(), empty, proving.container("present", u8(0)), "presence in an empty store"
    nothing = Question("absent", "c", 1)
    yield (
        sha256(b"\x01\x01"),
        nothing,
        proving.container("absent", u8(1) + u32(0)),
        "the empty store, spelled otherwise",
    )


def unordered(entries: list[Entry]) -> Tree:
    """A tree over entries as they stand."""
    leaves = [plain.leaf_node(*entry) for entry in entries]
    return Tree(tuple(entries), [leaves, [plain.inner_node(1, leaves)]])


def other_names() -> Iterator[Refused]:
    """Neighbours and entries that no store can hold, under a root made of them."""
    for named, why in (
        (u32(0) + b"b" + u32(1) + b"k", "a collection without a name"),
        (u32(256) + b"c" * 256 + b"b" + u32(1) + b"k", "a collection's name of 256 bytes"),
        (u32(1) + b"\xff" + b"b" + u32(1) + b"k", "a collection's name that is no UTF-8"),
        (u32(3) + b"\xed\xa0\x80" + b"b" + u32(1) + b"k", "a surrogate in a collection's name"),
        (u32(1) + b"c" + b"b" + u32(0), "an empty key of bytes"),
        (u32(1) + b"c" + b"t" + u32(0), "an empty key of text"),
        (u32(1) + b"c" + b"t" + u32(1) + b"\xff", "a key that is no UTF-8"),
        (u32(1) + b"c" + b"t" + u32(2) + b"\xc0\x80", "a key in overlong UTF-8"),
        (u32(1) + b"c" + b"i" + u32(7) + bytes(7), "an int key of 7 bytes"),
        (u32(1) + b"c" + b"i" + u32(9) + bytes(9), "an int key of 9 bytes"),
        (u32(1) + b"c" + b"x" + u32(1) + b"k", "a key of a kind that there is not"),
    ):
        yield under(named, b"b", why)
    yield under(plain.name_bytes("c", 1), b"x", "a value of a kind that there is not")
    for stored in (b"[1", b"\xff", b"", b"NaN", b"1 1"):
        named = plain.name_bytes("c", 1)
        leaf = sha256(b"\x00" + named + b"j" + sha256(stored))
        body = u8(1) + u32(1) + u8(LISTED) + named + b"j" + u32(len(stored)) + stored
        proof = proving.container("range", body)
        yield over(leaf), Question("range", "c"), proof, f"a value that is no JSON document: {stored!r}"


def over(leaf: bytes) -> bytes:
    """The root over one leaf."""
    return sha256(b"\x01" + u8(1) + u64(1) + leaf)


def under(named: bytes, vkind: bytes, why: str) -> Refused:
    """A proof of absence whose neighbour has this name."""
    leaf = sha256(b"\x00" + named + vkind + sha256(b""))
    question: Name = ("\U0001f512", 1)
    body = u8(1) + u32(1) + u8(BESIDE) + named + vkind + sha256(b"")
    return over(leaf), Question("absent", *question), proving.container("absent", body), why


# ---- The file ----


def document() -> str:
    """The text of proofs.json."""
    universes = [
        {
            "name": name,
            "entries": [[collection, typed(key), typed(value)] for collection, key, value in universe(name).entries],
            "root": universe(name).root.hex(),
        }
        for name in SHAPES
    ]
    lists = {"universes": universes, "accepted": accepted(), "refused": refused(), "no_questions": no_questions()}
    written = [f"{json.dumps(name)}: [\n{_lines(cases)}\n]" for name, cases in lists.items()]
    return ",\n".join(['{"about": ' + json.dumps(ABOUT), *written]) + "\n}\n"


def _lines(cases: Iterable[dict[str, Any]]) -> str:
    return ",\n".join(json.dumps(case) for case in cases)


def main() -> None:
    """Write the file beside this one."""
    (HERE / "proofs.json").write_text(document(), encoding="ascii")


if __name__ == "__main__":
    main()
