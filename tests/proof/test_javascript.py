"""Goal: the verifier in JavaScript accepts what Python's accepts, with the same answer, and nothing else; and a person
with a browser can use it. Method: docs/verify/verify.js runs under node over the vectors, over honest and mutated
proofs with Python's verdict beside each, and over what only JavaScript can be given; docs/verify/index.html is filled
in and read in a real Chromium."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sqlstate import headlog, proof
from sqlstate.errors import InvalidOption, ProofInvalid
from tests import ROOT, mutated_proofs, verdicts
from tests.reference import log, plain, proving
from tests.reference.notation import u8, u32, u64
from tests.reference.proving import OPAQUE, Question
from tests.support import browser, javascript
from tests.support.asking import REFUSED, ask, asked
from tests.support.javascript import VERIFIER, Said, answer_of, call, call_of
from tests.vectors.make import untyped

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlstate

pytestmark = pytest.mark.skipif(javascript.node() is None, reason="there is no node on this machine")

PAGE = VERIFIER.with_name("index.html")
VECTORS: dict[str, Any] = json.loads((ROOT / "tests" / "vectors" / "proofs.json").read_text("ascii"))
LOG: dict[str, Any] = json.loads((ROOT / "tests" / "vectors" / "log.json").read_text("ascii"))
ROOTS = {universe["name"]: bytes.fromhex(universe["root"]) for universe in VECTORS["universes"]}


def question_of(case: dict[str, Any]) -> Question:
    """The question of a vector."""
    facts: dict[str, Any] = dict(case["question"])
    for name in {"key", "value", "start", "stop"} & facts.keys():
        facts[name] = untyped(facts[name])
    for name in {"present", "absent"} & facts.keys():
        facts[name] = tuple((each[0], *map(untyped, each[1:])) for each in facts[name])
    return Question(**facts)


# ---- Vectors ----


def test_accepted_vectors_are_accepted_with_their_answers() -> None:
    cases = VECTORS["accepted"]
    questions = [(ROOTS[case["universe"]], question_of(case)) for case in cases]
    for form in (lambda case: bytes.fromhex(case["proof"]), lambda case: case["json"]):
        said = call(call_of(form(case), *question) for case, question in zip(cases, questions, strict=True))
        for case, (root, question), each in zip(cases, questions, said, strict=True):
            answer = answer_of(each)
            assert answer == asked(bytes.fromhex(case["proof"]), root, question), case
            stored = case.get("answer", True)
            if isinstance(stored, list):
                as_stored = [[javascript.key_of(untyped(k)), javascript.value_of(untyped(v))] for k, v in stored]  # type: ignore[arg-type]
                assert each.value == as_stored, case
            else:
                assert answer == stored, case


def test_refused_vectors_are_refused() -> None:
    cases = VECTORS["refused"]
    made = [call_of(bytes.fromhex(case["proof"]), bytes.fromhex(case["root"]), question_of(case)) for case in cases]
    for case, said in zip(cases, call(made), strict=True):
        assert said == Said("ProofInvalid", case["error"]), case


def test_what_is_no_question_is_refused_before_any_proof() -> None:
    cases = VECTORS["no_questions"]
    for case, said in zip(cases, call(call_of(b"", bytes(32), question_of(case)) for case in cases), strict=True):
        assert said.kind == "QuestionInvalid", (case, said)


def test_both_forms_of_a_proof_are_written_and_read() -> None:
    cases = VECTORS["accepted"]
    opened = call(["fromBytes", bytes.fromhex(case["proof"])] for case in cases)
    for reader, form in (("fromBytes", "toBytes"), ("fromJson", "toJson")):
        given = [bytes.fromhex(case["proof"]) if reader == "fromBytes" else case["json"] for case in cases]
        assert call([reader, each] for each in given) == opened
        written = call([form, said.value] for said in opened)
        assert [said.value for said in written] == given


def test_paths_of_the_log_lead_to_its_roots() -> None:
    leaves = [log.leaf(hashlib.sha256(u64(number)).digest()) for number in range(1, 701)]
    calls, wanted = [], []
    for each in LOG["consistency"]:
        path = bytes.fromhex("".join(each["path"]))
        heads = [verdicts.sent(head_of(size, log.tree(leaves[:size]))) for size in (each["old"], each["new"])]
        wrong = [path + bytes(32), path + b"\0", *([path[32:], path[:-32], bytes(32) + path[32:]] if path else [])]
        for body in (path, *wrong):
            calls.append(["verifyConsistency", proof.Proof("consistency", body).to_bytes(), *heads])
            wanted.append("answer" if body == path else "ProofInvalid")
        if each["old"] < each["new"]:
            calls.append(["verifyConsistency", proof.Proof("consistency", path).to_bytes(), *heads[::-1]])
            wanted.append("ProofInvalid")
    assert [said.kind for said in call(calls)] == wanted


# ---- Beside Python ----


def python(paper: bytes, one: mutated_proofs.Case) -> Said:
    """What Python says of a proof."""
    return verdicts.said_of(lambda: ask(paper, one.root, one.question))


@pytest.mark.slow
def test_each_verdict_on_mutated_proofs_is_that_of_python() -> None:
    pool = mutated_proofs.stores(7)
    cases = [mutated_proofs.case(pool, 7, number) for number in range(4_000)]
    said = call(call_of(form, one.root, one.question) for one in cases for form in (one.proof, one.text))
    accepted = 0
    for number, one in enumerate(cases):
        as_json = mutated_proofs.from_json(one.text)
        for form, each in ((one.proof, said[2 * number]), (as_json, said[2 * number + 1])):
            wanted = Said("ProofInvalid", "this is no proof of sqlstate as JSON") if form is None else python(form, one)
            assert verdicts.in_pythons_terms(verdicts.Case("proof", [], wanted), each) == wanted, (one, each)
            accepted += wanted.kind == "answer"
    assert 100 < accepted < 4_000


def test_both_verifiers_say_the_same_of_changed_heads_keys_documents_proofs_and_questions() -> None:
    tally = verdicts.run(2_000)
    assert {kind for kind, _ in tally} == {"head", "document", "proof", "question", "commit", "consistency"}
    for kind in ("head", "document", "question", "commit", "consistency"):
        assert tally[kind, "answer"] > 20, tally
        assert tally[kind, "ProofInvalid"] > 10, tally


def test_a_range_is_proven_for_its_own_limit_only() -> None:
    of = mutated_proofs.deep_tree([("c", number, str(number)) for number in range(8)])
    questions = [Question("range", "c", start=1, stop=6, limit=limit) for limit in (None, 1, 2, 5, 6, 7)]
    pairs = [(proving.honest(of, made), question) for made in questions for question in questions]
    papers = [(paper, question) for paper, question in pairs if paper is not None]
    verdicts = [answer_of(said) for said in call(call_of(paper, of.root, question) for paper, question in papers)]
    assert verdicts == [asked(paper, of.root, question) for paper, question in papers]
    # Five entries are in the range: without a limit, or with 6 or 7, the proof is one and the same.
    assert sum(verdict != REFUSED for verdict in verdicts) == 3 * 3 + 3


def test_trees_that_no_store_has_are_refused_under_their_own_root() -> None:
    """The root is made for each of them, so that nothing but the rule itself refuses it."""
    leaf = plain.leaf_node("c", 1, b"")
    below = plain.inner_node(1, [leaf])
    cases = []
    for count in (2**64 - 2, 2**64 - 1):
        rest = plain.Node(1, ("c", 2), 1, count, bytes(32))
        body = u8(2) + u32(2) + u8(proving.OPENED) + u32(1) + u8(proving.ASKED) + proving.opaque(rest)
        cases.append((body, plain.inner_node(2, [below, rest]).digest))
    ground = plain.inner_node(0, [leaf])
    body = u8(1) + u32(1) + u8(proving.OPENED) + u32(1) + u8(proving.ASKED)
    cases.append((body, plain.inner_node(1, [ground]).digest))
    question = Question("present", "c", 1, b"")
    papers = [(proving.container("present", body), root) for body, root in cases]
    verdicts = [answer_of(said) for said in call(call_of(paper, root, question) for paper, root in papers)]
    assert verdicts == [True, REFUSED, REFUSED]
    assert verdicts == [asked(paper, root, question) for paper, root in papers]


def filled(store: sqlstate.Store) -> dict[tuple[str, Any], Any]:
    """Entries of all kinds."""
    rng = random.Random(3)  # noqa: S311, no secret
    entries: dict[tuple[str, Any], Any] = {}
    for number in range(600):
        key = rng.choice([number - 300, f"k\u00e9{number}", number.to_bytes(3)])
        kinds = [number, -1.5e-7, "\u00e9\U0001f511", {"b": [None, True], "a": 2**64 - 1}, rng.randbytes(40)]
        entries[rng.choice(["a", "b", "\u00e9"]), key] = rng.choice(kinds)
    entries["a", -(2**63)] = entries["a", 2**63 - 1] = entries["a", "\ufeff"] = "\ufeff"
    with store.transaction() as transaction:
        for (collection, key), value in entries.items():
            transaction[collection][key] = value
    return entries


def test_proofs_of_a_real_store_are_judged_alike_whole_and_damaged(store: sqlstate.Store) -> None:
    rng = random.Random(4)  # noqa: S311, no secret
    entries = filled(store)
    root = store.head().root
    made: list[tuple[bytes, Question]] = []
    for collection, key in rng.sample(sorted(entries, key=str), 60):
        value = entries[collection, key]
        text = value if isinstance(value, bytes) else document(value)
        made.append((store.prove(collection, key).to_bytes(), Question("present", collection, key, text)))
    for key in (5_000, "no", b"no", ""):
        if key:
            made.append((store.prove("b", key).to_bytes(), Question("absent", "b", key)))
        made.append((store.prove_count("b", key).to_bytes(), Question("count", "b", start=key)))
        paper = store.prove_range("b", stop=key, limit=9).to_bytes()
        made.append((paper, Question("range", "b", stop=key, limit=9)))
    made.append((store.prove_range("a").to_bytes(), Question("range", "a")))
    for paper, question in list(made):
        for _ in range(20):
            bad = bytearray(paper)
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
            made.append((bytes(bad), question))
    verdicts = [answer_of(said) for said in call(call_of(paper, root, question) for paper, question in made)]
    assert verdicts == [asked(paper, root, question) for paper, question in made]
    whole = len(made) // 21
    assert REFUSED not in verdicts[:whole]
    assert set(map(str, verdicts[whole:])) == {REFUSED}


def document(value: Any) -> str:
    """The document that the store keeps for one of the values above."""
    if value == -1.5e-7:
        return "-1.5e-7"  # Python writes -1.5e-07
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def test_proofs_of_many_entries_may_be_asked_in_any_order(store: sqlstate.Store) -> None:
    entries = filled(store)
    names: list[Any] = sorted(entries, key=str)[::40]
    gone: list[Any] = [("a", 7_000), ("b", "no"), ("nowhere", b"no")]
    paper = store.prove_many([*names, *gone]).to_bytes()
    texts = [entries[name] if isinstance(entries[name], bytes) else document(entries[name]) for name in names]
    question = Question("many", present=tuple((*name, text) for name, text in zip(names, texts, strict=True)))
    question = replace(question, absent=tuple(gone))
    turned = replace(question, present=question.present[::-1], absent=question.absent[::-1])
    less = replace(question, present=question.present[1:]), replace(question, absent=question.absent[1:])
    said = call(call_of(paper, store.head().root, each) for each in (question, turned, *less))
    assert [each.kind for each in said] == ["answer", "answer", "ProofInvalid", "ProofInvalid"]


# ---- Commits and signed heads ----


@pytest.fixture
def signer() -> headlog.Signer:
    pytest.importorskip("cryptography")
    return headlog.Signer.generate("example.com/\u00e9")


def test_commits_and_consistency_under_signed_heads(store: sqlstate.Store, signer: headlog.Signer) -> None:
    heads = [store.signed_head(signer)]
    for number in range(21):
        store["c"][number] = number
        heads.append(store.signed_head(signer))
    calls: list[list[Any]] = []
    wanted: list[Said] = []
    for size in (1, 2, 7, 8, 21):
        for seq in range(1, size + 1):
            paper = store.prove_commit(seq, size).to_bytes()
            calls.append(["verifyCommit", paper, verdicts.sent(heads[size]), seq])
            wanted.append(Said("answer", verdicts.commit_of(headlog.verify_commit(paper, heads[size], seq))))
            paper = store.prove_consistency(seq, size).to_bytes()
            calls.append(["verifyConsistency", paper, verdicts.sent(heads[seq]), verdicts.sent(heads[size])])
            wanted.append(Said("answer", None))
    assert call(calls) == wanted
    rng = random.Random(8)  # noqa: S311, no secret
    harmed = []
    for name, paper, *rest in calls:
        for _ in range(4):
            at = rng.randrange(len(paper))
            flipped = bytes([paper[at] ^ 1 << rng.randrange(8)]) + paper[at + 1 :]
            harmed.append([name, paper[:at] + rng.choice([flipped, b"", bytes(32)]), *rest])
        harmed += [[name, paper + bytes(32), *rest], [name, paper + b"\0", *rest]]
    assert {said.kind for said in call(harmed)} == {"ProofInvalid"}
    strangers = [verdicts.sent(heads[3]), verdicts.sent(heads[4]) | {"origin": "example.com/other"}]
    paper = store.prove_consistency(3, 4).to_bytes()
    assert call([["verifyConsistency", paper, *strangers]])[0].kind == "ProofInvalid"


def head_of(size: int, log_root: bytes) -> headlog.SignedHead:
    """A head as one who holds the key may sign it, right or wrong."""
    return headlog.SignedHead("example.com/a", size, log_root, bytes(32), 0, verdicts.AT, "")


def judged_by_python(verify: Any, *arguments: Any) -> tuple[str, Any]:
    """What Python says of a proof about commits: as JavaScript's, with the same message."""
    try:
        facts = verify(*arguments)
    except ProofInvalid as error:
        return "ProofInvalid", str(error)
    return "answer", None if facts is None else verdicts.commit_of(facts)


