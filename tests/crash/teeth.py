"""Campaign 4: do the other campaigns bite? Each is run on the package with a fault put into it, and must miss its bar.

Method: a tooth is the name of a fault, the places in the package's source that it changes, and a small run of one
campaign that must find it. The run is made in a process of its own, on a copy of the package; it ends with the
first finding. The same runs must find nothing in the package as it is. A fault whose place is not in the source
any more is a failure: put it where the code has gone.

A case is the name of a fault, or that of a run, which then is made on the package as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import sqlstate
from tests import ROOT
from tests.crash import journals, peeks, powercut, processes, rot, sequences, sweep
from tests.crash.campaign import SEED, Plan, Result, campaign, merged, scratch, spread

if TYPE_CHECKING:
    from collections.abc import Callable

CAUGHT: Final = 86
"""Exit code of a run that found something."""
IMAGES: Final = 200
SECONDS_MAX: Final = 120


class Edit(NamedTuple):
    """A change of one place in the package's source."""

    module: str
    old: str
    new: str


class Tooth(NamedTuple):
    """A fault, and the run that must find it."""

    fault: str
    run: str
    """Number of the campaign, and what `RUNS` makes a run of it from."""
    edits: tuple[Edit, ...]


# ---- The runs ----


def images(text: str) -> Result:
    """Crash images of one workload: its profile, its journal, and, if those of one kind are wanted, that."""
    profile, journal, *kinds = text.split(":")
    part = powercut.Part(profile, journal, SEED, IMAGES)
    return powercut.run_part(part._replace(kinds=tuple(kinds)) if kinds else part)


def nested(text: str) -> Result:
    """Crashes during the recovery from a few crashes of one workload: its profile, its journal, and how many."""
    profile, journal, first = text.split(":")
    return powercut.run_nested(powercut.Part(profile, journal, SEED, int(first) * powercut.NESTED))


def failing(text: str) -> Result:
    """Every failing call of one kind in one script."""
    script, journal, call, lasting = text.split(":")
    return sweep.run_group(sweep.Group((sweep.Part(script, journal, call, False, lasting == "ever", SEED),)))


def flipped(text: str) -> Result:
    """A few flipped bits."""
    return rot.flips((SEED, int(text), ""))


def mixed(text: str) -> Result:
    """A few mixtures of files; their cases."""
    return merged(map(journals.one, text.split("+")))


def short(text: str) -> Result:
    """One sequence of operations."""
    operations, journal = text.split(":")
    return sequences.run_part(sequences.Part(tuple(operations.split("+")), journal, SEED))


def looks(text: str) -> Result:
    """Run cases of campaign 14 one after the other."""
    return merged(map(peeks.one, text.split("+")))


RUNS: Final[dict[str, Callable[[str], Result]]] = {
    "1": images,
    "2": images,
    "3": nested,
    "5": failing,
    "6": processes.one_life,
    "8": flipped,
    "9": mixed,
    "12": short,
    "14": looks,
}

# ---- The faults ----

LEVELS: Final = '{"wal": 2, "delete": 3}'

