"""The benchmark: that it prints what it says, and that it compares like with like. No test judges a time."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from bench import __main__ as program
from bench import findings, machine, report
from bench.baselines import BASELINES, RawSQLite
from bench.measure import Side, Spread, Timing, compare
from bench.report import Goal, Row
from bench.run import FULL, QUICK, Pair, Run, Scale, wal_pages
from bench.workloads import WORKLOADS
from bench.workloads.sync import sync
from sqlstate.connection import CACHE_KIB
from sqlstate.engine import CHECKPOINT_PAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]

ROWS = [
    "put/200", "put/2000", "put/mean", "put/growing", "put/frames", "put/frames-mean", "put/size", "put/insert",
    "put/delete", "sync/put", "bulk/ordered", "bulk/random", "get/2000", "scan/items", "scan/len", "open/close",
    "open/read", "space/entry", "space/put",
]  # fmt: skip


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    """What a small run prints, its JSON, and a page that it wrote."""
    folder = tmp_path_factory.mktemp("trial")
    page = folder / "page.md"
    page.write_text(f"# Before\n{report.BEGIN}\nold table\n{report.END}\nafter\n")
    options = ["--entries", "2000", "--operations", "20", "--dir", str(folder)]
    options += ["--json", str(folder / "figures.json"), "--write", str(page)]
    command = [sys.executable, "-m", "bench", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["figures.json", "page.md"], "the stores are not removed"
    return done.stdout, json.loads((folder / "figures.json").read_text()), page


def test_every_row_is_printed_and_in_the_json(trial: tuple[str, dict[str, Any], Path]) -> None:
    printed, figures, _ = trial
    assert [row["name"] for row in figures["rows"]] == ROWS
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(ROWS)
    assert len({len(line) for line in lines}) == 1, "the table is not aligned"
    for row, line in zip(figures["rows"], lines[2:], strict=True):
        assert line.startswith(f"| {row['what']} ")
        if row["name"] != "sync/put":  # strace may not be there
            assert row["ours"] > 0


def test_a_trial_is_not_held_to_the_goals(trial: tuple[str, dict[str, Any], Path]) -> None:
    _, figures, _ = trial
    assert {row["goal"] for row in figures["rows"]} == {None}


def test_header_says_where_and_with_what(trial: tuple[str, dict[str, Any], Path]) -> None:
    printed, figures, _ = trial
    assert list(figures["facts"]) == ["command", "machine", "disk", "versions", "page cache", "load average"]
    for fact, value in figures["facts"].items():
        assert f"* {fact}: {value}\n" in printed
    assert apsw.sqlite_lib_version() in figures["facts"]["versions"]


def test_page_is_rewritten_between_its_markers(trial: tuple[str, dict[str, Any], Path]) -> None:
    printed, _, page = trial
    assert page.read_text() == f"# Before\n{report.BEGIN}\n{printed}{report.END}\nafter\n"


def test_page_without_markers_is_refused_before_the_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="bench:begin"):
        program.main(["--write", str(page), "--dir", str(tmp_path)])
    assert page.read_text() == "no markers"


def test_only_runs_what_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program.main(["--only", "space", "--entries", "100", "--operations", "5", "--dir", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "`python -m bench --entries 100 --operations 5 --only space`" in printed
    assert printed.count("\n| ") == 4


@pytest.mark.parametrize(
    ("options", "memory", "scale"),
    [([], False, FULL), (["--quick"], False, QUICK), ([], True, replace(FULL, goals=False))],
)
def test_scales(
    options: list[str], memory: bool, scale: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Scale] = []

    def measure(_folder: Path, scale: Scale, names: Sequence[str]) -> list[Row]:
        assert list(names) == list(WORKLOADS)
        seen.append(scale)
        return []

    monkeypatch.setattr(program, "_measure", measure)
    monkeypatch.setattr(machine, "in_memory", lambda _: memory)
    program.main([*options, "--dir", str(tmp_path)])
    assert seen == [scale]


def row(ratio: float | None, ours: float | None = 1000.0, goal: Goal | None = None) -> Row:
    spread = None if ratio is None else Spread(ratio - 0.1, ratio, ratio + 0.1)
    return Row("name", "what", "ns", ours, 500.0, ratio=spread, goal=goal)


@pytest.mark.parametrize(
    ("case", "met"),
    [
        (row(1.6, goal=Goal(1.6)), True),
        (row(1.601, goal=Goal(1.6)), False),
        (row(9.9), None),
        (row(9.9, ours=6, goal=Goal(6, "figure")), True),
        (row(0.1, ours=7, goal=Goal(6, "figure")), False),
        (row(None, ours=None, goal=Goal(1, "figure")), None),
    ],
)
def test_goal(case: Row, met: bool | None) -> None:
    assert case.met is met


def test_missed_goals_are_named() -> None:
    rows = [row(1.0, goal=Goal(2)), row(3.0, goal=Goal(2)), row(5.0)]
    assert report.verdict(rows) == "1 of 2 goals met. Not met: what."
    assert report.verdict(rows[:1]) == "1 of 1 goals met."
    assert rows[1].cells()[-3:] == ("2.90 to 3.10", "≤ 2", "NO")


def test_what_was_not_measured_is_said() -> None:
    cells = Row("sync/put", "syncs", "syncs", None, None, goal=Goal(1, "figure")).cells()
    assert cells == ("syncs", "not measured", "", "", "", "≤ 1", "not measured")


def test_ratio_is_of_each_block() -> None:
    timing = Timing([2, 2, 9, 4, 4, 4, 9, 9, 9], [1, 1, 1, 1, 1, 1, 3, 3, 3], block=3)
    assert timing.ratio() == Spread(2.5, 3, 3.5)
    assert timing.ratio(sum).median == 4
    assert timing.medians == (4, 1)


def test_sides_take_turns_and_the_warmup_is_not_counted() -> None:
    calls: list[str] = []
    ours = Side(lambda n: calls.append(f"a{n}"), [(n,) for n in range(4)])
    theirs = Side(lambda n: calls.append(f"b{n}"), [(n,) for n in range(4)])
    timing = compare(ours, theirs, warmup=1)
    assert calls == ["b0", "a0", "a1", "b1", "b2", "a2", "a3", "b3"]
    assert len(timing.ours) == len(timing.theirs) == 3


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_does_what_the_protocol_says(name: str, tmp_path: Path) -> None:
    store = BASELINES[name](tmp_path / "test.db")
    assert store.name == name
    store.open()
    store.bulk([("b", b"2"), ("a", b"1"), ("c", b"3")])
    store.put("b", b"two")
    store.delete("c")
    store.close()
    store.open()
    assert (store.get("a"), store.get("b")) == (b"1", b"two")
    assert store.scan() == store.count() == 2
    store.close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("cache_size", -CACHE_KIB),
        ("wal_autocheckpoint", CHECKPOINT_PAGES),
    ],
)
def test_raw_sqlite_has_the_settings_of_the_store(setting: str, value: str | int, tmp_path: Path) -> None:
    raw = RawSQLite(tmp_path / "raw.db")
    raw.open()
    assert raw._sqlite.execute(f"PRAGMA {setting}").fetchall() == [(value,)]
    raw.close()


def test_pages_of_the_wal_are_those_that_sqlite_counts(tmp_path: Path) -> None:
    store = RawSQLite(tmp_path / "test.db")
    assert wal_pages(store.path) == 0
    store.open()
    for number in range(5):
        store.put("key", b"%d" % number)
        assert wal_pages(store.path) == store._sqlite.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]
    store.close()
    assert wal_pages(store.path) == 0


def test_pair_is_worn_in_before_it_is_measured(tmp_path: Path) -> None:
    pair = Pair(tmp_path, 1_000, 1_000)
    for baseline in pair.steady():
        assert wal_pages(baseline.path) >= CHECKPOINT_PAGES
        assert baseline.count() == 1_000
    for baseline in pair.fresh():
        assert wal_pages(baseline.path) < CHECKPOINT_PAGES
    pair.close()


def test_syncs_without_strace_are_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    (only,) = sync(Run(tmp_path, QUICK))
    assert only.ours is None
    assert only.met is None


def test_a_folder_on_disk_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, disk = Path("/memory"), Path("/disk")
    monkeypatch.setattr(machine, "file_system", {memory: "tmpfs", disk: "ext4"}.get)
    assert machine.on_disk(memory, disk) == disk
    assert machine.on_disk(memory) == memory


def test_finding_on_plans() -> None:
    assert findings.plans(stable=1) == 1
