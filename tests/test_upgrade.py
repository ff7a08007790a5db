"""Goal: a store that an earlier version made is opened with all that it holds: entries, history, audit trail, drafts.

Method: `tests/fixtures/` keeps stores as earlier versions left them, and what each holds, which the version of their
time said. Copies of them are opened. No number of a format stands here: what is older than this version is seen by the
file.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any, Final

import pytest

import sqlstate
from sqlstate import headlog
from sqlstate.format import constants as fmt
from tests import ROOT
from tests.fixtures.described import blocks, copied, described, entries
from tests.fixtures.make_format_3 import User
from tests.support.child import Child
from tests.support.images import folder_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import OpenStore

KEPT: Final = ROOT / "tests" / "fixtures"
MADE: Final = {f"{file.parent.name}/{file.stem}": file for file in sorted(KEPT.glob("format-*/*.db"))}
SAID: Final[dict[str, dict[str, Any]]] = {
    name: json.loads(file.with_suffix(".json").read_text("utf-8")) for name, file in MADE.items()
}
DRAFTS: Final = [name for name, said in SAID.items() if said["pending"]]
SIGNED: Final = [name for name, said in SAID.items() if "signed" in said]
NOT_ASKED: Final = ("signed", "public", "blocks")


def is_older(file: Path) -> bool:
    return int.from_bytes(file.read_bytes()[60:64]) < fmt.FORMAT_VERSION


def of(name: str, *without: str) -> dict[str, Any]:
    """What the version of its time said of a kept store, as described() says it."""
    return {each: said for each, said in SAID[name].items() if each not in (*NOT_ASKED, *without)}


def without(found: dict[str, Any], *names: str) -> dict[str, Any]:
    return {each: said for each, said in found.items() if each not in names}


def test_each_kind_of_store_is_kept() -> None:
    assert {name.partition("/")[0] for name in MADE} == {f"format-{n}" for n in (1, 2, 3)}
    assert len(SIGNED) == 1
    assert {name for name in MADE if MADE[name].with_name(MADE[name].name + "-wal").exists()} < set(DRAFTS)
    assert any(len(said["blocks"]) > 1 for said in SAID.values())
    assert all(is_older(file) or file.parent.name == f"format-{fmt.FORMAT_VERSION}" for file in MADE.values())


@pytest.mark.parametrize("name", MADE)
def test_a_store_of_an_earlier_version_holds_what_it_held(tmp_path: Path, open_store: OpenStore, name: str) -> None:
    path = copied(MADE[name], tmp_path)
    store = open_store(path, recover="resume")
    assert described(store) == of(name)
    assert store.stats().format == fmt.FORMAT_VERSION
    report = store.check("replay")
    assert report.ok, report
    assert store.check_audit() == []
    kinds = [entry.kind for entry in store.audit()]
    assert kinds.count("migration") <= fmt.FORMAT_VERSION
    store.close()
    assert blocks(path)[: len(SAID[name]["blocks"])] == SAID[name]["blocks"]

    # From now on it is as any other: a clean opening writes nothing.
    before = folder_image(tmp_path)
    with sqlstate.open(path, recover="resume") as again:
        assert [entry.kind for entry in again.audit()] == kinds
        assert described(again) == of(name)
    assert folder_image(tmp_path) == before


@pytest.mark.parametrize("name", MADE)
def test_each_commit_of_an_earlier_version_is_as_its_changes_say(tmp_path: Path, name: str) -> None:
    with sqlstate.open(copied(MADE[name], tmp_path), recover="resume") as store:
        model: dict[tuple[str, Any], Any] = {}
        changes = iter([*store.changes(), None])
        change = next(changes)
        for head in store.commits():
            while change is not None and change.seq == head.seq:
                place = change.collection, change.key
                assert model.pop(place, sqlstate.ABSENT) == change.before
                if change.value is not sqlstate.ABSENT:
                    model[place] = change.value
                change = next(changes)
            if head.seq % 7 and head.seq < store.head().seq - 20:
                continue
            with store.at(head.seq) as past:
                assert past.head == head
                there = [(c, key, value) for c in past.collections() for key, value in past[c].items()]
                assert {(c, key): value for c, key, value in there} == model
                assert len(there) == head.count


@pytest.mark.parametrize("name", MADE)
def test_a_store_of_an_earlier_version_takes_writes(tmp_path: Path, open_store: OpenStore, name: str) -> None:
    said = SAID[name]
    store = open_store(copied(MADE[name], tmp_path))
    assert store.recovery.rolled_back == tuple(txn for txn, *_ in said["pending"])
    assert entries(store) == said["entries"]
    seq = store.head().seq
    store["new"]["entry"] = 1
    store["new"]["entry"] = 2
    assert (store.head().seq, [change.value for change in store["new"].history("entry")]) == (seq + 2, [2, 1])
    assert store.revert(seq).root.hex() == said["head"][1].split()[1]
    if seq:
        assert store.undo(seq).seq == seq + 4
    assert store.check("replay").ok


@pytest.mark.parametrize("name", DRAFTS)
def test_what_was_staged_by_an_earlier_version_is_resumed(tmp_path: Path, open_store: OpenStore, name: str) -> None:
    store = open_store(copied(MADE[name], tmp_path), recover="resume")
    [left] = store.pending()
    draft = store.resume(left.txn)
    draft.put("c", "more", "of today")
    assert draft.commit().seq == int(SAID[name]["head"][0]) + 1
    assert store["c"]["more"] == "of today"
    assert store["c"].history("more")
    assert store.check("replay").ok


@pytest.mark.parametrize("name", MADE)
def test_a_copy_of_an_upgraded_store_holds_the_same(tmp_path: Path, open_store: OpenStore, name: str) -> None:
    store = open_store(copied(MADE[name], tmp_path), recover="resume")
    backup = store.backup(tmp_path / "backup").path
    for label, file in (("backup", backup), ("restored", sqlstate.restore(backup, tmp_path / "restored.db").path)):
        with sqlstate.open(file, recover="resume") as copy:
            assert without(described(copy), "audit") == of(name, "audit"), label
            assert copy.check().ok


@pytest.mark.parametrize("name", [name for name in MADE if "/killed" not in name])
def test_a_backup_that_an_earlier_version_made_is_restored_or_refused_with_what_to_do(
    tmp_path: Path, open_store: OpenStore, name: str
) -> None:
    (tmp_path / "kept").mkdir()
    source = copied(MADE[name], tmp_path / "kept")
    before = folder_image(tmp_path / "kept")
    if is_older(source):
        with pytest.raises(sqlstate.RestoreRejected, match="open a copy of it for writing once"):
            sqlstate.restore(source, tmp_path / "restored.db")
        assert not (tmp_path / "restored.db").exists()
    else:
        store = open_store(sqlstate.restore(source, tmp_path / "restored.db").path, recover="resume")
        assert without(described(store), "audit") == of(name, "audit")
        assert store.check().ok
    assert folder_image(tmp_path / "kept") == before


@pytest.mark.parametrize("name", MADE)
def test_an_older_store_is_refused_for_reading_and_not_changed(tmp_path: Path, name: str) -> None:
    path = copied(MADE[name], tmp_path)
    before = folder_image(tmp_path)
    if is_older(path):
        with pytest.raises(sqlstate.ReadOnly, match="open it for writing once"):
            sqlstate.open(path, read_only=True)
    else:
        with sqlstate.open(path, read_only=True) as store:
            assert entries(store) == SAID[name]["entries"]
    assert folder_image(tmp_path) == before


@pytest.mark.parametrize("name", DRAFTS)
def test_refusing_to_recover_leaves_an_older_store_as_it_is(tmp_path: Path, name: str) -> None:
    path = copied(MADE[name], tmp_path)
    if is_older(path):
        before = folder_image(tmp_path)
        with pytest.raises(sqlstate.StoreError):
            sqlstate.open(path, recover="refuse")
        assert folder_image(tmp_path) == before


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("name", [name for name in DRAFTS if "bytes" not in json.dumps(SAID[name]["entries"])])
def test_a_death_at_any_step_of_the_first_opening_leaves_it_to_the_next(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    file = copied(MADE[name], folder).name
    deaths = []
    with Child("recovers_cut_short", folder, file, "resume") as child:
        while isinstance(said := child.says(), dict):
            deaths.append(said)
        assert said == "done"
        child.ends()
    assert deaths
    for number, death in enumerate(deaths, 1):
        assert death["findings"] == []
        with sqlstate.open(tmp_path / f"kept-{number}" / file, recover="resume") as store:
            assert without(described(store), "audit") == of(name, "audit")
            migrated = [entry.detail["number"] for entry in store.audit() if entry.kind == "migration"]
            assert migrated == sorted(set(migrated))
            assert store.check().ok
            assert store.check_audit() == []


@pytest.mark.parametrize("name", MADE)
def test_the_log_of_an_earlier_version_is_whole_until_it_gets_a_limit(
    tmp_path: Path, open_store: OpenStore, name: str
) -> None:
    path = copied(MADE[name], tmp_path)
    store = open_store(path)
    before = store.stats()
    assert (before.log_limit, before.oldest) == (None, 1)
    store.set_log_limit(20_000)
    assert store.stats().record_bytes >= 40 * before.records
    for number in range(40):
        store["limited"][number] = number
        assert store.check("replay").ok
    assert store.oldest > 1 or store.stats().record_bytes < 50_000
    assert store.cut(before=store.head().seq).oldest == store.head().seq
    assert store.check("replay").ok
    assert store.prove_consistency(min(3, store.head().seq)).kind == "consistency"


@pytest.mark.parametrize("name", SIGNED)
def test_heads_that_an_earlier_version_signed_verify(tmp_path: Path, open_store: OpenStore, name: str) -> None:
    pytest.importorskip("cryptography")
    said = SAID[name]
    heads = [headlog.verify_head(text, said["public"]) for text in said["signed"]]
    assert heads[-1].seq == int(said["head"][0])
    store = open_store(copied(MADE[name], tmp_path))
    store["c"]["later"] = 1
    for old in heads:
        headlog.verify_consistency(store.prove_consistency(old.seq, heads[-1].seq), old, heads[-1])
        assert headlog.verify_commit(store.prove_commit(old.seq, old.seq), old, old.seq).root == old.root
        assert store.check("quick", against=old).ok


def test_typed_values_of_an_earlier_version_are_of_their_type(tmp_path: Path, open_store: OpenStore) -> None:
    store = open_store(copied(MADE["format-3/entries"], tmp_path))
    users = store.collection("users", type=User)
    assert dict(users) == {"ada": User("Ada", 37), "bob": User("Bob")}
    assert [each.value for each in users.history("ada")] == [User("Ada", 37), User("Ada", 36, ["first"])]


@pytest.mark.parametrize("name", [name for name in MADE if "/killed" in name])
def test_the_main_file_of_a_killed_store_lacks_what_its_wal_holds(tmp_path: Path, name: str) -> None:
    """So the other tests do read the -wal."""
    path = tmp_path / "alone.db"
    shutil.copyfile(MADE[name], path)
    try:
        with sqlstate.open(path) as store:
            assert store.head().seq < int(SAID[name]["head"][0])
    except sqlstate.JournalDamaged:
        pass