TEETH: Final = (
    Tooth(
        "SQLite's WAL with synchronous=NORMAL",
        "1 puts:wal",
        (Edit("sqlite/settings", LEVELS, '{"wal": 1, "delete": 3}'),),
    ),
    Tooth(
        "SQLite's WAL with synchronous=OFF",
        "1 puts:wal",
        (Edit("sqlite/settings", LEVELS, '{"wal": 0, "delete": 3}'),),
    ),
    Tooth(
        "a rollback journal with synchronous=FULL",
        "2 puts:delete",
        (Edit("sqlite/settings", LEVELS, '{"wal": 2, "delete": 2}'),),
    ),
    Tooth(
        "the tree is written in a transaction of its own",
        "12 many:wal",
        (
            Edit(
                "commit/commit",
                "                self._root, left = cache.rewrite(connection, changes, self._root)\n",
                "                self._root, left = cache.rewrite(connection, changes, self._root)\n"
                '                connection.run("COMMIT; BEGIN IMMEDIATE")\n',
            ),
        ),
    ),
    Tooth(
        "the log is written in a transaction of its own",
        "2 transactions:delete",
        (
            Edit(
                "commit/commit",
                "            self._tail.write(self._connection, (*self.head, records, total))\n",
                '            self._connection.run("COMMIT; BEGIN IMMEDIATE")\n'
                "            self._tail.write(self._connection, (*self.head, records, total))\n",
            ),
        ),
    ),
    Tooth(
        "a commit is acknowledged before it is made",
        "12 put+put:wal",
        (
            Edit(
                "sqlite/engine",
                "            self.write_connection.commit()\n        except StoreFull:\n"
                "            self.checkpointer.make_room()\n            raise\n"
                '        except OutcomeUnknown as e:\n            self._fail(f"commit',
                "            pass\n        except StoreFull:\n"
                "            self.checkpointer.make_room()\n            raise\n"
                '        except OutcomeUnknown as e:\n            self._fail(f"commit',
            ),
            Edit(
                "commit/dirty_flag",
                "        engine.write_connection.rollback()  # of a block that was cut short\n",
                "        connection = engine.write_connection\n"
                '        connection.run("COMMIT") if connection.in_transaction() else None\n',
            ),
            Edit(
                "sqlite/engine",
                "        if self.write_connection.in_transaction() and self.usable:\n"
                "            self.write_connection.rollback()\n",
                "        pass\n",
            ),
            Edit(
                "sqlite/connection",
                '        self.run("BEGIN IMMEDIATE")',
                '        self.run("COMMIT; BEGIN IMMEDIATE" if self._sqlite.in_transaction else "BEGIN IMMEDIATE")',
            ),
        ),
    ),
    Tooth(
        "a staged PUT is acknowledged before it is durable",
        "1 staged:wal",
        (
            Edit(
                "store/session",
                "        writer = self._engine.write_connection\n        last, head = self._writer.begin()\n",
                "        writer = self._engine.write_connection\n"
                '        writer.run(f"PRAGMA synchronous={int(kind is not Kind.PUT) * 2}")\n'
                "        last, head = self._writer.begin()\n",
            ),
            Edit(
                "commit/commit",
                "        self._lsn, self.base = context.begin()",
                '        self._connection.run("PRAGMA synchronous=2")\n        self._lsn, self.base = context.begin()',
            ),
        ),
    ),
    Tooth(
        "the COMMIT of a staged transaction leaves it staged",
        "12 staged:wal",
        (Edit("commit/commit", "staged.remove(self._connection, txn)", "pass"),),
    ),
    Tooth(
        "a group whose COMMIT failed is told that it is durable",
        "5 groups:wal:sync:once",
        (
            Edit(
                "commit/open_group",
                "            if ours or not self._was_made(commit):\n",
                "            if False:\n",
            ),
        ),
    ),
    Tooth(
        "the log keeps the records of a transaction of a group that failed",
        "1 groups:wal",
        (Edit("commit/commit", "        self._tail.reset(closing)\n", ""),),
    ),
    Tooth(
        "every transaction of a group closes the commit",
        "1 groups:wal",
        (
            Edit(
                "commit/pending",
                "            self._add(sql, row + self._no_head)",
                "            self._add(sql, row + (self._no_head[0], bytes(32), 0, '', bytes(32)))",
            ),
        ),
    ),
    Tooth(
        "a flush of a batch returns without its COMMIT",
        "1 batches:wal",
        (Edit("store/batch", "commit is None else commit.finish()", "commit is None else commit.base"),),
    ),
    Tooth(
        "CommitOutcomeUnknown is turned into silence",
        "5 puts:wal:sync:once",
        (
            Edit(
                "sqlite/engine",
                "            raise CommitOutcomeUnknown(seq, str(e), chain) from e.__cause__\n",
                '            self.life.failure = ""\n',
            ),
        ),
    ),
    Tooth(
        "an error of a checkpoint is swallowed",
        "5 puts:wal:sync:once",
        (
            Edit(
                "sqlite/checkpoints",
                "        except StoreError as e:\n            what = f",
                "        except StoreError as e:\n            return 0, 0\n            what = f",
            ),
        ),
    ),
    Tooth(
        "closing folds a -wal whose marker is open",
        "5 puts:wal:sync:once",
        (
            Edit(
                "sqlite/opener",
                "fold=ours or (self.main_in_place() and self._has_no_wal())",
                "fold=True",
            ),
        ),
    ),
    Tooth(
        "the marker is never opened",
        "9 missing-1",
        (
            Edit(
                "commit/dirty_flag",
                "        if not flag.dirty:\n            self.renew()",
                "        if flag.dirty:\n            self.renew()",
            ),
        ),
    ),
    Tooth(
        "the open marker stays in SQLite's WAL when the commit is acknowledged",
        "9 missing-1",
        (Edit("commit/dirty_flag", "        if not self._carried:\n", "        if not seq:\n"),),
    ),
    Tooth(
        "a handle does not open the marker anew beside one that closed",
        "1 sessions:wal",
        (Edit("commit/dirty_flag", "if connection.data_version() == self._seen:", "if self._seen >= 0:"),),
    ),
    Tooth(
        "the marker is put to rest without a checkpoint",
        "1 sessions:wal:prefix",
        (
            Edit("commit/dirty_flag", "frames, carried = engine.checkpointer.run()", "frames, carried = 0, 0"),
            Edit("store/opening", "        _check_end(engine, meta)\n", ""),  # it would notice, each by itself
        ),
    ),
    Tooth(
        "a -wal that was removed is not noticed",
        "9 unlinked-1",
        (Edit("sqlite/opener", "return inode != 0 and inode == self._wal_inode", "return True"),),
    ),
    Tooth(
        "rot is ignored",
        "8 8",
        (
            Edit(
                "recovery/judge",
                "    if scan.rot:\n        raise Mismatch(\n",
                "    if False:\n        raise Mismatch(\n",
            ),
        ),
    ),
    Tooth(
        "what was acknowledged is not noted",
        "14 lost-1+lost-2+lost-3",
        (Edit("commit/dirty_flag", "        if not self._noted(lsn, chain):\n", "        if False:\n"),),
    ),
    Tooth(
        "a -wal that is gone is taken for one that was moved, whatever was noted",
        "14 lost-1+lost-2+lost-3",
        (Edit("recovery/verify_content", "    if not there or not known or", "    if"),),
    ),
    Tooth(
        "a copy is taken for the store itself",
        "14 backup-1+vacuum-1+cp-1",
        (Edit("recovery/judge", "flag.inode not in (0, ", "flag.inode in (0, "),),
    ),
    Tooth(
        "damage is accepted with what another store's -wal holds",
        "9 foreign_rotten-1+foreign_rotten-2+foreign_rotten-3+foreign_rotten-4+foreign_rotten-5",
        (Edit("recovery/damage", "    found.goes_on = found.goes_on and ours\n", "    found.goes_on = True\n"),),
    ),
    Tooth(
        "a -wal of another file is merged",
        "9 foreign-1+older_main-1+older_wal-1",
        (
            Edit(
                "recovery/judge",
                "        found.damage, found.reason = wrong.damage, str(wrong)\n",
                '        if wrong.damage not in ("foreign", "stale"):\n'
                "            found.damage, found.reason = wrong.damage, str(wrong)\n",
            ),
        ),
    ),
    Tooth(
        "a -wal is merged though what it changed last is not the file's",
        "9 live_copy-1+live_copy-2+live_copy-4+live_copy-6",
        (
            Edit(
                "recovery/judge",
                "            if not stale.is_reached(",
                "            if not engine and not stale.is_reached(",
            ),
        ),
    ),
    Tooth(
        "the audit entry of a recovery is written in a transaction of its own",
        "3 staged:wal:4",
        (
            Edit(
                "recovery/recover",
                "            report = replace(report, entry=_note(writer, report, how))\n",
                '            connection.run("COMMIT; BEGIN IMMEDIATE")\n'
                "            report = replace(report, entry=_note(writer, report, how))\n",
            ),
        ),
    ),
    Tooth(
        "recovery rolls back what living sessions staged",
        "12 draft+peek:wal",
        (Edit("recovery/recover", "        if not alive[session]:\n", "        if session in alive:\n"),),
    ),
    Tooth(
        "a session file has no lock",
        "12 draft+peek:wal",
        (
            Edit(
                "files/replace",
                "        system.lock(descriptor, exclusive=True, wait=True)  #",
                "        _ = descriptor  #",
            ),
        ),
    ),
    Tooth(
        "nothing is said to be in doubt",
        "1 puts:wal",
        (Edit("recovery/report", "in_doubt=found.after.seq or None if", "in_doubt=None if"),),
    ),
    Tooth(
        "records of a cut go, and where the log begins is noted in a transaction of its own",
        "1 cuts:wal",
        (
            Edit(
                "commit/log_limit",
                "        metadata.write_log_start(connection, start)\n",
                '        connection.run("COMMIT; BEGIN IMMEDIATE")\n'
                "        metadata.write_log_start(connection, start)\n",
            ),
        ),
    ),
    Tooth(
        "the chains of what was cut are not kept",
        "2 cuts:delete",
        (
            Edit(
                "commit/log_limit",
                "    cut_commits.append(connection, start.head.seq + 1, [each.head.chain for each in found])\n",
                "",
            ),
        ),
    ),
    Tooth(
        "orphans are removed before an entry names them",
        "3 backup:wal:40",
        (
            Edit(
                "recovery/recover",
                "    connection.begin()\n    try:\n",
                "    for name in orphans:\n"
                "        files.remove_orphan(engine.real_path, name, writer.meta.store_id)\n"
                "    connection.begin()\n    try:\n",
            ),
        ),
    ),
    Tooth(
        "the folder is not synced when a file was replaced",
        "12 backup:wal",
        (
            Edit(
                "files/replace",
                "        self.place(overwrite=overwrite)\n        sync_folder(os.path.dirname(self.target))\n",
                "        self.place(overwrite=overwrite)\n",
            ),
        ),
    ),
    Tooth(
        "a file is not synced before it takes another's place",
        "1 backup:wal",
        (Edit("files/replace", "        system.sync(self.descriptor)\n", "        pass\n"),),
    ),
)


