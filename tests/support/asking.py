"""Asks sqlstate's verifier a question of tests/reference/proving.py."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlstate import proof as verifier
from sqlstate.errors import ProofInvalid
from sqlstate.proof import Document, Proof
from tests.reference import proving

if TYPE_CHECKING:
    from tests.reference.plain import Value
    from tests.reference.proving import Question, Tree

REFUSED = "refused"


def given(value: Value) -> Any:
    """A stored value as a caller gives it."""
    return Document(value) if isinstance(value, str) else value


def read(value: Value) -> Any:
    """A stored value as a caller gets it."""
    return json.loads(value) if isinstance(value, str) else value


def ask(proof: Proof | bytes, root: bytes, question: Question) -> Any:
    """What the verifier answers: True for a statement that it accepts.

    Raises:
        ProofInvalid: it does not accept.
    """
    name = question.collection, question.key
    span = question.start, question.stop
    if question.kind == "present":
        verifier.verify_present(proof, root, *name, given(question.value))
    elif question.kind == "absent":
        verifier.verify_absent(proof, root, *name)
    elif question.kind == "many":
        present = {(collection, key): given(value) for collection, key, value in question.present}
        verifier.verify_many(proof, root, present, question.absent)
    elif question.kind == "count":
        return verifier.verify_count(proof, root, question.collection, *span)
    else:
        return verifier.verify_range(proof, root, question.collection, *span, question.limit)
    return True


def asked(proof: Proof | bytes, root: bytes, question: Question) -> Any:
    """As ask(), and REFUSED for what it does not accept."""
    try:
        return ask(proof, root, question)
    except ProofInvalid:
        return REFUSED


def expected(of: Tree, question: Question) -> Any:
    """What the verifier must answer to the honest proof: REFUSED if the statement is false."""
    truth = proving.answer(of, question)
    if isinstance(truth, list):
        return [(key, read(value)) for key, value in truth]
    return REFUSED if truth is False else truth
