"""One proof for many entries, as a user makes and verifies it: keys on the command line, in a file, on standard input.

Method: what prove wrote goes to verify with what is asked, true and false, and to the library's verifier.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import proof
from tests.cli.test_program import bad, good, run

if TYPE_CHECKING:
    from pathlib import Path

KEYS: dict[Any, Any] = {"apple": 120, "pear": {"$json": 1}, "zoë": None, 5: b"five", -1: [1.0], b"\0\n": "bytes"}


@pytest.fixture
def db(tmp_path: Path) -> str:
    file = str(tmp_path / "app.db")
    with sqlstate.open(file) as store:
        store["c"].update(KEYS)
        store["d"].update({f"k{number}": number for number in range(500)})
    return file


def root_of(db: str) -> str:
    return str(json.loads(good("head", db, "--json"))["root"])


def line(**members: Any) -> str:
    return json.dumps(members) + "\n"


def test_several_keys_give_one_proof(db: str, tmp_path: Path) -> None:
    made = run("prove", db, "c", "apple", "quince", "zoë", "apple")
    assert made.exit_code == 0
    assert "kind 'many'" in made.stderr
    assert made.stderr.endswith("; 2 there, 1 absent\n")
    root = root_of(db)
    paper = proof.Proof.from_json(made.stdout)
    proof.verify_many(paper, bytes.fromhex(root), {("c", "apple"): 120, ("c", "zoë"): None}, [("c", "quince")])
    (tmp_path / "proof").write_text(made.stdout, "utf-8", newline="\n")
    asked = line(collection="c", key="apple", value=120) + line(collection="c", key="quince")
    rest = line(collection="c", key="zoë", value=None)
    (tmp_path / "asked").write_text(asked + "\n" + rest + rest, "utf-8", newline="\n")
    said = good("verify", str(tmp_path / "proof"), "--entries", str(tmp_path / "asked"), "--root", root)
    assert json.loads(said) == {"proven": True, "present": 2, "absent": 1}
    assert good("verify", "-", "--entries", str(tmp_path / "asked"), "--root", root, input=made.stdout) == said
    for wrong in (
        asked,
        asked + rest + line(collection="c", key="pear", value={"$json": 1}),
        asked + line(collection="c", key="zoë", value=0),
        asked + line(collection="c", key="zoë"),
        asked.replace("quince", "ape") + rest,
        asked.replace("120", "120.0") + rest,
    ):
        refused = run("verify", str(tmp_path / "proof"), "--entries", "-", "--root", root, input=wrong)
        assert (refused.exit_code, refused.stdout) == (1, ""), wrong
        assert "proof" in refused.stderr


def test_an_export_names_the_entries_and_says_what_they_must_be(db: str, tmp_path: Path) -> None:
    """Keys and values of all kinds, in the form that has them exactly."""
    exported = good("export", db)
    lines = tmp_path / "lines"
    lines.write_text(exported, "utf-8", newline="\n")
    root = root_of(db)
    for form in ([], ["--binary"]):
        out = tmp_path / f"proof{len(form)}"
        assert good("prove", db, "--entries", str(lines), "--out", str(out), *form) == ""
        said = json.loads(good("verify", str(out), "--entries", str(lines), "--root", root))
        assert said == {"proven": True, "present": 506, "absent": 0}
    names = "".join(
        line(collection=each["collection"], key=each["key"]) for each in map(json.loads, exported.split("\n")[:-1])
    )
    assert good("prove", db, "--entries", "-", input=names).encode() == (tmp_path / "proof0").read_bytes()
    refused = run("verify", str(tmp_path / "proof0"), "--entries", "-", "--root", root, input=names)
    assert refused.exit_code == 1, "none of them is absent"


@pytest.mark.parametrize(
    ("key_type", "text", "there"),
    [
        ("str", "apple\r\n\nzoë\npear\nquince", 3),
        ("str", "apple\n apple\n", 1),
        ("int", "5\n-1\n6\n", 2),
        ("hex", "000A\n00\n", 1),
    ],
)
def test_keys_come_one_a_line(db: str, tmp_path: Path, key_type: str, text: str, there: int) -> None:
    (tmp_path / "keys").write_bytes(text.encode())
    options = ["--key-type", key_type]
    made = run("prove", db, "c", "--keys-from", str(tmp_path / "keys"), *options)
    assert made.stderr.endswith(f"; {there} there, {len(text.split()) - there} absent\n")
    assert good("prove", db, "c", "--keys-from", "-", *options, input=text.encode()) == made.stdout
    words = [word for word in text.replace("\r", "").split("\n") if word]
    assert good("prove", db, *options, "--", "c", *words) == made.stdout


def test_one_proof_of_many_is_smaller_than_one_for_each(db: str) -> None:
    keys = [f"k{number}" for number in range(200, 260)]
    together = len(good("prove", db, "d", *keys, "--quiet"))
    assert together < sum(len(good("prove", db, "d", key, "--quiet")) for key in keys[:20])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "ask for one entry or more"),
        (b"\n \n", "ask for one entry or more"),
        (b'{"collection":"c"}\n', "line 1: the line is not an exported entry"),
        (b'{"collection":"c","key":"k"}\n[]\n', "line 2: the line is not an exported entry"),
        (b'{"collection":"c","key":1.5}\n', "line 1: the key is a number with a fraction"),
        (b'{"collection":"c","key":"k","value":1,"seq":3}\n', "nor one without its value"),
        (b'{"collection":"","key":"k"}\n', "lines, line 1: "),
        (b'{"collection":"c","key":9223372036854775808}\n', "line 1: key 9223372036854775808 is outside"),
        (b"{not json\n", "line 1, column 2"),
        (b'{"collection":"c","key":"\xff"}\n', "is not UTF-8"),
    ],
)
def test_a_file_of_entries_that_is_none_is_refused_with_its_place(
    db: str, tmp_path: Path, content: bytes, what: str
) -> None:
    file = tmp_path / "lines"
    file.write_bytes(content)
    (tmp_path / "proof").write_text(good("prove", db, "c", "apple", "pear"), "utf-8", newline="\n")
    assert what in bad(2, "prove", db, "--entries", str(file))
    assert what in bad(2, "verify", str(tmp_path / "proof"), "--entries", str(file), "--root", "00" * 32)


def test_what_contradicts_itself_is_no_question(db: str, tmp_path: Path) -> None:
    (tmp_path / "proof").write_text(good("prove", db, "c", "apple", "pear"), "utf-8", newline="\n")
    first = line(collection="c", key="apple", value=120)
    for second in (line(collection="c", key="apple", value=121), line(collection="c", key="apple")):
        said = run("verify", str(tmp_path / "proof"), "--entries", "-", "--root", "00" * 32, input=first + second)
        assert said.exit_code == 2
        assert "line 2" in said.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["prove", "DB", "c", "k", "--entries", "x"],
        ["prove", "DB", "c", "--entries", "x"],
        ["prove", "DB", "--keys-from", "x"],
        ["prove", "DB", "c", "k", "--keys-from", "x"],
        ["prove", "DB", "c", "--keys-from", "x", "--range"],
        ["prove", "DB", "c", "a", "b", "--range"],
        ["prove", "DB", "c", "a", "b", "--size", "1"],
        ["prove", "DB", "--entries", "x", "--limit", "1"],
        ["prove", "DB", "c", "5", "x", "--key-type", "int"],
        ["verify", "-", "--entries", "-", "--root", "00"],
        ["verify", "p", "--entries", "x", "--absent", "--root", "00"],
        ["verify", "p", "c", "--entries", "x", "--root", "00"],
    ],
)
def test_questions_that_are_none_are_wrong_usage(db: str, arguments: list[str]) -> None:
    bad(2, *(db if each == "DB" else each for each in arguments))


def test_a_bad_key_in_a_file_is_named(db: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("5\nx\n", "utf-8", newline="\n")
    said = bad(2, "prove", db, "c", "--keys-from", str(tmp_path / "keys"), "--key-type", "int")
    assert "keys, line 2: key 'x' is not an int" in said.replace('"', "'")
    missing = bad(6, "prove", db, "c", "--keys-from", str(tmp_path / "none"))
    assert "none" in missing
