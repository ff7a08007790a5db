"""Goal: what a journal is said to hold is what SQLite finds in it; a crash never counts as rot, and rot in what had
been synced always does. Method: journals of processes that died, judged by SQLite itself in another process; and
journals made here from the format's pages, cut, damaged and torn by the sector in every way that Hypothesis thinks of.

What cannot be told from a crash, and is not: rot in the last transaction; rot in the commit frame of the one before it,
if it set the size to 0, or if a sector ends behind the size, or if the last transaction is that frame's page once more;
in a rollback journal, a count that became smaller, a size of the database that became greater, and the 199 of each 200
bytes that its checksum leaves out.
"""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from itertools import accumulate, pairwise
from struct import pack, unpack, unpack_from
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlstate.recovery.sqlite_journal import scan_journal, wal_index
from sqlstate.recovery.sqlite_wal import WalScan, scan_wal
from tests.support.system import needs_fork

if TYPE_CHECKING:
    from pathlib import Path

# ---- Processes that die, and one that recovers what they left ----

# Only processes die here, so nothing needs to be synced.
PRELUDE = """
import apsw, json, os, pathlib, signal, sys
hasattr(signal, 'alarm') and signal.alarm(60)
folder = pathlib.Path(sys.argv[1])
class File(apsw.VFSFile):
    def xSync(self, flags):
        pass
class Unsynced(apsw.VFS):
    def __init__(self, name="unsynced", file=File):
        super().__init__(name, "")  # over the system's own
        self.file = file
    def xOpen(self, name, flags):
        return self.file("", name, flags)
    def xDelete(self, name, sync):
        super().xDelete(name, False)
unsynced = Unsynced()
def connect(path, vfs="unsynced"):
    return apsw.Connection(str(path), vfs=vfs)
def run(connection, *statements):
    for statement in ("PRAGMA cache_size=1", "PRAGMA wal_autocheckpoint=0", "PRAGMA synchronous=EXTRA", *statements):
        connection.execute(statement).fetchall()
"""

# Each run is a fork that dies at its n-th write, for each n: before it, or in the middle of it.
DIES = """
class DyingFile(File):
    def xWrite(self, data, offset):
        global left
        left -= 1
        if left == 0:
            super().xWrite(data[: len(data) // 2 * torn], offset)
            os._exit(9)
        super().xWrite(data, offset)
dying, left = Unsynced("dying", DyingFile), 0
def dies(file, mode):
    file.write_bytes(base)
    connection = connect(file, "dying")
    run(connection, f"PRAGMA journal_mode={mode}", "UPDATE t SET b = randomblob(700) WHERE a % 3 = 0",
        "BEGIN", "UPDATE t SET b = randomblob(700)", "INSERT INTO t VALUES (9, randomblob(3000))", "COMMIT",
        "DELETE FROM t WHERE a < 3")
    os._exit(0)
for mode in sys.argv[2].split():
    connection = connect(folder / "base")
    run(connection, "PRAGMA page_size=1024", f"PRAGMA journal_mode={mode}", "CREATE TABLE t (a, b)",
        *["INSERT INTO t VALUES ((SELECT count(*) FROM t), randomblob(700))"] * 5)
    connection.close()
    base = (folder / "base").read_bytes()
    (folder / "base").unlink()
    for torn in (False, True):
        number, status = 0, 9
        while status == 9:
            number += 1
            pid = os.fork()
            if pid == 0:
                left = number
                dies(folder / f"{mode}-{torn}-{number}.db", mode)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 0, status
"""

RECOVERS = """
notices, found = [], {}
apsw.config(apsw.SQLITE_CONFIG_LOG, lambda code, text: notices.append((code, text)))
for file in sorted(folder.glob("*.db")):
    notices.clear()
    connection = connect(file)
    try:
        connection.execute("PRAGMA schema_version").fetchall()
        noop = connection.wal_checkpoint(mode=-1)[0]
    except (apsw.CorruptError, apsw.NotADBError):
        noop = None
    counts = {code: int(text.split()[1]) for code, text in notices if text.startswith("recovered ")}
    connection.close()
    found[file.name] = [counts.get(apsw.SQLITE_NOTICE_RECOVER_WAL, 0), noop,
                        counts.get(apsw.SQLITE_NOTICE_RECOVER_ROLLBACK, 0)]
print(json.dumps(found))
"""


