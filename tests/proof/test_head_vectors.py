"""Goal: tests/vectors/heads.json and documents.json, which verifiers in other languages are tested with, say what is
right. Method: their makers give the same bytes; sqlstate's verifier, and verify.js, agree with every case, and give
each refused one the very error that the file names."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from sqlstate import headlog, proof
from sqlstate.errors import InvalidOption, ProofInvalid
from sqlstate.format.values import Codec
from tests import ROOT
from tests.reference import plain, proving
from tests.reference.notation import json_faults, u8, u32, u64
from tests.reference.proving import Question
from tests.support import javascript
from tests.support.javascript import Said, call, call_of
from tests.vectors import make_documents, make_heads

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = ROOT / "tests/vectors"
HEADS: dict[str, Any] = json.loads((HERE / "heads.json").read_text("ascii"))
DOCUMENTS: dict[str, Any] = json.loads((HERE / "documents.json").read_text("ascii"))
needs_node = pytest.mark.skipif(javascript.node() is None, reason="there is no node on this machine")


def error_of(ask: Callable[[], object]) -> str | None:
    """Why it is refused, None if it is not."""
    try:
        ask()
    except ProofInvalid as error:
        return str(error)
    return None


def head_of(facts: dict[str, str]) -> headlog.SignedHead:
    log_root, root = (bytes.fromhex(facts[name]) for name in ("logRoot", "root"))
    return headlog.SignedHead(facts["origin"], int(facts["seq"]), log_root, root, int(facts["count"]), facts["at"], "")


def facts_of(head: headlog.SignedHead) -> dict[str, str]:
    roots = {"logRoot": head.log_root.hex(), "root": head.root.hex()}
    return {"origin": head.origin, "seq": str(head.seq), **roots, "count": str(head.count), "at": head.at}


def test_the_makers_give_the_files() -> None:
    for made, name in ((make_heads.document(), "heads.json"), (make_documents.document(), "documents.json")):
        assert made == (HERE / name).read_text("ascii")


# ---- Signed heads and keys ----


def test_signed_heads_are_accepted_or_refused_as_they_must() -> None:
    for case in HEADS["accepted"]:
        assert facts_of(headlog.verify_head(case["text"], case["key"])) == case["head"], case
    for case in HEADS["refused"]:
        assert error_of(lambda case=case: headlog.verify_head(case["text"], case["key"])) == case["error"], case["why"]  # type: ignore[misc]
    for case in HEADS["no_keys"]:
        with pytest.raises(InvalidOption, match="this is no public key"):
            pytest.fail(f"{headlog.verify_head(HEADS['accepted'][0]['text'], case['key'])}: {case}")


def test_what_is_signed_is_what_the_vectors_say() -> None:
    """Ours signs as another library does."""
    secret = make_heads.b64(b"\x01" + bytes(32))
    signer = headlog.Signer(f"PRIVATE+KEY+{make_heads.ORIGIN}+{make_heads.OURS.id.hex()}+{secret}")
    head = head_of(HEADS["accepted"][0]["head"])
    assert headlog.sign_head(signer, head, head.log_root).text == HEADS["accepted"][0]["text"]
    assert signer.public == HEADS["accepted"][0]["key"]


def test_proofs_of_commits_are_accepted_or_refused_as_they_must() -> None:
    for case in HEADS["commits"]:
        made, head = bytes.fromhex(case["proof"]), head_of(case["head"])
        if "error" in case:
            assert error_of(lambda: headlog.verify_commit(made, head, case["seq"])) == case["error"], case["why"]  # noqa: B023
        else:
            found = headlog.verify_commit(made, head, case["seq"])
            assert {"seq": str(found.seq), "root": found.root.hex(), "count": str(found.count), "at": found.at} == case[
                "answer"
            ]
    for case in HEADS["consistency"]:
        made, heads = bytes.fromhex(case["proof"]), (head_of(case["old"]), head_of(case["new"]))
        assert error_of(lambda: headlog.verify_consistency(made, *heads)) == case.get("error"), case["why"]  # noqa: B023


def said(case: dict[str, Any]) -> Said:
    return Said("ProofInvalid", case["error"]) if "error" in case else Said("answer", None)


@needs_node
def test_javascript_says_the_same_of_heads() -> None:
    cases = [*HEADS["accepted"], *HEADS["refused"]]
    found = call(["verifyHead", case["text"], case["key"]] for case in cases)
    for case, each in zip(cases, found, strict=True):
        if "head" in case:
            numbers = {name: int(case["head"][name]) for name in ("seq", "count")}
            assert each == Said("answer", case["head"] | numbers | {"text": case["text"]}), case["why"]
        else:
            assert each == said(case), case["why"]
    text = HEADS["accepted"][0]["text"]
    kinds = {each.kind for each in call(["verifyHead", text, case["key"]] for case in HEADS["no_keys"])}
    assert kinds == {"QuestionInvalid"}
    found = call(
        ["verifyConsistency", bytes.fromhex(case["proof"]), case["old"], case["new"]] for case in HEADS["consistency"]
    )
    assert found == [said(case) for case in HEADS["consistency"]]
    found = call(["verifyCommit", bytes.fromhex(case["proof"]), case["head"], case["seq"]] for case in HEADS["commits"])
    for case, each in zip(HEADS["commits"], found, strict=True):
        if "error" in case:
            assert each == said(case), case["why"]
        else:
            assert {name: str(each.value[name]) for name in case["answer"]} == case["answer"]


# ---- Documents ----


def listed(raw: bytes) -> tuple[bytes, bytes]:
    """Root and proof of a range with one document."""
    named = plain.name_bytes("c", 1)
    leaf = sha256(b"\x00" + named + b"j" + sha256(raw).digest()).digest()
    body = u8(1) + u32(1) + u8(proving.LISTED) + named + b"j" + u32(len(raw)) + raw
    return sha256(b"\x01" + u8(1) + u64(1) + leaf).digest(), proving.container("range", body)


READABLE = [case[name] for case in DOCUMENTS["spelled"] for name in ("document", "spelled")] + DOCUMENTS["read"]
REFUSED = [bytes.fromhex(case["bytes"]) for case in DOCUMENTS["refused"]]


def test_documents_are_read_or_refused_as_they_must() -> None:
    for text in READABLE:
        root, paper = listed(text.encode())
        ((_, value),) = proof.verify_range(paper, root, "c")
        assert repr(value) == repr(json.loads(text)), text[:80]
    for case, raw in zip(DOCUMENTS["refused"], REFUSED, strict=True):
        root, paper = listed(raw)
        assert error_of(lambda: proof.verify_range(paper, root, "c")) == case["error"], case["why"]  # noqa: B023


def test_a_value_is_spelled_in_one_way() -> None:
    for case in DOCUMENTS["spelled"]:
        value, spelled = json.loads(case["document"]), case["spelled"]
        assert Codec().encode(value) == spelled
        root, _ = listed(spelled.encode())
        paper = proving.container("present", u8(1) + u32(1) + u8(proving.ASKED))
        proof.verify_present(paper, root, "c", 1, value)


def test_what_a_store_cannot_read_back_is_refused_by_it_too() -> None:
    """Nothing that this program writes is refused in a range."""
    for text in DOCUMENTS["spelled"]:
        assert repr(Codec().decode(text["spelled"])) == repr(json.loads(text["spelled"]))


@needs_node
def test_javascript_says_the_same_of_documents() -> None:
    raws = [*(text.encode() for text in READABLE), *REFUSED]
    calls = [call_of(paper, root, Question("range", "c")) for root, paper in map(listed, raws)]
    wanted = [Said("answer", [[{"int": "1"}, {"json": text}]]) for text in READABLE]
    assert call(calls) == [*wanted, *map(said, DOCUMENTS["refused"])]


def test_the_reference_reads_documents_alike() -> None:
    assert [text for text in READABLE if json_faults(text)] == []
    texts = [raw.decode("utf-8", "surrogatepass") for raw in REFUSED if raw not in (b"\xff", b'"\xc0\x80"')]
    assert [text for text in texts if not json_faults(text)] == []
