"""Campaign 9: a -wal that is missing, cut, foreign, stale, overwritten, or unlinked while the store is open.

Method: a process writes when told to, so that what it acknowledged is known at each moment; then its files are
mixed as people and programs mix them: a backup beside a newer -wal, a copy without its -wal, a -wal of another
store. Each mixture must be noticed, nothing may change but a copy of the evidence, and recover="accept" must
make a sound store that is a state once committed. As many honest states, from processes killed at any moment,
must open without a word of damage.

A case is `KIND-SEED`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import apsw

import sqlstate
from sqlstate.errors import JournalDamaged
from sqlstate.recovery.sqlite_wal import scan_wal
from tests.crash.campaign import Miss, Plan, Result, campaign, expect, figures, merged, scratch, spread, where
from tests.crash.processes import Forked, Line, Workload, in_fork
from tests.crash.rot import WAL_FRAME, WAL_HEADER, Files, Obedient, accepted, live, unchanged
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGES_SMALL: Final = 8


class Scene:
    """A folder, a random source, and stores made in it by other processes."""

    def __init__(self, folder: Path, seed: int, result: Result) -> None:
        self.rng = random.Random(seed)  # noqa: S311, no secret
        self.folder = folder
        self.counts = result.counts
        self._made = 0

    def place(self) -> Path:
        """Return the path of a store that is not there yet."""
        self._made += 1
        (self.folder / str(self._made)).mkdir()
        return self.folder / str(self._made) / "store.db"

    def process(self, path: Path, *, pages: int = 4096) -> Obedient:
        """Start a process that writes at *path* when told to."""
        return Obedient(path, self.rng.randrange(2**32), pages=pages)

    def some(self, least: int = 1, most: int = 12) -> str:
        """Return a command for a few commits."""
        return f"commit {self.rng.randrange(least, most)}"

    def hot(self, *, pages: int = 4096, before: bool | None = None) -> Files:
        """Return what a killed process left: acknowledged commits in the -wal that the main file lacks."""
        path = self.place()
        with self.process(path, pages=pages) as process:
            if self.rng.random() < 0.5 if before is None else before:
                process.do(self.some())
                process.do("close")
                process.do("open")
            process.do(self.some(2, 20))
            if self.rng.random() < 0.3:
                process.do("stage")
                process.do("small")
            process.kill()
            return Files.read(path, process.heads)

    def at_rest(self) -> Files:
        """Return a store that was closed."""
        path = self.place()
        with self.process(path) as process:
            process.do(self.some())
            process.do("close")
            return Files.read(path, process.heads)

    def maybe(self, part: bytes | None) -> bytes | None:
        """Return the part or nothing."""
        return part if self.rng.random() < 0.5 else None

    def garbage(self, size: int) -> bytes:
        return self.rng.choice((self.rng.randbytes(size), bytes(size), b"\xff" * size))


# ---- Mixtures that must be noticed: files, and what the damage must be called ----

Mixture = tuple[Files, tuple[str, ...]]
# Which of the two cannot always be told: a -wal need not hold the page with the store's id.
OTHER: Final = ("foreign", "stale")
# The files are laid down anew for each run: the marker says that they are copies, unless they got the old inode.
GONE: Final = ("missing", "copy")


def missing(scene: Scene) -> Mixture:
    """The -wal was removed after a crash."""
    files = scene.hot()
    return files.but(wal=None, shm=scene.maybe(files.parts["-shm"])), GONE


def copied_alone(scene: Scene) -> Mixture:
    """The main file was copied without its -wal while a process had it open."""
    path = scene.place()
    with scene.process(path, pages=scene.rng.choice((PAGES_SMALL, 4096))) as process:
        process.do(scene.some())
        return Files.read(path, process.heads).but(wal=None, shm=None), GONE


def cut(scene: Scene) -> Mixture:
    """The -wal was cut, and the -shm that knows better is there."""
    files = scene.hot()
    wal = files.parts["-wal"]
    end = live(wal)
    at = scene.rng.choice((0, scene.rng.randrange(WAL_HEADER), scene.rng.randrange(end), end - 1))
    return files.but(wal=wal[:at]), ("truncated",) if at else ("truncated", *GONE)


def cut_below_main(scene: Scene) -> Mixture:
    """The -wal was cut without a trace, but the main file already holds commits that it held."""
    files = scene.hot(before=True)
    return files.but(wal=files.parts["-wal"][: scene.rng.randrange(WAL_HEADER + WAL_FRAME)], shm=None), ("truncated",)


def foreign(scene: Scene) -> Mixture:
    """The -wal is that of another store."""
    own = scene.rng.choice((scene.hot, scene.at_rest))()
    other = scene.hot()
    shm = scene.rng.choice((None, other.parts["-shm"], own.parts.get("-shm")))
    return own.but(wal=other.parts["-wal"], shm=shm), OTHER


def foreign_rotten(scene: Scene) -> Mixture:
    """The -wal is that of another store, and a bit of it was flipped: nothing of it may become this store's."""
    files, _ = foreign(scene)
    whole = files.parts["-wal"]
    while True:
        bit = scene.rng.choice((scene.rng.randrange(live(whole)), WAL_HEADER + scene.rng.randrange(WAL_FRAME)))
        wal = bytearray(whole)
        wal[bit] ^= 1 << scene.rng.randrange(8)
        scan = scan_wal(bytes(wal))
        if scan.rot or scan.header != "valid" or scan.committed:  # else it is what a crash leaves of a first commit
            break
    return files.but(wal=bytes(wal)), (*OTHER, "rot", "header", "truncated")


