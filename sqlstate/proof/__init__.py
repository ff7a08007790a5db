"""Proofs about a store's entries, and their verifiers (docs/reference/proofs.md). Start reading at `verify`.

Runs without SQLite: the standard library, `sqlstate.errors` and `sqlstate.format.constants` are all that it needs.
"""

from sqlstate.errors import ProofInvalid as ProofInvalid
from sqlstate.proof.encoding import KINDS as KINDS
from sqlstate.proof.encoding import MAGIC as MAGIC
from sqlstate.proof.encoding import VERSION as VERSION
from sqlstate.proof.encoding import Proof as Proof
from sqlstate.proof.entries import Document as Document
from sqlstate.proof.entries import Key as Key
from sqlstate.proof.entries import read_value as read_value
from sqlstate.proof.opened import ASKED as ASKED
from sqlstate.proof.opened import EMPTY_ROOT as EMPTY_ROOT
from sqlstate.proof.opened import ENTRY as ENTRY
from sqlstate.proof.opened import NEIGHBOUR as NEIGHBOUR
from sqlstate.proof.opened import NODE as NODE
from sqlstate.proof.opened import OPAQUE as OPAQUE
from sqlstate.proof.verify import check_limit as check_limit
from sqlstate.proof.verify import verify_absent as verify_absent
from sqlstate.proof.verify import verify_count as verify_count
from sqlstate.proof.verify import verify_many as verify_many
from sqlstate.proof.verify import verify_present as verify_present
from sqlstate.proof.verify import verify_range as verify_range

# Where a traceback, help() and a pickle say that they are, whatever file they are in.
for _each in (Proof, Document, verify_present, verify_absent, verify_range, verify_count, verify_many):
    _each.__module__ = __name__
