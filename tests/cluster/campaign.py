"""Writers on a cluster whose leader is killed, stopped and cut off; then their notes are compared with the store.

By hand, as long as wanted: `python -m tests.cluster.campaign --kills 100 --stops 20 --cuts 10`.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlstate import cluster
from tests import ROOT
from tests.cluster import writer
from tests.cluster.nodes import SECONDS, Cluster, cut_off

if TYPE_CHECKING:
    from collections.abc import Sequence

WRITERS: Final = 4


class Outcome(NamedTuple):
    """What a campaign found."""

    acknowledged: int
    unknown: int
    """Transfers whose writer was told that the outcome is not known."""
    lost: list[str]
    """Acknowledged, and not there."""
    extra: list[str]
    """There, though the writer was told that nothing was changed."""
    wrong: list[str]
    """Anything else that does not agree."""
    longest_stop: float
    """Seconds between two acknowledgements."""
    commits: int


def run(cluster_: Cluster, folder: Path, faults: Sequence[str], pause: tuple[float, float]) -> Outcome:
    """Let four processes write while *faults* happen to the leader, one after the other."""
    writer.begin(cluster_.urls)
    stop = folder / "stop"
    chance = random.Random(len(faults))  # noqa: S311, repeatable
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.writer", f"w{number}", folder / f"w{number}", stop, *cluster_.urls],
            cwd=ROOT,
        )
        for number in range(WRITERS)
    ]
    try:
        for fault in faults:
            time.sleep(chance.uniform(*pause))
            _happen(cluster_, fault, chance)
        time.sleep(pause[1])
    finally:
        stop.touch()
        for process in processes:
            try:
                process.wait(4 * SECONDS)
            finally:
                process.kill()
    assert [process.returncode for process in processes] == [0] * WRITERS
    return judge(cluster_, folder)


def _happen(cluster_: Cluster, fault: str, chance: random.Random) -> None:
    leader = cluster_.wait_for_leader()
    if fault == "kill":
        leader.kill()
        time.sleep(chance.uniform(0.0, 2.0))
        leader.start("")
    elif fault == "stop":
        leader.signal(signal.SIGSTOP)
        time.sleep(chance.uniform(0.2, 4.0))
        leader.signal(signal.SIGCONT)
    else:
        with cut_off(cluster_, leader):
            time.sleep(chance.uniform(1.0, 5.0))
    cluster_.wait(lambda: cluster_.leader() is not None)


def judge(cluster_: Cluster, folder: Path) -> Outcome:
    """Compare what the writers were told with what the store holds."""
    told: dict[str, str] = {}
    unknown = 0
    times: list[float] = []
    wrong: list[str] = []
    for number in range(WRITERS):
        for line in (folder / f"w{number}").read_text().splitlines():
            word, transfer, at = line.split(" ")
            which = f"w{number}-{int(transfer):06}"
            if word == "unread":
                wrong.append(f"{which} was done, and not read")
            elif word == "unknown":
                unknown += 1
            elif word != "read":
                told[which] = word
            if word == "done":
                times.append(float(at))
    with cluster.open(cluster_.urls, timeout=SECONDS) as store, store.snapshot() as view:
        ledger = set(map(str, view["ledger"]))
        counts = dict(view["counts"])
        total = sum(view["accounts"].values())
        report = store.check("replay")
        commits = view.head.seq
    done = {which for which, word in told.items() if word == "done"}
    undone = {which for which, word in told.items() if word == "not"}
    if total != writer.SUM:
        wrong.append(f"the accounts have {total}, and not {writer.SUM}")
    if sum(counts.values()) != len(ledger):
        wrong.append(f"{sum(counts.values())} transfers were counted, and the ledger has {len(ledger)}")
    wrong += [f"{which} was left open" for which, word in told.items() if word == "begun"]
    wrong += [finding.what for finding in report.findings]
    times.sort()
    longest = max((after - before for before, after in pairwise(times)), default=0.0)
    return Outcome(len(done), unknown, sorted(done - ledger), sorted(ledger & undone), wrong, longest, commits)


def main() -> None:
    parser = argparse.ArgumentParser()
    for fault in ("kills", "stops", "cuts"):
        parser.add_argument(f"--{fault}", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    chosen: Any = parser.parse_args()
    faults = ["kill"] * chosen.kills + ["stop"] * chosen.stops + ["cut"] * chosen.cuts
    random.Random(chosen.seed).shuffle(faults)  # noqa: S311, repeatable
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nodes = Cluster(folder, proxied=True)
        try:
            nodes.start()
            began = time.monotonic()
            outcome = run(nodes, folder, faults, (1.0, 3.0))
            sys.stdout.write(f"{outcome}\n{len(faults)} faults in {time.monotonic() - began:.0f} s\n")
        finally:
            nodes.stop()
    sys.exit(bool(outcome.lost or outcome.extra or outcome.wrong))


if __name__ == "__main__":
    main()