# ---- The campaign ----


def copy(folder: Path, edits: tuple[Edit, ...]) -> str:
    """Copy the package into *folder* and change it; return what cannot be done."""
    shutil.copytree(ROOT / "sqlstate", folder / "sqlstate")  # with its bytecode, which holds where nothing is changed
    shutil.copytree(ROOT / "migrations", folder / "migrations")
    for edit in edits:
        path = folder / "sqlstate" / f"{edit.module}.py"
        source = path.read_text("utf-8")
        if source.count(edit.old) != 1:
            return f"{source.count(edit.old)} places in {path.name} are\n{edit.old}"
        path.write_text(source.replace(edit.old, edit.new), "utf-8")
    return ""


def bite(name: str) -> Result:
    """Run on the package with the fault of that name, or, if it is the name of a run, on the package as it is."""
    result = Result(runs=1)
    tooth = next((tooth for tooth in TEETH if tooth.fault == name), Tooth("", name, ()))
    with tempfile.TemporaryDirectory(prefix="sqlstate-teeth-", dir=scratch()) as folder:
        if wrong := copy(Path(folder), tooth.edits):
            result.miss(name, f"{name}: the fault has no place any more: {wrong}")
            return result
        # -P: not the folder of the project comes first, but the copy.
        command = [sys.executable, "-P", "-m", "tests.crash.teeth", folder, *tooth.run.split()]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join((folder, str(ROOT)))}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
        )
    said = (done.stdout + done.stderr).strip()
    if done.returncode not in (0, CAUGHT):
        result.miss(name, f"{name}: the run of {tooth.run} ended with {done.returncode}:\n{said[-2000:]}")
    elif tooth.fault and done.returncode == 0:
        result.miss(name, f"NOT CAUGHT: {name}, by a run of {tooth.run}")
    elif not tooth.fault and done.returncode == CAUGHT:
        result.miss(name, f"{name} misses its bar without a fault: {said}")
    result.counts["caught"] += done.returncode == CAUGHT and bool(tooth.fault)
    return result