def child(code: str, folder: Path, *arguments: str) -> str:
    """Run *code* in a process of its own, and return what it printed."""
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", PRELUDE + code]
    done = subprocess.run([*command, str(folder), *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def leave(folder: Path, *statements: str) -> Path:
    """Run *statements* in a process that then dies; return the file that it leaves."""
    code = "connection = connect(folder / 'left.db')\nrun(connection, *json.loads(sys.argv[2]))\nos._exit(0)"
    child(code, folder, json.dumps(["PRAGMA page_size=1024", *statements]))
    return folder / "left.db"


class Recovered(NamedTuple):
    """What SQLite says it recovered."""

    wal: int
    noop: int | None
    rollback: int


def recover(folder: Path) -> dict[str, Recovered]:
    """Let SQLite recover each file in *folder*: name to the frames or pages that it says it recovered."""
    return {name: Recovered(*counts) for name, counts in json.loads(child(RECOVERS, folder)).items()}


def journal(file: Path, suffix: str) -> bytes:
    beside = file.with_name(file.name + suffix)
    return beside.read_bytes() if beside.exists() else b""


def overlaid(main: bytes, data: bytes, scan: Any, size: int) -> bytes:
    """Return a main file of *size* pages, with the images of the pages that *scan* found in *data*."""
    file = bytearray(main.ljust(size * scan.page_size, b"\0")[: size * scan.page_size])
    for page, offset in scan.pages.items():
        file[(page - 1) * scan.page_size : page * scan.page_size] = data[offset : offset + scan.page_size]
    return bytes(file)


WAL_MODE = "PRAGMA journal_mode=wal"
TABLE = "CREATE TABLE t (a INTEGER PRIMARY KEY, b)"
ROWS = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) "


def put(rows: int, start: int = 0) -> str:
    return ROWS.format(rows) + f"INSERT OR REPLACE INTO t SELECT i + {start}, randomblob(800) FROM n"


def agree_wal(scan: WalScan, says: Recovered) -> bool:
    return scan.committed == says.wal == says.noop


# ---- A -wal that SQLite wrote ----


def test_frames_behind_the_last_commit_are_not_committed(tmp_path: Path) -> None:
    file = leave(tmp_path, WAL_MODE, TABLE, put(10), put(3, 10), "BEGIN", put(50, 20))
    data, index, main = journal(file, "-wal"), journal(file, "-shm"), file.read_bytes()

    scan = scan_wal(data)

    assert (scan.header, scan.page_size, scan.checkpoint_seq, scan.commits) == ("valid", 1024, 0, 3)
    assert (scan.frames, scan.stale, scan.proved, scan.torn_bytes, scan.rot) == (scan.valid, 0, 0, 0, False)
    assert scan.uncommitted == scan.valid - scan.committed > 20
    says = wal_index(index)
    assert says is not None
    assert (says.frames, says.salts, says.page_size) == (scan.committed, scan.salts, scan.page_size)
    assert (says.database_pages, says.checksum, says.backfilled) == (scan.database_pages, scan.checksum, 0)
    assert agree_wal(scan, recover(tmp_path)["left.db"])
    assert file.read_bytes() == overlaid(main, data, scan, scan.database_pages)


@pytest.mark.parametrize("page_size", [512, 65536])
def test_every_page_size_is_read(tmp_path: Path, page_size: int) -> None:
    file = leave(tmp_path, f"PRAGMA page_size={page_size}", WAL_MODE, TABLE, put(10), put(3, 5))
    data, index, main = journal(file, "-wal"), wal_index(journal(file, "-shm")), file.read_bytes()
    scan = scan_wal(data)
    assert index is not None
    assert scan.page_size == index.page_size == page_size
    assert scan.committed == scan.frames > 0
    assert agree_wal(scan, recover(tmp_path)["left.db"])
    assert file.read_bytes() == overlaid(main, data, scan, scan.database_pages)


def test_the_first_commit_alone_is_what_a_wal_cut_behind_it_holds(tmp_path: Path) -> None:
    file = leave(tmp_path, WAL_MODE, TABLE, put(10), put(10), "DELETE FROM t")
    data = journal(file, "-wal")
    scan = scan_wal(data)
    first = next(i + 1 for i in range(scan.frames) if unpack_from(">I", data, 32 + i * 1048 + 4)[0])
    alone = scan_wal(data[: 32 + first * 1048])
    assert (alone.commits, scan.commits) == (1, 4)
    assert (scan.first_size, scan.first_pages) == (alone.database_pages, alone.pages) == (2, {1: 56, 2: 1104})


def test_pages_that_the_database_lost_are_left_out(tmp_path: Path) -> None:
    statements = ("PRAGMA auto_vacuum=1", WAL_MODE, TABLE, put(30), "DELETE FROM t")
    file = leave(tmp_path, *statements)
    data, main = journal(file, "-wal"), file.read_bytes()
    scan = scan_wal(data)
    written = {unpack_from(">I", data, 32 + i * 1048)[0] for i in range(scan.frames)}
    assert max(scan.pages) <= scan.database_pages < max(written)
    recover(tmp_path)
    assert file.read_bytes() == overlaid(main, data, scan, scan.database_pages)


def test_frames_of_former_uses_are_stale(tmp_path: Path) -> None:
    anew = "PRAGMA wal_checkpoint(RESTART)"
    file = leave(tmp_path, WAL_MODE, TABLE, put(30), anew, put(9), anew, put(2))
    scan, index = scan_wal(journal(file, "-wal")), wal_index(journal(file, "-shm"))
    assert scan.checkpoint_seq == 2
    assert 0 < scan.committed == scan.valid < 9 < scan.stale == scan.frames - scan.valid
    assert (scan.proved, scan.torn_bytes, scan.rot) == (0, 0, False)
    assert index is not None
    assert (index.frames, index.backfilled) == (scan.committed, 0)
    assert agree_wal(scan, recover(tmp_path)["left.db"])


def test_what_a_checkpoint_carried_over_is_in_the_index(tmp_path: Path) -> None:
    file = leave(tmp_path, WAL_MODE, TABLE, put(3), "PRAGMA wal_checkpoint(PASSIVE)")
    scan, data = scan_wal(journal(file, "-wal")), journal(file, "-shm")
    index = wal_index(data)
    assert index is not None
    assert index.backfilled == index.frames == scan.committed > 0
    for at in range(96):
        assert wal_index(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) is None
    twice = bytes([data[20] ^ 1])
    assert wal_index(data[:20] + twice + data[21:68] + twice + data[69:]) is None  # both copies, one checksum
    assert wal_index(data[:99]) is None
    assert wal_index(bytes(32768)) is None


def test_a_wal_is_read_where_it_is_mapped(tmp_path: Path) -> None:
    file = leave(tmp_path, WAL_MODE, TABLE, put(3))
    data = journal(file, "-wal")
    with (
        file.with_name("left.db-wal").open("rb") as wal,
        mmap.mmap(wal.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert scan_wal(memoryview(mapped)) == scan_wal(mapped) == scan_wal(bytearray(data)) == scan_wal(data)


def test_what_a_rolled_back_transaction_left_is_no_rot(tmp_path: Path) -> None:
    """It has the salts of the header, and stays behind the next commits: even behind one that is torn."""
    file = leave(tmp_path, WAL_MODE, TABLE, put(9), "BEGIN", put(60, 20), "ROLLBACK", put(5, 10), put(9, 30))
    data = bytearray(journal(file, "-wal"))
    scan = scan_wal(data)
    assert (scan.committed, scan.uncommitted, scan.stale, scan.rot) == (scan.valid, 0, 0, False)
    assert scan.proved > 20
    last = 32 + (scan.committed - 3) * 1048
    data[last : last + 1048] = bytes(1048)
    torn = scan_wal(data)
    assert torn.valid == scan.committed - 3
    assert torn.proved > scan.proved
    assert not torn.rot


@needs_fork
def test_sqlite_recovers_what_is_said_to_be_committed_wherever_it_died(tmp_path: Path) -> None:
    child(DIES, tmp_path, "wal")
    files = sorted(tmp_path.glob("*.db"))
    before = {file.name: (file.read_bytes(), journal(file, "-wal")) for file in files}
    scans = {name: scan_wal(data) for name, (_, data) in before.items()}
    says = recover(tmp_path)
    assert len(files) > 60
    assert any(scan.uncommitted for scan in scans.values())
    assert any(scan.torn_bytes for scan in scans.values())
    for file in files:
        main, data = before[file.name]
        scan = scans[file.name]
        assert agree_wal(scan, says[file.name]), file.name
        assert not scan.rot
        if scan.committed:
            assert file.read_bytes() == overlaid(main, data, scan, scan.database_pages)


def test_sqlite_recovers_what_is_said_to_be_committed_of_what_was_damaged(tmp_path: Path) -> None:
    file = leave(tmp_path, WAL_MODE, TABLE, put(4), put(5, 3), put(2))
    data, main = journal(file, "-wal"), file.read_bytes()
    file.unlink()
    frame = 32 + 1048  # the second one
    flips = [*range(0, 32, 3), *range(frame, frame + 24), *range(frame + 24, len(data), 331)]
    variants = [data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :] for at in flips if at not in range(4, 8)]
    variants += [data[:at] for at in (*range(0, len(data), 499), 31, 32, 32 + 24, 32 + 1048)]
    for number, variant in enumerate(variants):
        (tmp_path / f"{number}.db").write_bytes(main)
        (tmp_path / f"{number}.db-wal").write_bytes(variant)
    says = recover(tmp_path)
    assert len({scan_wal(variant).committed for variant in variants}) == 4
    for number, variant in enumerate(variants):
        assert agree_wal(scan_wal(variant), says[f"{number}.db"])


# ---- A -wal made here ----

PAGE = 512
STRIDE = 24 + PAGE
SECTOR = 512
MAGIC = {"<": 0x377F0682, ">": 0x377F0683}


class Made(NamedTuple):
    """One frame to make: a commit frame has a size."""

    page: int
    size: int
    image: bytes


def checksum(order: str, data: bytes, seed: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """As the format's page has it, word by word."""
    for first, second in zip(*[iter(unpack(f"{order}{len(data) // 4}I", data))] * 2, strict=True):
        seed = ((seed[0] + first + seed[1]) % 2**32, seed[1])
        seed = (seed[0], (seed[1] + second + seed[0]) % 2**32)
    return seed


def make(frames: list[Made], use: int = 0, order: str = "<", page_size: int = PAGE) -> bytes:
    """Return the -wal with *frames*, in its *use*-th use."""
    salts = (0xFFFFFFFE + use) % 2**32, 77 * (use + 1)
    header = pack(">6I", MAGIC[order], 3007000, page_size, use, *salts)
    seed = checksum(order, header)
    data = bytearray(header + pack(">2I", *seed))
    for page, size, image in frames:
        seed = checksum(order, pack(">2I", page, size) + image, seed)
        data += pack(">6I", page, size, *salts, *seed) + image
    return bytes(data)


def transactions(*shapes: int, fill: int = 1) -> list[list[Made]]:
    """Return transactions with so many frames each; each writes the pages from 1 on."""
    made, number = [], fill * 1000
    for length in shapes:
        pages = [Made(page, 0, number.to_bytes(2) * (PAGE // 2)) for page in range(1, length + 1)]
        number += 1
        made.append([*pages[:-1], pages[-1]._replace(size=9)])
    return made


def flat(made: list[list[Made]]) -> list[Made]:
    return [frame for transaction in made for frame in transaction]


def flip(data: bytes, at: int, by: int) -> bytes:
    return data[:at] + bytes([data[at] ^ by]) + data[at + 1 :]


def of_frames(scan: WalScan) -> dict[str, Any]:
    return {name: getattr(scan, name) for name in ("salts", "frames", "committed", "pages", "stale", "rot", "proved")}


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_both_orders_of_bytes_are_summed(page_size: int) -> None:
    images = [bytes((i * k + k) % 256 for k in range(page_size)) for i in range(4)]
    images += [b"\xff" * page_size] * 2
    frames = [Made(i + 1, i % 2 * 6, image) for i, image in enumerate(images)]
    scans = [scan_wal(make(frames, order=order, page_size=page_size)) for order in "<>"]
    assert of_frames(scans[0]) == of_frames(scans[1])
    assert (scans[0].committed, scans[0].commits, scans[0].page_size) == (6, 3, page_size)


def test_sqlite_takes_a_wal_made_here_in_either_order(tmp_path: Path) -> None:
    file = leave(tmp_path, WAL_MODE, TABLE, put(4), put(5, 3))
    main, data = file.read_bytes(), journal(file, "-wal")
    file.unlink()
    at = range(32, len(data), 1048)
    frames = [Made(page, size, data[i + 24 : i + 1048]) for i in at for page, size in [unpack(">2I", data[i : i + 8])]]
    made = {order: make(frames, order=order, page_size=1024) for order in "<>"}
    no_page = make([*frames, Made(0, 9, bytes(1024))], page_size=1024)
    for name, wal in (("little.db", made["<"]), ("big.db", made[">"]), ("0.db", no_page)):
        (tmp_path / name).write_bytes(main)
        (tmp_path / f"{name}-wal").write_bytes(wal)
    says = recover(tmp_path)
    assert says["0.db"] == says["big.db"]
    assert says["little.db"] == says["big.db"] == Recovered(len(frames), len(frames), 0)


def test_more_frames_than_are_summed_at_once_are_in_order() -> None:
    frames = [Made(i + 1, i + 1, i.to_bytes(2) * (PAGE // 2)) for i in range(2100)]
    for order in "<>":
        data = make(frames, order=order)
        assert scan_wal(data).committed == 2100
        assert scan_wal(flip(data, 32 + 2077 * STRIDE + 30, 1)).valid == 2077


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_byte_is_rot_wherever_a_later_commit_proves_it(order: str, step: int) -> None:
    """Every byte of a -wal, of its pages every *step*-th.

    The last transaction begins at frame 6, the one before it has the frames 4 and 5.
    """
    data = make(flat(transactions(3, 1, 2, 3)), order=order)
    whole = scan_wal(data)
    assert (whole.committed, whole.commits, whole.rot) == (9, 4, False)
    for at in range(32, len(data)):
        frame, place = divmod(at - 32, STRIDE)
        if place >= 24 and place % step:
            continue
        scan = scan_wal(flip(data, at, 9))
        assert scan.valid == frame
        assert scan.committed == max(end for end in (0, 3, 4, 6) if end <= frame)
        # In the last transaction, only a commit frame with another behind it is more than a crash could do.
        claims_commit = place in range(4, 8) and frame in (6, 7)
        zeroed = frame == 5 and place == 7  # size 9, flipped by 9
        assert scan.rot == ((frame < 6 and not zeroed) or claims_commit), (frame, place)
        assert scan.stale == 0


@pytest.mark.parametrize("split", [8, 16])
def test_a_commit_frame_whose_header_may_be_torn_proves_nothing(split: int) -> None:
    """A sector may end in the middle of a frame's header, and be the old one there: with an old size, before a new
    checksum that the next frame holds from; or with a new size, before an old checksum."""
    shapes = [1] * 70
    whole = make([Made(i % 9 + 1, 9, bytes([i]) * PAGE) for i in range(70)], use=3)
    torn = [i for i in range(69) if (32 + i * STRIDE + split) % SECTOR == 0]
    assert torn
    for i in torn:
        data, end = bytearray(make(flat(transactions(*shapes[:i], 2)), use=3)), 32 + i * STRIDE
        data[end : end + split] = make(flat(transactions(*shapes, fill=2)), use=2)[end : end + split]
        scan = scan_wal(data)
        assert (scan.valid, scan.proved, scan.rot) == (i, 1, False)
        # So does rot in the page of such a frame, unless there is a later commit.
        assert scan_wal(flip(whole, end + 30, 1)).rot
        assert not scan_wal(flip(whole[: end + 2 * STRIDE], end + 30, 1)).rot


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("cut_off", [0, 9])
def test_a_commit_torn_over_what_was_cut_off_is_no_rot_at_any_offset(sector: int, cut_off: int) -> None:
    """One frame is written over valid frames of a transaction that was cut off: each of its sectors may be lost."""
    at_all_offsets = {(32 + i * STRIDE) % 512 for i in range(64)}
    assert at_all_offsets == set(range(0, 512, 8))
    for i in range(64):
        synced = flat(transactions(*[1] * i))
        old = make([*synced, *[Made(k + 1, 0, bytes([k + 1]) * PAGE) for k in range(cut_off + 3)]], use=3)
        new = make([*synced, Made(9, 9, b"n" * PAGE)], use=3)
        start = len(new) - STRIDE
        ends = sorted({start, len(new), *range(start - start % sector + sector, len(new), sector)})
        for lost in range(1, 2 ** (len(ends) - 1)):
            image = bytearray(new + old[len(new) :])
            for k, (begin, end) in enumerate(pairwise(ends)):
                if lost >> k & 1:
                    image[begin:end] = old[begin:end]
            scan = scan_wal(image)
            assert (scan.committed, scan.rot) == (i, False), (i, lost)


def test_a_commit_frame_that_fills_its_sector_again_is_no_later_one() -> None:
    first, last = transactions(2, 3)
    data = make([*first, *last, last[-1], last[-1]])
    assert scan_wal(data).commits == 4
    for frame in (2, 3, 4):
        assert not scan_wal(flip(data, 32 + frame * STRIDE + 40, 1)).rot
    assert scan_wal(flip(data, 32 + STRIDE + 40, 1)).rot


lengths = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@settings(deadline=None)
@given(lengths, st.data())
def test_a_cut_is_never_rot(shapes: list[int], draw: st.DataObject) -> None:
    data = make(flat(transactions(*shapes)))
    at = draw.draw(st.integers(0, len(data)))
    scan = scan_wal(data[:at])
    whole = max(0, at - 32) // STRIDE
    assert scan.header == ("valid" if at >= 32 else "short" if at else "empty")
    assert (scan.frames, scan.valid, scan.proved, scan.rot) == (whole, whole, 0, False)
    assert scan.committed == max(end for end in (0, *accumulate(shapes)) if end <= whole)
    assert scan.torn_bytes == (at if at < 32 else (at - 32) % STRIDE)


def under(draw: st.DataObject, length: int, use: int, header: bytes) -> bytes:
    """What a -wal's file may hold before it is written: nothing, zeros, a former use, a transaction rolled back."""
    what = draw.draw(st.sampled_from(["nothing", "zeros", "former", "rolled back", "noise"]))
    shapes = draw.draw(st.lists(st.integers(1, 4), min_size=1, max_size=9))
    if what == "nothing":
        return header
    if what == "zeros":
        return header + bytes(length)
    if what == "noise":
        return header + draw.draw(st.randoms(use_true_random=False)).randbytes(length)
    made = flat(transactions(*shapes, fill=2))
    if what == "former":
        return header + make(made, use - 1)[32:]
    return header + make([frame._replace(size=0) for frame in made], use)[32:]


@settings(max_examples=400, deadline=None)
@given(lengths, st.integers(2, 5), st.booleans(), st.data())
@pytest.mark.slow
def test_a_crash_in_the_last_transaction_is_never_rot(
    shapes: list[int], last: int, repeat: bool, draw: st.DataObject
) -> None:
    """Any of its sectors may be missing; what was there before is there then."""
    *before, final = transactions(*shapes, last)
    synced = make(flat(before), use=3)
    written = make([*flat(before), *final, *([final[-1]] * repeat)], use=3)
    old = bytearray(under(draw, 9000, 3, synced[:32]))
    old[: len(synced)] = synced
    size = max(len(old), len(written)) if draw.draw(st.booleans()) else len(written)
    new = (written + old[len(written) :])[:size]
    old += bytes(len(new) - len(old)) if len(old) < len(new) else b""
    first = len(synced) // SECTOR
    missing = draw.draw(st.sets(st.integers(first, len(written) // SECTOR)))
    image = bytearray(new)
    for sector in missing:
        image[sector * SECTOR : (sector + 1) * SECTOR] = old[sector * SECTOR : (sector + 1) * SECTOR]
    scan = scan_wal(image)
    assert not scan.rot
    assert scan.committed in (sum(shapes), sum(shapes) + last, sum(shapes) + last + repeat)
    assert scan.committed > sum(shapes) or not missing or scan.commits == len(shapes)


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.booleans(), st.data())
def test_a_synced_frame_that_is_missing_is_rot(shapes: list[int], leftover: bool, draw: st.DataObject) -> None:
    """Whatever is there instead: with two transactions behind it, no exception."""
    data = bytearray(make(flat(transactions(*shapes, 2, 2)), use=3))
    frame = draw.draw(st.integers(0, sum(shapes) - 1))
    old = make(flat(transactions(*shapes, fill=2)), use=2) if leftover else bytes(len(data))
    at = 32 + frame * STRIDE
    data[at : at + STRIDE] = old[at : at + STRIDE]
    scan = scan_wal(data)
    assert (scan.valid, scan.rot) == (frame, True)


def test_a_header_that_went_back_to_a_former_use_is_rot() -> None:
    data = make(flat(transactions(2, 1, 1)), use=2)
    old = make(flat(transactions(2)), use=1)
    assert scan_wal(old[:32] + data[32:]).rot
    assert not scan_wal(data[:32] + old[32:]).rot
    # The salts of the next use are no more than that: frames must hold, and the other salt be another one.
    noise = bytearray(data)
    for i in range(4):
        noise[32 + i * STRIDE + 30] ^= 1
    assert not scan_wal(old[:32] + noise[32:]).rot
    assert not scan_wal(flip(make([Made(1, 1, bytes(PAGE))]), 32 + 11, 1)).rot  # salt 1 is 2**32 - 2 here


def test_what_holds_nothing_is_not_stale() -> None:
    live, former = make(flat(transactions(1)), use=1), make(flat(transactions(1, 1, 1, 1, fill=2)), use=0)
    both = live + former[len(live) :]
    assert scan_wal(both).stale == 3
    assert scan_wal(flip(both, 32 + 2 * STRIDE + 30, 1)).stale == 2
    assert scan_wal(flip(both, 32 + STRIDE + 15, 64)).stale == 2  # the first one, with salts that nobody counted to
    assert scan_wal(flip(live, 32 + 11, 1)).stale == 0  # a live one, with the salts of the use before it
    assert scan_wal(both).torn_bytes == 0
    assert scan_wal(live + bytes(STRIDE)).torn_bytes == STRIDE


def test_a_frame_of_page_0_is_none() -> None:
    frames = flat(transactions(1, 1, 1))
    scan = scan_wal(make([frames[0], frames[1]._replace(page=0), frames[2]]))
    assert (scan.valid, scan.proved) == (1, 1)


@pytest.mark.parametrize(("version", "page_size"), [(3007001, PAGE), (3007000, 256), (3007000, 513), (3007000, 131072)])
def test_a_header_of_another_format_is_damaged(version: int, page_size: int) -> None:
    header = pack(">6I", MAGIC["<"], version, page_size, 0, 1, 2)
    scan = scan_wal(header + pack(">2I", *checksum("<", header)) + bytes(3 * STRIDE))
    assert (scan.header, scan.valid) == ("damaged", 0)


# ---- A -wal whose header is damaged ----


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("frames", [flat(transactions(1)), flat(transactions(2, 3, 1))[:-1]])
def test_frames_prove_themselves_without_their_header(frames: list[Made], order: str) -> None:
    data = make(frames, order=order)
    whole = scan_wal(data)
    for at in range(32):
        scan = scan_wal(flip(data, at, 5), PAGE)
        assert (scan.header, scan.valid, scan.committed, scan.pages, scan.rot) == ("damaged", 0, 0, {}, False)
        assert (scan.orphans, scan.orphan_pages, scan.salts) == (whole.committed, whole.pages, whole.salts)
        assert scan.torn_bytes == len(data) - 32
        without = scan_wal(flip(data, at, 5))
        assert without == (scan if at not in range(8, 12) else WalScan(len(data), "damaged", torn_bytes=len(data) - 32))


@settings(deadline=None)
@given(lengths, lengths, st.integers(0, 32))
def test_a_header_torn_when_the_file_was_begun_anew_leaves_what_was_checkpointed(
    shapes: list[int], longer: list[int], at: int
) -> None:
    oldest = make(flat(transactions(*shapes, *longer, fill=2)), use=1)
    old = make(flat(transactions(*shapes)), use=2)
    old += oldest[len(old) :]
    torn = make([], use=3)[:at] + old[at:]
    before, scan = scan_wal(old), scan_wal(torn, PAGE)
    if scan.header == "valid":
        assert (scan.committed, scan.stale, scan.torn_bytes, scan.rot) in (
            (before.committed, before.stale, 0, False),
            (0, len(old) // STRIDE, 0, False),
        )
        return
    assert not scan.rot
    assert (scan.orphans, scan.orphan_pages) == (before.committed, before.pages)


def test_nothing_is_taken_for_the_newest_behind_a_gap() -> None:
    former = make(flat(transactions(2, 2, 2, fill=2)), use=0)
    data = make(flat(transactions(1)), use=1)
    lost = bytes(100) + (data + former[len(data) :])[100:]
    assert (scan_wal(lost, PAGE).orphans, scan_wal(lost, PAGE).salts) == (0, (0, 0))
    data = make(flat(transactions(2, 2, 2)))
    damaged = bytes(32) + data[32:]
    assert scan_wal(flip(damaged, 32 + 10, 1), PAGE).orphans == 0  # the first frame has other salts
    assert scan_wal(bytes(32) + flip(data, 32 + STRIDE + 30, 1)[32:], PAGE).orphans == 0  # the second one is bad too
    assert scan_wal(damaged, PAGE).orphans == 6
    assert not scan_wal(damaged, PAGE).rot
    assert scan_wal(flip(damaged, 32 + 2 * STRIDE + 30, 1), PAGE).rot


# ---- A rollback journal ----

ROLLBACK_MODE = "PRAGMA journal_mode=delete"
# The cache of one page makes SQLite write pages, and sync the journal before it, again and again.
CHANGES = ("BEGIN", "UPDATE t SET b = randomblob(800) WHERE a < 9", "UPDATE t SET b = randomblob(800)")


@needs_fork
def test_sqlite_plays_back_what_is_said_to_be_valid_wherever_it_died(tmp_path: Path) -> None:
    child(DIES, tmp_path, "delete persist truncate")
    files = sorted(tmp_path.glob("*.db"))
    before = {file.name: (file.read_bytes(), journal(file, "-journal")) for file in files}
    scans = {name: scan_journal(data) for name, (_, data) in before.items()}
    says = recover(tmp_path)
    assert len(files) > 200
    assert {scan.header for scan in scans.values()} == {"empty", "zeroed", "damaged", "valid"}
    assert max(scan.segments for scan in scans.values()) > 3
    for file in files:
        main, data = before[file.name]
        scan = scans[file.name]
        assert says[file.name].rollback == scan.valid, file.name
        assert not scan.rot, file.name
        if scan.header == "valid":
            assert scan.records == scan.valid
            assert file.read_bytes() == overlaid(main, data, scan, scan.initial_pages)


def test_a_journal_says_what_it_is(tmp_path: Path) -> None:
    file = leave(tmp_path, ROLLBACK_MODE, TABLE, put(20), *CHANGES)
    data, main = journal(file, "-journal"), file.read_bytes()
    scan = scan_journal(data)
    assert (scan.header, scan.page_size, scan.sector_size) == ("valid", 1024, 512)
    assert (scan.nonce, scan.initial_pages) == unpack_from(">2I", data, 12)
    assert scan.segments > 1
    assert scan.records == scan.valid == len(scan.pages) > 10
    assert (scan.rot, scan.super_journal) == (False, "")
    assert recover(tmp_path)["left.db"] == Recovered(0, -1, scan.valid)
    assert file.read_bytes() == overlaid(main, data, scan, scan.initial_pages) != main


def test_without_syncs_a_journal_is_counted_by_its_size(tmp_path: Path) -> None:
    file = leave(tmp_path, "PRAGMA synchronous=OFF", ROLLBACK_MODE, TABLE, put(20), *CHANGES)
    data = journal(file, "-journal")
    scan = scan_journal(data)
    assert unpack_from(">I", data, 8) == (0xFFFFFFFF,)
    assert (scan.segments, scan.rot) == (1, False)
    assert recover(tmp_path)["left.db"].rollback == scan.valid == scan.records > 10
    short = scan_journal(data[:-1])
    assert (short.valid, short.rot) == (scan.valid - 1, False)
    bad = scan_journal(flip(data, max(scan.pages.values()) + 24, 1))
    assert (bad.valid, bad.records, bad.rot) == (scan.valid - 1, scan.records, False)


def test_records_that_sqlite_does_not_write_are_read_as_it_reads_them() -> None:
    header = bytes.fromhex("d9d505f920a163d7") + pack(">5I", 1, 7, 20000, 512, 65536)
    for page, total, valid, rot in ((1, 7, 1, False), (1, 8, 0, True), (20001, 8, 1, True), (16385, 7, 0, True)):
        scan = scan_journal(header.ljust(512, b"\0") + pack(">I", page) + bytes(65536) + pack(">I", total))
        assert (scan.valid, scan.rot, scan.pages) == (valid, rot, {1: 516} if not rot else {}), page


def test_the_name_of_a_super_journal_is_read(tmp_path: Path) -> None:
    other = tmp_path / "größer.other"
    attach = f"ATTACH '{other}' AS other"
    tables = ("CREATE TABLE other.u (a)", TABLE, put(3))
    code = """
class DyingFile(File):
    def __init__(self, base, name, flags):
        super().__init__(base, name, flags)
        self.other = "other-journal" in str(name.filename() if isinstance(name, apsw.URIFilename) else name)
    def xSync(self, flags):
        if self.other and list(folder.glob("*-mj*")):
            os._exit(0)
dying = Unsynced("dying", DyingFile)
run(connect(folder / "left.db", "dying"), *json.loads(sys.argv[2]))
"""
    child(code, tmp_path, json.dumps([attach, *tables, "BEGIN", "DELETE FROM t", "INSERT INTO u VALUES (1)", "COMMIT"]))
    name = scan_journal(journal(tmp_path / "left.db", "-journal")).super_journal
    assert name.startswith(str(tmp_path / "left.db-mj"))
    data = journal(tmp_path / "left.db", "-journal")
    for at in (len(data) - 1, len(data) - 9, len(data) - 13, len(data) - 17):
        assert scan_journal(flip(data, at, 1)).super_journal == ""
    assert scan_journal(data + pack(">2I", 10**6, sum(data) % 2**32) + data[:8]).super_journal == ""
    signed = "größer".encode()
    for total in (sum(signed), sum(signed) - 256 * 4):
        trailer = signed + pack(">2I", len(signed), total % 2**32) + data[:8]
        assert scan_journal(data + trailer).super_journal == "größer"


def test_rot_in_a_record_that_a_header_counts_is_found(tmp_path: Path) -> None:
    file = leave(tmp_path, ROLLBACK_MODE, TABLE, put(20), *CHANGES)
    data, main = journal(file, "-journal"), file.read_bytes()
    scan = scan_journal(data)
    file.unlink()
    assert (
        unpack_from(">I", data, 8) == unpack_from(">I", data, 2048 + 8) == (1,)
    )  # 512 + 1032 bytes, from 2048 on again
    assert scan.segments > 2
    summed = 516 + 24
    flips = dict.fromkeys((*range(28), *range(512, 516), summed, *range(2048, 2048 + 16)), True)
    # The size of the database is summed nowhere: only when it became smaller, there are pages beyond it.
    # Of the later headers, the sizes are not read.
    flips |= dict.fromkeys((16, 17, 18, *range(2048 + 16, 2048 + 28)), False)
    cuts = {28: True, 511: True, 512: True, 1000: True, 1543: True, 1544: False, 2559: False, 2560: True, 3000: True}
    variants = [(flip(data, at, 0x10), rot) for at, rot in flips.items()]
    variants += [(data[:at], rot) for at, rot in cuts.items()]
    for number, (variant, _) in enumerate(variants):
        (tmp_path / f"{number}.db").write_bytes(main)
        (tmp_path / f"{number}.db-journal").write_bytes(variant)
    says = recover(tmp_path)
    for number, (variant, rot) in enumerate(variants):
        damaged = scan_journal(variant)
        assert (damaged.valid, damaged.rot) == (says[f"{number}.db"].rollback, rot), number
    assert not scan_journal(b"\0" + data[1:]).rot
    assert not scan_journal(data[:2048] + b"\0" + data[2049:]).rot


# ---- Any bytes ----


STARTS = (b"", make([])[:12], bytes.fromhex("d9d505f920a163d7"), bytes.fromhex("d9d505f920a163d700000007"))


@settings(deadline=None)
@given(st.binary(max_size=3000), st.sampled_from(STARTS))
def test_any_bytes_are_scanned(data: bytes, start: bytes) -> None:
    for page_size in (0, 1, 512, 65536):
        scan = scan_wal(start + data, page_size)
        assert scan.committed <= scan.valid <= scan.frames
    wal_index(start + data)
    assert scan_journal(start + data).header != "valid"


@settings(deadline=None)
@given(st.data())
def test_bytes_behind_good_headers_are_scanned(draw: st.DataObject) -> None:
    noise = st.binary(max_size=2000)
    data = make(flat(transactions(2, 1)))
    at = draw.draw(st.integers(32, len(data)))
    scan = scan_wal(data[:at] + draw.draw(noise))
    assert (at - 32) // STRIDE <= scan.valid <= 3
    assert not scan.rot
    sizes = st.sampled_from([0, 1, 2, 0xFFFFFFFF])
    fields = draw.draw(sizes), draw.draw(sizes), draw.draw(sizes), 512, draw.draw(st.sampled_from([512, 65536]))
    journal_scan = scan_journal(
        (bytes.fromhex("d9d505f920a163d7") + pack(">5I", *fields)).ljust(512) + draw.draw(noise)
    )
    assert (journal_scan.header, journal_scan.initial_pages) == ("valid", fields[2])
    assert journal_scan.valid <= journal_scan.records