def older_main(scene: Scene) -> Mixture:
    """A backup of a closed store came back beside the -wal of a later session."""
    path = scene.place()
    with scene.process(path) as process:
        process.do(scene.some())
        process.do("close")
        backup = Files.read(path, process.heads).parts[""]
        for _ in range(scene.rng.randrange(1, 3)):
            process.do("open")
            process.do(scene.some())
            process.do("close")
        process.do("open")
        process.do(scene.some())
        process.kill()
        files = Files.read(path, process.heads)
    return files.but(main=backup, shm=scene.maybe(files.parts["-shm"])), OTHER


def older_wal(scene: Scene) -> Mixture:
    """The -wal of an earlier session came back beside a newer main file."""
    path = scene.place()
    with scene.process(path) as process:
        process.do(scene.some())
        process.kill()
        old = Files.read(path, process.heads)
    with scene.process(path) as process:
        process.heads.update(old.heads)
        process.do(scene.some())
        if scene.rng.random() < 0.5:
            process.do("close")
        else:
            process.kill()
        files = Files.read(path, process.heads)
    shm = scene.rng.choice((None, old.parts["-shm"], files.parts.get("-shm")))
    return files.but(wal=old.parts["-wal"], shm=shm), OTHER


def live_copy(scene: Scene) -> Mixture:
    """A main file copied in the middle of a session lies beside a later generation of the same session's -wal."""
    path = scene.place()
    with scene.process(path, pages=PAGES_SMALL) as process:
        process.do(scene.some(5, 20))
        copy = Files.read(path, process.heads)
        salts = copy.parts["-wal"][16:24]
        for _ in range(2):  # one whole generation lies between, which neither of the two has
            while (now := Files.read(path, {}).parts["-wal"][16:24]) == salts:
                process.do("commit 1")
            salts = now
        process.do(scene.some(1, 3))
        process.kill()
        files = Files.read(path, process.heads)
    return files.but(main=copy.parts[""], shm=scene.maybe(files.parts["-shm"])), OTHER


def header(scene: Scene) -> Mixture:
    """The -wal's first bytes were overwritten."""
    files = scene.hot()
    wal = bytearray(files.parts["-wal"])
    start = scene.rng.randrange(WAL_HEADER)
    end = scene.rng.choice((start + 1, WAL_HEADER))
    before = wal[start:end]
    while wal[start:end] == before:
        wal[start:end] = scene.garbage(end - start)
    return files.but(wal=bytes(wal), shm=scene.maybe(files.parts["-shm"])), ("header",)


