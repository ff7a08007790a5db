"""The benchmark: that it prints what it says, and that it compares like with like. No test judges a time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from bench import __main__ as program
from bench import beside, findings, machine, report
from bench.baselines import BASELINES, Baseline, RawSQLite
from bench.baselines.custom import CustomWal
from bench.measure import Side, Spread, Timing, compare
from bench.report import Goal, Row, Sheet
from bench.run import FULL, QUICK, Pair, Run, Scale, wal_pages
from bench.tracing import syncs_of_a_put
from bench.workloads import WORKLOADS
from bench.workloads.sync import sync
from sqlstate.sqlite.checkpoints import CHECKPOINT_PAGES
from sqlstate.sqlite.settings import CACHE_BYTES
from tests import ROOT
from tests.support.system import KILLED

if TYPE_CHECKING:
    from collections.abc import Sequence


WORKLOADS_TRIED = ["put", "bulk", "get", "scan", "open", "verify", "space", "original", "batch"]
ROWS = [
    "put/200", "put/2000", "put/mean", "put/growing", "put/frames", "put/frames-mean", "put/size", "put/insert",
    "put/delete", "bulk/ordered", "bulk/random", "get/2000", "scan/items", "scan/len", "open/close", "open/read",
    "verify/full", "space/entry", "space/put", "batch/sqlstate", "batch/batch",
]  # fmt: skip
PAGE = (
    "# Before\n<!-- bench:begin rows -->\nold\n<!-- bench:end -->\nbetween\n"
    "<!-- bench:begin original -->\n<!-- bench:end -->\n"
)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    """What a small run prints, its JSON, and a page that it wrote."""
    folder = tmp_path_factory.mktemp("trial")
    page = folder / "page.md"
    page.write_text(PAGE, "utf-8", newline="\n")
    options = ["--entries", "2000", "--operations", "20", "--dir", str(folder)]
    options += ["--json", str(folder / "figures.json"), "--write", str(page)]
    options += [word for name in WORKLOADS_TRIED for word in ("--only", name)]
    command = [sys.executable, "-m", "bench", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["figures.json", "page.md"], "the stores are not removed"
    return done.stdout, json.loads((folder / "figures.json").read_text("utf-8")), page


@pytest.mark.slow
def test_every_row_is_printed_and_in_the_json(trial: tuple[str, dict[str, Any], Path]) -> None:
    printed, figures, _ = trial
    assert [row["name"] for row in figures["rows"]] == ROWS
    lines = [line for line in printed.splitlines() if line.startswith("|")][: 2 + len(ROWS)]
    assert len({len(line) for line in lines}) == 1, "the table is not aligned"
    for row, line in zip(figures["rows"], lines[2:], strict=True):
        assert line.startswith(f"| {row['what']} ")
        assert row["ours"] > 0


@pytest.mark.slow
def test_every_kind_of_store_has_a_line_also_one_that_is_missing(trial: tuple[str, dict[str, Any], Path]) -> None:
    _, figures, _ = trial
    lines = {sheet["name"]: sheet["lines"] for sheet in figures["sheets"]}["original"]
    assert list(lines) == [kind.title for kind in BASELINES.values()]
    for kind in BASELINES.values():
        first = lines[kind.title][0]["value"]
        assert first == "missing" if kind.missing else first > 0


@pytest.mark.slow
def test_figures_of_an_earlier_run_are_shown_from_its_json(
    trial: tuple[str, dict[str, Any], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed, figures, _ = trial
    (tmp_path / "figures.json").write_text(json.dumps(figures), "utf-8", newline="\n")
    program.main(["--read", str(tmp_path / "figures.json")])
    assert capsys.readouterr().out == printed


@pytest.mark.slow
def test_a_trial_is_not_held_to_the_goals(trial: tuple[str, dict[str, Any], Path]) -> None:
    _, figures, _ = trial
    assert {row["goal"] for row in figures["rows"]} == {None}


@pytest.mark.slow
def test_header_says_where_and_with_what(trial: tuple[str, dict[str, Any], Path]) -> None:
    printed, figures, _ = trial
    assert list(figures["facts"]) == [
        "command", "machine", "disk", "versions", "peers", "page cache", "load average",
    ]  # fmt: skip
    for kind in BASELINES.values():
        assert not kind.package or kind.version in figures["facts"]["peers"]
    for fact, value in figures["facts"].items():
        assert f"* {fact}: {value}\n" in printed
    assert apsw.sqlite_lib_version() in figures["facts"]["versions"]


@pytest.mark.slow
def test_page_is_rewritten_between_its_markers(trial: tuple[str, dict[str, Any], Path]) -> None:
    _, figures, page = trial
    result = report.Result.from_dict(figures)
    assert page.read_text("utf-8") == PAGE.replace(
        "<!-- bench:begin rows -->\nold\n", f"<!-- bench:begin rows -->\n{result.block('rows', '')}\n"
    ).replace("<!-- bench:begin original -->\n", f"<!-- bench:begin original -->\n{result.block('original', '')}\n")


def test_page_without_markers_is_refused_before_the_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no markers", "utf-8", newline="\n")
    with pytest.raises(ValueError, match="the page needs blocks"):
        program.main(["--write", str(page), "--dir", str(tmp_path)])
    assert page.read_text("utf-8") == "no markers"


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

    def measure(_folder: Path, scale: Scale, names: Sequence[str]) -> tuple[list[Row], list[Sheet]]:
        assert list(names) == list(WORKLOADS)
        seen.append(scale)
        return [], []

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
        (row(3.0, goal=Goal(3, least=True)), True),
        (row(2.9, goal=Goal(3, least=True)), False),
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


def made(name: str, path: Path) -> Baseline:
    kind = BASELINES[name]
    if kind.missing:
        pytest.skip(f"{kind.package} is not installed")
    return kind.make(path)


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_does_what_the_protocol_says(name: str, tmp_path: Path) -> None:
    store: Any = made(name, tmp_path / "test.db")
    store.open()
    store.bulk([("b", b"2"), ("a", b"1"), ("c", b"3")])
    store.put("b", b"two")
    store.close()
    store.open()
    if name != "append":  # which is no store
        assert (store.get("a"), store.get("b")) == (b"1", b"two")
        assert store.scan() == 3
    if hasattr(store, "delete"):
        store.delete("c")
        assert store.scan() == store.count() == 2
    store.close()


def each(leaving_out: str) -> list[Any]:
    """Every baseline but one; all but the two that the figures are about are slow."""
    marks = {"sqlstate": (), "raw": ()}
    return [pytest.param(name, marks=marks.get(name, pytest.mark.slow)) for name in BASELINES if name != leaving_out]


@pytest.mark.parametrize("name", each(leaving_out="append"))
def test_a_baseline_whose_process_was_killed_has_what_it_promised(name: str, tmp_path: Path) -> None:
    """A kill is what every one of them survives; what a power cut does, the syncs say."""
    store = made(name, tmp_path / "test.db")
    program = f"""
