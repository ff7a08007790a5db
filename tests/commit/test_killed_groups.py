"""Goal: when the process is killed, what a group or a batch acknowledged is there, each transaction whole, and nobody
saw what is not. Method: a real process with 16 threads acknowledges into a pipe, and kills itself with SIGKILL at an
exact point of a commit, or is killed at a random one; this process looks on meanwhile, and judges afterwards."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Final, Self

import pytest

import sqlstate
from tests import ROOT
from tests.reference import plain
from tests.support.system import KILLED

if TYPE_CHECKING:
    from pathlib import Path

THREADS: Final = 16
SECONDS_MAX: Final = 60

WRITER: Final = """
import os, sys, threading
import sqlstate
from sqlstate.commit.commit import Commit
from sqlstate.sqlite.engine import Engine

path, point, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = sqlstate.open(path, mode="group", timeout=60)
real, ended = Engine.commit, Commit.end
made = endings = 0

def die():
    os.kill(os.getpid(), 9)

def commit(engine, seq, chain):
    global made
    made += 1
    if point == "before COMMIT" and made == at:
        die()
    real(engine, seq, chain)
    if point == "before the acknowledgement" and made == at:
        os.write(1, f"durable {seq}\\n".encode())
        die()

def end(transaction):
    global endings
    done = ended(transaction)
    endings += 1
    if point == "after a transaction" and endings == at:
        die()
    return done

Engine.commit, Commit.end = commit, end

def put(txn, thread, number):
    txn.put("left", f"{thread}-{number}", number)
    if number % 3 == 0:
        len(txn["left"])  # so that it reaches the tables, under a savepoint
    txn.put("right", f"{thread}-{number}", number)

def write(thread):
    for number in range(10_000):
        how = (thread + number) % 4
        if how == 0:
            store.run(lambda txn: put(txn, thread, number))
        elif how == 1:
            store.submit(lambda txn: put(txn, thread, number)).result()
        elif how == 2:
            with store.transaction() as txn:
                put(txn, thread, number)
        elif number % 16 != 15:
            store.run(lambda txn: put(txn, thread, number))
        else:
            with store.batch() as batch:
                with batch.transaction() as txn:
                    put(txn, thread, number)
                batch["batches"][f"{thread}-{number}"] = 1
        os.write(1, f"{thread} {number}\\n".encode())

threads = [threading.Thread(target=write, args=(number,)) for number in range(int(sys.argv[4]))]
for thread in threads:
    thread.start()
"""


class Seen:
    """What a reader in this process saw while the other one wrote."""

    def __init__(self, path: Path) -> None:
        self.seq = 0
        self.entries: Counter[int] = Counter()
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        with sqlstate.open(self._path, read_only=True) as store:
            while not self._over.is_set():
                with store.snapshot() as view:
                    self.seq = max(self.seq, view.head.seq)
                    for key in view["left"].keys(start="0-"):
                        thread, number = map(int, str(key).split("-"))
                        self.entries[thread] = max(self.entries[thread], number + 1)


def killed(path: Path, point: str, at: int, threads: int = THREADS, after: int = 0) -> tuple[dict[int, int], list[int]]:
    """Run the writer to its death; return how many each thread was told of, and commits that were durable unsaid."""
    command = [sys.executable, "-c", WRITER, str(path), point, str(at), str(threads)]
    told: Counter[int] = Counter()
    durable = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for lines, line in enumerate(child.stdout, 1):
            first, second = line.split()
            if first == "durable":
                durable.append(int(second))
            else:
                told[int(first)] += 1
            if lines == after:
                child.kill()
        assert child.wait(SECONDS_MAX) == KILLED
    return dict(told), durable


def check(path: Path, told: dict[int, int]) -> sqlstate.Head:
    """Check that each thread's transactions are there up to one, that one no earlier than it was told, and whole."""
    with sqlstate.open(path) as store:
        left, right = dict(store["left"]), dict(store["right"])
        assert left == right, "half a transaction"
        assert store["batches"].keys() <= left.keys()
        there = Counter(int(str(key).split("-")[0]) for key in left)
        for thread, number in there.items():
            assert all(f"{thread}-{each}" in left for each in range(number)), "a hole"
        assert {thread: number for thread, number in told.items() if there[thread] < number} == {}, "lost"
        assert {thread: number for thread, number in there.items() if number > told.get(thread, 0) + 1} == {}
        head = store.head()
    assert plain.judge(path).findings == ()
    return head


@pytest.mark.parametrize("point", ["after a transaction", "before COMMIT", "before the acknowledgement"])
@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.slow), 7, pytest.param(40, marks=pytest.mark.slow)])
def test_a_kill_at_an_exact_point_of_a_group(path: Path, point: str, at: int) -> None:
    sqlstate.open(path).close()

    told, durable = killed(path, point, at)

    seq = check(path, told).seq
    if point == "before COMMIT":
        assert seq == at - 1, "a commit that was not made is there"
    elif durable:
        assert durable == [seq], "a commit that was made is not there"


@pytest.mark.slow
def test_a_kill_at_any_moment_while_another_process_looks_on(path: Path) -> None:
    rng = random.Random(4)  # noqa: S311, no secret
    for _ in range(4):
        sqlstate.open(path).close()
        with Seen(path) as seen:
            told, _ = killed(path, "never", 0, after=rng.randrange(50, 900))
        head = check(path, told)
        assert seen.seq <= head.seq, "a reader saw a commit that a kill took back"
        with sqlstate.open(path) as store:
            lost = [thread for thread, number in seen.entries.items() if f"{thread}-{number - 1}" not in store["left"]]
            assert lost == [], "a reader saw entries that a kill took back"
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()


@pytest.mark.parametrize("flushed", [False, True])
def test_a_kill_in_a_batch_loses_what_was_not_flushed_as_a_whole(path: Path, flushed: bool) -> None:
    program = f"""
import os, sqlstate
store = sqlstate.open({str(path)!r})
with store.batch() as batch:
    for number in range(500):
        batch["c"][number] = number
        if number == 299 and {flushed}:
            batch.flush()
    len(batch["c"])  # all of it is in the tables
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == KILLED

    with sqlstate.open(path) as store:
        assert list(store["c"]) == list(range(300 if flushed else 0))
        assert store.head().seq == int(flushed)
    assert plain.judge(path).findings == ()
