"""Measures the limit of the log: `python -m bench.log_limit FOLDER [PUTS]`.

Two stores, one with a log of 16 MiB and one that keeps all of it, get the same random puts of 100 bytes over 10,000
entries by turns, 1,000,000 each. Printed are what a put costs in both, and how large the files became.
"""

from __future__ import annotations

import random
import sys
from array import array
from pathlib import Path
from time import perf_counter_ns
from typing import Final

import sqlstate
from bench.entries import key
from bench.measure import percentile

ENTRIES: Final = 10_000
PUTS: Final = 1_000_000
LIMIT: Final = 16 << 20
LOOKED_AT: Final = 2_000  # puts after which the file's size is looked at again


def main(folder: Path, puts: int = PUTS) -> None:
    """Print the figures."""
    rng = random.Random(16)
    paths = folder / "limited.db", folder / "whole.db"
    times = array("q"), array("q")
    largest = 0
    with sqlstate.open(paths[0], log_limit=LIMIT) as limited, sqlstate.open(paths[1], log_limit=None) as whole:
        sides = [(store["c"].__setitem__, took) for store, took in zip((limited, whole), times, strict=True)]
        for number in range(puts):
            name, value = key(rng.randrange(ENTRIES)), rng.randbytes(100)
            for put, took in sides if number % 2 else reversed(sides):
                began = perf_counter_ns()
                put(name, value)
                took.append(perf_counter_ns() - began)
            if not number % LOOKED_AT:
                largest = max(largest, paths[0].stat().st_size)
        print(f"file     {largest / 1e6:.1f} MB at most; {paths[1].stat().st_size / 1e6:.1f} MB without a limit")
        print(f"log      commits {limited.oldest:,} to {limited.head().seq:,}, {limited.stats().record_bytes:,} bytes")
    for percent in (50, 90, 99, 99.9):
        ours, theirs = (percentile(took, percent) / 1e3 for took in times)
        print(f"put      p{percent:<4} {ours:7.0f} µs; {theirs:7.0f} µs without a limit; {ours / theirs:.3f} times")
    print(f"put      at most {max(times[0]) / 1e6:.1f} ms; {max(times[1]) / 1e6:.1f} ms without a limit")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
