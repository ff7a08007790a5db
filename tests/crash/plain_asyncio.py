"""The control of campaign 17: signals whose handlers raise, in asyncio alone, without a line of sqlstate.

An exception that comes in the midst of asyncio's own code can make the loop forget a callback, and a task waits for it
for ever. This prints after how many signals that happened, run by run: `python -m tests.crash.plain_asyncio [RUNS]`.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Final

SECONDS_MAX: Final = 6
"""A loop that works ends in milliseconds."""
SIGNALS: Final = 3000


class _Raised(Exception):
    pass


def _raise(*_: object) -> None:
    raise _Raised


async def _uses(pool: ThreadPoolExecutor) -> None:
    for _ in range(6):
        await asyncio.get_running_loop().run_in_executor(pool, time.sleep, 0)


def interrupt(seed: int) -> None:
    """Interrupt one loop after the other, and say before each how many signals there were; never returns."""
    logging.disable()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _raise)
    rng = random.Random(seed)  # noqa: S311, no secret
    pool = ThreadPoolExecutor(4)
    delivered = 0
    while delivered < SIGNALS:
        os.write(1, b"%d\n" % delivered)
        try:
            faulthandler.dump_traceback_later(SECONDS_MAX, exit=True)
            signal.setitimer(signal.ITIMER_REAL, rng.random() * 0.004 + 1e-5)
            asyncio.run(_uses(pool))
            signal.setitimer(signal.ITIMER_REAL, 0)
        except BaseException:  # noqa: BLE001, it goes on whatever it was
            delivered += 1
    os._exit(0)


def main(runs: int) -> None:
    """Print the signals of each run, and of how many runs the last loop hung."""
    for seed in range(runs):
        command = [sys.executable, "-m", "tests.crash.plain_asyncio", "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        end = "no loop hung" if done.returncode == 0 else "the last loop hung"
        sys.stdout.write(f"{done.stdout.splitlines()[-1]} signals, {end}\n")


if __name__ == "__main__":
    if "--seed" in sys.argv:
        interrupt(int(sys.argv[2]))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
