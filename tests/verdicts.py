"""Python's verdicts beside JavaScript's: `python -m tests.verdicts --count 100000 [--seed N]`.

Method: signed heads, keys, documents in a range, proofs about entries and about commits, and questions are changed at
the level of characters, of tokens and of their structure. Both verifiers are asked the same, and must answer the same:
the same answer, or a refusal in the same words. Each case follows from the seed and its number.
"""

from __future__ import annotations

import argparse
import base64
import random
import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlstate import headlog, proof
from sqlstate.errors import InvalidInput, ProofInvalid
from tests import mutated_proofs
from tests.reference import log, plain, proving
from tests.reference.notation import u8, u32, u64
from tests.reference.proving import Question
from tests.support.asking import ask
from tests.support.javascript import Said, answer_of, call, call_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEED = 3
STORES = mutated_proofs.stores(SEED)
AT = "2026-11-23T17:09:46.000000Z"

Call = list[Any]


class Case(NamedTuple):
    """One call of JavaScript's, and what Python says of the same."""

    kind: str
    call: Call
    python: Said


def said_of(verify: Callable[[], Any]) -> Said:
    """What Python says, in JavaScript's terms."""
    try:
        return Said("answer", verify())
    except ProofInvalid as error:
        return Said("ProofInvalid", str(error))
    except InvalidInput:
        return Said("QuestionInvalid", "")


# ---- Changes of text ----

ODD = [
    *("", " ", "  ", "\t", "\r", "\n", "\n\n", "\r\n", "\0", "\x0b", "\x1c", "\x1f", "\x7f", "\x85", "\xa0", "\xad"),
    *("\u1680", "\u180e", "\u200b", "\u2028", "\u202f", "\u205f", "\u2060", "\u3000", "\ufeff", "\ud800", "\U000e0020"),
    *(
        "+",
        "-",
        "=",
        "/",
        "_",
        "0",
        "00",
        "9",
        "\u0661",
        "\uff11",
        "a",
        "A",
        "\u00e9",
        "\U0001f511",
        "\u2014",
        "\u2014 ",
    ),
    *(
        ".",
        ",",
        "e",
        "E",
        '"',
        "\\",
        "[",
        "]",
        "{",
        "}",
        ":",
        "null",
        "NaN",
        "1e999",
        "-0",
        "\\ud800",
        "\\uDC00",
        "\\u0000",
    ),
]


def changed(rng: random.Random, text: str, tokens: list[str]) -> str:
    """Change one character, one token or the order of tokens."""
    pick = rng.random()
    at = rng.randrange(len(text) + 1)
    if pick < 0.4:
        return text[:at] + rng.choice(ODD) + text[at + rng.randrange(3) :]
    parts = [*tokens]
    if pick < 0.6 and parts:
        one, two = rng.randrange(len(parts)), rng.randrange(len(parts))
        parts[one], parts[two] = parts[two], parts[one]
    elif pick < 0.75 and parts:
        parts[rng.randrange(len(parts))] = rng.choice([*ODD, rng.choice(parts)])
    elif pick < 0.9 and parts:
        place = rng.randrange(len(parts))
        parts[place:place] = parts[place : place + rng.randrange(1, 4)]
    elif parts:
        del parts[rng.randrange(len(parts)) :][: rng.randrange(1, 3)]
    return "".join(parts)


def maybe_changed(rng: random.Random, text: str, tokens: list[str]) -> str:
    """Change a text no, one, two or three times."""
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        text = changed(rng, text, tokens if "".join(tokens) == text else list(text))
    return text


# ---- Signed heads and keys ----


@cache
def signers() -> tuple[headlog.Signer, ...]:
    """Keys that follow from nothing but their origin."""
    made = []
    for number, origin in enumerate(("example.com/a", "example.com/\u00e9", "\U0001f511")):
        secret = base64.b64encode(b"\1" + sha256(b"%d" % number).digest()).decode()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415, an extra

        public = Ed25519PrivateKey.from_private_bytes(sha256(b"%d" % number).digest()).public_key().public_bytes_raw()
        digits = sha256(origin.encode() + b"\n\1" + public).hexdigest()[:8]
        made.append(headlog.Signer(f"PRIVATE+KEY+{origin}+{digits}+{secret}"))
    return tuple(made)