MIXTURES: Final[tuple[Callable[[Scene], Mixture], ...]] = (
    missing, copied_alone, cut, cut_below_main, foreign, foreign_rotten, older_main, older_wal, live_copy, header,
)  # fmt: skip


def notice(scene: Scene, mixture: Mixture) -> None:
    """Open a mixture in every way; only "accept" may go on."""
    files, damages = mixture
    path = files.lay(scene.place().parent)
    for options in ({}, {"recover": "resume"}, {"recover": "refuse"}, {"read_only": True}):
        try:
            sqlstate.open(path, **options).close()
        except JournalDamaged as e:
            damage = e.report.damage
            expect(damage in damages, f"called {damage!r}, it is {damages}: {e}")
            unchanged(path, files, tuple(entry.path for entry in os.scandir(path.parent) if "evidence" in entry.name))
            quiet = "refuse" in options.values() or "read_only" in options
            expect(not (quiet and e.evidence), f"{options} wrote something")
            kept = files.parts.get("-wal") and not quiet
            expect(bool(e.evidence) == bool(kept), f"the evidence of {options} is {e.evidence}")
            continue
        raise Miss(f"SILENT: {options} opened it; it is {damages}")
    report = accepted(path, files)
    scene.counts[f"{report.damage}"] += 1
    with sqlstate.open(path) as store:
        expect(store.recovery.clean, f"after accept and close: {store.recovery}")


# ---- Unlinked while open ----


def unlinked(scene: Scene) -> None:
    """The -wal is removed, or replaced, while a process writes: its next commit notices, and nothing is lost."""
    path = scene.place()
    wal = path.with_name(path.name + "-wal")
    with scene.process(path, pages=scene.rng.choice((PAGES_SMALL, 4096))) as process:
        process.do(scene.some(1, 20))
        content = wal.read_bytes()
        wal.unlink()
        if scene.rng.random() < 0.4:
            wal.write_bytes(scene.rng.choice((content, b"", b"something else")))
        acknowledged = process.newest
        process.do(scene.rng.choice(("commit 1", "small", "stage")))
        expect(process.refusal is not None, "a write into an unlinked -wal was acknowledged")
        error, message = process.refusal or ("", "")
        if scene.rng.random() < 0.5:
            process.do("close")
        process.kill()
    expect(error in ("StoreIOError", "CommitOutcomeUnknown"), f"{error}: {message}")
    how = {}
    try:
        sqlstate.open(path).close()
    except JournalDamaged as e:  # of what was put in its place, and nothing else
        expect(wal.exists() and e.report.damage in OTHER, f"{e}")
        how["recover"] = "accept"
    with sqlstate.open(path, **how) as store:  # type: ignore[arg-type]
        chains = {head.seq: head.chain.hex() for head in store.commits()}
    for seq, chain in process.heads.items():
        expect(not seq or chains.get(seq) == chain, f"LOST: commit {seq} of {acknowledged}")
    expect(len(chains) <= acknowledged + 1, f"{acknowledged} acknowledged, {len(chains)} there")
    judgement = plain.judge(path, history=2)
    expect(judgement.sound, f"{judgement.findings}")
    scene.counts["unlinked"] += 1


def cut_without_trace(scene: Scene) -> None:
    """The -wal was cut and there is no -shm: often nothing tells it from an honest one; counted, never mixed."""
    files = scene.hot(pages=scene.rng.choice((PAGES_SMALL, 4096)))
    wal = files.parts["-wal"]
    files = files.but(wal=wal[: scene.rng.randrange(live(wal))], shm=None)
    path = files.lay(scene.place().parent)
    scene.counts["cut without -shm"] += 1
    try:
        with sqlstate.open(path) as store:
            head = store.head()
            expect(not store.recovery.clean, "a cut -wal is clean")
        expect(files.heads.get(head.seq) == head.chain.hex(), f"a state that never was: {head}")
        judgement = plain.judge(path, history=2)
        expect(judgement.sound, f"{judgement.findings}")
    except JournalDamaged:
        accepted(path, files)
        scene.counts["cut without -shm, noticed"] += 1


