"""Campaign 20: damaged sources, given to restore() and to backup().

Method: rows and bytes of closed stores are changed as in campaigns 10 and 13. Each is restored over a good store, and
backed up, where it can be opened, onto a shelf of three good backups. It is refused, and the good ones are as they
were, byte for byte, with nothing beside them; or what took the place is sound and whole for the tests' reference, so
that the damage was where nothing is. A change of a row is never passed over.

A case is `KIND-STORE-SEED`: rows, or the kind of the store; the seed of the store; the seed of the damage.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlstate
from sqlstate.errors import Damaged, InvalidOption, RestoreRejected, StoreError
from tests.crash import changed, damaged
from tests.crash.campaign import Plan, Result, campaign, expect, merged, scratch, spread, where
from tests.crash.rot import Files
from tests.reference import plain
from tests.support.images import folder_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCES_OF_A_STORE: Final = 50
KINDS: Final = ("rows", "rows", "rest", "large")
ENTRIES: Final = 40


def shelf(folder: Path) -> None:
    """Fill a folder with a good store and, of one that is damaged later, three backups."""
    with sqlstate.open(folder / "good.db") as store:
        store["good"].update(dict.fromkeys(range(ENTRIES), "kept"))


def sources(kind: str, seed: int, folder: Path) -> Callable[[random.Random], tuple[bytes, bool]]:
    """Return what gives damaged files of a store, and whether the damage is certainly in a row; fill its shelf."""
    made: Any
    if kind == "rows":
        made = changed.make(seed, folder)
        original = made.file
    else:
        files = damaged.make(kind, folder)
        original = files.parts[""]
    path = folder / "source.db"
    path.write_bytes(original)
    with sqlstate.open(path, recover="resume") as store:
        for _ in range(3):
            store.backup(folder / "shelf" / "b", keep=3)
    return partial(_row_changed, made, folder) if kind == "rows" else partial(_bytes_changed, original)


def _row_changed(made: Any, folder: Path, rng: random.Random) -> tuple[bytes, bool]:
    path = folder / "changed.db"
    while True:
        path.write_bytes(made.file)
        if changed.update(path, *changed.changed_cell(made, rng)):
            return path.read_bytes(), True


def _bytes_changed(original: bytes, rng: random.Random) -> tuple[bytes, bool]:
    return damaged.damage(Files({"": original}), rng).parts[""], False


def one(give: Callable[[random.Random], tuple[bytes, bool]], seed: int, folder: Path) -> str:
    """Restore and back up one damaged source; return what became of it."""
    content, certain = give(random.Random(seed))  # noqa: S311, no secret
    path = folder / "source.db"
    for left in folder.glob("source.db*"):
        left.unlink()
    path.write_bytes(content)
    before = {name: folder_image(folder / name) for name in ("shelf", "place")}
    restored = _tried(lambda: sqlstate.restore(path, folder / "place" / "good.db", replace=True), RestoreRejected)
    backed_up = _tried(partial(_back_up, path, folder / "shelf" / "b"), Damaged, InvalidOption)
    for done, name, file in ((restored, "place", "good.db"), (backed_up, "shelf", "b")):
        if done != "done":
            expect(folder_image(folder / name) == before[name], f"refused, and {name} was changed: {done}")
            continue
        expect(not certain, f"CARRIED ON to {name}")
        judgement = plain.judge(folder / name / file)
        expect(judgement.sound, f"CARRIED ON to {name}: {judgement.findings[:3]}")
        put_back(folder, name)
    return "nothing was there" if "done" in (restored, backed_up) else "refused"


def _tried(work: Callable[[], object], *refusal: type[StoreError]) -> str:
    try:
        work()
    except refusal as e:
        return type(e).__name__
    return "done"


def _back_up(path: Path, dest: Path) -> None:
    try:
        store = sqlstate.open(path, recover="resume", create=False)
    except StoreError as e:
        raise Damaged(str(e)) from e
    with store:
        store.backup(dest, keep=3)


def put_back(folder: Path, name: str) -> None:
    """Make a folder what it was at first."""
    shutil.rmtree(folder / name)
    shutil.copytree(folder / "first" / name, folder / name)


def part(item: tuple[str, int, int, str]) -> Result:
    """Damage *count* copies of a store; of a case, that one alone."""
    kind, seed, count, case = item
    result = Result()
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-copies-", dir=scratch()))
    try:
        for name in ("shelf", "place"):
            (folder / name).mkdir()
        shelf(folder / "place")
        give = sources(kind, seed, folder)
        for name in ("shelf", "place"):
            shutil.copytree(folder / name, folder / "first" / name)
        rng = random.Random(seed)  # noqa: S311, no secret
        todo = [rng.randrange(10**9) for _ in range(count)]
        for each in [int(case.split("-")[2])] if case else todo:
            result.runs += 1
            try:
                result.counts[one(give, each, folder)] += 1
            except Exception as e:  # noqa: BLE001, whatever it is, it is a finding
                result.miss(f"{kind}-{seed}-{each}", f"{type(e).__name__}: {e}{where(e)}")
                for name in ("shelf", "place"):
                    put_back(folder, name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def parts(plan: Plan) -> Iterator[tuple[str, int, int, str]]:
    """Yield the stores of a plan: kind, seed, how many sources of each, and the case to replay."""
    if plan.case:
        kind, seed, _ = plan.case.split("-")
        yield kind, int(seed), 1, plan.case
        return
    rng = random.Random(plan.seed)  # noqa: S311, no secret
    each = min(SOURCES_OF_A_STORE, -(-plan.count // len(KINDS)))
    for number, done in enumerate(range(0, plan.count, each)):
        yield KINDS[number % len(KINDS)], rng.randrange(10**9), min(each, plan.count - done), ""


@campaign(20, "damaged sources to restore and backup", bar="0 carried on, 0 targets touched", ci=60, long=2_000)
def copies(plan: Plan) -> Result:
    """Restore and back up damaged stores."""
    result = merged(spread(plan, part, parts(plan)))
    figures = ", ".join(f"{number:,} {called}" for called, number in sorted(result.counts.items()))
    result.found = f"{len(result.failures)} bad; {figures}"
    return result
