"""Compares a store with what the caller trusts: a signed head, or a root."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlstate.format.merkle import EMPTY_ROOT
from sqlstate.maintenance.check.findings import FindingKind
from sqlstate.proving.commits import History
from sqlstate.tables import wal, wal_figures

if TYPE_CHECKING:
    from sqlstate.format.records import Head
    from sqlstate.headlog import SignedHead
    from sqlstate.maintenance.check.findings import Findings
    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.meta import Meta


def compare_with(
    connection: Connection, meta: Meta, trusted: SignedHead | bytes, newest: Head | None, findings: Findings
) -> None:
    """Report what of the store is not as it must be by what the caller trusts.

    Args:
        connection: inside a transaction.
        meta: the store's facts.
        trusted: a signed head that was verified, or a root, of the newest or an earlier commit.
        newest: the newest commit, None if it cannot be read.
        findings: where findings go.

    Raises:
        Damaged: a commit in the log is not what it must be.
    """
    if isinstance(trusted, bytes):
        known = trusted in (EMPTY_ROOT, wal.start(connection, meta)[1].root)
        if not known and wal_figures.seq_of(connection, trusted) is None:
            what = f"no commit in the log of this store has the root {trusted.hex()}"
            findings.add(FindingKind.AGAINST, what, expected=trusted)
        return
    seq = trusted.seq
    if newest is None or seq > newest.seq:
        last = "unknown" if newest is None else newest.seq
        what = f"the signed head is of commit {seq}, and the newest is {last}: commits are missing"
        findings.add(FindingKind.AGAINST, what, seq=seq)
        return
    if History(connection, meta, stored=False).root(seq) != trusted.log_root:
        what = f"the commits up to {seq} are not those that were signed"
        findings.add(FindingKind.AGAINST, what, seq=seq, expected=trusted.log_root)
        return
    if seq < wal.start(connection, meta)[1].seq:
        return  # its chain is covered by what was signed, and there is no more of it
    commit = wal.head_of(connection, meta, seq)
    if commit is None or (seq and commit[:4] != (seq, trusted.root, trusted.count, trusted.at)):
        what = f"commit {seq} has another root, count or time than the signed head says"
        findings.add(FindingKind.AGAINST, what, seq=seq, expected=trusted.root)
