"""Runs campaigns and prints their table: `python -m tests.crash --help`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tests.crash.campaign import MODULES, SEED, Campaign, Result, default_jobs, described, run

COLUMNS = "{:>2}  {:<44}  {:>9}  {:<34}  {:<30}  {:<7}  {:>7}"


def main(arguments: list[str]) -> int:
    """Run what *arguments* ask for; return the exit code, 1 if a bar was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Run the crash campaigns.")
    parser.add_argument("--long", action="store_true", help="the counts for a run by hand, not those for each change")
    parser.add_argument("--only", default="", metavar="N[,N]", help="these campaigns")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed makes other runs")
    parser.add_argument("--count", type=int, help="how many runs of each")
    parser.add_argument("--jobs", type=int, default=default_jobs(), help="processes at once")
    parser.add_argument("--case", default="", help="replay the one run that a failure named; with --only N")
    options = parser.parse_args(arguments)
    numbers = [int(number) for number in options.only.split(",")] if options.only else list(MODULES)
    plan: dict[str, Any] = {"seed": options.seed, "jobs": options.jobs, "case": options.case, "long": options.long}
    if options.count is not None:
        plan["count"] = options.count
    say(COLUMNS.format("#", "campaign", "runs", "found", "bar", "verdict", "seconds"))
    missed = False
    for number in numbers:
        missed |= not show(*run(number, **plan), options.seed)
    return int(missed)


def show(campaign: Campaign, result: Result, seconds: float, seed: int) -> bool:
    """Print the row of a campaign and what it missed; return whether it reached its bar."""
    reached = not result.failures
    verdict = "skipped" if result.skipped else "reached" if reached else "MISSED"
    found = result.skipped or result.found or f"{max(result.counts['failures'], len(result.failures))} bad"
    row = (campaign.number, campaign.title, f"{result.runs:,}", found, campaign.bar, verdict, f"{seconds:.1f}")
    say(COLUMNS.format(*row))
    if not reached:
        say(described(campaign.number, result, seed))
    return reached


def say(line: str) -> None:
    """Print a line at once: a campaign can take long."""
    sys.stdout.write(line.rstrip() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