class Caught(BaseException):
    """A run found something."""


def child(folder: str, number: str, text: str) -> None:
    """Make one run on the copy in *folder*; end with CAUGHT at its first finding."""
    assert Path(sqlstate.__file__).is_relative_to(folder), f"{sqlstate.__file__} is not the copy"

    def miss(_: Result, case: str, what: str) -> NoReturn:
        raise Caught(f"{number} {case}: {what}")

    Result.miss = miss  # type: ignore[assignment, method-assign]
    try:
        result = RUNS[number](text)
    except (Caught, sqlstate.StoreError) as e:  # the second: the package itself noticed it, in honest work
        sys.stdout.write(f"{e}\n")
        sys.exit(CAUGHT)
    assert result.runs, "the run ran nothing"


@campaign(4, "teeth: faults in our own code", bar="every one caught", ci=len(TEETH), long=len(TEETH))
def teeth(plan: Plan) -> Result:
    """Put faults into copies of the package; the count is theirs."""
    chosen = TEETH[: plan.count]
    names = [plan.case] if plan.case else [*(each.fault for each in chosen), *sorted({each.run for each in chosen})]
    result = merged(spread(plan, bite, names))
    result.found = f"{result.counts['caught']} of {len(chosen)} caught"
    return result


if __name__ == "__main__":
    child(*sys.argv[1:])