import os
from pathlib import Path
from bench.baselines import BASELINES
store = BASELINES[{name!r}].make(Path({str(store.path)!r}))
store.open()
for number in range(20):
    store.put(f"key{{number % 7}}", b"%d" % number)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == KILLED, done.stderr
    store.open()
    assert {key: store.get(f"key{key}") for key in range(7)} == {n % 7: b"%d" % n for n in range(13, 20)}
    store.close()


@pytest.mark.parametrize("step", ["log", "half of the log", "temporary", "renamed"])
def test_the_custom_wal_recovers_from_a_kill_at_each_of_its_steps(step: str, tmp_path: Path) -> None:
    program = f"""
import os
from pathlib import Path
from bench.baselines.custom import CustomWal
store = CustomWal(Path({str(tmp_path / "store")!r}))
store.open()
store.put("a", b"1")
die = lambda *_: os.kill(os.getpid(), 9)
step, real, write = {step!r}, os.pwrite, CustomWal._write
if step == "log":
    store._save = die
elif step == "half of the log":
    os.pwrite = lambda log, record, at: (real(log, record[:-1], at), die())
elif step == "temporary":
    store._write = lambda file, content: (write(store, file, content[:-1]), die())
else:
    fsync = os.fsync
    os.fsync = lambda descriptor: die() if descriptor == store._folder else fsync(descriptor)
store.put("a", b"2")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == KILLED, done.stderr
    store = CustomWal(tmp_path / "store")
    store.open()
    assert store.get("a") == (b"1" if step == "half of the log" else b"2")
    store.put("a", b"3")
    store.close()
    store.open()
    assert store.get("a") == b"3"
    store.close()


@pytest.mark.parametrize("name", each(leaving_out="sqlstate-group"))
def test_a_durable_put_syncs_and_another_does_not(name: str, tmp_path: Path) -> None:
    made(name, tmp_path / "test.db")
    syncs = syncs_of_a_put(tmp_path, name)
    if syncs is None:
        pytest.skip("strace is not there, or may not trace")
    assert syncs >= 1 if BASELINES[name].durable else syncs < 0.5


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("cache_size", -(CACHE_BYTES >> 10)),
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
    only, _ = sync(Run(tmp_path, QUICK))
    assert isinstance(only, Row)
    assert only.ours is None
    assert only.met is None


def test_a_folder_on_disk_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, disk = Path("/memory"), Path("/disk")
    monkeypatch.setattr(machine, "file_system", {memory: "tmpfs", disk: "ext4"}.get)
    assert machine.on_disk(memory, disk) == disk
    assert machine.on_disk(memory) == memory


def test_finding_on_plans() -> None:
    assert findings.plans(stable=1) == 1


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="this is no clone")
def test_two_revisions_take_turns(capsys: pytest.CaptureFixture[str]) -> None:
    program.main(["--beside", "HEAD", "--entries", "40", "--operations", "60"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[2:]] == list(beside.OPERATIONS)
    with pytest.raises(ValueError, match="--beside none-such"):
        program.main(["--beside", "none-such"])
