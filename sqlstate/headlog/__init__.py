"""Signed heads and proofs about commits, and their verifiers (docs/reference/proofs.md). Start reading at `heads`.

Runs without SQLite. Signatures need the package `cryptography`; all else needs the standard library, `sqlstate.proof`,
`sqlstate.errors` and `sqlstate.format.constants`.
"""

from sqlstate.headlog.commits import CommitFacts as CommitFacts
from sqlstate.headlog.commits import verify_commit as verify_commit
from sqlstate.headlog.commits import verify_consistency as verify_consistency
from sqlstate.headlog.heads import NOTE_BYTES_MAX as NOTE_BYTES_MAX
from sqlstate.headlog.heads import SIGNATURES_MAX as SIGNATURES_MAX
from sqlstate.headlog.heads import HeadFacts as HeadFacts
from sqlstate.headlog.heads import SignedHead as SignedHead
from sqlstate.headlog.heads import sign_head as sign_head
from sqlstate.headlog.heads import verify_head as verify_head
from sqlstate.headlog.keys import ORIGIN_BYTES_MAX as ORIGIN_BYTES_MAX
from sqlstate.headlog.keys import Signer as Signer
from sqlstate.headlog.keys import check_origin as check_origin
from sqlstate.headlog.log import EMPTY as EMPTY
from sqlstate.headlog.log import Subtree as Subtree
from sqlstate.headlog.log import check_consistency as check_consistency
from sqlstate.headlog.log import consistency_path as consistency_path
from sqlstate.headlog.log import inclusion_path as inclusion_path
from sqlstate.headlog.log import leaf_hash as leaf_hash
from sqlstate.headlog.log import node_hash as node_hash
from sqlstate.headlog.log import root_from_inclusion as root_from_inclusion
from sqlstate.headlog.log import tree_hash as tree_hash

# Where a traceback, help() and a pickle say that they are, whatever file they are in.
for _each in (
    Signer, SignedHead, HeadFacts, CommitFacts, check_origin, check_consistency, consistency_path, inclusion_path,
    leaf_hash, node_hash, root_from_inclusion, tree_hash, sign_head, verify_head, verify_commit, verify_consistency,
):  # fmt: skip
    _each.__module__ = __name__
