"""Proofs made from a store, of entries and of commits. Start reading at `entries`."""
