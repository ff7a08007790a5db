"""The entries that are put: keys that sort as numbers do, values of random bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from bench.baselines import Entry

VALUE_BYTES: Final = 100


def key(number: int) -> str:
    """Return the key of entry *number*: they sort as numbers do."""
    return f"key{number:08d}"


def entries_of(numbers: Sequence[int], rng: random.Random) -> list[Entry]:
    """Return entries with these numbers and new random values."""
    return [(key(number), rng.randbytes(VALUE_BYTES)) for number in numbers]


def batches(numbers: Sequence[int], batch: int, rng: random.Random) -> list[tuple[list[Entry]]]:
    """Return the arguments of one bulk() for each *batch* of numbers."""
    return [(entries_of(numbers[start : start + batch], rng),) for start in range(0, len(numbers), batch)]
