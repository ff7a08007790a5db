"""Goal: a signed head that is kept elsewhere fixes a store's history: what continues it is proven, and what was
changed is refused, however well. Method: real stores; one is forged with every digest made anew by
tests/reference/plain.py, so that the file is sound by itself; the verbs keygen, sign, prove and verify as a user calls
them; another library's verifier, under node."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

import sqlstate
from sqlstate import headlog
from sqlstate.cli import main
from sqlstate.errors import InvalidOption, ProofInvalid
from sqlstate.headlog import Signer, verify_head
from tests import ROOT
from tests.reference import plain
from tests.reference.notation import sha256
from tests.support.system import has_mode

if TYPE_CHECKING:
    from sqlstate.headlog import SignedHead

SIGNER = Signer.generate("example.com/orders")
COMMITS = 600


def signed(store: sqlstate.Store) -> SignedHead:
    return verify_head(store.signed_head(SIGNER).text, SIGNER.public)


def filled(path: Path, commits: int = 5) -> sqlstate.Store:
    store = sqlstate.open(path)
    for number in range(commits):
        store["c"][f"k{number}"] = number
    return store


# ---- Histories ----


def test_every_commit_and_every_earlier_head_is_proven(path: Path) -> None:
    with sqlstate.open(path) as store:
        heads = [signed(store)]
        for number in range(COMMITS):
            store["c"][number % 50] = number
            if number % 97 == 0:
                heads.append(signed(store))
        heads.append(signed(store))
        for head in heads:
            for seq in (1, 255, 256, 257, head.seq - 1, head.seq):
                if 1 <= seq <= head.seq:
                    facts = headlog.verify_commit(store.prove_commit(seq, head.seq), head, seq)
                    assert tuple(facts) == tuple(next(store.commits(seq)))
        for old in heads:
            for new in heads:
                if old.seq <= new.seq:
                    headlog.verify_consistency(store.prove_consistency(old.seq, new.seq), old, new)
        assert store.check(against=heads[1]).ok
        assert store.head().seq == COMMITS, "signing and proving make no commits"


def test_a_proof_of_one_commit_is_none_of_another(path: Path) -> None:
    with filled(path) as store:
        head = signed(store)
        proof = store.prove_commit(3)
        for seq in (1, 2, 4, 5):
            with pytest.raises(ProofInvalid):
                headlog.verify_commit(proof, head, seq)
        body = proof.body
        for at in range(len(body)):
            with pytest.raises(ProofInvalid):
                headlog.verify_commit(replace(proof, body=body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]), head, 3)
            with pytest.raises(ProofInvalid):
                headlog.verify_commit(replace(proof, body=body[:at]), head, 3)
        with pytest.raises(InvalidOption):
            headlog.verify_commit(proof, head, 6)
        with pytest.raises(InvalidOption):
            store.prove_commit(6)


def forge(path: Path, seq: int, value: str) -> None:
    """Change what commit *seq*, one put, has put, and make every digest anew that depends on it."""
    with closing(plain.connect(path)) as db:
        (store_id,) = db.execute("SELECT value FROM meta WHERE name = 'store_id'").fetchone()
    commits = plain.judge(path).commits
    chain = plain.chain_zero(store_id)
    entries: dict[tuple[Any, Any], Any] = {}
    with closing(sqlite3.connect(path)) as db, db:
        for commit in commits:
            records = [
                replace(each, value=value) if each.kind == "PUT" and commit.seq == seq else each
                for each in commit.records
            ]
            for each in records:
                if each.kind == "PUT":
                    entries[each.collection, each.key] = each.value
                    db.execute("UPDATE wal SET value = ? WHERE lsn = ?", (each.value, each.lsn))
            rows = [(collection, key, stored) for (collection, key), stored in entries.items()]
            root = plain.root(rows)
            records_bytes = plain.records_bytes(records)
            chain = plain.chain_next(chain, commit.seq, root, len(rows), commit.at, records_bytes)
            db.execute(
                "UPDATE wal SET root = ?, chain = ?, records = ? WHERE seq = ? AND root IS NOT NULL",
                (root, chain, sha256(records_bytes), commit.seq),
            )
        for collection, key, stored in rows:
            db.execute("UPDATE state SET value = ? WHERE collection = ? AND key = ?", (stored, collection, key))
        for level, collection, key, children in plain.merkle_rows(rows):
            db.execute(
                "UPDATE merkle SET children = ? WHERE level = ? AND collection = ? AND key = ?",
                (children, level, collection, key),
            )


def test_history_forged_with_every_digest_made_anew_is_refused(path: Path, tmp_path: Path) -> None:
    with filled(path, 40) as store:
        pinned = signed(store)
        store["c"]["later"] = 1
        genuine = signed(store)
        headlog.verify_consistency(store.prove_consistency(pinned.seq), pinned, genuine)
        assert store.check(against=pinned).ok
    forge(path, 7, "7777")
    assert plain.judge(path).findings == (), "the forgery is sound by itself"
    with sqlstate.open(path, read_only=True) as store:
        assert store["c"]["k6"] == 7777
        assert store.check().ok
        report = store.check(against=pinned)
        assert (report.ok, [finding.kind for finding in report.findings]) == (False, ["against"])
        forged = signed(store)
        with pytest.raises(ProofInvalid):
            headlog.verify_consistency(store.prove_consistency(pinned.seq), pinned, forged)
        with pytest.raises(ProofInvalid):
            headlog.verify_commit(store.prove_commit(7), genuine, 7)
    note, key = tmp_path / "pinned.head", tmp_path / "key.pub"
    note.write_text(pinned.text, "utf-8", newline="\n")
    key.write_text(SIGNER.public, "utf-8", newline="\n")
    checked = run("check", str(path), "--against", str(note), "--key", str(key))
    assert checked.exit_code == 3


def test_a_head_that_says_another_root_of_its_commit_is_found_out(path: Path, tmp_path: Path) -> None:
    """The key's holder signs the true history, and with it a root under which other entries stand."""
    with filled(path, 3) as store:
        true = signed(store)
        entry, commit = store.prove("c", "k1"), store.prove_commit(3)
        same, early = store.prove_consistency(3), store.prove_commit(2)
        facts = store.head()
        store["c"]["k1"] = "other"
        store["c"]["k9"] = 9
        others = [facts._replace(root=store.head().root), facts._replace(count=4), facts._replace(at=store.head().at)]
        later = store.prove_commit(3), signed(store)
    (tmp_path / "key.pub").write_text(SIGNER.public, "utf-8", newline="\n")
    (tmp_path / "true.head").write_text(true.text, "utf-8", newline="\n")
    (tmp_path / "same.proof").write_bytes(same.to_bytes())
    (tmp_path / "commit.proof").write_bytes(commit.to_bytes())
    assert headlog.verify_commit(commit, true, 3).root == true.root
    for number, other in enumerate(others):
        false = verify_head(headlog.sign_head(SIGNER, other, true.log_root).text, SIGNER.public)
        for pair in ((true, false), (false, true)):
            with pytest.raises(ProofInvalid, match="say of commit 3 another root, count or time"):
                headlog.verify_consistency(same, *pair)
        with pytest.raises(ProofInvalid, match="commit 3 of the signed history has another root, count or time"):
            headlog.verify_commit(commit, false, 3)
        assert headlog.verify_commit(early, false, 2).seq == 2, "of the commits before, the history says it"
        assert headlog.verify_commit(later[0], later[1], 3).root == true.root
        if number == 0:
            with pytest.raises(ProofInvalid):
                sqlstate.proof.verify_present(entry, false.root, "c", "k1", 1)
        (tmp_path / "false.head").write_text(false.text, "utf-8", newline="\n")
        heads = ["--head", str(tmp_path / "false.head"), "--key", str(tmp_path / "key.pub")]
        refused = run("verify", str(tmp_path / "same.proof"), "--against", str(tmp_path / "true.head"), *heads)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "the two heads say of commit 3 another root, count or time" in refused.stderr
        refused = run("verify", str(tmp_path / "commit.proof"), "--commit", "3", *heads)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "another root, count or time than the head says" in refused.stderr
        checked = run("check", str(path), "--against", *heads[1:])
        assert checked.exit_code == 3
        with sqlstate.open(path, read_only=True) as store:
            assert [finding.kind for finding in store.check(against=false).findings] == ["against"]