def last_backup(scene: Scene) -> None:
    """The backup from just before the session that was killed: whether its -wal has all that came since, depends."""
    path = scene.place()
    with scene.process(path) as process:
        process.do(scene.some())
        process.do("close")
        main = Files.read(path, {}).parts[""]
        process.do("open")
        process.do(scene.rng.choice(("commit 1", "commit 2", scene.some())))
        process.kill()
        files = Files.read(path, process.heads)
    files = files.but(main=main, shm=scene.maybe(files.parts["-shm"]))
    try:
        trust(scene, files)
        scene.counts["last backup, complete"] += 1
    except JournalDamaged:
        notice(scene, (files, OTHER))


# ---- Honest states ----


def idle(scene: Scene) -> Files:
    """Killed between commits; SQLite does not need the -shm."""
    path = scene.place()
    with scene.process(path, pages=scene.rng.choice((PAGES_SMALL, 4096))) as process:
        commits = scene.rng.choice((0, 1, 2, scene.rng.randrange(40)))
        if commits:
            process.do(f"commit {commits}")
        if scene.rng.random() < 0.3:
            process.do("stage")
        if scene.rng.random() < 0.5:
            process.kill()
        files = Files.read(path, process.heads)
    shm = files.parts.get("-shm", b"")
    return files.but(shm=scene.rng.choice((None, shm, scene.garbage(len(shm)), b"")))


def busy(scene: Scene) -> Files:
    """Killed at some moment of opening, committing and closing."""
    path = scene.place()
    heads: dict[int, str] = {}
    for _ in range(scene.rng.randrange(1, 4)):
        load = Workload(str(path), "wal", scene.rng.choice((PAGES_SMALL, 4096)), scene.rng.choice((16, 32 * 1024)))
        said = in_fork(dies, load, scene.rng.randrange(2**32), scene.rng.randrange(1, 200))
        heads.update(dict(said))
    return Files.read(path, heads)


def backup(scene: Scene) -> Files:
    """A closed store by itself, or with what a reader left beside it."""
    files = scene.at_rest()
    return files.but(wal=scene.rng.choice((None, b"")), shm=scene.rng.choice((None, b"", bytes(32768))))


def reader_killed(scene: Scene) -> Files:
    """A closed store that somebody read, who was killed: an empty -wal and a -shm are there."""
    path = scene.at_rest().lay(scene.place().parent)
    child = Forked(reads, str(path))
    heads = dict(child.heard())
    child.kill()
    child.ends()
    return Files.read(path, heads)


def torn(scene: Scene) -> Files:
    """A power cut tore the last commit, which was acknowledged to nobody."""
    path = scene.place()
    with scene.process(path) as process:
        process.do(scene.some(2, 12))
        known, size = dict(process.heads), path.with_name(path.name + "-wal").stat().st_size
        process.do("commit 1")
        process.kill()
        files = Files.read(path, process.heads)
    wal = bytearray(files.parts["-wal"])
    keep = scene.rng.randrange(min(size, len(wal) - 1), len(wal))  # SQLite may have begun it anew meanwhile
    tail = scene.rng.choice((b"", scene.garbage(len(wal) - keep)))
    torn_files = files.but(wal=bytes(wal[:keep]) + tail, shm=None)
    torn_files.heads = known
    return torn_files


HONEST: Final[tuple[Callable[[Scene], Files], ...]] = (idle, busy, busy, backup, reader_killed, torn)