def head_text(rng: random.Random, signer: headlog.Signer) -> str:
    """What is signed: often a head, sometimes nearly."""
    seq, count = (rng.choice([0, 1, 7, 10, 2**63 - 1, 2**63]) for _ in range(2))
    empty = seq == 0 and rng.random() < 0.7
    root = plain.empty_root() if empty else rng.randbytes(32)
    log_root = log.tree([]) if empty else rng.randbytes(32)
    lines = [signer.origin, str(seq), base64.b64encode(log_root).decode(), f"root {root.hex()}"]
    text = "".join(f"{line}\n" for line in [*lines, f"count {0 if empty else count}", f"at {AT}"])
    return text if rng.random() < 0.5 else maybe_changed(rng, text, text.splitlines(keepends=True))


def a_note(rng: random.Random) -> Case:
    """A signed head and a key."""
    ours = rng.choice(signers())
    text = head_text(rng, ours)
    while not _is_text(text):
        text = head_text(rng, ours)
    lines = [
        rng.choice([ours, ours, *signers()]).sign(text).rpartition("\n\n")[2] for _ in range(rng.choice([1, 1, 2]))
    ]
    lines += [
        f"\u2014 {rng.choice(['w', 'w.example', ours.origin])} {rng.choice(['AAAAAAA=', 'AAAAAA=='])}\n"
    ] * rng.choice([0, 0, 1, 14, 15])
    rng.shuffle(lines)
    note = text + "\n" + "".join(lines)
    if rng.random() < 0.6:
        note = maybe_changed(rng, note, [each for line in note.splitlines(keepends=True) for each in _cut(line)])
    key = ours.public if rng.random() < 0.7 else maybe_changed(rng, ours.public, _cut(ours.public))
    return Case("head", ["verifyHead", note, key], said_of(lambda: head_of(headlog.verify_head(note, key))))


def head_of(head: headlog.SignedHead) -> dict[str, Any]:
    """A signed head as verify.js gives it."""
    roots = {"logRoot": head.log_root.hex(), "root": head.root.hex()}
    return {"origin": head.origin, "seq": head.seq, **roots, "count": head.count, "at": head.at, "text": head.text}


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _cut(line: str) -> list[str]:
    """A line cut at spaces and plus signs."""
    return [part for word in line.split(" ") for each in (word, " ") for part in _plus(each)][:-1]


def _plus(word: str) -> Iterator[str]:
    for number, part in enumerate(word.split("+")):
        if number:
            yield "+"
        yield part


# ---- Documents ----


def document(rng: random.Random, depth: int = 3) -> list[str]:
    """The tokens of a document."""
    pick = rng.random()
    if pick < 0.2 and depth:
        members = [document(rng, depth - 1) for _ in range(rng.randrange(4))]
        return ["[", *_joined(members), "]"]
    if pick < 0.4 and depth:
        members = [[a_string(rng), ":", *document(rng, depth - 1)] for _ in range(rng.randrange(4))]
        return ["{", *_joined(members), "}"]
    if pick < 0.45:
        deep = rng.choice([1, 198, 199, 200, 201, 1_000, 5_000])
        return [*rng.choice([("[",), ('{"a":',)])] * deep + ["1"] + ["]" if rng.random() < 0.5 else "}"] * deep
    if pick < 0.7:
        return [a_string(rng)]
    return [a_number(rng) if pick < 0.95 else rng.choice(["null", "true", "false", "NaN", "Infinity", "nul", ""])]


def _joined(members: list[list[str]]) -> list[str]:
    return [token for number, member in enumerate(members) for token in ([","] if number else []) + member]


def a_string(rng: random.Random) -> str:
    """A string in quotes, with escapes."""
    parts = [
        "a",
        "\u00e9",
        "\U0001f511",
        "[",
        "}",
        "\\n",
        "\\/",
        '\\"',
        "\\\\",
        "\\u00e9",
        "\\ud83d\\udd11",
        "\\ud83d",
        "\\uDD11",
    ]
    return (
        '"'
        + "".join(
            rng.choice([*parts, "\x7f", "\u2028", "\\u", "\\x"][: rng.choice([11, 17])])
            for _ in range(rng.randrange(4))
        )
        + '"'
    )


