"""Runs docs/verify/verify.js under node: many calls in one process, as lines of JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

from tests import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.reference.plain import Key, Value
    from tests.reference.proving import Question

VERIFIER = ROOT / "docs" / "verify" / "verify.js"

# Bytes travel as {"$bytes": digits}, and a BigInt as {"$int": digits}. A Buffer made of digits lies somewhere in a
# larger ArrayBuffer, as those that node reads from files do.
DRIVER = """
const sqlstate = require(process.argv[1]);
const revive = (name, value) => (value && value.$bytes !== undefined ? Buffer.from(value.$bytes, "hex") : value);
function plain(name, value) {
  if (typeof value === "bigint") return { $int: String(value) };
  return value instanceof Uint8Array ? { $bytes: Buffer.from(value).toString("hex") } : value;
}
async function answer(line) {
  const [name, ...given] = JSON.parse(line, revive);
  try {
    return { kind: "answer", value: await sqlstate[name](...given) };
  } catch (error) {
    const known = error instanceof sqlstate.ProofInvalid || error instanceof sqlstate.QuestionInvalid;
    return { kind: known ? error.name : "failed", value: known ? error.message : String(error.stack) };
  }
}
(async () => {
  const lines = require("fs").readFileSync(0, "utf8").split("\\n").filter((line) => line);
  for (const line of lines) console.log(JSON.stringify(await answer(line), plain));
})();
"""


def node() -> str | None:
    """Path of this machine's node."""
    return shutil.which("node")


class Said(NamedTuple):
    """What became of a call."""

    kind: str
    """answer, ProofInvalid, QuestionInvalid or failed: anything else that was thrown."""
    value: Any
    """The answer, or the message."""


def call(calls: Iterable[list[Any]], *, memory_mb: int = 512) -> list[Said]:
    """Make calls of verify.js, each a list of the function's name and its arguments, and return what became of each."""
    program = node()
    assert program is not None
    lines = "".join(json.dumps(each, default=_sent) + "\n" for each in calls)
    command = [program, f"--max-old-space-size={memory_mb}", "-e", DRIVER, str(VERIFIER)]
    ran = subprocess.run(command, input=lines, capture_output=True, encoding="utf-8", check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = [json.loads(line, object_hook=_received) for line in ran.stdout.split("\n") if line]
    return [Said(each["kind"], each.get("value")) for each in found]


def _sent(value: Any) -> Any:
    return {"$bytes": value.hex()}


def _received(value: dict[str, Any]) -> Any:
    if "$int" in value:
        return int(value["$int"])
    return bytes.fromhex(value["$bytes"]) if "$bytes" in value else value


# ---- Its notation ----


def key_of(key: Key | None) -> dict[str, str] | None:
    """A key, or a bound of keys."""
    if key is None:
        return None
    if isinstance(key, int):
        return {"int": str(key)}
    return {"text": key} if isinstance(key, str) else {"bytes": key.hex()}


def value_of(value: Value) -> dict[str, str]:
    """A value as it is stored."""
    return {"json": value} if isinstance(value, str) else {"bytes": value.hex()}


def call_of(proof: bytes | str, root: bytes, question: Question) -> list[Any]:
    """The call that asks a question by the function of its kind."""
    name = f"verify{question.kind.capitalize()}"
    given: list[Any] = [name, proof, root.hex()]
    if question.kind == "many":
        present = [[collection, key_of(key), value_of(value)] for collection, key, value in question.present]
        return [*given, present, [[collection, key_of(key)] for collection, key in question.absent]]
    given.append(question.collection)
    if question.kind == "present":
        return [*given, key_of(question.key), value_of(question.value)]
    if question.kind == "absent":
        return [*given, key_of(question.key)]
    given += [key_of(question.start), key_of(question.stop)]
    return [*given, question.limit] if question.kind == "range" else given


def answer_of(said: Said) -> Any:
    """What was said, in the terms of tests/support/asking.py: values as read, True for nothing to say."""
    if said.kind == "ProofInvalid":
        return "refused"
    assert said.kind == "answer", said
    if isinstance(said.value, list):
        return [(_key(key), _value(value)) for key, value in said.value]
    return True if said.value is None else said.value


def _key(key: dict[str, str]) -> Any:
    ((kind, value),) = key.items()
    return int(value) if kind == "int" else value if kind == "text" else bytes.fromhex(value)


def _value(value: dict[str, str]) -> Any:
    return json.loads(value["json"]) if "json" in value else bytes.fromhex(value["bytes"])