def test_a_path_of_one_log_shows_nothing_of_logs_of_other_sizes() -> None:
    """Every path of the logs up to 6 commits, under its own roots, for every two sizes that heads may state."""
    leaves = [log.leaf(bytes([number]) * 32) for number in range(6)]
    sizes = [(old, new) for new in range(1, 7) for old in range(1, new + 1)]
    calls: list[list[Any]] = []
    wanted = []
    for old, new in sizes:
        paper = proof.Proof("consistency", b"".join(log.consistency(old, leaves[:new]))).to_bytes()
        roots = log.tree(leaves[:old]), log.tree(leaves[:new])
        for stated in sizes:
            heads = [head_of(size, root) for size, root in zip(stated, roots, strict=True)]
            calls.append(["verifyConsistency", paper, *map(verdicts.sent, heads)])
            wanted.append(judged_by_python(headlog.verify_consistency, paper, *heads))
    for index, size in sizes:
        for seq, stated_size in sizes:
            body = bytes(32 + 32 + 8) + u32(27) + verdicts.AT.encode() + bytes(32)
            chain = hashlib.sha256(b"\3" + body[:32] + u64(seq) + body[32:]).digest()
            own = [*leaves[: index - 1], log.leaf(chain), *leaves[index:size]]
            paper = proof.Proof("commit", body + b"".join(log.inclusion(index - 1, own))).to_bytes()
            head = head_of(stated_size, log.tree(own))
            calls.append(["verifyCommit", paper, verdicts.sent(head), seq])
            wanted.append(judged_by_python(headlog.verify_commit, paper, head, seq))
    assert call(calls) == wanted
    assert sum(kind == "answer" for kind, _ in wanted) < len(wanted) / 4


