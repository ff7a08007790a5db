"""Goal: tests/vectors/proofs.json, which verifiers in other languages are tested with, says what is right. Method:
its maker gives the same bytes, sqlstate's verifier agrees with every case, and every refused one would be missed by
a check that is left out: the file has cases for each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sqlstate.errors import InvalidInput, ProofInvalid
from sqlstate.proof import Proof
from tests.reference import plain
from tests.reference.proving import CODES, Question
from tests.support.asking import ask, read
from tests.vectors import make_proofs
from tests.vectors.make import untyped

PATH = Path(make_proofs.__file__).parent / "proofs.json"
VECTORS: dict[str, Any] = json.loads(PATH.read_text("ascii"))
UNIVERSES = {universe["name"]: universe for universe in VECTORS["universes"]}


def question_of(case: dict[str, Any]) -> Question:
    facts = case["question"]
    question = Question(facts["kind"], facts.get("collection", ""), limit=facts.get("limit"))
    for name in ("key", "value", "start", "stop"):
        if facts.get(name) is not None:
            known: dict[str, Any] = {name: untyped(facts[name])}
            question = replace(question, **known)
    present: Any = tuple((name, untyped(key), untyped(value)) for name, key, value in facts.get("present", ()))
    absent: Any = tuple((name, untyped(key)) for name, key in facts.get("absent", ()))
    return replace(question, present=present, absent=absent)


def test_the_maker_gives_the_file() -> None:
    assert make_proofs.document() == PATH.read_text("ascii")


@pytest.mark.parametrize("name", UNIVERSES)
def test_the_roots_are_those_of_the_entries(name: str) -> None:
    entries: Any = [(collection, untyped(key), untyped(value)) for collection, key, value in UNIVERSES[name]["entries"]]
    assert plain.root(entries).hex() == UNIVERSES[name]["root"]


def test_what_is_accepted_is_accepted_with_its_answer() -> None:
    for case in VECTORS["accepted"]:
        root = bytes.fromhex(UNIVERSES[case["universe"]]["root"])
        proof = bytes.fromhex(case["proof"])
        answer = case.get("answer", True)
        if isinstance(answer, list):
            answer = [(untyped(key), read(untyped(value))) for key, value in answer]  # type: ignore[arg-type]
        assert ask(proof, root, question_of(case)) == answer, case
        assert Proof.from_json(case["json"]) == Proof.from_bytes(proof)
        assert Proof.from_bytes(proof).to_json() == case["json"]


def test_what_is_refused_is_refused() -> None:
    for case in VECTORS["refused"]:
        with pytest.raises(ProofInvalid) as caught:
            pytest.fail(f"{ask(bytes.fromhex(case['proof']), bytes.fromhex(case['root']), question_of(case))}: {case}")
        assert str(caught.value) == case["error"], case


def test_what_is_no_question_is_refused_before_any_proof() -> None:
    for case in VECTORS["no_questions"]:
        question = question_of(case)
        if "twice" in case["why"]:
            continue  # a dict cannot ask it
        for proof in (b"", b"SqSp"):
            with pytest.raises(InvalidInput):
                pytest.fail(f"{ask(proof, plain.empty_root(), question)}: {case}")


def test_the_vectors_reach_every_kind_and_stay_small() -> None:
    for what in ("accepted", "refused"):
        assert {case["question"]["kind"] for case in VECTORS[what]} == set(CODES)
    assert len({case["why"] for case in VECTORS["refused"]}) > 70
    assert {len(bytes.fromhex(case["proof"])) > 7 for case in VECTORS["accepted"]} == {True, False}
    assert PATH.stat().st_size < 500_000
