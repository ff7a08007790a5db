"""Counts what an open store did: commits, transactions, syncs, checkpoints, waits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counters:
    """What one handle did since it was opened, in `store.stats().counters`. Other processes count for themselves.

    Examples:
        >>> store["users"].update({1: "ada", 2: "bob"})
        >>> counters = store.stats().counters
        >>> counters.commits, counters.transactions
        (1, 1)
    """

    commits: int
    """Numbered commits."""
    transactions: int
    """Transactions that the commits carried."""
    largest_group: int
    """The most transactions that one commit carried."""
    group_sizes: dict[int, int]
    """How many commits carried how many transactions: 1, 2, up to 4, up to 8, …; by the upper bound."""
    syncs: int
    """Syncs to the disk: by SQLite for commits and checkpoints, and one for the file of a session."""
    frames: int
    """Pages that were written for commits: to SQLite's WAL, or to the file of a store without it."""
    checkpoints: int
    """Times that SQLite's WAL was moved into the file."""
    checkpoint_seconds: float
    """Spent in checkpoints."""
    longest_checkpoint_seconds: float
    """Spent in the longest checkpoint."""
    queue_wait_seconds: float
    """Spent waiting for writers of this handle, by all threads together."""
    longest_queue_wait_seconds: float
    """The longest single wait."""
    pinned: int
    """Times that SQLite's WAL was found beyond its bound after a checkpoint, because a reader needed it."""


class Counting:
    """The counters of one handle. They are changed while the writer lock is held."""

    __slots__ = (
        "checkpoint_seconds", "checkpoints", "commits", "frames", "largest_group", "longest_checkpoint_seconds",
        "longest_queue_wait_seconds", "pinned", "queue_wait_seconds", "sizes", "syncs", "transactions",
    )  # fmt: skip

    commits: int
    transactions: int
    largest_group: int
    sizes: list[int]
    syncs: int
    frames: int
    checkpoints: int
    checkpoint_seconds: float
    longest_checkpoint_seconds: float
    queue_wait_seconds: float
    longest_queue_wait_seconds: float
    pinned: int

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Reset the counters: opening is not counted."""
        self.commits = 0
        self.transactions = 0
        self.largest_group = 0
        self.sizes = [0] * 64  # by the exponent of the upper bound
        self.syncs = 0
        self.frames = 0
        self.checkpoints = 0
        self.checkpoint_seconds = 0.0
        self.longest_checkpoint_seconds = 0.0
        self.queue_wait_seconds = 0.0
        self.longest_queue_wait_seconds = 0.0
        self.pinned = 0

    def committed(self, transactions: int = 1) -> None:
        """Count a numbered commit and its transactions."""
        self.commits += 1
        self.transactions += transactions
        self.sizes[(transactions - 1).bit_length()] += 1
        if transactions > self.largest_group:  # noqa: PLR1730, max() costs more, and this is in every commit
            self.largest_group = transactions

    def waited(self, seconds: float) -> None:
        """Count the time that a transaction waited for the writer lock, which the caller holds."""
        self.queue_wait_seconds += seconds
        self.longest_queue_wait_seconds = max(self.longest_queue_wait_seconds, seconds)

    def checkpointed(self, seconds: float) -> None:
        """Count a checkpoint."""
        self.checkpoints += 1
        self.checkpoint_seconds += seconds
        self.longest_checkpoint_seconds = max(self.longest_checkpoint_seconds, seconds)

    def read(self) -> Counters:
        """Return a copy of the counters."""
        return Counters(
            commits=self.commits,
            transactions=self.transactions,
            largest_group=self.largest_group,
            group_sizes={1 << exponent: count for exponent, count in enumerate(self.sizes) if count},
            syncs=self.syncs,
            frames=self.frames,
            checkpoints=self.checkpoints,
            checkpoint_seconds=self.checkpoint_seconds,
            longest_checkpoint_seconds=self.longest_checkpoint_seconds,
            queue_wait_seconds=self.queue_wait_seconds,
            longest_queue_wait_seconds=self.longest_queue_wait_seconds,
            pinned=self.pinned,
        )
