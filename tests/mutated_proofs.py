"""Mutated proofs against the verifier: `python -m tests.mutated_proofs --count 100000 [--seed N] [--case N]`.

Method: each case draws a store of up to 40 entries in a tree that is deep for its size, a question that is true
or false, and the honest proof of this or of another question. Then bits are flipped, parts dropped, doubled,
swapped, cut off and made up, either in the bytes, where the parts of the format lie, or in the JSON; or the root,
the kind or the question becomes another. The verifier may accept only the very bytes of the honest proof, with
the true answer, and may raise only ProofInvalid. Each case follows from the seed and its number.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlstate.errors import ProofInvalid
from sqlstate.proof import KINDS, Proof
from tests.reference import plain, proving
from tests.reference.notation import u8, u32, u64
from tests.reference.proving import CODES, Question, Tree
from tests.reference.universes import behind
from tests.support.asking import REFUSED, asked, expected

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.reference.plain import Entry, Key, Name, Value

SEED = 5
STORES = 60
COLLECTIONS = ["a", "a\0", "b", "\u00e9"]
HUGE = [0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1]

# ---- Stores ----


def frequent_rank(collection: str, key: Key) -> int:
    """A rank that every second entry has, so that forty entries give a tree of some five levels."""
    number = int.from_bytes(hashlib.sha256(b"\x02" + plain.name_bytes(collection, key)).digest()[-2:]) | 1 << 15
    return (number & -number).bit_length() - 1


def deep_tree(entries: list[Entry]) -> Tree:
    """The tree over entries of frequent ranks. A verifier knows no ranks."""
    ordered = plain.sort_entries(entries)
    leaves = [
        replace(plain.leaf_node(*entry), rank=min(frequent_rank(entry[0], entry[1]), plain.MAX_RANK))
        for entry in ordered
    ]
    return Tree(tuple(ordered), plain.levels_over(leaves))


def any_key(rng: random.Random) -> Key:
    """A key of any kind, from few."""
    number = rng.randrange(25)
    keys: list[Key] = [number - 5, f"k{number}", b"k%d" % number]
    return rng.choice(keys)


def any_value(rng: random.Random) -> Value:
    """A value of either kind."""
    values: list[Value] = [str(rng.randrange(99)), rng.randbytes(rng.randrange(40)), '{"a":[null,"\u00e9"]}', "1", b"1"]
    return rng.choice(values)


def any_store(rng: random.Random) -> Tree:
    """A store of 0 to 40 entries."""
    names = {(rng.choice(COLLECTIONS), any_key(rng)) for _ in range(rng.choice([0, 1, 2, 5, 12, 40]))}
    return deep_tree([(*name, any_value(rng)) for name in sorted(names, key=str)])


# ---- Questions ----


def any_name(rng: random.Random, of: Tree) -> Name:
    """The name of an entry, or one close to it, or any."""
    if not of.entries or rng.random() < 0.2:
        return rng.choice(COLLECTIONS), any_key(rng)
    collection, key, _ = rng.choice(of.entries)
    return collection, behind(key) if rng.random() < 0.4 and key != 2**63 - 1 else key


def any_question(rng: random.Random, of: Tree) -> Question:
    """A question of any kind: about half of the statements are true."""
    kind = rng.choice(list(CODES))
    name = any_name(rng, of)
    values = {entry[:2]: entry[2] for entry in of.entries}
    if kind in ("present", "absent"):
        return Question(kind, *name, values.get(name, b"") if rng.random() < 0.8 else any_value(rng))
    if kind == "many":
        names = {any_name(rng, of) for _ in range(rng.randrange(1, 6))}
        present = tuple((*each, values[each]) for each in sorted(names, key=str) if each in values)
        return Question(kind, present=present, absent=tuple(sorted(names - values.keys(), key=str)))
    edges: list[Key] = [*(key for own, key, _ in of.entries if own == name[0]), any_key(rng), "", b""]
    edges += [behind(key) for key in edges]
    edges = sorted(set(edges), key=lambda key: plain.sort_key("", key))
    first, last = sorted(rng.sample(range(len(edges)), 2))
    start = edges[first] if rng.random() < 0.8 else None
    limit = rng.choice([None, 1, 2, 5]) if kind == "range" else None
    return Question(kind, name[0], start=start, stop=edges[last] if rng.random() < 0.8 else None, limit=limit)


# ---- Parts of a proof ----


def parts(body: bytes) -> list[bytes]:
    """A body cut where the fields of the format begin; the rest that cannot be read is the last part."""
    cut: list[bytes] = []
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        cut.append(body[at : at + size])
        at += size
        return cut[-1]

    def field() -> None:
        take(int.from_bytes(take(4)))

    def node() -> None:
        for _ in range(min(int.from_bytes(take(4)), len(body) - at)):
            form = int.from_bytes(take(1))
            if form == proving.OPAQUE:
                take(8), take(32)
            elif form == proving.OPENED:
                node()
            elif form in (proving.BESIDE, proving.LISTED):
                field(), take(1), field(), take(1)
                field() if form == proving.LISTED else take(32)

    if take(1) not in (b"", b"\0"):
        node()
    return [part for part in [*cut, body[at:]] if part]


def bit(rng: random.Random, body: bytes) -> bytes:
    """Flip a bit."""
    if not body:
        return b"\0"
    at = rng.randrange(len(body))
    return body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :]


def dropped(rng: random.Random, body: bytes) -> bytes:
    """Drop some parts that stand together."""
    cut = parts(body)
    at = rng.randrange(len(cut) + 1)
    return b"".join(cut[:at] + cut[at + rng.randrange(1, 5) :])


def doubled(rng: random.Random, body: bytes) -> bytes:
    """Write some parts twice."""
    cut = parts(body)
    at = rng.randrange(len(cut) + 1)
    end = at + rng.randrange(1, 5)
    return b"".join(cut[:end] + cut[at:])


def swapped(rng: random.Random, body: bytes) -> bytes:
    """Let two parts change places."""
    cut = parts(body)
    if len(cut) > 1:
        one, two = rng.sample(range(len(cut)), 2)
        cut[one], cut[two] = cut[two], cut[one]
    return b"".join(cut)


def replaced(rng: random.Random, body: bytes) -> bytes:
    """Give a part another value: a number near or huge, another form, random bytes."""
    cut = parts(body) or [b"\0"]
    at = rng.randrange(len(cut))
    size = len(cut[at])
    number = int.from_bytes(cut[at][:8])
    choices = [rng.randbytes(size)]
    if size == 1:
        choices = [u8(rng.choice([0, 1, 2, 3, 4, 5, 16, 17, 255, *b"ijtb"]))]
    elif size == 4:
        choices = [u32(rng.choice([*HUGE, number ^ 1, (number + 1) % 2**32]))]
    elif size == 8:
        choices = [u64(rng.choice([*HUGE, 2**63, 2**64 - 1, number ^ 1, (number + 1) % 2**64]))]
    cut[at] = rng.choice(choices)
    return b"".join(cut)


def truncated(rng: random.Random, body: bytes) -> bytes:
    """Cut off the end."""
    return body[: rng.randrange(len(body) + 1)]


def extended(rng: random.Random, body: bytes) -> bytes:
    """Add bytes behind."""
    return body + rng.choice([b"\0", rng.randbytes(rng.randrange(1, 50)), body])


def nested(rng: random.Random, body: bytes) -> bytes:
    """Put nodes with one child on top."""
    if not body:
        return body
    more = rng.choice([1, 2, 15, 254])
    return u8(min(255, body[0] + more)) + (u32(1) + u8(proving.OPENED)) * more + body[1:]


MUTATIONS: list[Callable[[random.Random, bytes], bytes]] = [
    bit,
    dropped,
    doubled,
    swapped,
    replaced,
    replaced,
    truncated,
    extended,
    nested,
]


def pruned_otherwise(rng: random.Random, of: Tree, question: Question) -> bytes:
    """A proof whose digests are all right, which opens other leaves, or opens them otherwise."""
    forms = proving.honest_forms(of, question) or {}
    for _ in range(rng.randrange(1, 4)):
        number = rng.randrange(len(of.entries) or 1)
        chosen = rng.choice([None, proving.ASKED, proving.BESIDE, proving.LISTED])
        if chosen is None:
            forms.pop(number, None)
        else:
            forms[number] = chosen
    spare = rng.sample(range(len(of.entries)), min(len(of.entries), rng.choice([0, 0, 1])))
    return proving.encode(of, forms, frozenset(spare))


def in_text(rng: random.Random, text: str) -> str:
    """Change the JSON form."""
    at = rng.randrange(len(text) + 1)
    end = at + rng.randrange(4)
    put = rng.choice(["", " ", "=", "A", '"', "}", "\n", "\\u0041", "\u00e9", "\ud800", "[" * 5000, text[at:end] * 2])
    return rng.choice([text[:at] + put + text[end:], text[:at], text + put, text.swapcase()])


# ---- Cases ----


class Case(NamedTuple):
    """One try."""

    of: Tree
    root: bytes
    question: Question
    proof: bytes
    text: str
    how: str


def stores(seed: int) -> list[Tree]:
    """The stores that cases draw from."""
    return [any_store(random.Random(f"{seed} {number}")) for number in range(STORES)]  # noqa: S311, no secret


def case(pool: list[Tree], seed: int, number: int) -> Case:
    """The case of this number."""
    rng = random.Random(f"case {seed} {number}")  # noqa: S311, no secret
    of = rng.choice(pool)
    question = any_question(rng, of)
    other = any_question(rng, of)
    body = proving.honest_body(of, question if rng.random() < 0.75 else other) or proving.encode(of, {})
    root, kind, how = of.root, CODES[question.kind], "another question"
    pick = rng.random()
    if pick < 0.1:
        root, how = rng.choice([rng.choice(pool).root, bit(rng, of.root), plain.empty_root()]), "another root"
    elif pick < 0.2:
        kind, how = rng.choice([*KINDS.values(), rng.randbytes(1)]), "another kind"
    elif pick < 0.4:
        body, how = pruned_otherwise(rng, of, question), "pruned otherwise"
    elif pick < 0.95:
        chosen = [rng.choice(MUTATIONS) for _ in range(rng.choice([1, 1, 2, 3]))]
        for mutation in chosen:
            body = mutation(rng, body)
        how = chosen[-1].__name__
    proof = b"SqSp" + u8(1) + kind + body
    if rng.random() < 0.05:
        proof, how = rng.choice([bit, truncated, dropped])(rng, proof), "the container"
    text = proving.as_json(question.kind, body)
    return Case(of, root, question, proof, in_text(rng, text) if rng.random() < 0.7 else text, how)


def judged(one: Case) -> tuple[str, str]:
    """What became of a case as bytes and as JSON: "accepted" or "refused"; anything else raises AssertionError."""
    return _judged(one, one.proof), _judged(one, from_json(one.text))


def from_json(text: str) -> bytes | None:
    """The bytes of the proof that a text is; None if it is refused."""
    try:
        proof = Proof.from_json(text)
    except ProofInvalid:
        return None
    assert proof.to_json() == text.removesuffix("\n"), f"two spellings: {text!r}"
    return proof.to_bytes()


def _judged(one: Case, proof: bytes | None) -> str:
    if proof is None:
        return REFUSED
    honest = proving.honest(one.of, one.question)
    rightly = proof == honest and one.root == one.of.root
    said: Any = asked(proof, one.root, one.question)
    wanted = expected(one.of, one.question) if rightly else REFUSED
    assert said == wanted, f"{said!r} instead of {wanted!r}"
    return "accepted" if rightly else REFUSED


def run(count: int, seed: int = SEED, first: int = 0) -> Counter[tuple[str, str]]:
    """Judge so many cases; what became of them, by how each was made.

    Raises:
        AssertionError: one was judged wrongly; it names the case.
    """
    pool = stores(seed)
    tally: Counter[tuple[str, str]] = Counter()
    for number in range(first, first + count):
        one = case(pool, seed, number)
        try:
            tally.update(_both(one))
        except Exception as error:
            shown = f"proof {one.proof.hex()}, JSON {one.text!r}, root {one.root.hex()}"
            about = f"--seed {seed} --case {number}: {one.how}: {error!r}"
            raise AssertionError(f"{about}; {one.question}; {shown}") from error
    return tally


def _both(one: Case) -> list[tuple[str, str]]:
    as_bytes, as_json = judged(one)
    return [(one.how, as_bytes), ("JSON", as_json)]


def main(arguments: list[str]) -> int:
    """Judge what *arguments* ask for and print the tally."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutated_proofs", description="Judge mutated proofs.")
    parser.add_argument("--count", type=int, default=100_000, help="how many")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed makes others")
    parser.add_argument("--case", type=int, help="judge the one that a failure named")
    options = parser.parse_args(arguments)
    first, count = (0, options.count) if options.case is None else (options.case, 1)
    for (how, result), number in sorted(run(count, options.seed, first).items()):
        sys.stdout.write(f"{how:<20}{result:<10}{number:>9,}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