def dies(line: Line, load: Workload, seed: int, steps: int) -> None:
    """Open, commit and close through a VFS that kills this process at its n-th change of a file."""
    load.apply()
    left = steps

    def step() -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    class File(apsw.VFSFile):
        def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802, the name that SQLite has for it
            step()
            super().xWrite(data, offset)

        def xTruncate(self, size: int) -> None:  # noqa: N802
            step()
            super().xTruncate(size)

        def xSync(self, flags: int) -> None:  # noqa: N802
            step()
            super().xSync(flags)

    class Dying(apsw.VFS):
        def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
            return File("", name, flags)

        def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
            step()
            super().xDelete(name, sync)

    registered = Dying("dying", "")
    rng = random.Random(seed)  # noqa: S311, no secret
    store = sqlstate.open(load.path, vfs="dying")
    for _ in range(rng.randrange(15)):
        with store.transaction() as txn:
            for _ in range(rng.choice((1, 2, 60))):
                txn.put("c", rng.randrange(500), "v" * rng.randrange(500))
        head = store.head()
        line.say(head.seq, head.chain.hex())
    store.close()
    registered.unregister()


def reads(line: Line, path: str) -> None:
    """Read a store, say its head, and wait to be killed."""
    with sqlstate.open(path, read_only=True) as store:
        list(store["data"])
        head = store.head()
        line.say(head.seq, head.chain.hex())
        line.hear()


def trust(scene: Scene, files: Files) -> None:
    """Open an honest state: no damage, nothing lost."""
    path = files.lay(scene.place().parent)
    if files.newest and scene.rng.random() < 0.3:
        sqlstate.open(path, read_only=True).close()
    with sqlstate.open(path) as store:
        report: Any = store.recovery
        chains = {head.seq: head.chain.hex() for head in store.commits()}
    expect(not report.damage, f"called {report.damage}: {report}")
    for seq, chain in files.heads.items():
        expect(not seq or chains.get(seq) == chain, f"LOST: commit {seq} of {files.newest}")
    judgement = plain.judge(path, history=2)
    expect(judgement.sound, f"{judgement.findings}")
    scene.counts["honest"] += 1


# ---- The campaign ----


def one(case: str) -> Result:
    """Run a case."""
    kind, seed = case.split("-")
    result = Result(runs=1)
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-journals-", dir=scratch()))
    scene = Scene(folder, int(seed), result)
    try:
        if kind in BY_NAME:
            notice(scene, BY_NAME[kind](scene))
        elif kind in HONEST_BY_NAME:
            trust(scene, HONEST_BY_NAME[kind](scene))
        else:
            OTHERS[kind](scene)
    except JournalDamaged as e:
        result.miss(case, f"FALSE ALARM: {e.report.damage}: {e}")
    except Exception as e:  # noqa: BLE001, whatever it is, it is a finding
        result.miss(case, f"{type(e).__name__}: {e}{where(e)}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


BY_NAME: Final = {each.__name__: each for each in MIXTURES}
HONEST_BY_NAME: Final = {each.__name__: each for each in HONEST}
OTHERS: Final = {each.__name__: each for each in (unlinked, cut_without_trace, last_backup)}
DAMAGES: Final = ("missing", "copy", "truncated", "foreign", "stale", "header", "rot")


def cases(plan: Plan) -> Iterator[str]:
    """Yield as many damaged states as the plan counts, and as many honest ones."""
    if plan.case:
        yield plan.case
        return
    rng = random.Random(plan.seed)  # noqa: S311, no secret
    kinds = [*BY_NAME, *OTHERS]
    honest = [each.__name__ for each in HONEST]
    for i in range(plan.count):
        yield f"{kinds[i % len(kinds)]}-{rng.randrange(10**9)}"
        yield f"{honest[i % len(honest)]}-{rng.randrange(10**9)}"


@campaign(9, "-wal missing, cut, foreign, stale, unlinked", bar="all noticed, no false alarm", ci=60, long=5_000)
def journals(plan: Plan) -> Result:
    """Mix the files of stores."""
    result = merged(spread(plan, one, cases(plan)))
    counts = result.counts
    noticed = sum(counts[name] for name in (*DAMAGES, "unlinked"))
    result.found = (
        f"{counts['failures']} bad; {noticed:,} noticed: {figures(result, *DAMAGES, 'unlinked')}; honest "
        f"{counts['honest']:,}; without -shm {counts['cut without -shm, noticed']} of {counts['cut without -shm']}"
    )
    return result