def test_a_forged_root_on_either_side_is_refused() -> None:
    leaves = [log.leaf(bytes([number]) * 32) for number in range(9)]
    other = bytes(range(32))
    calls: list[list[Any]] = []
    wanted = []
    for new in range(10):
        for old in range(new + 1):
            path = b"".join(log.consistency(old, leaves[:new])) if old else b""
            paper = proof.Proof("consistency", path).to_bytes()
            right = log.tree(leaves[:old]), log.tree(leaves[:new])
            for roots in (right, (other, right[1]), (right[0], other)):
                heads = [head_of(size, root) for size, root in zip((old, new), roots, strict=True)]
                calls.append(["verifyConsistency", paper, *map(verdicts.sent, heads)])
                # Every history begins with the empty one: nothing is said of the later root then.
                holds = roots == right or (old == 0 < new and roots[0] == right[0])
                wanted.append(judged_by_python(headlog.verify_consistency, paper, *heads))
                assert (wanted[-1][0] == "answer") == holds
    assert call(calls) == wanted


def python_verdict(note: str, key: str) -> Said:
    """What Python says of a signed head: as JavaScript's, with the same message where it is refused."""
    try:
        return Said("answer", verdicts.head_of(headlog.verify_head(note, key)))
    except ProofInvalid as error:
        return Said("ProofInvalid", str(error))
    except InvalidOption:
        return Said("QuestionInvalid", "this is no public key: it is one line, ORIGIN+HEX+BASE64")