def test_a_head_of_no_commit_is_signed_and_begins_every_history(path: Path) -> None:
    with sqlstate.open(path) as store:
        empty = signed(store)
        headlog.verify_consistency(store.prove_consistency(0), empty, empty)
        store["c"]["k"] = 1
        headlog.verify_consistency(store.prove_consistency(0), empty, signed(store))
        assert store.check(against=empty).ok


def test_a_public_key_is_given_as_text_or_as_a_file_of_any_name(kept: str) -> None:
    run("sign", kept, "--key", "key", "--out", "head")
    run("prove", kept, "--commit", "5", "--out", "proof")
    text = Path("key.pub").read_text("utf-8")
    Path("a+b+c.pub").write_text(text, "utf-8", newline="\n")
    for key in (text.strip(), f" {text}", "key.pub", "a+b+c.pub"):
        assert run("check", kept, "--against", "head", "--key", key).exit_code == 0
        assert run("verify", "proof", "--commit", "5", "--head", "head", "--key", key).exit_code == 0
    for key in ("a+b+d.pub", "\0+", "nowhere", text.replace("+", " ")):
        checked = run("check", kept, "--against", "head", "--key", key)
        verified = run("verify", "proof", "--commit", "5", "--head", "head", "--key", key)
        assert checked.exit_code == verified.exit_code != 0
        assert checked.stderr == verified.stderr
        assert "Traceback" not in checked.stderr + verified.stderr


