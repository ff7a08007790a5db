"""Makes a number of durable puts, for a tracer to watch: `python -m bench.puts BASELINE PATH NUMBER`."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.baselines import BASELINES


def main(baseline: str, path: str, number: str) -> None:
    """Put *number* different values of one key."""
    store = BASELINES[baseline](Path(path))
    store.open()
    store.put("key", b"")
    for value in range(int(number)):
        store.put("key", b"%d" % value)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
