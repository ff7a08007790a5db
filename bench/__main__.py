"""Measures sqlstate against plain SQLite and prints one table."""

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

from bench import machine, report
from bench.run import FULL, QUICK, Run, Scale
from bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the workloads that the command line asks for, and print their figures."""
    options = _parser().parse_args(arguments)
    if options.write is not None:
        report.between_markers(options.write.read_text(), "")  # before the work, not after it
    scale = _scale(options)
    with tempfile.TemporaryDirectory(prefix="sqlstate-bench-", dir=options.dir) as name:
        folder = Path(name)
        if machine.in_memory(folder):
            scale = replace(scale, goals=False)
        facts = {"command": _command(options), **machine.facts(folder)}
        before = machine.load()
        rows = _measure(folder, scale, options.only or list(WORKLOADS))
        facts["load average"] = f"{before} at the start, {machine.load()} at the end; an idle machine has 1 at the end"
    text = report.document(facts, rows)
    print(text, end="")
    if options.json is not None:
        result = {"facts": facts, "scale": asdict(scale), "rows": [row.as_dict() for row in rows]}
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if options.write is not None:
        options.write.write_text(report.between_markers(options.write.read_text(), text))


def _measure(folder: Path, scale: Scale, names: Sequence[str]) -> list[report.Row]:
    rows: list[report.Row] = []
    with closing(Run(folder, scale)) as run:
        for name in names:
            began = time.monotonic()
            rows += WORKLOADS[name](run)
            print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    return rows


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
    parser.add_argument("--quick", action="store_true", help="under a minute, with up to 100,000 entries")
    parser.add_argument("--only", action="append", choices=list(WORKLOADS), help="one workload; can be repeated")
    parser.add_argument(
        "--dir",
        type=Path,
        default=machine.on_disk(Path(tempfile.gettempdir()), Path.cwd()),
        help="folder to make the stores in, on the disk to measure (%(default)s); a full run needs 2 GB",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument("--write", type=Path, metavar="PAGE", help=f"put the table between the {report.BEGIN} of PAGE")
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