def test_a_head_is_read_alike_by_each_verb(kept: str) -> None:
    """Line ends, too: neither verb turns CR LF into LF, which would accept what was not signed so."""
    run("sign", kept, "--key", "key", "--out", "head")
    run("prove", kept, "--commit", "5", "--out", "proof")
    right = Path("head").read_bytes()
    for text, code in (
        (right, 0),
        (right.replace(b"\n", b"\r\n"), 1),
        (b"\xef\xbb\xbf" + right, 1),
        (b"\xff" + right, 1),
    ):
        Path("head").write_bytes(text)
        checked = run("check", kept, "--against", "head", "--key", "key.pub")
        verified = run("verify", "proof", "--commit", "5", "--head", "head", "--key", "key.pub")
        assert (checked.exit_code, verified.exit_code) == (code, code), (checked.output, verified.output)
        assert checked.stderr == verified.stderr


def test_a_file_put_back_to_an_earlier_moment_is_refused(path: Path) -> None:
    filled(path).close()
    earlier = path.read_bytes()
    with sqlstate.open(path) as store:
        store["c"]["k"] = 1
        pinned = signed(store)
    path.write_bytes(earlier)
    with sqlstate.open(path, read_only=True) as store:
        assert store.check().ok
        assert [finding.kind for finding in store.check(against=pinned).findings] == ["against"]


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["cryptography"] = None
from sqlstate.cli import main
main(sys.argv[1:])
"""
    command = [sys.executable, "-c", program, "keygen", "a.example", "--out", str(tmp_path / "key")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'sqlstate-store[sign]'" in done.stderr
    assert os.listdir(tmp_path) == []


# ---- The verbs ----


def run(*arguments: str, input: bytes | str | None = None) -> Result:  # noqa: A002, click's word
    return CliRunner().invoke(main, arguments, input=input)


@pytest.fixture
def kept(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with five entries; the current folder has a key, `key`."""
    filled(path).close()
    monkeypatch.chdir(tmp_path)
    assert run("keygen", "a.example", "--out", "key").exit_code == 0
    return str(path)


def test_a_private_key_is_for_its_owner_and_never_written_over(kept: str) -> None:
    del kept
    assert has_mode("key", 0o600)
    before = Path("key").read_bytes()
    again = run("keygen", "a.example", "--out", "key")
    assert (again.exit_code, Path("key").read_bytes()) == (6, before)
    assert "key: File exists" in again.stderr
    assert Path("key.pub").read_text("utf-8") == Signer(before.decode()).public + "\n"


def test_signing_warns_of_a_key_that_others_can_read(kept: str) -> None:
    assert "warning" not in run("sign", kept, "--key", "key").stderr
    os.chmod("key", 0o640)
    assert "warning: others can read key" in run("sign", kept, "--key", "key").stderr


def test_a_key_file_that_holds_none_is_told(kept: str) -> None:
    Path("key").write_bytes(b"\xff\xfe")
    assert (done := run("sign", kept, "--key", "key")).exit_code == 2
    assert "no private key" in done.stderr


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(
    ("question", "answer", "other"),
    [
        (["c", "k1"], ["1"], ["2"]),
        (["c", "k9"], ["--absent"], ["9"]),
        (["c", "--range", "--start", "k3"], [], ["--limit", "1"]),
        (["c", "--range", "--limit", "2"], [], ["--start", "k2"]),
        (["c", "--count", "--stop", "k4"], [], ["--start", "k1"]),
    ],
)
def test_what_is_proven_is_verified_without_the_store(
    kept: str, question: list[str], answer: list[str], other: list[str], binary: bool
) -> None:
    root = json.loads(run("head", kept, "--json").stdout)["root"]
    made = run("prove", kept, *question, *["--binary"][: int(binary)], "--quiet")
    assert (made.exit_code, made.stderr) == (0, "")
    os.unlink(kept)
    held = run("verify", "-", *question, *answer, "--root", root, input=made.stdout_bytes)
    assert held.exit_code == 0, held.output
    for wrong in ([*question, *answer, "--root", "00" * 32], [*question, *other, "--root", root]):
        refused = run("verify", "-", *wrong, input=made.stdout_bytes)
        assert (refused.exit_code, refused.stdout) == (1, ""), refused.output
        assert refused.stderr.startswith("error: ")