def a_number(rng: random.Random) -> str:
    """A number, of any size and form."""
    digits = str(rng.randrange(10 ** rng.choice([1, 5, 20])))
    largest = str(2**1024 - 2**970)  # rounds to infinity; one less does not
    odd = [largest, str(int(largest) - 1), "9" * rng.choice([308, 309, 310, 4_300, 4_301, 20_000]), "1" + "0" * 308]
    odd += [
        f"1e{rng.choice([307, 308, 309, 400, -324, -400, 10**9])}",
        f"0.{'0' * 400}1",
        "-0",
        "0",
        "01",
        "1.",
        ".5",
        "+1",
    ]
    form = rng.choice(["{}", "-{}", "{}.{}", "{}e{}", "{}E+{}", "{}.{}e-{}"])
    return form.format(digits, rng.randrange(400), rng.randrange(400)) if rng.random() < 0.6 else rng.choice(odd)


def a_document(rng: random.Random) -> Case:
    """A value in a range, under a root that is made for it."""
    tokens = document(rng)
    text = "".join(tokens) if rng.random() < 0.6 else maybe_changed(rng, "".join(tokens), tokens)
    raw = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.05:
        raw = mutated_proofs.bit(rng, raw)
    named = plain.name_bytes("c", 1)
    root = sha256(b"\1" + u8(1) + u64(1) + sha256(b"\0" + named + b"j" + sha256(raw).digest()).digest()).digest()
    body = u8(1) + u32(1) + u8(proving.LISTED) + named + b"j" + u32(len(raw)) + raw
    return entries_case("document", proving.container("range", body), root, Question("range", "c"))


# ---- Proofs about entries ----


def entries_case(kind: str, paper: bytes | str, root: bytes, question: Question) -> Case:
    """A proof in either form."""

    def python() -> Any:
        return ask(proof.Proof.from_json(paper) if isinstance(paper, str) else paper, root, question)

    return Case(kind, call_of(paper, root, question), said_of(python))


def a_proof(rng: random.Random) -> Case:
    """A mutated proof, as bytes or as JSON."""
    one = mutated_proofs.case(STORES, SEED, rng.randrange(10**9))
    paper: bytes | str = one.proof if rng.random() < 0.5 else one.text
    return entries_case("proof", paper, one.root, one.question)


def a_question(rng: random.Random) -> Case:
    """A question about several entries, or with a limit, which may be none."""
    of = rng.choice(STORES)
    names = [mutated_proofs.any_name(rng, of) for _ in range(rng.randrange(4))]
    values = {entry[:2]: entry[2] for entry in of.entries}
    honest = Question("many", present=tuple((*each, values[each]) for each in {*names} if each in values))
    honest = replace(honest, absent=tuple({*names} - values.keys()))
    asked = (
        replace(honest, absent=tuple(rng.choices([*names, ("a", 1)], k=rng.randrange(4))))
        if rng.random() < 0.3
        else honest
    )
    if rng.random() < 0.5:
        asked = replace(asked, absent=asked.absent * 2)
    if names and rng.random() < 0.3:
        limit = rng.choice([0, 1, 2, 2**53, 2**63 - 1, 2**63, -1])
        paper = proving.honest(of, Question("range", names[0][0], limit=max(limit, 1)))
        return _limited(paper or b"", of.root, names[0][0], limit)
    return entries_case("question", proving.honest(of, honest) or b"", of.root, asked)


def _limited(paper: bytes, root: bytes, collection: str, limit: int) -> Case:
    asked = Question("range", collection, limit=limit)
    made = entries_case("question", paper, root, asked)
    return made._replace(call=[*made.call[:-1], str(limit)])


# ---- Proofs about commits ----


