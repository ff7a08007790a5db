"""The time of a commit."""

from __future__ import annotations

import time


def now() -> str:
    """Return the time in the file format's form: ISO 8601, UTC, microseconds."""
    global _second  # noqa: PLW0603, one assignment of a pair, so threads can share it
    second, rest = divmod(time.time_ns(), 1_000_000_000)
    known, text = _second
    if second != known:
        text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        _second = second, text
    return f"{text}{rest // 1000:06d}Z"


# The newest second and its text: most commits fall into the second of the one before.
_second = (0, "1970-01-01T00:00:00.")
