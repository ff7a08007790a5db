"""Measures sqlstate beside plain SQLite and other stores, on the same disk."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench import beside, machine, plots, report
from bench.report import Result, Row, Sheet
from bench.run import FULL, QUICK, Run, Scale
from bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the workloads that the command line asks for, and print their figures."""
    options = _parser().parse_args(arguments)
    _check(options)
    if options.beside is not None:
        print(_beside(options), end="")
        return
    if options.read is not None:
        result = Result.from_dict(json.loads(options.read.read_text("utf-8")))
    else:
        result = _run(options)
    print(result.document(), end="")
    if options.json is not None:
        options.json.write_text(json.dumps(result.as_dict(), indent=1) + "\n", "utf-8")
    if options.plots is not None:
        plots.draw(result.sheets, options.plots)
    for page in options.write:
        report.write(result, page, options.plots)


def _check(options: argparse.Namespace) -> None:
    """Refuse, before the work and not after it, what could not be written."""
    for page in options.write:
        blocks = report.blocks_of(page.read_text("utf-8"))
        if options.plots is None and any(block.startswith("plot ") for block in blocks):
            raise ValueError(f"{page} shows plots: say with --plots where they go")
    if options.plots is not None:
        plots.check()


def _run(options: argparse.Namespace) -> Result:
    scale = _scale(options)
    with tempfile.TemporaryDirectory(prefix="sqlstate-bench-", dir=options.dir) as name:
        folder = Path(name)
        if machine.in_memory(folder):
            scale = replace(scale, goals=False)
        facts = {"command": _command(options), **machine.facts(folder)}
        before = machine.load()
        rows, sheets = _measure(folder, scale, options.only or list(WORKLOADS))
        facts["load average"] = f"{before} at the start, {machine.load()} at the end; an idle machine has 1 at the end"
    return Result(facts, rows, sheets, asdict(scale))


def _beside(options: argparse.Namespace) -> str:
    scale = _scale(options)
    share = scale.operations / FULL.operations
    with tempfile.TemporaryDirectory(prefix="sqlstate-bench-", dir=options.dir) as name:
        found = beside.compare(options.beside, Path(name), scale.reference, share, 5 if share < 1 else beside.ROUNDS)
        return beside.table(options.beside, list(found))


def _measure(folder: Path, scale: Scale, names: Sequence[str]) -> tuple[list[Row], list[Sheet]]:
    rows: list[Row] = []
    sheets: list[Sheet] = []
    with closing(Run(folder, scale)) as run:
        for name in names:
            began = time.monotonic()
            for found in WORKLOADS[name](run):
                if isinstance(found, Row):
                    rows.append(found)
                else:
                    sheets.append(found)
            print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return rows, sheets


def _scale(options: argparse.Namespace) -> Scale:
    if options.entries is not None or options.operations is not None:
        return Scale.custom(options.entries or QUICK.reference, options.operations or QUICK.operations)
    return QUICK if options.quick else FULL


def _command(options: argparse.Namespace) -> str:
    words = ["python -m bench"]
    if options.entries is not None or options.operations is not None:
        words += [f"--{name} {vars(options)[name]}" for name in ("entries", "operations") if vars(options)[name]]
    elif options.quick:
        words.append("--quick")
    words += [f"--only {name}" for name in options.only or ()]
    return f"`{' '.join(words)}`"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 3 minutes, with up to 100,000 entries")
    parser.add_argument("--only", action="append", choices=list(WORKLOADS), help="one workload; can be repeated")
    parser.add_argument(
        "--dir",
        type=Path,
        default=machine.scratch(),
        help="folder to make the stores in, on the disk to measure (%(default)s); a full run needs 10 GB",
    )
    parser.add_argument("--read", type=Path, metavar="FILE", help="show the figures of an earlier run from its JSON")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the plots into FOLDER, as SVG")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", action="append", default=[],
        help="put the figures into the marked blocks of PAGE; can be repeated",
    )  # fmt: skip
    parser.add_argument("--beside", metavar="REVISION", help="compare with another revision of this clone, in turns")
    trial = parser.add_argument_group("a trial run, not held to the goals")
    trial.add_argument("--entries", type=_positive, help="entries of the stores")
    trial.add_argument("--operations", type=_positive, help="durable writes of each side for one figure")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


if __name__ == "__main__":
    main()