def test_signed_heads_are_judged_alike_whole_and_changed(store: sqlstate.Store, signer: headlog.Signer) -> None:
    store["c"][1] = 1
    note = store.signed_head(signer).text
    other = headlog.Signer.generate(signer.origin)
    body, _, line = note.rpartition("\n\n")
    theirs = store.signed_head(other).text.rpartition("\n\n")[2]
    notes = [note, body + "\n\n" + theirs + line, note + theirs, note + line, body + "\n\n" + theirs]
    notes += ["", "\n", note[:-1], note + "\n", "\n" + note, body + "\n\n\n" + line, note + line * 16, note + line * 15]
    notes += [note.replace("count 1", "count 01"), note.replace("\n1\n", "\n9223372036854775808\n"), "\n\n" + line]
    notes += [body + "\nmore\n\n" + line, *(note + f"\u2014 {end}\n" for end in ("x AAAA", "x AAAAAAA=", " AAAAAAA="))]
    rng = random.Random(9)  # noqa: S311, no secret
    for _ in range(300):
        at = rng.randrange(len(note))
        put = rng.choice(["", "\n", "0", "A", "+", " ", "\ud800", "\u00e9", note[at] * 2])
        notes.append(note[:at] + put + note[at + 1 :])
    calls = [(each, signer.public) for each in notes]
    public = signer.public
    keys = [other.public, public.replace("/", "|"), public[:-1], public + "\n", "", "a+b", public.upper(), signer.text]
    calls += [(note, each) for each in keys]
    said = call(["verifyHead", *each] for each in calls)
    assert said[0] == Said("answer", verdicts.head_of(store.signed_head(signer)))
    for each, found in zip(calls, said, strict=True):
        assert python_verdict(*each) == found, each


