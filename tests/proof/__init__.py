"""The verifiers: proofs, heads, signed notes, in Python and in JavaScript."""