def test_a_proof_about_commits_is_verified_by_signed_heads(kept: str) -> None:
    assert run("sign", kept, "--key", "key", "--out", "monday").exit_code == 0
    run("put", kept, "c", "k5", "5")
    assert run("sign", kept, "--key", "key", "--out", "tuesday").exit_code == 0
    heads = ["--head", "tuesday", "--key", "key.pub"]
    grown = run("prove", kept, "--consistency", "5", "--quiet").stdout
    held = run("verify", "-", "--against", "monday", *heads, input=grown)
    assert json.loads(held.stdout) == {"proven": True, "appended_only": True, "from": 5, "to": 6}
    assert (
        run("verify", "-", "--against", "tuesday", "--head", "monday", "--key", "key.pub", input=grown).exit_code == 1
    )
    third = run("prove", kept, "--commit", "3", "--quiet").stdout
    assert json.loads(run("verify", "-", "--commit", "3", *heads, input=third).stdout)["count"] == 3
    assert run("verify", "-", "--commit", "4", *heads, input=third).exit_code == 1
    entry = run("prove", kept, "c", "k5", "--quiet").stdout
    assert run("verify", "-", "c", "k5", "5", *heads, input=entry).exit_code == 0
    run("keygen", "a.example", "--out", "other")
    assert run("verify", "-", "--commit", "3", "--head", "tuesday", "--key", "other.pub", input=third).exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["prove", "FILE"],
        ["prove", "FILE", "c"],
        ["prove", "FILE", "c", "k1", "--range"],
        ["prove", "FILE", "c", "--commit", "1"],
        ["prove", "FILE", "c", "k1", "--limit", "1"],
        ["prove", "FILE", "c", "k1", "--start", "a"],
        ["prove", "FILE", "c", "--count", "--size", "1"],
        ["prove", "FILE", "--commit", "6"],
        ["verify", "key", "c", "k1", "1"],
        ["verify", "PROOF", "c", "k1", "1"],
        ["verify", "PROOF", "c", "k1", "1", "--root", "xyz"],
        ["verify", "PROOF", "c", "k1", "1", "--root", "00"],
        ["verify", "PROOF", "c", "k1", "1", "--root", "00 " * 32],
        ["verify", "PROOF", "--commit", "1", "--root", "00" * 32],
        ["verify", "PROOF", "c", "--count", "--absent", "--root", "00" * 32],
        ["verify", "PROOF", "c", "k1", "1", "--head", "key"],
        ["keygen", "a b", "--out", "new"],
        ["sign", "FILE", "--key", "nowhere"],
    ],
)
def test_a_wrong_call_gets_one_sentence(kept: str, arguments: list[str]) -> None:
    run("prove", kept, "c", "k1", "--out", "proof")
    names = {"FILE": kept, "PROOF": "proof"}
    done = run(*[names.get(each, each) for each in arguments])
    assert done.exit_code in (1, 2, 6)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr


# ---- A verifier of others ----


@pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="needs node and npm")
def test_another_library_reads_head_and_paths(path: Path, tmp_path: Path) -> None:
    for name in ("package.json", "verify.js"):
        shutil.copy(ROOT / "tests/node" / name, tmp_path)
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]
    try:
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=120)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("the package @sigstore/verify cannot be had here")
    with filled(path, 9) as store:
        head = signed(store)
        proofs = [(seq, store.prove_commit(seq)) for seq in range(1, 10)]
        facts = [headlog.verify_commit(proof, head, seq) for seq, proof in proofs]
    requests = {
        "note": head.text,
        "key": SIGNER.public,
        "entries": [
            {"index": fact.seq - 1, "chain": fact.chain.hex(), "path": path_of(body, fact.at)}
            for fact, body in zip(facts, [proof.body for _, proof in proofs], strict=True)
        ],
    }
    done = subprocess.run(
        ["node", "verify.js"], cwd=tmp_path, input=json.dumps(requests), capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == {
        "head": True,
        "changed head": False,
        "entries": [True] * 9,
        "changed": [False] * 9,
    }


def path_of(body: bytes, at: str) -> list[str]:
    """Return the digests of the path at the end of a commit's proof."""
    fixed = 32 + 32 + 8 + 4 + len(at) + 32
    return [body[start : start + 32].hex() for start in range(fixed, len(body), 32)]