def test_what_the_right_key_signed_is_no_head_if_it_says_what_no_head_says(signer: headlog.Signer) -> None:
    root = "A" * 43 + "="
    text = f"{signer.origin}\n1\n{root}\nroot {'00' * 32}\ncount 1\nat 2026-01-01T00:00:00.000000Z\n"
    right = signer.sign(text)
    most = headlog.NOTE_BYTES_MAX - len((right + "\u2014  AAAAAAA=\n").encode())
    name = "x" * (most % 4) + "\U0001f511" * (most // 4)  # as many bytes, and fewer characters
    wrong = [
        signer.sign(text.replace(signer.origin, "example.com/other")),
        signer.sign(text.replace("\n1\n", f"\n{2**63}\n")),
        signer.sign(text.replace("count 1", f"count {2**63}")),
        signer.sign(text + "more\n"),
        signer.sign(text + "\n" + text),
        *(right + f"\u2014 {each} AAAAAAA=\n" for each in ("x" * (most + 1), "x" + name)),
    ]
    fit = [right, *(right + f"\u2014 {each} AAAAAAA=\n" for each in ("x" * most, name))]
    said = call(["verifyHead", note, signer.public] for note in [*fit, *wrong])
    assert [each.kind for each in said] == ["answer"] * len(fit) + ["ProofInvalid"] * len(wrong)
    assert said == [python_verdict(note, signer.public) for note in [*fit, *wrong]]


def test_a_key_whose_parts_do_not_belong_together_is_no_key(signer: headlog.Signer) -> None:
    origin, digits, key = signer.public.split("+", 2)
    other = headlog.Signer.generate(origin).public.split("+", 2)
    keys = [f"{origin}+{other[1]}+{key}", f"{origin}+{digits}+{other[2]}", f"{origin}x+{digits}+{key}"]
    keys.append(f"{origin}+{digits.upper()}x+{key}")
    assert {said.kind for said in call(["verifyHead", "", each] for each in keys)} == {"QuestionInvalid"}
    assert {python_verdict("", each).kind for each in keys} == {"QuestionInvalid"}


# ---- What only JavaScript can be given ----

ANY_OF: list[Any] = [None, True, 5, 1.5, "", "x", [], [1], {}, {"kind": "present"}, b"", b"x", {"body": b""}, [[["c"]]]]


def test_what_is_no_proof_throws_nothing_but_proof_invalid() -> None:
    spoilt = [*ANY_OF, {"kind": "present", "body": b"\0"}, "\ud800", "{}"]
    calls = [call_of(b"", bytes(32), Question(kind, "c", 1, present=(("c", 1, "1"),))) for kind in proving.CODES]
    heads = [verdicts.sent(head_of(size, bytes(32))) for size in (1, 2)]
    calls += [["verifyCommit", b"", heads[0], 1], ["verifyConsistency", b"", *heads]]
    said = call([each[0], wrong, *each[2:]] for each in calls for wrong in spoilt)
    assert {each.kind for each in said} == {"ProofInvalid"}


def test_what_is_no_question_throws_nothing_but_question_invalid() -> None:
    right = VECTORS["accepted"][0]["json"]
    zeros = "00" * 32
    key, value = {"int": "1"}, {"json": "1"}
    keys = [*ANY_OF, *({"int": each} for each in ("01", "9223372036854775808", 1.5, 2**60, [5], " 1", "-0"))]
    keys += [{"text": "\ud800"}, {"bytes": "0"}, {"bytes": "0g"}, {"text": "a" * 1_048_577}, {"int": "1", "text": "1"}]
    calls: list[list[Any]] = [
        ["verifyAbsent", right, zeros, "c", each] for each in (*keys, {"text": ""}, {"bytes": ""})
    ]
    calls += [["verifyCount", right, zeros, "c", each] for each in keys if each is not None]
    calls += [["verifyCount", right, zeros, "c", *each] for each in ((key, key), ({"text": ""}, key))]
    calls += [["verifyPresent", right, zeros, "c", key, each] for each in [*ANY_OF, {"json": 5}, {"json": "\ud800"}]]
    calls += [["verifyPresent", right, zeros, each, key, value] for each in ANY_OF if each != "x"]
    calls += [["verifyPresent", right, zeros, each, key, value] for each in ("\ud800", "a" * 256, "\u00e9" * 128)]
    roots = [*ANY_OF, zeros[1:], zeros + "0", bytes(31), "0g" * 32]
    calls += [["verifyAbsent", right, each, "c", key] for each in roots]
    limits: list[Any] = [0, -1, 1.5, "05", "5 ", "x", [], True, str(2**63), 2**63]
    calls += [["verifyRange", right, zeros, "c", None, None, each] for each in limits]
    calls += [["verifyMany", right, zeros, each, []] for each in ANY_OF]
    calls += [["verifyMany", right, zeros, [], each] for each in ANY_OF]
    both = [["c", key, value]]
    calls += [["verifyMany", right, zeros, both, [["c", key]]], ["verifyMany", right, zeros, both * 2]]
    calls += [["verifyMany", right, zeros, [*both, ["c", key, {"json": "2"}]]], ["verifyMany", right, zeros, [], []]]
    calls += [["verify", right, zeros, each] for each in [*ANY_OF, {"kind": "commit"}, {"kind": "constructor"}]]
    head = verdicts.sent(head_of(5, bytes(32)))
    harmed = [{key: value for key, value in head.items() if key != name} for name in head if name != "text"]
    harmed += [head | {"seq": each} for each in (-1, "-1", str(2**63), 1.5, "5 ", "05")]
    harmed += [head | each for each in ({"logRoot": zeros[1:]}, {"root": zeros + "0"}, {"count": "-1"}, {"at": 5})]
    calls += [["verifyCommit", right, each, 1] for each in [*ANY_OF, *harmed]]
    calls += [["verifyConsistency", right, *pair] for each in harmed for pair in ((each, head), (head, each))]
    calls += [["verifyCommit", right, head, each] for each in [*ANY_OF[:1], 0, -1, 6, 1.5, "x"]]
    calls += [["verifyConsistency", right, each, each] for each in ANY_OF]
    calls += [["verifyHead", "", each] for each in ANY_OF]
    for each, said in zip(calls, call(calls), strict=True):
        assert said.kind == "QuestionInvalid", (str(each)[:200], said)


def test_integers_are_taken_in_each_form_that_holds_them_exactly() -> None:
    """Keys beyond 2^53 are no numbers of JavaScript: a rounded one would be another key."""
    of = mutated_proofs.deep_tree([("c", 2**63 - 1, "1"), ("c", 5, "2"), ("c", -(2**63), "3")])
    question = Question("range", "c")
    paper = proving.honest(of, question)
    assert paper is not None
    assert answer_of(call([call_of(paper, of.root, question)])[0]) == [(-(2**63), 3), (5, 2), (2**63 - 1, 1)]
    present = proving.honest(of, Question("present", "c", 5, "2"))
    assert present is not None
    forms = [["verifyPresent", present, of.root.hex(), "c", {"int": form}, {"json": "2"}] for form in (5, "5")]
    assert {said.kind for said in call(forms)} == {"answer"}
    assert call([["verifyPresent", present, of.root, "c", {"int": 5}, {"json": "2"}]])[0].kind == "answer"


def test_sha256_is_that_of_hashlib() -> None:
    rng = random.Random(5)  # noqa: S311, no secret
    texts = [rng.randbytes(size) for size in (*range(301), 1_000, 4_095, 70_000, 1_000_001)]
    assert [said.value for said in call(["sha256", each] for each in texts)] == [
        hashlib.sha256(each).digest() for each in texts
    ]


@pytest.mark.slow
def test_a_proof_that_promises_much_takes_no_memory_for_it() -> None:
    child = u8(OPAQUE) + u64(1) + bytes(32)
    named = plain.name_bytes("c", 1)
    bodies = [
        u8(1) + u32(2**32 - 1),
        u8(1) + u32(2**32 - 1) + child * 9_000,
        u8(1) + u32(70_000) + child * 70_000,
        u8(16) + (u32(1) + u8(1)) * 15 + u32(2**32 - 1),
        u8(255) + (u32(1) + u8(1)) * 100_000,
        u8(1) + u32(1) + u8(3) + u32(2**32 - 1),
        u8(1) + u32(1) + u8(4) + named + b"b" + u32(2**28),
        u8(1) + u32(60_000) + (u8(3) + named + b"b" + bytes(32)) * 60_000,
        u8(1) + u32(100_000) + u8(2) * 100_000,
        u8(0) + bytes(3_000_000),
        bytes(32) * 100_000,
    ]
    question = Question("present", "c", 2, b"", present=(("c", 2, b""),))
    questions = [replace(question, kind=kind) for kind in proving.CODES]
    calls = [call_of(proof.Proof(each.kind, body).to_bytes(), bytes(32), each) for each in questions for body in bodies]
    head = verdicts.sent(head_of(2**53 - 1, bytes(32)))
    for body in bodies:
        calls.append(["verifyCommit", proof.Proof("commit", body).to_bytes(), head, 1])
        calls.append(["verifyConsistency", proof.Proof("consistency", body).to_bytes(), head | {"seq": "1"}, head])
    text = proving.as_json("present", bytes(3_000_000))
    texts = ["[" * 3_000_000, '{"a":' * 500_000, text[:-2], text[:-3] + '="}', text]
    calls += [call_of(text, bytes(32), question) for text in texts]
    # In calls of their own: what is measured is each proof, not the text of all.
    for at in range(0, len(calls), 11):
        said = call(calls[at : at + 11], memory_mb=128)
        assert {each.kind for each in said} == {"ProofInvalid"}


@pytest.mark.slow
def test_many_questions_to_one_proof_take_no_square_of_their_number() -> None:
    """Absent keys in one gap: comparing each with all others would not end."""
    of = mutated_proofs.deep_tree([("c", -1, b""), ("c", 10**9, b"")])
    forms = {0: proving.BESIDE, 1: proving.BESIDE}
    paper = proof.Proof("many", proving.encode(of, forms)).to_bytes()
    absent = [["c", {"int": number}] for number in range(200_000)]
    assert call([["verifyMany", paper, of.root.hex(), [], absent]])[0].kind == "answer"


def test_it_is_a_module_for_import_too() -> None:
    program = javascript.node()
    assert program is not None
    source = f"import sqlstate from {json.dumps(VERIFIER.as_uri())}; console.log(sqlstate.toHex(sqlstate.sha256()))"
    ran = subprocess.run([program, "--input-type=module", "-e", source], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == hashlib.sha256().hexdigest()


# ---- The page ----

TYPES = {int: "int", str: "text", bytes: "bytes"}


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    """The page, open in one Chromium for all tests of it; at the end, all that it asked for and complained of."""
    program = browser.chromium()
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    with browser.Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened
        assert set(opened.requests) == {PAGE.as_uri(), VERIFIER.as_uri()}
        assert opened.complaints == []


@pytest.fixture
def page(window: browser.Browser) -> browser.Browser:
    """The page, anew."""
    window.open(PAGE)
    return window


def pasted_key(page: browser.Browser, field: str, key: Any) -> None:
    if key is None:
        page.choose(f"{field}-type", "none")
        return
    if isinstance(key, str) and not key.isprintable():
        # What a clipboard or a field of one line drops can be written all the same.
        page.choose(f"{field}-type", "quoted")
        page.paste(field, json.dumps(key))
        return
    page.choose(f"{field}-type", TYPES[type(key)])
    page.paste(field, key.hex() if isinstance(key, bytes) else str(key))


def fill_in(page: browser.Browser, text: str, root: str, question: Question) -> None:
    """Fill in the form as a person would, from top to bottom."""
    page.paste("proof", text)
    page.paste("root", root)
    page.choose("kind", question.kind)
    page.paste("collection", question.collection)
    if question.kind in ("present", "absent"):
        pasted_key(page, "key", question.key)
    else:
        pasted_key(page, "start", question.start)
        pasted_key(page, "stop", question.stop)
    if question.kind == "present":
        is_bytes = isinstance(question.value, bytes)
        page.choose("value-type", "bytes" if is_bytes else "json")
        page.paste("value", question.value.hex() if isinstance(question.value, bytes) else question.value)
    if question.kind == "range":
        page.paste("limit", "" if question.limit is None else str(question.limit))


def shown(value: Any, *, key: bool = False) -> str:
    """A key or a stored value as the page shows it; a key that is text stands in quotes."""
    if key and isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return f"x'{value.hex()}'" if isinstance(value, bytes) else str(value)


def some_of(kind: str) -> list[dict[str, Any]]:
    """A few accepted vectors of a kind, of all universes."""
    cases = [case for case in VECTORS["accepted"] if case["question"]["kind"] == kind]
    return cases[:: max(1, len(cases) // 5)]


@pytest.mark.parametrize("kind", ["present", "absent", "range", "count"])
@pytest.mark.browser
def test_the_page_says_what_a_pasted_proof_proves(page: browser.Browser, kind: str) -> None:
    for case in some_of(kind):
        question = question_of(case)
        fill_in(page, case["json"], ROOTS[case["universe"]].hex(), question)
        page.click("button")
        assert page.text("#verdict") == "Proven", (case, page.text("#reason"))
        rows = page.rows()
        if kind == "count":
            assert f"It is {case['answer']}." in page.text("#reason")
        if kind == "range":
            answer = [(untyped(key), untyped(value)) for key, value in case["answer"]]
            assert rows.get("Entries", []) == [[shown(key, key=True), shown(value)] for key, value in answer]
        if kind == "present":
            entries = next(each["entries"] for each in VECTORS["universes"] if each["name"] == case["universe"])
            place = [[name, untyped(key)] for name, key, _ in entries].index([question.collection, question.key]) + 1
            assert f"number {place} of {len(entries)} in the store" in page.text("#reason")
            assert [row[0] for row in rows["Where they stand"]] == [str(place)]
        levels = [int(row[0]) for row in rows.get("Path from the root down", [])]
        assert levels[:1] == [bytes.fromhex(case["proof"])[6]] or not levels
        if kind == "present":
            assert levels == list(range(levels[0], 0, -1))


@pytest.mark.browser
def test_the_page_says_why_a_proof_is_refused(page: browser.Browser) -> None:
    case = next(each for each in some_of("present") if each["universe"] == "three levels")
    question, root = question_of(case), ROOTS[case["universe"]].hex()
    fill_in(page, case["json"], root, question)
    page.click("button")
    assert page.text("#verdict") == "Proven"
    # A verdict is about the fields as they were: it goes with the first change.
    page.paste("value", '"another"')
    assert (page.text("#verdict"), page.rows()) == ("", {})
    page.click("button")
    assert page.text("#verdict") == "Not proven"
    assert "another root" in page.text("#reason")
    for field, wrong, verdict, why in (
        ("proof", case["json"].replace("present", "absent"), "Not proven", "kind 'absent'"),
        ("proof", case["json"][:-9], "Not proven", "no proof of sqlstate"),
        ("root", root[1:], "No question", "64 hexadecimal digits"),
        ("collection", "c" * 256, "No question", "1 to 255 bytes"),
    ):
        fill_in(page, case["json"], root, question)
        page.paste(field, wrong)
        page.click("button")
        assert page.text("#verdict") == verdict
        assert why in page.text("#reason")
        assert page.rows() == {}


@pytest.mark.browser
def test_the_page_takes_the_keyboard_alone(page: browser.Browser) -> None:
    case = some_of("absent")[-1]
    fill_in(page, f"\n {case['json']}\n", f" {ROOTS[case['universe']].hex()} ", question_of(case))
    page.focus("collection")
    page.press("Enter")
    assert page.text("#verdict") == "Proven"


@pytest.mark.browser
def test_the_page_lets_go_of_spaces_around_numbers_and_digits_but_not_around_text(page: browser.Browser) -> None:
    of = mutated_proofs.deep_tree([("c", 5, b"\xab"), ("c", " k ", b"\xab"), ("c", b"\xcd", b"\xab")])
    for key, spelt in ((5, " 5 "), (b"\xcd", " CD "), (" k ", " k ")):
        question = Question("present", "c", key, b"\xab")
        body = proving.honest_body(of, question)
        assert body is not None
        fill_in(page, proving.as_json("present", body), of.root.hex(), question)
        page.paste("key", spelt)
        page.paste("value", " ab\n")
        page.click("button")
        assert page.text("#verdict") == "Proven", (key, page.text("#reason"))


@pytest.mark.browser
def test_the_page_takes_keys_with_line_ends_in_quotes(page: browser.Browser) -> None:
    of = mutated_proofs.deep_tree([("c", 'a\n"b', "1")])
    paper = proving.honest_body(of, Question("present", "c", 'a\n"b', "1"))
    assert paper is not None
    fill_in(page, proving.as_json("present", paper), of.root.hex(), Question("present", "c", 'a\n"b', "1"))
    assert page.evaluate("document.getElementById('key').value") == r'"a\n\"b"'
    page.click("button")
    assert page.text("#verdict") == "Proven"
    page.paste("key", "a")
    page.click("button")
    assert page.text("#verdict") == "No question"


@pytest.mark.browser
def test_what_a_proof_holds_is_shown_as_text_and_never_run(page: browser.Browser) -> None:
    script = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
    of = mutated_proofs.deep_tree([(script, script, json.dumps(script))])
    body = proving.honest_body(of, Question("range", script))
    assert body is not None
    fill_in(page, proving.as_json("range", body), of.root.hex(), Question("range", script))
    page.click("button")
    assert page.rows()["Entries"] == [[json.dumps(script), json.dumps(script)]]
    assert page.evaluate("document.title") == "Verify a proof of sqlstate"
    assert page.evaluate("document.querySelectorAll('img, #tables script').length") == 0


@pytest.mark.browser
def test_a_long_range_is_cut_for_the_eye_and_says_so(page: browser.Browser) -> None:
    of = mutated_proofs.deep_tree([("c", number, str(number)) for number in range(1_500)])
    body = proving.honest_body(of, Question("range", "c"))
    assert body is not None
    fill_in(page, proving.as_json("range", body), of.root.hex(), Question("range", "c"))
    page.click("button")
    assert "These 1500, and no others" in page.text("#reason")
    assert len(page.rows()["Entries, the first 1000 of 1500"]) == 1_000


@pytest.mark.browser
def test_each_field_of_the_page_has_a_name(page: browser.Browser) -> None:
    for kind in ("present", "absent", "range", "count"):
        page.choose("kind", kind)
        names = [name for _, name in page.names()]
        assert len(names) >= 6
        assert len(set(names)) == len(names)
        assert all(names)


@pytest.mark.browser
def test_the_page_says_what_a_proof_does_not_show(page: browser.Browser) -> None:
    said = page.text("main")
    for words in ("same file", "newest", "elsewhere", "has a proof of its own", "kept the order"):
        assert words in said