def a_history(rng: random.Random) -> Case:
    """A proof of a commit or of consistency, under heads that may be false."""
    size = rng.randrange(1, 20)
    seq = rng.choice([size, rng.randrange(1, size + 1)])
    count, at = rng.choice([0, 5, 2**63 - 1, 2**63]), rng.choice([AT, AT, AT, AT.lower(), AT[:-1], "", "\u00e9" * 9])
    raw = at.encode()[:27]
    facts = bytes(32) + rng.randbytes(32) + u64(count) + u32(len(raw)) + raw + bytes(32)
    chain = sha256(b"\3" + facts[:32] + u64(seq) + facts[32:]).digest()
    leaves = [log.leaf(bytes([number]) * 32) for number in range(size)]
    leaves[seq - 1] = log.leaf(chain)
    root, at = facts[32:64], at if len(raw) == 27 else AT
    head = headlog.SignedHead("a", size, log.tree(leaves), root, min(count, 2**63 - 1), at, "")
    old = replace(head, seq=seq, log_root=log.tree(leaves[:seq]))
    wrong = [
        {"root": bytes(32)},
        {"count": 1},
        {"at": AT},
        {"origin": "b"},
        {"log_root": bytes(32)},
        {"seq": 3},
        {"seq": 0},
    ]
    head, old = (replace(each, **rng.choice(wrong)) if rng.random() < 0.25 else each for each in (head, old))  # type: ignore[arg-type]
    commit = rng.random() < 0.5
    path = log.inclusion(seq - 1, leaves) if commit else log.consistency(seq, leaves)
    body = (facts if commit else b"") + b"".join(path)
    if rng.random() < 0.4:
        body = rng.choice([mutated_proofs.bit, mutated_proofs.truncated, mutated_proofs.extended])(rng, body)
    kind = rng.choice(["commit"] * 9 + ["consistency"]) if commit else "consistency"
    paper = proof.Proof(kind, body).to_bytes()
    if commit:
        number = seq if rng.random() < 0.9 else rng.randrange(21)
        said = said_of(lambda: commit_of(headlog.verify_commit(paper, head, number)))
        return Case("commit", ["verifyCommit", paper, sent(head), number], said)
    if rng.random() < 0.1:
        head, old = old, head
    said = said_of(lambda: headlog.verify_consistency(paper, old, head))
    return Case("consistency", ["verifyConsistency", paper, sent(old), sent(head)], said)


def sent(head: headlog.SignedHead) -> dict[str, Any]:
    """A signed head for a call."""
    return head_of(head) | {"seq": str(head.seq), "count": str(head.count)}


def commit_of(facts: headlog.CommitFacts) -> dict[str, Any]:
    """A commit as verify.js gives it."""
    return facts._asdict() | {"root": facts.root.hex(), "chain": facts.chain.hex()}


# ---- Both ----

MAKERS = [a_note, a_note, a_document, a_document, a_proof, a_question, a_history, a_history]


def case(seed: int, number: int) -> Case:
    """The case of this number."""
    rng = random.Random(f"verdict {seed} {number}")  # noqa: S311, no secret
    return rng.choice(MAKERS)(rng)


def run(count: int, seed: int = SEED, first: int = 0, at_once: int = 2_000) -> Counter[tuple[str, str]]:
    """Ask both verifiers so many times; what they said, by what was asked.

    Raises:
        AssertionError: they disagreed; it names the case.
    """
    tally: Counter[tuple[str, str]] = Counter()
    for start in range(first, first + count, at_once):
        cases = [case(seed, number) for number in range(start, min(start + at_once, first + count))]
        for number, (one, said) in enumerate(zip(cases, call(each.call for each in cases), strict=True), start):
            theirs = in_pythons_terms(one, said)
            assert theirs == one.python, (
                f"--seed {seed} --case {number}: JavaScript {theirs}, Python {one.python}: {one.call}"
            )
            tally[one.kind, said.kind] += 1
    return tally


def in_pythons_terms(one: Case, said: Said) -> Said:
    """What JavaScript said, as Python would."""
    if said.kind == "QuestionInvalid":
        return Said(said.kind, "")
    return Said("answer", answer_of(said)) if said.kind == "answer" and one.kind in ENTRIES else said


ENTRIES = ("document", "proof", "question")


def main(arguments: list[str]) -> int:
    """Ask what *arguments* ask for and print the tally."""
    parser = argparse.ArgumentParser(prog="python -m tests.verdicts", description="Compare two verifiers.")
    parser.add_argument("--count", type=int, default=100_000, help="how many")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed makes others")
    parser.add_argument("--case", type=int, help="ask what a failure named")
    options = parser.parse_args(arguments)
    first, count = (0, options.count) if options.case is None else (options.case, 1)
    for (kind, said), number in sorted(run(count, options.seed, first).items()):
        sys.stdout.write(f"{kind:<14}{said:<18}{number:>9,}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
